"""Pre-training: what must not change the result, what must survive, and what is refused."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interrupts import alarm_as_ctrl_c, interrupt_when_busy, wait_until_busy
from oracle import tiny_bert
from tiny import tiny_dataset, tiny_encoder_folder

import relpt
from relpt import _core
from relpt.trainer import PRESETS

OPTIONS: dict[str, Any] = {
    **tiny_bert.PINNED,
    "temperature": 0.1,
    "p_blank": 0.5,
    "cp_weight": 1.0,
    "input_mix": None,
    "mlm_probability": 0.2,
    "pairs_per_step": 8,
    "micro_batch_pairs": 8,
    "learning_rate": 2e-3,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "schedule": "linear",
    "warmup_steps": 4,
    "max_length": 32,
    "max_steps": 40,
    "seed": 42,
}
FIGURES = ("loss", "loss_cp", "loss_mlm", "accuracy", "lr", "grad_norm", "tokens", "masked")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def data() -> relpt.Dataset:
    return relpt.load(tiny_dataset())


def encoder_of(folder: Path, **options: Any) -> relpt.Encoder:
    return relpt.Encoder.from_pretrained(folder, **{"representation": "entity_start", "num_threads": 1, **options})


def trainer_of(encoder: relpt.Encoder, **options: Any) -> relpt.CPTrainer:
    return relpt.CPTrainer(encoder, **{**OPTIONS, **options})


def weights(encoder: relpt.Encoder) -> bytes:
    return b"".join(encoder._model.get(name).tobytes() for name, _ in encoder._model.parameters())


def core_parts(trainer: relpt.CPTrainer, data: relpt.Dataset) -> tuple[Any, Any]:
    """The core's sampler and trainer."""
    corpus = data.tokenize(trainer.encoder, max_length=trainer.options["max_length"])
    return trainer._sampler(corpus), _core.Trainer(**trainer._core_options(trainer._micro_batch_pairs()))


def gradients(core: Any, encoder: relpt.Encoder) -> dict[str, np.ndarray]:
    return {name: core.get(0, name).astype(np.float64) for name, _ in encoder._model.parameters()}


# -- the same result --------------------------------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize("micro", [1, 3])
@pytest.mark.parametrize("changes", [{}, {"symmetric": False, "similarity": "dot", "temperature": 4.0}])
def test_gradient_caching_equals_one_big_batch(
    folder: Path, data: relpt.Dataset, micro: int, changes: dict[str, Any]
) -> None:
    """With dropout on: the second pass over a micro-batch has the masks of the first."""
    encoder = encoder_of(folder)
    assert encoder.config["hidden_dropout_prob"] == encoder.config["attention_probs_dropout_prob"] == 0.1
    sampler, whole = core_parts(trainer_of(encoder, **changes), data)
    _, parts = core_parts(trainer_of(encoder, **changes, micro_batch_pairs=micro), data)
    for step in (0, 5):
        want, got = whole.gradients(sampler, step), parts.gradients(sampler, step)
        for name in ("loss", "loss_cp", "loss_mlm"):
            assert got[name] == pytest.approx(want[name], rel=1e-6)
        assert got["accuracy"] == want["accuracy"]
        wanted, found = gradients(whole, encoder), gradients(parts, encoder)
        rounding = 1e-7 * math.sqrt(sum(float((value**2).sum()) for value in wanted.values()))
        for name, value in wanted.items():
            assert np.linalg.norm(found[name] - value) <= 1e-5 * np.linalg.norm(value) + rounding, name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_vectors_follow_the_weights(folder: Path, data: relpt.Dataset, tmp_path: Path, dtype: str) -> None:
    """An encoder that has encoded keeps its weights packed: not those of before a step or another change."""
    encoder, name = encoder_of(folder), "encoder.layer.0.output.dense.weight"
    before = encoder.encode(data, dtype=dtype, show_progress_bar=False)
    for change in ("trained", "set"):
        if change == "trained":
            trainer_of(encoder, max_steps=2, micro_batch_pairs=3).fit(data, show_progress_bar=False)
        else:
            encoder._model.set(name, encoder._model.get(name)[::-1].copy())
        vectors = encoder.encode(data, dtype=dtype, show_progress_bar=False)
        fresh = relpt.Encoder.from_pretrained(encoder.save_pretrained(tmp_path / change))
        assert np.array_equal(fresh.encode(data, dtype=dtype, show_progress_bar=False), vectors)
        assert not np.array_equal(before, vectors)
        before = vectors


def test_micro_batches_of_a_step_share_packed_weights_of_this_step_alone(folder: Path, data: relpt.Dataset) -> None:
    whole, parts = (encoder_of(folder) for _ in range(2))
    trainer_of(whole, max_steps=4).fit(data, show_progress_bar=False)
    trainer_of(parts, max_steps=4, micro_batch_pairs=2).fit(data, show_progress_bar=False)
    for name, _ in whole._model.parameters():
        assert np.allclose(parts._model.get(name), whole._model.get(name), rtol=1e-3, atol=2e-5), name


