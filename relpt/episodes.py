"""Few-shot episodes as files, in the form of FewRel's leaderboards, and predictions for them.

A file of episodes is a JSON list of ``{"meta_train": [[instance, …], …], "meta_test": instance}``: N ways of K
instances each, and one query; an instance is FewRel's ``{"tokens", "h": [name, id, [[index, …]]], "t": …}`` (Han et al.
2018). A submission is the JSON list of the numbers of the predicted ways. Other keys do not count, but for
``"answer"``, which ``Episodes.save`` adds: the number of the right way.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from relpt.data.dataset import Dataset
from relpt.data.files import read_json
from relpt.data.instance import Instance
from relpt.data.records import build_instance
from relpt.data.values import Problem, kind_of, show, whole
from relpt.errors import FormatError
from relpt.files import replace_file
from relpt.nota import accuracies, ratio
from relpt.runlog import counted

__all__ = ["Episodes", "load_episodes", "load_predictions", "score_predictions"]


@dataclass(frozen=True)
class Episodes:
    """Given episodes of one query each, over the rows of a data set.

    Attributes:
        data: the sentences, each once.
        support: int64 (episodes, n_way, k_shot), rows of ``data``.
        query: int64 (episodes,), rows of ``data``.
        answers: int (episodes,), the right way, ``n_way`` for none of the above; None where it is not known.
    """

    data: Dataset
    support: np.ndarray = field(repr=False)
    query: np.ndarray = field(repr=False)
    answers: np.ndarray | None = field(repr=False, default=None)

    @property
    def n_way(self) -> int:
        """Ways of an episode."""
        return int(self.support.shape[1])

    @property
    def k_shot(self) -> int:
        """Support instances of a way."""
        return int(self.support.shape[2])

    def __len__(self) -> int:
        return len(self.query)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the episodes as a JSON file, with ``"answer"`` where it is known.

        Warns:
            UserWarning: texts whose tokens, joined by blanks, are not the text (a mention ends inside a word, say).
        """
        rows = np.union1d(self.support, self.query).tolist()
        records = {row: _record(self.data[row]) for row in rows}
        changed = sum(" ".join(record["tokens"]) != self.data[row].text for row, record in records.items())
        if changed:
            warnings.warn(
                f"{changed:,} of {len(records):,} sentences get other blanks, since FewRel's form has tokens for text",
                stacklevel=2,
            )
        texts = {row: json.dumps(record, ensure_ascii=False) for row, record in records.items()}

        def episode(i: int) -> str:
            ways = ", ".join(f"[{', '.join(texts[row] for row in way)}]" for way in self.support[i].tolist())
            answer = "" if self.answers is None else f', "answer": {self.answers[i]}'
            return f'{{"meta_train": [{ways}], "meta_test": {texts[int(self.query[i])]}{answer}}}'

        with replace_file(Path(path)) as file:
            file.write(b"[")
            for i in range(len(self)):
                file.write(("\n" if i == 0 else ",\n").encode() + episode(i).encode())
            file.write(b"\n]\n")


def load_episodes(source: Any, *, check_names: bool = True) -> Episodes:
    """Reads episodes.

    Args:
        source: a JSON file's path (gzip is unpacked), or the list in it.
        check_names: compare each mention with the entity's name, as ``relpt.load`` does.

    Raises:
        FormatError: file, episode, field, what was got, and the remedy. All episodes have the same ways and shots.
        OSError: the file cannot be read.
    """
    label = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "episodes"
    records = read_json(source) if isinstance(source, (str, os.PathLike)) else source
    if not isinstance(records, list) or not records:
        got = "an empty list" if records == [] else kind_of(records)
        raise FormatError(f'{label}: expected a list of {{"meta_train", "meta_test"}}, got {got}')
    table = _Instances(label, check_names)
    support: list[list[list[int]]] = []
    query: list[int] = []
    answers: list[int | None] = []
    for i, record in enumerate(records):
        try:
            ways, row, answer = table.episode(i, record)
            if support:
                _check_shape(ways, support[0])
        except Problem as problem:
            raise FormatError(f"{label}: episode {i}: {problem.field}: {problem.reason}") from None
        support.append(ways)
        query.append(row)
        answers.append(answer)
    known = [answer for answer in answers if answer is not None]
    if known and len(known) < len(answers):
        raise FormatError(
            f"{label}: episode {answers.index(None)}: answer: missing, though other episodes have one; give it, or "
            "leave it out of all"
        )
    data = Dataset(table.instances, name=os.path.basename(label))
    numbers = np.array(answers, np.int64) if known else None
    return Episodes(data, np.array(support, np.int64), np.array(query, np.int64), numbers)


