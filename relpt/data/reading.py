"""``relpt.load``: a Dataset of files, records in memory, DataFrames, Arrow tables and Hugging Face datasets."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from relpt.data.dataset import Dataset
from relpt.data.files import RECORD_KEYS, Raw, RawFile, read_file, records_of_json
from relpt.data.formats import FORMATS, sniff_record
from relpt.data.instance import BadRecord, Instance, where
from relpt.data.records import build_instance, relation_of
from relpt.data.values import Problem, show
from relpt.errors import BadRecordWarning, FormatError
from relpt.runlog import counted

__all__ = ["as_dataset", "load"]

_log = logging.getLogger("relpt")
_ON_BAD = ("raise", "skip", "collect")
_FLAT = ("h_pos", "h_start", "t_pos", "t_start")
_SPANS = (None, "token", "char")


def load(
    source: Any,
    *,
    format: str | None = None,
    spans: str | None = None,
    on_bad: str = "raise",
    name: str | None = None,
    check_names: bool = True,
) -> Dataset:
    """Reads sentences with two marked entities.

    Args:
        source: a path or a list of paths (JSON, JSON Lines, also gzipped); a list of dicts; FewRel's dict of lists; a
            pandas DataFrame; an Arrow table or anything with ``__arrow_c_stream__``; a Hugging Face dataset.
        format: None guesses, and logs the guess to the logger "relpt". Else one of

            - "fewrel": one JSON object ``{relation: [{tokens, h: [name, id, [[i, …]]], t: …}]}``, ``h_type`` and
              ``t_type`` optional; the first mention counts;
            - "fewrel-unsupervised": a JSON list of such instances without relation;
            - "opennre": JSON Lines or a JSON list of ``{text | token, h: {pos, name?, id?, type?}, t: …, relation}``;
            - "chemprot": JSON Lines of ``{text, label}``, the head marked ``<< >>``, the tail ``[[ ]]``;
            - "tacred": a JSON list, or lines, of ``{id, relation, token, subj_start, subj_end, obj_start, obj_end,
              subj_type, obj_type}`` with inclusive ends. The subject is the head. "-LRB-" and the treebank's other
              names of brackets become the brackets themselves; the log says how many. TACREV and Re-TACRED are patches
              to it: ``relpt.load("test.json").relabel("test_patch.json")``;
            - "semeval": the text of SemEval-2010 task 8 and of KBP37, ``8001<tab>"… <e1>…</e1> … <e2>…</e2> …"``, below
              it the relation and perhaps a comment; also JSON of ``{sentence, relation}`` with these marks. The head is
              e1;
            - "nyt-fb": lines of two Freebase ids, two names, the relation and the sentence between tabs, ended by
              ``###END###``, or JSON of ``{sentence, head: {word, id}, tail: {word, id}, relation}``. The names are
              looked for as whole words, so that both stand apart; one that is not there is a bad record. Underscores
              become blanks; the log says in how many sentences;
            - "wiki-wd": JSON of ``{tokens, vertexSet: [{kbID, lexicalInput, tokenpositions}], edgeSet: [{kbID, left,
              right}]}``, an instance for each edge; left is the head.

            Sources: Han et al. 2018 and Gao et al. 2019 (FewRel), Han et al. 2019 (OpenNRE), Beltagy et al. 2019
            (ChemProt), Zhang et al. 2017 (TACRED), Hendrickx et al. 2010 (SemEval), Zhang and Wang 2015 (KBP37), Riedel
            et al. 2010 and Lin et al. 2016 (NYT-FB), Sorokin and Gurevych 2017 (Wiki-WD).
        spans: what positions count: "token" or "char" (code points); None: tokens where tokens are given, characters
            where text is. Positions are half-open. In a plain text "token" counts words between blanks.
        on_bad: "raise" stops at the first bad record; "skip" leaves bad records out and warns once with the counts;
            "collect" leaves them out and keeps the notes on them in ``dataset.bad``. A file that is broken as a whole
            always raises.
        name: what the dataset is called in reports; the files' names by default.
        check_names: compare each mention with the entity's name where one is given (case and blanks do not count).

    Dicts hold ``text`` or ``token``/``tokens``, ``h``, ``t`` and ``relation`` or ``label``, and perhaps lists of tags,
    ``pos`` (parts of speech) and ``ner`` (kinds of named entities), one for each token or word between blanks; TACRED's
    ``stanford_pos`` and ``stanford_ner`` are such. Tables hold the columns
    text or tokens, ``h_pos``/``t_pos`` or ``h_start``/``h_end``/``t_start``/``t_end``, and optionally ``h_name``,
    ``h_id``, ``h_type``, ``t_name`` …, relation. Data in which no record has a relation is unlabelled.

    Raises:
        FormatError: a bad record (file, line or record, field, what was got, remedy), or a file in no known format.
        OSError: the file cannot be read.
        ValueError, TypeError: an unknown option or kind of source.
    """
    _one_of("format", format, (None, *FORMATS))
    _one_of("spans", spans, _SPANS)
    _one_of("on_bad", on_bad, _ON_BAD)
    if isinstance(source, Dataset):
        return source
    if spans == "char" and format in ("fewrel", "fewrel-unsupervised"):
        raise ValueError('FewRel positions are token numbers; leave out spans="char" (--spans)')
    parts = _parts(source, format, name or "data")
    for part in parts:
        _check_unit(part, spans)
        _split(part)
    values = [raw.value for part in parts for raw in part.records]
    labelled = any(relation_of(v) is not None for v in values if isinstance(v, dict))
    bad: list[BadRecord] = []
    instances: list[Instance] = []
    for part in parts:
        before, bad_before = len(instances), len(bad)
        _convert(part, instances, bad, spans, check_names, labelled, on_bad)
        _log.info(_summary(part, spans, instances[before:], len(bad) - bad_before))
    counts = dict(Counter(b.kind for b in bad).most_common())
    if bad and on_bad == "skip":
        listed = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        warnings.warn(
            f"skipped {len(bad):,} of {len(bad) + len(instances):,} records: {listed} (first: {bad[0]})",
            BadRecordWarning,
            stacklevel=2,
        )
    title = name or ", ".join(os.path.basename(part.label) for part in parts[:3]) + ("…" if len(parts) > 3 else "")
    return Dataset(instances, name=title or "data", bad=bad if on_bad == "collect" else (), bad_counts=counts)


def as_dataset(data: Any) -> tuple[Dataset, bool]:
    """The Dataset of what an encoder takes, and whether that was one sentence alone (an ``Instance`` or a dict)."""
    if isinstance(data, Instance):
        return Dataset([data]), True
    single = isinstance(data, Mapping)
    return load([data] if single else data), single


def _one_of(option: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise ValueError(f"{option}={value!r} is unknown; use one of {', '.join(repr(k) for k in known)}")


def _check_unit(part: RawFile, spans: str | None) -> None:
    unit = FORMATS[part.format].unit
    if unit and spans not in (None, unit):
        raise ValueError(
            f"{part.label}: positions count {unit}s in the format {part.format!r}; leave out spans (--spans)"
        )


def _split(part: RawFile) -> None:
    """Makes a raw record of each instance where the format's records hold several."""
    split = FORMATS[part.format].split
    if split is None:
        return
    records: list[Raw] = []
    for raw in part.records:
        try:
            pieces = split(raw.value, part.tally) if isinstance(raw.value, dict) else None
        except Problem as problem:
            pieces, raw.value = None, problem
        if pieces is None:
            records.append(raw)
        else:
            records += [dataclasses.replace(raw, value=piece, part=i) for i, piece in enumerate(pieces)]
    part.records = records