def test_the_loss_may_compare_less_than_the_relation_vector(folder: Path, data: relpt.Dataset) -> None:
    """A run learns what one learns whose encoder gives that part alone; vectors stay those of the encoder."""
    wide, narrow = (encoder_of(folder, representation=parts) for parts in ("cls+entity_start+mean", "entity_start"))
    trainer_of(wide, loss_representation="entity_start", max_steps=3).fit(data, show_progress_bar=False)
    trainer_of(narrow, max_steps=3).fit(data, show_progress_bar=False)
    assert weights(wide) == weights(narrow) != weights(encoder_of(folder))
    assert wide.dim == 2 * narrow.dim
    middle = slice(narrow.dim // 2, narrow.dim // 2 + narrow.dim)
    assert np.array_equal(wide.encode(data)[:, middle], narrow.encode(data))


DROPPED = (
    "embeddings.word_embeddings.weight",
    "embeddings.LayerNorm.weight",
    *(
        f"encoder.layer.{layer}.{name}.weight"
        for layer in (0, 1)
        for name in ("attention.self.query", "attention.self.value", "attention.output.dense", "output.dense")
    ),
    "cls.predictions.transform.dense.weight",
)


@pytest.mark.core
def test_gradients_are_of_the_loss_with_its_dropout(tmp_path: Path) -> None:
    """Along random directions the loss changes as the gradients say: backward has the masks of forward."""
    encoder = tiny_bert.encoder(tmp_path, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    options = {"temperature": 0.5, "micro_batch_pairs": 8}
    sampler, core = core_parts(trainer_of(encoder, **options), tiny_bert.dataset())
    core.gradients(sampler, 3)
    found, rng = {name: core.get(0, name).astype(np.float64) for name in DROPPED}, np.random.default_rng(0)
    for name, gradient in found.items():
        start, slopes = encoder._model.get(name), []
        for _ in range(4):
            direction = rng.normal(size=gradient.shape)
            direction /= np.linalg.norm(direction)
            losses = []
            for size in (0.02, -0.02):
                encoder._model.set(name, (start + size * direction).astype(np.float32))
                losses.append(core.gradients(sampler, 3)["loss"])
            slopes.append(((losses[0] - losses[1]) / 0.04, float((gradient * direction).sum())))
        encoder._model.set(name, start)
        measured, expected = np.array(slopes).T
        assert np.linalg.norm(measured - expected) <= 0.02 * np.linalg.norm(expected) + 1e-4, name
    assert core.gradients(sampler, 3)["loss"] != core.gradients(sampler, 4)["loss"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("changes", [{}, {"micro_batch_pairs": 7}], ids=["whole", "micro-batches"])
def test_threads_do_not_change_a_byte(tmp_path: Path, changes: dict[str, Any], dtype: str) -> None:
    source = tiny_encoder_folder(tmp_path / "encoder", hidden=64)
    data = relpt.load(tiny_dataset(6, 20))
    options = {**OPTIONS, "pairs_per_step": 32, "max_length": 48, "max_steps": 4, "micro_batch_pairs": None, **changes}
    results = []
    for num_threads in (1, 2, 4):
        encoder = encoder_of(source, num_threads=num_threads, dtype=dtype)
        history = relpt.CPTrainer(encoder, **options).fit(data)
        results.append((weights(encoder), [[record[name] for name in FIGURES] for record in history]))
    assert results[0] == results[1] == results[2]


def test_bfloat16_is_near_float32(tmp_path: Path) -> None:
    """Gradients differ by about the rounding of operands to 8 bits; the weights stay float32."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        encoder = tiny_bert.encoder(tmp_path / dtype, dtype=dtype)
        sampler, core = core_parts(trainer_of(encoder, micro_batch_pairs=8, mlm_weight=1.0), tiny_bert.dataset())
        stats = core.gradients(sampler, 1)
        found[dtype] = stats["loss"], {name: core.get(0, name) for name, _ in encoder._model.parameters()}
    assert found["bfloat16"][0] == pytest.approx(found["float32"][0], rel=0.01)
    assert found["bfloat16"][0] != found["float32"][0]
    for name, exact in found["float32"][1].items():
        difference = np.linalg.norm(found["bfloat16"][1][name] - exact)
        assert difference <= 0.05 * np.linalg.norm(exact) + 1e-6, name


@pytest.mark.parametrize("changes", [{}, {"pairs_per_step": 2, "micro_batch_pairs": 1}])
def test_prefetch_does_not_change_a_byte(folder: Path, data: relpt.Dataset, changes: dict[str, Any]) -> None:
    results = []
    for prefetch in (True, False):
        encoder = encoder_of(folder)
        trainer_of(encoder, prefetch=prefetch, max_steps=6, **changes).fit(data)
        results.append(weights(encoder))
    assert results[0] == results[1] != weights(encoder_of(folder))


def test_the_seed_is_what_changes_a_run(folder: Path, data: relpt.Dataset) -> None:
    results = []
    for seed in (1, 1, 2):
        encoder = encoder_of(folder)
        trainer_of(encoder, seed=seed, max_steps=3).fit(data)
        results.append(weights(encoder))
    assert results[0] == results[1] != results[2]


# -- it learns --------------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_relations_part(folder: Path, data: relpt.Dataset) -> None:
    encoder = encoder_of(folder)
    seen: list[dict[str, Any]] = []
    options = {"learning_rate": 5e-3, "p_blank": 1.0, "mlm_weight": 0.1}
    history = trainer_of(encoder, max_steps=100, **options).fit(data, callbacks=[seen.append])
    assert history.status == "finished"
    assert seen == history.records
    assert [record["step"] for record in history] == list(range(1, 101))
    assert history["loss_cp"][-10:].mean() < 0.6 * history["loss_cp"][:5].mean()
    assert history["accuracy"][-10:].mean() > history["accuracy"][:5].mean() + 0.3
    np.testing.assert_allclose(history["loss"], history["loss_cp"] + 0.1 * history["loss_mlm"], rtol=1e-12)
    assert history[0]["sentences"] == 16
    assert history.to_dict()["loss"] == [record["loss"] for record in history]


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ("linear", [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.25, 0.5, 0.75, 1, 1, 0.8535533906, 0.5, 0.1464466094]),
    ],
)
def test_learning_rate(folder: Path, data: relpt.Dataset, schedule: str, factors: list[float]) -> None:
    history = trainer_of(encoder_of(folder), schedule=schedule, max_steps=8, learning_rate=1e-3).fit(data)
    np.testing.assert_allclose(history["lr"], 1e-3 * np.array(factors), rtol=1e-9)


def test_warm_up_is_a_tenth_of_the_run_by_default(folder: Path, data: relpt.Dataset) -> None:
    history = trainer_of(encoder_of(folder), max_steps=20, warmup_steps=None, schedule="constant").fit(data)
    np.testing.assert_allclose(history["lr"] / 2e-3, [0.5, *[1.0] * 19])


def test_weight_decay_spares_biases_and_layer_norm(folder: Path, data: relpt.Dataset) -> None:
    results = []
    for weight_decay in (0.0, 0.5):
        encoder = encoder_of(folder)
        sampler, core = core_parts(trainer_of(encoder, weight_decay=weight_decay, warmup_steps=0), data)
        core.step(sampler, 0)
        results.append({name: encoder._model.get(name) for name, _ in encoder._model.parameters()})
    for name, _ in encoder_of(folder)._model.parameters():
        before, plain, decayed = encoder_of(folder)._model.get(name), results[0][name], results[1][name]
        if name.endswith("bias") or "LayerNorm" in name:
            np.testing.assert_array_equal(decayed, plain, err_msg=name)
        else:
            np.testing.assert_allclose(decayed - plain, -2e-3 * 0.5 * before, atol=2e-7, err_msg=name)
            assert np.abs(decayed - plain).max() > 1e-5, name


def test_clipping(folder: Path, data: relpt.Dataset) -> None:
    """Clipped gradients leave first moments of (1 - beta1) * max_grad_norm; the norm reported is the one before."""
    encoder = encoder_of(folder)
    norms = {}
    for limit in (0.0, 1e-2, 1e6):
        sampler, core = core_parts(trainer_of(encoder_of(folder), max_grad_norm=limit, adam_betas=(0.5, 0.9)), data)
        stats = core.step(sampler, 0)
        moments = [core.get(1, name).astype(np.float64) for name, _ in encoder._model.parameters()]
        norms[limit] = (stats["grad_norm"], math.sqrt(sum(float((m**2).sum()) for m in moments)))
    assert norms[1e-2][1] == pytest.approx(0.5e-2, rel=1e-5)
    assert norms[0.0] == norms[1e6] == pytest.approx((norms[1e-2][0], 0.5 * norms[1e-2][0]), rel=1e-5)


def test_without_masked_words_their_head_stays(folder: Path, data: relpt.Dataset) -> None:
    encoder = encoder_of(folder)
    before = {name: encoder._model.get(name) for name, _ in encoder._model.parameters()}
    history = trainer_of(encoder, mlm_weight=0.0, max_steps=3, weight_decay=0.3).fit(data)
    for name, value in before.items():
        if name == "embeddings.token_type_embeddings.weight":
            continue  # its second row gets no gradient
        same = np.array_equal(encoder._model.get(name), value)
        assert same == name.startswith("cls."), name
    assert not history["masked"].any()
    assert not history["loss_mlm"].any()


def test_masked_words_alone(folder: Path, data: relpt.Dataset) -> None:
    history = trainer_of(encoder_of(folder), cp_weight=0.0, max_steps=30).fit(data)
    assert not history["loss_cp"].any()
    assert history["loss"][-5:].mean() < history["loss"][:5].mean() - 0.3


# -- resuming ---------------------------------------------------------------------------------------------------------


def run(folder: Path, data: Any, into: Path, *, stop: int | None = None, **options: Any) -> relpt.History:
    """A run of 40 steps with checkpoints, stopped after `stop` steps."""
    resume = options.pop("resume", None)
    callbacks = [] if stop is None else [lambda record: record["step"] == stop]
    representation = options.pop("representation", "entity_start")
    encoder = encoder_of(folder, representation=representation)
    return trainer_of(encoder, **options).fit(
        data, callbacks=callbacks, checkpoint_dir=into, checkpoint_every=15, resume=resume
    )


def same_checkpoint(a: Path, b: Path) -> None:
    """Weights, moments and figures of all steps are equal byte for byte."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    histories = [relpt.History.read(path / "history.jsonl") for path in (a, b)]
    assert len(histories[0]) == len(histories[1])
    for name in FIGURES:
        np.testing.assert_array_equal(histories[0][name], histories[1][name], err_msg=name)


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, data: relpt.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a run of 40 steps."""
    into = tmp_path_factory.mktemp("uninterrupted")
    assert len(run(folder, data, into)) == 40
    return into / "step-00000040"


def test_checkpoints_are_kept_by_twos(uninterrupted: Path) -> None:
    assert sorted(path.name for path in uninterrupted.parent.iterdir()) == ["step-00000030", "step-00000040"]


def test_a_resumed_run_equals_the_uninterrupted_one(
    folder: Path, data: relpt.Dataset, tmp_path: Path, uninterrupted: Path
) -> None:
    history = run(folder, data, tmp_path, stop=20)
    assert (history.status, len(history)) == ("stopped", 20)
    history = run(folder, data, tmp_path, resume=True)
    assert (history.status, len(history)) == ("finished", 40)
    same_checkpoint(tmp_path / "step-00000040", uninterrupted)
    card = json.loads((tmp_path / "step-00000040" / "relpt.json").read_text())
    assert card["step"] == 40


def test_resuming_from_a_path(folder: Path, data: relpt.Dataset, tmp_path: Path, uninterrupted: Path) -> None:
    run(folder, data, tmp_path, resume=uninterrupted.parent / "step-00000030")
    same_checkpoint(tmp_path / "step-00000040", uninterrupted)


def test_resuming_a_finished_run_changes_nothing(
    folder: Path, data: relpt.Dataset, tmp_path: Path, uninterrupted: Path
) -> None:
    encoder = encoder_of(folder)
    history = trainer_of(encoder).fit(data, resume=uninterrupted)
    assert (history.status, len(history)) == ("finished", 40)
    assert weights(encoder) == weights(encoder_of(uninterrupted))


SCRIPT = """
import os, signal, sys
from pathlib import Path
import relpt
from test_trainer import encoder_of, trainer_of
from tiny import tiny_dataset

def kill(record):
    if record["step"] == 23:
        os.kill(os.getpid(), signal.SIGKILL)

folder, into, resume = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "resume"
options = {"checkpoint_dir": into, "checkpoint_every": 10, "resume": resume, "callbacks": [] if resume else [kill]}
trainer_of(encoder_of(folder)).fit(relpt.load(tiny_dataset()), **options)
"""


def process(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A fresh Python process."""
    paths = [str(Path(__file__).parent), *sys.path]
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_killed_run_goes_on_in_a_fresh_process(folder: Path, tmp_path: Path, uninterrupted: Path) -> None:
    assert process(SCRIPT, folder, tmp_path, "start").returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000020"]
    done = process(SCRIPT, folder, tmp_path, "resume")
    assert done.returncode == 0, done.stderr
    same_checkpoint(tmp_path / "step-00000040", uninterrupted)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.2),
        ("seed", 43),
        ("pairs_per_step", 4),
        ("learning_rate", 1e-3),
        ("max_steps", 50),
        ("input_mix", {"C+M": 1, "OnlyC": 1}),
        ("mlm_weight", 0.5),
        ("adam_betas", (0.9, 0.99)),
        ("representation", "cls"),
    ],
)
def test_resuming_with_another_option_is_refused(
    folder: Path, data: relpt.Dataset, tmp_path: Path, uninterrupted: Path, name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"resume: {name} is .*{str(value)[:3].strip('([{')}"):
        run(folder, data, tmp_path, resume=uninterrupted, **{name: value})
    assert not list(tmp_path.iterdir())