def load_predictions(source: Any, n_way: int | None = None, *, name: str = "predictions") -> tuple[np.ndarray, int]:
    """Reads predictions or answers: the numbers, n_way for none of the above, and n_way.

    Args:
        source: a JSON file's path with a list of whole numbers or with episodes that have answers; or the list, or
            ``Episodes``.
        n_way: the ways; none of the above is this number or -1. Not needed for episodes.
        name: what messages call a source that is no path.

    Raises:
        FormatError: another kind of file, or a number outside -1 to n_way (names file and place).
        ValueError: n_way is needed; episodes without answers.
    """
    if isinstance(source, Episodes):
        if source.answers is None:
            raise ValueError(f"{name}: the episodes have no answers; give a list of them")
        return source.answers, source.n_way
    label = os.fspath(source) if isinstance(source, (str, os.PathLike)) else name
    values = read_json(source) if isinstance(source, (str, os.PathLike)) else source
    values = values.tolist() if isinstance(values, np.ndarray) else values
    if isinstance(values, list) and values and isinstance(values[0], dict):
        episodes = load_episodes(source)
        if episodes.answers is None:
            raise FormatError(f"{label}: the episodes have no answers; give a list of them")
        return episodes.answers, episodes.n_way
    if not isinstance(values, list):
        raise FormatError(f"{label}: expected a list of whole numbers, got {kind_of(values)}")
    if n_way is None:
        raise ValueError("a list of numbers does not say how many ways there are; give n_way (--way)")
    numbers = []
    for i, value in enumerate(values):
        number = whole(value)
        if number is None or not -1 <= number <= n_way:
            raise FormatError(
                f"{label}: number {i} is {show(value)}; expected 0 to {n_way - 1}, and {n_way} or -1 for none of the "
                "above"
            )
        numbers.append(n_way if number == -1 else number)
    return np.array(numbers, np.int64), n_way


def score_predictions(predictions: Any, answers: Any, *, n_way: int | None = None) -> dict[str, Any]:
    """Compares predictions with the answers.

    Args:
        predictions: a path, a list or an array; see ``load_predictions``.
        answers: the same; also episodes that have answers, as ``Episodes``, their path or the list in it, from which
            n_way is taken then.
        n_way: the ways.

    Returns:
        ``way``, ``episodes``, ``accuracy``, ``ci95``; where some answer or prediction is none of the above also
        ``known_accuracy``, ``known_ci95``, ``none_accuracy`` and ``none_ci95`` (see ``FewShotResult``).

    Raises:
        FormatError: see ``load_predictions``.
        ValueError: predictions and answers differ in number, there are none, or n_way is needed.
    """
    right, n_way = load_predictions(answers, n_way, name="answers")
    said, _ = load_predictions(predictions, n_way)
    if len(said) != len(right) or not len(said):
        raise ValueError(
            f"got {counted(len(said), 'prediction')} and {counted(len(right), 'answer')}; give one for each episode"
        )
    hits, none = (said == right)[:, None], (right == n_way)[:, None]
    accuracy, ci95 = ratio(hits[:, 0].astype(np.int64), np.ones(len(hits), np.int64))
    row: dict[str, Any] = {"way": n_way, "episodes": len(said), "accuracy": accuracy, "ci95": ci95}
    return row | (accuracies(hits, none) if none.any() or (said == n_way).any() else {})


# -- reading -----------------------------------------------------------------------------------------------------------