def _convert(
    part: RawFile,
    instances: list[Instance],
    bad: list[BadRecord],
    spans: str | None,
    check_names: bool,
    labelled: bool,
    on_bad: str,
) -> None:
    """Appends the part's instances, and notes on its bad records; FormatError at the first with on_bad="raise"."""
    form = FORMATS[part.format]
    spans = form.unit or spans
    for raw in part.records:
        value = raw.value
        if isinstance(value, Instance):
            instances.append(value)
            continue
        place = (part.label, raw.line, raw.record, raw.relation)
        source = where(*place) + (f", {raw.part}" if raw.part is not None else "")
        try:
            if isinstance(value, Problem):
                raise value
            if isinstance(value, dict):
                value = form.parse(value, part.tally)
            instances.append(
                build_instance(value, spans=spans, check_names=check_names, labelled=labelled, source=source)
            )
        except Problem as problem:
            named = form.fields.get(problem.field, problem.field).replace("#", str(raw.part))
            note = BadRecord(*place, named, problem.kind, problem.reason)
            if on_bad == "raise":
                raise FormatError(str(note)) from None
            bad.append(note)


def _summary(part: RawFile, spans: str | None, instances: list[Instance], bad: int) -> str:
    first: Any = next((r.value for r in part.records if isinstance(r.value, dict)), {})
    unit = FORMATS[part.format].unit or spans or ("token" if "token" in first or "tokens" in first else "char")
    relations = {i.relation for i in instances} - {None}
    labels = counted(len(relations), "relation") if relations else "unlabelled"
    broken = f", {bad:,} bad records" if bad else ""
    changes = "".join(f", {count:,} {what}" for what, count in part.tally.items())
    read = f"read as {part.format}, {unit} spans, {counted(len(instances), 'instance')}, {labels}"
    return f"{part.label}: {read}{broken}{changes}"