def test_resuming_with_other_data_is_refused(folder: Path, tmp_path: Path, uninterrupted: Path) -> None:
    encoder = encoder_of(folder)
    with pytest.raises(ValueError, match="resume: the data are others"):
        trainer_of(encoder).fit(relpt.load(tiny_dataset(seed=1)), resume=uninterrupted)
    assert weights(encoder) == weights(encoder_of(folder))


def test_resuming_from_nothing(folder: Path, data: relpt.Dataset, tmp_path: Path) -> None:
    assert len(run(folder, data, tmp_path, resume=True, max_steps=2)) == 2  # the first run of a script with resume=True
    with pytest.raises(FileNotFoundError, match=r"no checkpoint"):
        run(folder, data, tmp_path, resume=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="checkpoint_dir"):
        trainer_of(encoder_of(folder)).fit(data, resume=True)


@pytest.mark.parametrize("damage", ["cut", "tensor"])
def test_a_damaged_checkpoint_is_refused_and_the_encoder_kept(
    folder: Path, data: relpt.Dataset, tmp_path: Path, damage: str
) -> None:
    run(folder, data, tmp_path, stop=2)
    path = tmp_path / "step-00000002" / "optimizer.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        from safetensors.numpy import load_file, save_file

        tensors = load_file(path)
        tensors.pop("exp_avg.encoder.layer.1.output.dense.weight")
        save_file(tensors, path)
    encoder = encoder_of(folder)
    with pytest.raises(relpt.FormatError, match=r"optimizer.safetensors"):
        trainer_of(encoder).fit(data, checkpoint_dir=tmp_path, resume=True)
    assert weights(encoder) == weights(encoder_of(folder))


