"""A folder of runs: a row and the predictions of each, found again by what the result depends on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from relpt.errors import FormatError
from relpt.files import check_can_write, json_text, replace_file
from relpt.inputs import plain

__all__ = ["Row", "RunFolder", "data_identity", "encoder_identity", "json_lines", "projection_identity", "run_key"]

Row = dict[str, Any]
_ROWS: Final = "rows.jsonl"
_MODELS: Final = ("config.json", "checkpoints", "history.jsonl", "hybrid.json")  # what tells folders of models and runs
_IDLE: Final = ("num_threads", "device", "seed")  # what the result does not depend on, beside the weights


class RunFolder:
    """A folder of runs: rows.jsonl and predictions/.

    A run's predictions are whole on the disk before its row is, and rows.jsonl is replaced as a whole: after a kill at
    any moment it holds all finished runs, and those alone. One process writes into a folder at a time.

    Raises:
        FileExistsError: the path is a file, or a folder of a model or of a pre-training run.
        FormatError: a line of rows.jsonl is no row.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_dir():
            raise FileExistsError(f"{path} is a file; give the folder of the runs")
        other = next((name for name in _MODELS if (path / name).exists()), None)
        if other is not None:
            raise FileExistsError(
                f"{path} holds a model or a pre-training run ({other}); give the runs another folder (-o)"
            )
        check_can_write(path / "predictions", "-o")  # rather than after the first run
        self.path = path
        self.rows = _read_rows(path / _ROWS)
        (path / "predictions").mkdir(parents=True, exist_ok=True)

    def find(self, key: str) -> Row | None:
        """The row of a run that is done."""
        return next((row for row in self.rows if row["key"] == key), None)

    def add(self, row: Row, name: str, predictions: str) -> None:
        """Keeps a run.

        Args:
            row: plain values, with its "key".
            name: of the predictions' file, which gets the key and ".jsonl" behind it.
            predictions: the text of that file.
        """
        with replace_file(self.path / "predictions" / f"{name}-{row['key'][:8]}.jsonl") as file:
            file.write(predictions.encode())
        self.rows.append(row)
        with replace_file(self.path / _ROWS) as file:
            file.write(json_lines(self.rows).encode())

    def predictions(self, key: str) -> list[Row]:
        """The lines of a run's predictions; FileNotFoundError where somebody removed the file."""
        found = sorted((self.path / "predictions").glob(f"*-{key[:8]}.jsonl"))
        if not found:
            raise FileNotFoundError(
                f"{self.path / 'predictions'} has no file of the run {key}; take its line out of {_ROWS} to run it anew"
            )
        return [json.loads(line) for line in _lines(found[0])]


def _lines(path: Path) -> list[str]:
    """The lines of a file of json_lines: names may hold what else ends a line, such as U+2028."""
    text = path.read_text(encoding="utf-8")
    return text.removesuffix("\n").split("\n") if text else []


def json_lines(rows: list[Row]) -> str:
    """The rows as JSON, a line each."""
    return "".join(json_text(row) + "\n" for row in rows)


def _read_rows(path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(_lines(path) if path.is_file() else [], 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not re.fullmatch("[0-9a-f]{16}", str(row.get("key"))):
            raise FormatError(
                f"{path}, line {number}: is no row of relpt finetune or relpt ablate; give another folder"
            )
        rows.append(row)
    return rows


# -- identities -------------------------------------------------------------------------------------------------------


def run_key(identity: Any) -> str:
    """16 hexadecimal digits for plain values that say all that a run's result depends on."""
    return hashlib.sha256(json.dumps(plain(identity), sort_keys=True).encode()).hexdigest()[:16]


def encoder_identity(encoder: Any) -> list[Any]:
    """Weights and options of an ``Encoder``, ``CNNEncoder``, ``HybridEncoder`` or ``EntityTable`` as plain values."""
    from relpt.cnn import CNNEncoder
    from relpt.encoder import Encoder
    from relpt.hybrid import EntityTable, HybridEncoder

    if isinstance(encoder, HybridEncoder):
        return [encoder.get_params(), *map(encoder_identity, encoder.encoders)]
    if isinstance(encoder, EntityTable):
        return [_digest({"vectors": encoder.vectors}), run_key([encoder.ids, encoder.names])]
    if not isinstance(encoder, (Encoder, CNNEncoder)):
        raise TypeError(
            f"{type(encoder).__name__} is no encoder; give an Encoder, CNNEncoder, HybridEncoder or EntityTable"
        )
    params = [*encoder.get_params().items(), ("tokens", _token_identity(encoder))]
    weights = {name: encoder._model.get(name) for name, _ in encoder._model.parameters()}
    idle = (*_IDLE, "name") if isinstance(encoder, CNNEncoder) else _IDLE  # a CNN's name is an option of it
    return [_digest(weights), {name: value for name, value in params if name not in idle}]


def _token_identity(encoder: Any) -> list[Any]:
    """What turns sentences into tokens: the strings of an Encoder's markers, or a CNN's vocabulary."""
    if hasattr(encoder, "typed_markers"):
        return [encoder.markers, encoder.typed_markers]
    return [hashlib.sha256(encoder.tokenizer.to_str().encode()).hexdigest()]


def projection_identity(encoder: Any) -> Any:
    """What an encoder's projection adds to its identity where its vectors are used as ``encode`` gives them."""
    parts = getattr(encoder, "encoders", None)
    if parts is not None:
        return [projection_identity(part) for part in parts]
    projection = getattr(encoder, "projection", None)
    return None if projection is None else _digest({"weight": projection.weight, "bias": projection.bias})


def data_identity(data: Any) -> str:
    """A hash of a ``Dataset``'s sentences, in their order."""
    digest = hashlib.sha256()
    for instance in data:
        digest.update(json.dumps(plain(instance.to_dict()), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