def _parts(source: Any, format: str | None, label: str) -> list[RawFile]:
    """The raw records of every source; one part per file."""
    if isinstance(source, (str, os.PathLike)):
        return [read_file(source, format)]
    if isinstance(source, dict):
        if any(key in source for key in RECORD_KEYS):
            raise TypeError("got a single record; put it into a list: relpt.load([record])")
        if not all(isinstance(items, list) for items in source.values()):
            raise TypeError(
                f"got a mapping with the keys {show(list(source)[:5])}; pass one of its values (a single split)"
            )
        return [records_of_json(source, label, format)]
    records = _table(source)
    if records is None:
        if not isinstance(source, Iterable) or isinstance(source, (bytes, bytearray)):
            raise TypeError(
                f"cannot read records of a {type(source).__name__}; pass a path, a list of dicts, "
                "a DataFrame, an Arrow table or a Hugging Face dataset"
            )
        records = list(source)
        if records and all(isinstance(item, (str, os.PathLike)) for item in records):
            return [read_file(path, format) for path in records]
    if format == "fewrel":
        raise ValueError('format="fewrel" is a dict {relation: [instances]}; pass that dict, or leave format out')
    raws = [Raw(_nested(item), None, i) for i, item in enumerate(records)]
    first = next((r.value for r in raws if isinstance(r.value, dict)), None)
    return [RawFile(label, format or sniff_record(first), raws)]


def _table(source: Any) -> list[Any] | None:
    """Records of a DataFrame, a Hugging Face dataset or an Arrow stream; None for anything else."""
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        if not source.columns.is_unique:
            raise FormatError(f"the DataFrame has a column twice ({show(list(source.columns))}); keep one of each name")
        return list(source.to_dict("records"))
    if hasattr(source, "features") and hasattr(source, "__iter__"):
        names = {
            key: feature.int2str
            for key, feature in (source.features or {}).items()
            if key in ("relation", "label") and hasattr(feature, "int2str")
        }
        return [
            {k: names[k](v) if k in names and isinstance(v, int) else v for k, v in record.items()} for record in source
        ]
    if hasattr(source, "__arrow_c_stream__"):
        try:
            pyarrow: Any = importlib.import_module("pyarrow")
        except ImportError:
            remedy = "pip install pyarrow, or pass a list of dicts"
            raise ImportError(f"reading an Arrow stream needs pyarrow: {remedy}") from None
        return list(pyarrow.table(source).to_pylist())
    return None


def _nested(record: Any) -> Any:
    """A flat record (h_pos or h_start and h_end, h_name, …) in the nested shape; others as they are."""
    if not isinstance(record, dict) or "h" in record or record.keys().isdisjoint(_FLAT):
        return record
    out = {key: value for key, value in record.items() if key[:2] not in ("h_", "t_")}
    for key in ("h", "t"):
        fields = [field for field in ("pos", "name", "id", "type") if f"{key}_{field}" in record]
        entity = {field: record[f"{key}_{field}"] for field in fields}
        if "pos" not in entity and f"{key}_start" in record and f"{key}_end" in record:
            entity["pos"] = [record[f"{key}_start"], record[f"{key}_end"]]
        if entity:
            out[key] = entity
    return out
