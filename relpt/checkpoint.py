"""Checkpoints of a training run: everything that a resumed run needs to go on byte for byte."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from relpt.errors import FormatError
from relpt.fields import check_whole
from relpt.files import json_text, read_table, replace_folder, write_file
from relpt.history import History
from relpt.weights import load_tensors, map_tensors, save_tensors

__all__ = ["latest_checkpoint", "load_checkpoint", "save_checkpoint", "save_heads"]

_NAME: Final = re.compile(r"step-(\d{8})")
_HEADS: Final = "heads.safetensors"
_VALUE: Final = 3  # rp_state
_MOMENTS: Final = {"exp_avg": 1, "exp_avg_sq": 2}  # names as in torch.optim.AdamW's state


def _steps(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    return sorted((int(m[1]), path) for path in folder.iterdir() if (m := _NAME.fullmatch(path.name)))


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most steps, None when there is none."""
    found = _steps(folder)
    return found[-1][1] if found else None


def save_checkpoint(
    folder: Path, encoder: Any, trainer: Any, history: History, card: dict[str, Any], keep: int = 2
) -> Path:
    """Writes folder/step-NNNNNNNN whole or not at all; then removes all up to it but the last ``keep``."""
    step = len(history)
    target = folder / f"step-{step:08d}"
    with replace_folder(target) as new:
        moments = [
            (f"{kind}.{name}", shape, partial(trainer.get, which, name))
            for kind, which in _MOMENTS.items()
            for name, shape in [*encoder._model.parameters(), *trainer.heads()]
        ]
        with ThreadPoolExecutor(1) as beside:  # a Ctrl-C waits for this, and the two files are most of it
            second = beside.submit(save_tensors, new / "optimizer.safetensors", moments)
            encoder._write(new, {**card, "step": step})
            second.result()
        save_heads(new, {name: trainer.get(_VALUE, name) for name, _ in trainer.heads()})
        lines = "".join(json_text(record) + "\n" for record in history)
        write_file(new / "history.jsonl", lambda file: file.write(lines.encode()))
    for _, old in [found for found in _steps(folder) if found[0] <= step][:-keep]:
        shutil.rmtree(old)
    return target


def load_checkpoint(folder: Path, encoder: Any, trainer: Any) -> tuple[History, dict[str, Any]]:
    """Puts weights and moments of a checkpoint into encoder and trainer.

    Returns:
        The history up to it, and its relpt.json.

    Raises:
        FileNotFoundError: no checkpoint there.
        FormatError: a file is damaged, or a tensor missing or of another shape.
    """
    if not (folder / "optimizer.safetensors").is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint: there is no optimizer.safetensors")
    weights = map_tensors(folder)
    moments = map_tensors(folder, "optimizer.safetensors")
    values: dict[str, np.ndarray] = {}
    for name, shape in encoder._model.parameters():  # all are checked before one is written
        values[name] = _tensor(weights, encoder._tensor_name(name), shape, folder / "model.safetensors")
        for kind in _MOMENTS:
            _tensor(moments, f"{kind}.{name}", shape, folder / "optimizer.safetensors")
    history, card = History.read(folder / "history.jsonl"), read_table(folder / "relpt.json")
    steps = check_whole(folder / "relpt.json", "step", card.get("step"), 0)
    if [record.get("step") for record in history] != list(range(1, steps + 1)):
        raise FormatError(
            f"{folder / 'history.jsonl'}: its {len(history)} lines are not the steps 1 to {steps} that relpt.json "
            "names; go on from another checkpoint"
        )
    heads = _load_heads(folder, trainer, moments)
    for name, value in values.items():
        encoder._model.set(name, value)
    for name, value in heads.items():
        trainer.set(_VALUE, name, value)
    for name in (*values, *heads):
        for kind, which in _MOMENTS.items():
            trainer.set(which, name, moments[f"{kind}.{name}"])
    return history, card


def save_heads(folder: Path, heads: dict[str, np.ndarray]) -> None:
    """Writes folder/heads.safetensors, where there are heads."""
    if heads:
        save_tensors(folder / _HEADS, [(name, value.shape, partial(_itself, value)) for name, value in heads.items()])


def _itself(value: np.ndarray) -> np.ndarray:
    return value


def _load_heads(folder: Path, trainer: Any, moments: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The trainer's own parameters in a checkpoint, checked with their moments."""
    wanted = trainer.heads()
    if not wanted:
        return {}
    found = load_tensors(folder, _HEADS, rename=False)
    for name, shape in wanted:
        _tensor(found, name, shape, folder / _HEADS)
        for kind in _MOMENTS:
            _tensor(moments, f"{kind}.{name}", shape, folder / "optimizer.safetensors")
    return {name: found[name] for name, _ in wanted}


def _tensor(tensors: dict[str, np.ndarray], name: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    tensor = tensors.get(name)
    if tensor is None:
        raise FormatError(f"{path}: tensor {name} is missing")
    if tensor.shape != shape:
        raise FormatError(f"{path}: tensor {name} has shape {tensor.shape}, expected {shape}")
    if not np.isfinite(tensor).all() or (name.startswith("exp_avg_sq.") and tensor.min(initial=0) < 0):
        raise FormatError(f"{path}: tensor {name} holds numbers that training cannot have left; the file is damaged")
    return tensor