class _Instances:
    """The different sentences met so far, and their rows."""

    def __init__(self, label: str, check_names: bool) -> None:
        self.instances: list[Instance] = []
        self._label, self._check_names = label, check_names
        self._rows: dict[str, int] = {}
        self._episode = 0

    def episode(self, number: int, record: Any) -> tuple[list[list[int]], int, int | None]:
        """Rows of the supports and the query, and the answer; Problem names the field."""
        self._episode = number
        for name in ("meta_train", "meta_test"):
            if not isinstance(record, dict) or name not in record:
                got = f"an object with {show(list(record))}" if isinstance(record, dict) else kind_of(record)
                raise Problem("missing field", name, f'missing; expected {{"meta_train", "meta_test"}}, got {got}')
        ways = record["meta_train"]
        if not isinstance(ways, list) or not ways or not all(isinstance(way, list) and way for way in ways):
            raise Problem("wrong type", "meta_train", f"expected lists of instances, one a way, got {show(ways)}")
        support = [
            [self.row(item, f"meta_train[{w}][{k}]") for k, item in enumerate(way)] for w, way in enumerate(ways)
        ]
        for w, way in enumerate(support):
            if len(way) != len(support[0]):
                raise Problem(
                    "ragged", f"meta_train[{w}]", f"has {len(way)} instances and meta_train[0] {len(support[0])}"
                )
        return support, self.row(record["meta_test"], "meta_test"), _answer(record.get("answer"), len(ways))

    def row(self, item: Any, place: str) -> int:
        """The row of an instance, which is added where it is new."""
        if not isinstance(item, dict):
            raise Problem("not an object", place, f"expected an instance, got {kind_of(item)} ({show(item)})")
        common = {key: value for key, value in item.items() if key not in ("relation", "label")}
        key = json.dumps(common, sort_keys=True, default=repr)
        row = self._rows.get(key)
        if row is None:
            source = f"{self._label}: episode {self._episode}: {place}"
            try:
                instance = build_instance(
                    common, spans=None, check_names=self._check_names, labelled=False, source=source
                )
            except Problem as problem:
                problem.field = f"{place}.{problem.field}" if problem.field else place
                raise
            row = self._rows[key] = len(self.instances)
            self.instances.append(instance)
        return row


def _answer(value: Any, n_way: int) -> int | None:
    if value is None:
        return None
    number = whole(value)
    if number is None or not -1 <= number <= n_way:
        raise Problem("wrong type", "answer", f"is {show(value)}; expected 0 to {n_way}, or -1 for none of the above")
    return n_way if number == -1 else number


def _check_shape(ways: Sequence[Sequence[int]], first: Sequence[Sequence[int]]) -> None:
    got, wanted = (len(ways), len(ways[0])), (len(first), len(first[0]))
    if got != wanted:
        raise Problem(
            "ragged",
            "meta_train",
            f"is {got[0]}-way {got[1]}-shot, and episode 0 {wanted[0]}-way {wanted[1]}-shot; give each shape a file",
        )


# -- writing -----------------------------------------------------------------------------------------------------------


def _record(instance: Instance) -> dict[str, Any]:
    """The instance in FewRel's form: words between blanks, and cuts where a mention begins or ends inside one."""
    text = instance.text
    cuts = sorted({0, *instance.head, *instance.tail, len(text)})
    spans = [
        (start + word.start(), start + word.end())
        for start, end in pairwise(cuts)
        for word in re.finditer("[^ ]+", text[start:end])
    ]
    record: dict[str, Any] = {"tokens": [text[start:end] for start, end in spans]}
    for key, mention, name, id_, type_ in (
        ("h", instance.head, instance.head_name, instance.head_id, instance.head_type),
        ("t", instance.tail, instance.tail_name, instance.tail_id, instance.tail_type),
    ):
        inside = [i for i, (start, end) in enumerate(spans) if mention[0] <= start and end <= mention[1]]
        record[key] = [name or text[mention[0] : mention[1]], id_ or "", [inside]]
        if type_ is not None:
            record[f"{key}_type"] = type_
    return record