# -- a full disk ------------------------------------------------------------------------------------------------------


class FullDisk:
    """Stands in for ``open`` and ``os`` in relpt.files: the operation with number `at` fails as on a full disk."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.count = at, 0

    def fill(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr("relpt.files.os", self)
        patch.setattr("relpt.files.open", self.open_file, raising=False)

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self.failing(real) if name in ("fsync", "rename", "replace") else real

    def failing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.check()
            return real(*arguments)

        return call

    def check(self) -> None:
        self.count += 1
        if self.count - 1 == self.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open_file(self, path: Path, mode: str) -> Any:
        self.check()
        file, disk = open(path, mode), self  # noqa: SIM115 - closed by the caller

        class Half:
            """A file of which a write that fails has written half."""

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def __enter__(self) -> Half:
                return self

            def __exit__(self, *error: object) -> None:
                file.close()

            def write(self, content: bytes) -> int:
                try:
                    disk.check()
                except OSError:
                    file.write(content[: len(content) // 2])
                    raise
                return file.write(content)

        return Half()


def count_of_writes(folder: Path, data: relpt.Dataset, into: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    disk = FullDisk()
    with monkeypatch.context() as patch:
        disk.fill(patch)
        run(folder, data, into, stop=1)
    return disk.count


def test_a_full_disk_leaves_the_last_checkpoint(
    folder: Path, data: relpt.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = count_of_writes(folder, data, tmp_path / "count", monkeypatch)
    assert points > 15  # seven files, each written and synced; the folder synced, renamed, its parent synced
    for at in range(points):
        into, disk = tmp_path / str(at), FullDisk(at)
        run(folder, data, into, stop=1)
        with monkeypatch.context() as patch:
            disk.fill(patch)
            with pytest.raises(OSError, match="No space left") as caught:
                run(folder, data, into, stop=2, resume=True)
        assert caught.value.errno == errno.ENOSPC
        left = sorted(path.name for path in into.iterdir())
        renamed = at == points - 1  # the parent's sync failed: both are whole
        assert left == ["step-00000001", "step-00000002"][: 1 + renamed], at
        for name in left:
            history = trainer_of(encoder_of(folder)).fit(data, resume=into / name, callbacks=[lambda record: True])
            assert len(history) == int(name[-1]) + 1


def test_a_file_size_limit_is_survived(folder: Path, data: relpt.Dataset, tmp_path: Path) -> None:
    """The system itself refuses a write."""
    run(folder, data, tmp_path, stop=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(record: dict[str, Any]) -> bool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        return record["step"] == 3

    try:
        with pytest.raises(OSError, match="File too large"):
            trainer_of(encoder_of(folder)).fit(data, checkpoint_dir=tmp_path, resume=True, callbacks=[limit])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert len(run(folder, data, tmp_path, resume=True, stop=3)) == 3


# -- a loss that is not finite ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "options"),
    [
        ("embeddings.word_embeddings.weight", np.inf, {}),
        ("encoder.layer.1.output.dense.weight", np.nan, {}),
        ("cls.predictions.bias", np.nan, {}),
        ("embeddings.LayerNorm.bias", 1e30, {"similarity": "dot"}),
    ],
)
def test_non_finite_weights_are_refused(
    folder: Path, data: relpt.Dataset, name: str, value: float, options: dict[str, Any]
) -> None:
    encoder = encoder_of(folder)
    tensor = encoder._model.get(name)
    tensor[...] = value
    encoder._model.set(name, tensor)
    before = weights(encoder)
    with pytest.raises(FloatingPointError, match=r"step .*parameters are unchanged"):
        trainer_of(encoder, **options).fit(data)
    assert weights(encoder) == before


def test_an_absurd_temperature_is_refused(folder: Path, data: relpt.Dataset) -> None:
    encoder = encoder_of(folder)
    with pytest.raises(FloatingPointError, match="raise the temperature"):
        trainer_of(encoder, temperature=1e-38, similarity="dot").fit(data)
    assert weights(encoder) == weights(encoder_of(folder))


def test_an_absurd_learning_rate_ends_at_the_last_whole_step(folder: Path, data: relpt.Dataset, tmp_path: Path) -> None:
    encoder, states = encoder_of(folder), []
    trainer = trainer_of(encoder, learning_rate=1e15, warmup_steps=0)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        trainer.fit(data, callbacks=[lambda record: states.append(weights(encoder))])
    assert states
    assert weights(encoder) == states[-1] != weights(encoder_of(folder))


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def alarm() -> Iterator[None]:
    with alarm_as_ctrl_c():
        yield


@pytest.mark.usefixtures("alarm")
def test_interrupted_at_any_moment(folder: Path, data: relpt.Dataset, tmp_path: Path) -> None:
    """However the signal falls, the history counts the steps that are in the weights, and the run goes on from them."""
    encoder = encoder_of(folder)
    corpus = data.tokenize(encoder, max_length=32)
    states = [weights(encoder)]
    trainer_of(encoder, max_steps=300, schedule="constant").fit(
        corpus, callbacks=[lambda record: states.append(weights(encoder))]
    )
    lengths = []
    for attempt in range(60):
        encoder = encoder_of(folder)
        trainer = trainer_of(encoder, max_steps=300, schedule="constant")
        started = [False]

        def start(record: dict[str, Any], attempt: int = attempt, started: list[bool] = started) -> None:
            if not started[0]:
                started[0] = True
                signal.setitimer(signal.ITIMER_REAL, 0.002 + 0.000137 * attempt)

        history = trainer.fit(corpus, callbacks=[start])
        assert history.status == "interrupted"
        assert weights(encoder) == states[len(history)], f"{len(history)} steps are counted"
        assert [record["step"] for record in history] == list(range(1, len(history) + 1))
        assert all("sentences_per_second" in record for record in history)
        lengths.append(len(history))
    assert max(lengths) < 300
    assert np.isfinite(encoder.encode(data)).all()


def test_an_interrupted_run_can_be_resumed(
    folder: Path, data: relpt.Dataset, tmp_path: Path, uninterrupted: Path
) -> None:
    def interrupt(record: dict[str, Any]) -> None:
        if record["step"] == 17:
            raise KeyboardInterrupt

    history = trainer_of(encoder_of(folder)).fit(data, callbacks=[interrupt], checkpoint_dir=tmp_path)
    assert (history.status, len(history)) == ("interrupted", 17)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000017"]
    run(folder, data, tmp_path, resume=True)
    same_checkpoint(tmp_path / "step-00000040", uninterrupted)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, relpt.Dataset, dict[str, Any]]:
    """An encoder, data and options of which a step takes a second or more."""
    source = tiny_encoder_folder(tmp_path_factory.mktemp("slow"), hidden=192, layers=4)
    return source, relpt.load(tiny_dataset(8, 40)), {"pairs_per_step": 128, "micro_batch_pairs": 32, "max_steps": 3}


@pytest.mark.usefixtures("alarm")
def test_ctrl_c_is_heard_in_the_midst_of_a_step(slow: tuple[Path, relpt.Dataset, dict[str, Any]]) -> None:
    source, data, options = slow
    encoder = encoder_of(source)
    trainer = trainer_of(encoder, **options, mlm_weight=0.0)
    state: list[Any] = []

    def start(record: dict[str, Any]) -> None:
        state.append(weights(encoder))
        interrupt_when_busy(encoder)

    history = trainer.fit(data.tokenize(encoder, max_length=32), callbacks=[start])
    assert (history.status, len(history)) == ("interrupted", 1)  # the second step was cut off, not waited for
    assert weights(encoder) == state[0]


# -- threads and processes --------------------------------------------------------------------------------------------


def test_a_busy_model(slow: tuple[Path, relpt.Dataset, dict[str, Any]]) -> None:
    """While a step runs, a second thread's step is refused and its encoding waits."""
    source, data, options = slow
    encoder = encoder_of(source)
    sampler, core = core_parts(trainer_of(encoder, **options), data)
    other_sampler, other = core_parts(trainer_of(encoder), data)
    outcome: list[float] = []
    thread = threading.Thread(target=lambda: outcome.append(core.step(sampler, 0)["loss"]))
    thread.start()
    wait_until_busy(encoder)
    with pytest.raises(RuntimeError, match="busy: another thread is training"):
        other.step(other_sampler, 0)
    vectors = encoder.encode(data[:5])
    thread.join()
    np.testing.assert_array_equal(vectors, encoder.encode(data[:5]))  # it waited: these are the weights after the step
    assert np.isfinite(outcome[0])


