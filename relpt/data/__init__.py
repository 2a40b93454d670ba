"""Sentences with two marked entities: reading them from the field's formats, checking them, looking at them."""

from relpt.data.bags import Bag
from relpt.data.dataset import Dataset
from relpt.data.instance import BadRecord, Instance
from relpt.data.reading import load
from relpt.data.report import Report
from relpt.data.shipped import load_sample, sample_relations

__all__ = ["BadRecord", "Bag", "Dataset", "Instance", "Report", "load", "load_sample", "sample_relations"]
