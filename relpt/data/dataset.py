"""A list of instances that knows its labels and can show and check itself."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from relpt.data.instance import BadRecord, Instance
from relpt.files import json_text, replace_file
from relpt.runlog import counted

if TYPE_CHECKING:
    from relpt.corpus import Corpus
    from relpt.data.bags import Bag
    from relpt.data.report import Report

__all__ = ["Dataset"]


class Dataset(Sequence[Instance]):
    """Sentences with two marked entities, list-like.

    ``data[3]`` is an Instance; ``data[:10]``, ``data[[1, 5, 7]]`` and ``data[mask]`` are Datasets.

    Args:
        instances: the instances, all with a relation or all without.
        name: what the dataset is called in reports.
        bad: notes on records that were left out.
        bad_counts: how many records of each kind were left out.

    Attributes:
        name, bad, bad_counts: as given.
    """

    def __init__(
        self,
        instances: Iterable[Instance],
        *,
        name: str = "data",
        bad: Iterable[BadRecord] = (),
        bad_counts: Mapping[str, int] | None = None,
    ) -> None:
        self._instances = list(instances)
        self.name = name
        self.bad: list[BadRecord] = list(bad)
        self.bad_counts: dict[str, int] = dict(bad_counts or Counter(b.kind for b in self.bad))
        self._labels: list[str] | None = None

    def __len__(self) -> int:
        return len(self._instances)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self._instances)

    @overload
    def __getitem__(self, index: int) -> Instance: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Dataset: ...
    def __getitem__(self, index: Any) -> Instance | Dataset:
        if isinstance(index, slice):
            return Dataset(self._instances[index], name=self.name)
        if hasattr(index, "__index__") and getattr(index, "ndim", 0) == 0:
            return self._instances[int(index)]
        rows = np.asarray(index)
        if rows.size == 0:
            rows = rows.astype(np.int64)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise IndexError(
                    f"a mask needs one value per instance: got shape {rows.shape} for {len(self)} instances"
                )
            rows = np.flatnonzero(rows)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise TypeError(f"index with a number, a slice, a list of numbers or a mask, not {type(index).__name__}")
        return Dataset([self._instances[i] for i in rows.tolist()], name=self.name)

    @property
    def labels(self) -> list[str]:
        """The relations' names, sorted; empty for unlabelled data."""
        if self._labels is None:
            self._labels = sorted({i.relation for i in self._instances if i.relation is not None})
        return list(self._labels)

    @property
    def labelled(self) -> bool:
        """Whether the instances have relations."""
        return bool(self.labels)

    @property
    def types(self) -> list[str]:
        """The names of the entities' types, sorted; empty for data without types."""
        return sorted({t for i in self._instances for t in (i.head_type, i.tail_type) if t is not None})

    def label_counts(self) -> dict[str, int]:
        """Instances per relation, the most frequent first, then by name."""
        counts = Counter(i.relation for i in self._instances if i.relation is not None)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def select(self, *, labels: Iterable[str]) -> Dataset:
        """The instances of the given relations; ValueError names the relations that the data does not have."""
        wanted = {labels} if isinstance(labels, str) else set(labels)
        missing = sorted(wanted - set(self.labels))
        if missing:
            raise ValueError(
                f"{self.name} has no relation {', '.join(map(repr, missing[:5]))}; it has "
                f"{', '.join(self.labels[:5])}{'…' if len(self.labels) > 5 else ''}"
            )
        return self.filter(lambda instance: instance.relation in wanted)

    def filter(self, keep: Callable[[Instance], bool]) -> Dataset:
        """The instances for which ``keep`` is true."""
        return Dataset([i for i in self._instances if keep(i)], name=self.name)

    def fraction(self, share: float, *, seed: int = 42) -> Dataset:
        """A share of each relation's instances, drawn by the seed, in the data's order.

        Of n instances of a relation ceil(share * n) are kept, so at least one: the numbers of table 9 of Peng et al.
        2020 ("we randomly sample 1% and 10% training data for each relation", appendix B). A smaller share of the same
        seed is part of a larger one. Which instances of a relation are drawn depends on its name, the seed and their
        order alone, and not on the other relations.

        Raises:
            ValueError: the share is not above 0 and at most 1; an instance has no relation.
        """
        from relpt.data.fractions import fraction_rows

        return self if share == 1 else self[fraction_rows(self, share, seed)]

    def relabel(self, patch: Any, *, drop_missing: bool | None = None) -> Dataset:
        """The instances with the relations that a patch gives them by their ids.

        ``relpt.load("dev.json").relabel("dev_patch.json")`` makes TACREV (Alt et al. 2020) of TACRED, and
        ``relpt.load("dev.json").relabel("dev_id2label.json", drop_missing=True)`` Re-TACRED (Stoica et al. 2021).
        The log says how many relations change. Instances that are left out count in ``bad_counts``.

        Args:
            patch: the path of a JSON file, or what is in it: TACREV's list of ``{id, relation}`` (other fields do not
                count) or Re-TACRED's object ``{id: relation}``.
            drop_missing: leave out the instances that the patch does not hold, rather than keep their relations. By
                default they are kept where the patch is a list; an object leaves it open and has to hold all.

        Raises:
            FormatError: the patch is none (names the entry).
            ValueError: the data has no ids or none of the patch's; ``drop_missing`` is needed and not given.
            OSError: the file cannot be read.

        Warns:
            BadRecordWarning: ids of the patch are not in the data.
        """
        from relpt.data.patches import relabelled

        return relabelled(self, patch, drop_missing)

    def bags(self) -> list[Bag]:
        """The instances grouped by their pair of entities, (head, tail), in the order in which the pairs first occur.

        Entities are told apart by id; one without an id is the entity of its name, which the log says (as a warning).
        For ``relpt.metrics.bag_curve``: ``gold = [[r in bag.relations for r in labels] for bag in data.bags()]``.

        Source: Riedel et al. 2010; Lin et al. 2016 for the bags without regard to the relation, as in held-out tests.

        Returns:
            A Bag ``(head, tail, indices, relations)`` for each pair; ``data[bag.indices]`` are its instances.

        Raises:
            ValueError: an entity has neither an id nor a name.
        """
        from relpt.data.bags import bags_of

        return bags_of(self)

    def with_negatives(self, label: str = "no_relation", *, per_sentence: int | None = None, seed: int = 42) -> Dataset:
        """The instances, and behind them pairs of mentions without a relation, labelled so: negatives for RC.

        Candidates are two mentions that different instances mark in the same sentence, of two entities that no instance
        of the data relates, in any sentence and in either direction. Which of the two is the head is drawn.

        Args:
            label: their relation; one that the data has already gets more instances.
            per_sentence: at most so many of each sentence, drawn; None: all.
            seed: of the draws.

        Raises:
            ValueError: unlabelled data, or none of its sentences has such a pair.
        """
        from relpt.data.negatives import with_negatives

        return with_negatives(self, label, per_sentence, seed)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the instances as JSON lines that ``relpt.load`` reads; OSError where the file cannot be written."""
        with replace_file(Path(path)) as file:
            for instance in self:
                file.write(json_text(instance.to_dict()).encode() + b"\n")

    def check(self) -> Report:
        """Counts, lengths, relations, entities and what looks wrong; prints as text, shows as a table in a notebook."""
        from relpt.data.report import Report

        return Report.of(self)

    def tokenize(
        self,
        encoder_or_tokenizer: Any,
        *,
        max_length: int = 64,
        tags: Sequence[str] | None = None,
        show_progress_bar: bool | None = None,
    ) -> Corpus:
        """Word pieces and mention spans as flat integer arrays.

        Args:
            encoder_or_tokenizer: an Encoder, a ``tokenizers.Tokenizer``, a fast transformers tokenizer, or the path
                of a tokenizer.json or of the folder that holds it. It is not changed: a private copy reads all text
                as plain text, "[SEP]" or "[MASK]" in it too.
            max_length: word pieces of an input, markers included, that later steps will use. Sentences are kept whole;
                those that will need a window are counted in one TruncationWarning.
            tags: "pos", "ner" or both, to keep the words' tags; None keeps those that the encoder reads, which a
                ``CNNEncoder`` may do. A word piece has the tag of the word in which it begins.
            show_progress_bar: True, False, or None for a notebook or terminal alone.

        Returns:
            A Corpus with one row per instance, in order.

        Raises:
            FormatError: a mention has no word piece, or shares its only one with the other mention (names the record).
            ValueError: sentences without the tags that are wanted (says how many).
        """
        from relpt.corpus.tokenizing import tokenize

        tags = getattr(encoder_or_tokenizer, "tags", ()) if tags is None else tags
        return tokenize(
            self, encoder_or_tokenizer, max_length=max_length, tags=tags, show_progress_bar=show_progress_bar
        )

    def __repr__(self) -> str:
        labels = counted(len(self.labels), "relation") if self.labelled else "unlabelled"
        bad = f", {sum(self.bad_counts.values()):,} bad records left out" if self.bad_counts else ""
        return f"<relpt.Dataset {self.name!r}: {counted(len(self), 'instance')}, {labels}{bad}>"

    def _repr_html_(self) -> str:
        from relpt.data.report import dataset_html

        return dataset_html(self)