def test_a_step_waits_for_who_reads_the_model(slow: tuple[Path, relpt.Dataset, dict[str, Any]]) -> None:
    source, data, options = slow
    encoder = encoder_of(source)
    sampler, core = core_parts(trainer_of(encoder, **options), data)
    many = relpt.load(tiny_dataset(8, 40) * 4).tokenize(encoder, max_length=32)
    found: list[np.ndarray] = []
    before = encoder.encode(many)
    thread = threading.Thread(target=lambda: found.append(encoder.encode(many)))
    thread.start()
    wait_until_busy(encoder)
    core.step(sampler, 0)
    thread.join()
    np.testing.assert_array_equal(found[0][:32], before[:32])  # a call of the core reads one state of the weights
    assert not np.array_equal(encoder.encode(many), before)


def test_a_signals_handler_cannot_wait_for_the_step_it_interrupts(
    slow: tuple[Path, relpt.Dataset, dict[str, Any]],
) -> None:
    """It would wait for ever; the step is refused with what the handler raised, and the model as it was."""
    source, data, options = slow
    encoder = encoder_of(source)
    sampler, core = core_parts(trainer_of(encoder, **options), data)
    before = weights(encoder)
    former = signal.signal(signal.SIGALRM, lambda *_: encoder.save_pretrained(source.parent / "never"))
    try:
        interrupt_when_busy(encoder)
        with pytest.raises(RuntimeError, match="busy: this is called in the midst of a call on the same model"):
            core.step(sampler, 0)
    finally:
        signal.signal(signal.SIGALRM, former)
    assert weights(encoder) == before
    assert not (source.parent / "never").exists()


def test_a_forked_child_is_refused(folder: Path) -> None:
    script = """
    import os, signal, sys
    from pathlib import Path
    import relpt
    from test_trainer import core_parts, encoder_of, trainer_of
    from tiny import tiny_dataset

    data = relpt.load(tiny_dataset())
    encoder = encoder_of(Path(sys.argv[1]), num_threads=2)
    sampler, core = core_parts(trainer_of(encoder, prefetch=False), data)
    encoder.encode(data)
    core.step(sampler, 0)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        codes = []
        other = relpt.Encoder.from_pretrained(sys.argv[1], num_threads=2)
        alone = relpt.Encoder.from_pretrained(sys.argv[1], num_threads=1)
        trainers = [trainer_of(made, prefetch=False, max_steps=1) for made in (other, alone)]
        refused = [lambda: core.step(sampler, 1), lambda: encoder.encode(data), lambda: other.encode(data)]
        refused += [lambda: trainers[0].fit(data)]
        for call in refused:
            try:
                call()
                codes.append(1)
            except RuntimeError as error:
                codes.append(0 if "forked child" in str(error) else 2)
        alone.encode(data)
        trainers[1].fit(data)
        os._exit(sum(codes))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    core.step(sampler, 1)
    """
    done = process(script, folder)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


def test_options_may_be_numpys_numbers(folder: Path, tmp_path: Path) -> None:
    options = {"max_steps": np.int64(2), "seed": np.int64(7), "learning_rate": np.float32(1e-3), "dropout": np.array(0)}
    encoder = encoder_of(folder)
    trainer = relpt.CPTrainer(encoder, pairs_per_step=4, temperature=np.float32(0.5), **options)
    trainer.fit(relpt.load(tiny_dataset()), checkpoint_dir=tmp_path / "run")
    encoder.save_pretrained(tmp_path / "saved")
    card = json.loads((tmp_path / "saved" / "relpt.json").read_text())
    assert (card["seed"], card["options"]["max_steps"], card["options"]["dropout"]) == (7, 2, 0)


def test_options_of_one_trainer_are_no_others(folder: Path) -> None:
    first, before = trainer_of(encoder_of(folder)), dict(relpt.CPTrainer(encoder_of(folder)).options["input_mix"])
    relpt.CPTrainer(encoder_of(folder)).options["input_mix"]["OnlyT"] = 5.0
    first.get_params()["adam_betas"] = None
    assert relpt.CPTrainer(encoder_of(folder)).options["input_mix"] == before
    assert first.options["adam_betas"] is not None


def test_what_cannot_be_kept_is_said_before_the_first_step(folder: Path, tmp_path: Path) -> None:
    data, records = relpt.load(tiny_dataset()), []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match=r"file cannot be written .* give another path with checkpoint_dir"):
        trainer_of(encoder_of(folder)).fit(data, checkpoint_dir=tmp_path / "file", callbacks=[records.append])
    with pytest.raises(ValueError, match="checkpoint_every is 0; expected a whole number from 1 on"):
        trainer_of(encoder_of(folder)).fit(data, checkpoint_every=0, callbacks=[records.append])
    assert not records


@pytest.mark.parametrize(
    ("relations", "options", "said"),
    [
        (1, {}, "one relation alone can be drawn"),
        (3, {"pairs_per_step": 1}, "no negatives in a step of one pair"),
        (3, {"pairs_per_step": 4, "pairs_per_relation": 4}, "one relation alone is drawn in a step"),
    ],
)
def test_contrast_without_negatives_is_refused(folder: Path, relations: int, options: Any, said: str) -> None:
    data = relpt.load(tiny_dataset(relations))
    with pytest.raises(ValueError, match=said):
        relpt.CPTrainer(encoder_of(folder), **{"pairs_per_step": 8, "max_steps": 1, **options}).fit(data)


def test_a_step_that_happens_to_have_no_negatives_moves_no_weight(folder: Path) -> None:
    """Of two relations and two pairs, every other step."""
    encoder = encoder_of(folder)
    options = {"pairs_per_step": 2, "mlm_weight": 0.0, "weight_decay": 0.0, "distinct_relations": False}
    trainer = relpt.CPTrainer(encoder, **options, max_steps=12, warmup_steps=0)
    history = trainer.fit(relpt.load(tiny_dataset(2)))
    without = [record for record in history if record["loss"] == 0]
    assert 0 < len(without) < 12
    assert {record["grad_norm"] for record in without} == {0.0}


def test_a_history_that_is_not_the_checkpoints_is_refused(folder: Path, tmp_path: Path) -> None:
    data = relpt.load(tiny_dataset())
    trainer_of(encoder_of(folder), max_steps=4).fit(
        data, checkpoint_dir=tmp_path, callbacks=[lambda record: record["step"] == 3]
    )
    file = tmp_path / "step-00000003" / "history.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    card = tmp_path / "step-00000003" / "relpt.json"
    whole = card.read_text()
    card.write_text(json.dumps({**json.loads(whole), "step": "3"}))
    with pytest.raises(relpt.FormatError, match=r"relpt\.json: step is '3'; expected a whole number"):
        trainer_of(encoder_of(folder), max_steps=4).fit(data, checkpoint_dir=tmp_path, resume=True)
    card.write_text(whole)
    for kept in ([], lines[:2], [*lines, lines[2]], [lines[1], lines[0], lines[2]]):
        file.write_text("".join(kept))
        with pytest.raises(relpt.FormatError, match=r"history\.jsonl: its \d lines are not the steps 1 to 3"):
            trainer_of(encoder_of(folder), max_steps=4).fit(data, checkpoint_dir=tmp_path, resume=True)


@pytest.mark.parametrize(
    "options", [{"learning_rate": math.inf}, {"learning_rate": 1e39}, {"weight_decay": 1e39}, {"adam_eps": 1e-60}]
)
def test_rates_that_would_make_weights_infinite_are_refused(folder: Path, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options)).replace('_', '.')} is"):
        trainer_of(encoder_of(folder), **options).fit(relpt.load(tiny_dataset()))


def test_truncated_sentences_are_counted(folder: Path) -> None:
    trainer = trainer_of(encoder_of(folder), max_length=16, max_steps=3, pairs_per_step=8)
    with pytest.warns(relpt.TruncationWarning, match="drawn sentences are longer than max_length=16") as caught:
        history = trainer.fit(relpt.load(tiny_dataset()))
    assert str(caught[0].message).startswith(f"{int(sum(history['truncated']))} of 48 drawn")


def test_what_callbacks_return_and_raise(folder: Path, tmp_path: Path) -> None:
    data = relpt.load(tiny_dataset())
    history = trainer_of(encoder_of(folder), max_steps=4).fit(data, callbacks=[lambda record: np.bool_(True)])
    assert (history.status, len(history)) == ("stopped", 1)
    history = trainer_of(encoder_of(folder), max_steps=4).fit(data, callbacks=[lambda record: 1])
    assert (history.status, len(history)) == ("finished", 4)

    def fail(record: dict[str, Any]) -> None:
        if record["step"] == 3:
            raise OSError("no answer from the tracker")

    with pytest.raises(OSError, match="tracker"):
        trainer_of(encoder_of(folder), max_steps=4).fit(data, callbacks=[fail], checkpoint_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_checkpoints_of_another_run_are_neither_taken_nor_lost(folder: Path, tmp_path: Path) -> None:
    data, where = relpt.load(tiny_dataset()), tmp_path / "run"
    trainer_of(encoder_of(folder), max_steps=4).fit(data, checkpoint_dir=where, checkpoint_every=1)
    with pytest.raises(FileExistsError, match=r"step-00000004 is there, of an earlier run: resume=True"):
        trainer_of(encoder_of(folder), max_steps=2).fit(data, checkpoint_dir=where)
    again = {"checkpoint_dir": where, "resume": where / "step-00000003", "callbacks": [lambda record: True]}
    (where / "step-00000004").rename(where / "step-00000009")
    trainer_of(encoder_of(folder), max_steps=4).fit(data, **again)
    assert sorted(path.name for path in where.iterdir()) == [f"step-0000000{step}" for step in (3, 4, 9)]


def test_a_child_of_a_process_that_has_not_computed_may_have_threads(folder: Path) -> None:
    script = """
    import os, signal, sys
    import relpt
    from tiny import tiny_dataset

    data, encoder = relpt.load(tiny_dataset()), relpt.Encoder.from_pretrained(sys.argv[1], num_threads=2)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        encoder.encode(data)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = process(script, folder)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


# -- data -------------------------------------------------------------------------------------------------------------


def test_relations_of_one_sentence_are_left_out_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = tiny_dataset(3, 6)
    lonely = [{**record, "relation": f"lonely {i}"} for i, record in enumerate(tiny_dataset(1, 2, seed=9))]
    twice = [{**tiny_dataset(1, 1, seed=5)[0], "relation": "twice the same"}] * 2
    trainer_of(encoder_of(folder), max_steps=1).fit(relpt.load([*records, *lonely, *twice]))
    (message,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert "4 sentences are left out" in message
    assert "3 of 6 relations can be drawn" in message


def test_no_pair_left(folder: Path) -> None:
    encoder = encoder_of(folder)
    records = [{**record, "relation": f"r{i}"} for i, record in enumerate(tiny_dataset(1, 5))]
    with pytest.raises(ValueError, match="no pair left"):
        trainer_of(encoder).fit(relpt.load(records))
    assert weights(encoder) == weights(encoder_of(folder))


def test_data_without_relations(folder: Path) -> None:
    records = [{key: value for key, value in record.items() if key != "relation"} for record in tiny_dataset()]
    with pytest.raises(ValueError, match="no relations"):
        trainer_of(encoder_of(folder)).fit(relpt.load(records))


def test_types_that_an_input_needs(folder: Path) -> None:
    records = tiny_dataset()
    for record in records:
        del record["h"]["type"]
    with pytest.raises(ValueError, match="type"):
        trainer_of(encoder_of(folder), input_mix={"C+M": 1, "OnlyT": 1}).fit(relpt.load(records))


def test_a_corpus_of_another_tokenizer(folder: Path, data: relpt.Dataset, tmp_path: Path) -> None:
    other = encoder_of(tiny_encoder_folder(tmp_path, vocab_words=("other", "words")))
    corpus = data.tokenize(other, max_length=96)
    with pytest.raises(ValueError, match="another tokenizer"):
        trainer_of(encoder_of(folder)).fit(corpus)


# -- options ----------------------------------------------------------------------------------------------------------


def test_unknown_options(folder: Path) -> None:
    with pytest.raises(TypeError, match=r"no option 'temprature'; did you mean temperature\?"):
        relpt.CPTrainer(encoder_of(folder), temprature=0.1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"no option 'xyzzy'; there are similarity, temperature"):
        relpt.CPTrainer(encoder_of(folder), xyzzy=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="preset is 'papers'; expected None or one of paper, released-code"):
        relpt.CPTrainer(encoder_of(folder), preset="papers")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("similarity", "euclidean"),
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("positives", "all"),
        ("relation_sampling", "tempered"),
        ("relation_sampling", -1.0),
        ("p_blank", 1.5),
        ("input_mix", {"C+X": 1.0}),
        ("input_mix", {"C+M": 0.0}),
        ("input_mix", {"C+M": 2.0, "OnlyC": -1.0}),
        ("loss_representation", "entity_start+cls+cls"),
        ("loss_representation", "tail"),
        ("loss_representation", 3),
        ("mlm_probability", -0.1),
        ("mlm_weight", -1.0),
        ("mlm_weight", math.nan),
        ("cp_weight", -1.0),
        ("pairs_per_step", 0),
        ("pairs_per_step", 2.5),
        ("micro_batch_pairs", 0),
        ("micro_batch_pairs", -3),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("weight_decay", -0.1),
        ("adam_betas", (1.0, 0.9)),
        ("adam_betas", (0.9,)),
        ("warmup_steps", 2.7),
        ("adam_betas", (0.9, -0.1)),
        ("adam_eps", 0.0),
        ("warmup_steps", -1),
        ("schedule", "step"),
        ("max_grad_norm", -1.0),
        ("max_length", 8),
        ("max_length", 129),
        ("max_steps", 0),
        ("max_steps", True),
        ("seed", -1),
    ],
)
def test_options_out_of_range(folder: Path, data: relpt.Dataset, name: str, value: Any) -> None:
    encoder = encoder_of(folder)
    words = {"adam_betas": "betas", "adam_eps": "eps", "input_mix": "inputs is 'C[+]X'|input_mix"}
    words |= {"relation_sampling": "relation_(sampling|exponent)"}  # the core's name for its number
    with pytest.raises(ValueError, match=words.get(name, name)):
        trainer_of(encoder, **{name: value}).fit(data)
    assert weights(encoder) == weights(encoder_of(folder))


def test_both_losses_off(folder: Path, data: relpt.Dataset) -> None:
    with pytest.raises(ValueError, match=r"cp_weight is 0 and mlm_weight 0"):
        trainer_of(encoder_of(folder), cp_weight=0.0, mlm_weight=0.0).fit(data)


def test_memory_limit_sets_the_micro_batch(folder: Path, data: relpt.Dataset) -> None:
    encoder = encoder_of(folder)
    sizes = []
    whole = _core.trainer_bytes(**trainer_of(encoder)._core_options(8))
    for limit in (whole, whole - 1, 1):
        trainer = trainer_of(encoder, micro_batch_pairs=None, memory_limit=limit)
        micro = trainer._micro_batch_pairs()
        assert micro == 1 or _core.trainer_bytes(**trainer._core_options(micro)) <= limit
        sizes.append(micro)
    assert sizes[0] == 8 > sizes[1] > sizes[2] == 1


def test_bfloat16_keeps_activations_in_16_bits(folder: Path) -> None:
    """q, k and v, 3H numbers a token and layer, and F before GELU."""
    needed = {}
    for dtype in ("float32", "bfloat16"):
        encoder = encoder_of(folder, dtype=dtype)
        needed[dtype] = _core.trainer_bytes(**trainer_of(encoder, mlm_weight=0.0)._core_options(8))
    c, tokens = encoder.config, 2 * 8 * trainer_of(encoder).options["max_length"]
    hidden, wide = c["hidden_size"], c["intermediate_size"]
    saved = 2 * tokens * (3 * hidden + wide) * c["num_hidden_layers"] - 4 * tokens * max(3 * hidden - wide, 0)
    assert saved > 0
    assert needed["float32"] - needed["bfloat16"] == pytest.approx(saved, rel=0.01)


def test_presets(folder: Path) -> None:
    encoder = encoder_of(folder)
    published = {
        "mask_same_relation": False,
        "p_blank": 0.7,
        "mlm_probability": 0.15,
        "mlm_weight": 1.0,
        "pairs_per_step": 2048,
        "learning_rate": 3e-5,
        "max_length": 64,
        "max_steps": 3500,
    }
    forms = {
        "paper": {"similarity": "dot", "temperature": 1.0, "symmetric": False},
        "released-code": {"similarity": "cosine", "temperature": 0.05, "symmetric": True},
    }
    assert set(PRESETS) == set(forms)
    for name, form in forms.items():
        trainer = relpt.CPTrainer(encoder, preset=name)
        assert {key: trainer.options[key] for key in {**published, **form}} == {**published, **form}
        assert trainer.get_params()["preset"] == name
        assert f"preset={name!r}" in repr(trainer)
    mixed = relpt.CPTrainer(encoder, preset="paper", temperature=0.5, max_steps=10)
    assert (mixed.options["temperature"], mixed.options["max_steps"]) == (0.5, 10)
    assert (mixed.options["similarity"], mixed.options["pairs_per_step"]) == ("dot", 2048)


def test_ctrl_c_while_the_last_checkpoint_is_written_waits_for_it(
    folder: Path, data: relpt.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relpt import loop as module

    def interrupted_save(*args: Any, **kwargs: Any) -> Path:
        signal.raise_signal(signal.SIGINT)
        return save(*args, **kwargs)

    save = module.save_checkpoint
    monkeypatch.setattr(module, "save_checkpoint", interrupted_save)
    before = signal.getsignal(signal.SIGINT)
    history = trainer_of(encoder_of(folder), max_steps=2).fit(data, checkpoint_dir=tmp_path)
    assert history.status == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before
    assert (tmp_path / "step-00000002" / "optimizer.safetensors").is_file()
