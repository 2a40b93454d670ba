"""Contrastive pre-training (CP) of a relation encoder, with masked words beside it."""

from __future__ import annotations

import difflib
import logging
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from relpt import _core
from relpt.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from relpt.history import History
from relpt.inputs import DTYPES, INPUTS, SIMILARITIES, choice, input_name, representation_parts
from relpt.progress import progress

__all__ = ["DEFAULTS", "LOSS_REPRESENTATION", "PRESETS", "REPRESENTATION", "CPTrainer"]

_log = logging.getLogger("relpt")
_SCHEDULES: Final = ("constant", "linear", "cosine")
_OLDER: Final = {"markers": "plain", "marker_order": "role"}  # of an encoder whose card does not say


class CPOptions(TypedDict, total=False):
    """Options of CPTrainer."""

    similarity: str
    temperature: float
    symmetric: bool
    mask_same_relation: bool
    positives: str
    relation_sampling: str | float
    distinct_relations: bool
    pairs_per_relation: int
    p_blank: float
    blank_as: str
    input_mix: Mapping[str, float] | None
    loss_representation: str | None
    cp_weight: float
    mlm_probability: float
    mlm_weight: float
    pairs_per_step: int
    micro_batch_pairs: int | None
    memory_limit: int | None
    dropout: float | None
    learning_rate: float
    weight_decay: float
    adam_betas: tuple[float, float]
    adam_eps: float
    warmup_steps: int | None
    schedule: str
    max_grad_norm: float
    max_length: int
    max_steps: int
    prefetch: bool
    seed: int


# The relation vector that goes with DEFAULTS where neither user nor checkpoint names one, and what the loss compares of
# it: [CLS] is left to itself.
REPRESENTATION: Final = "cls+entity_start+mean"
LOSS_REPRESENTATION: Final = "entity_start+mean"

DEFAULTS: Final[dict[str, Any]] = {
    "similarity": "cosine",
    "temperature": 0.07,
    "symmetric": True,
    "mask_same_relation": True,
    "positives": "pair",
    "relation_sampling": "share",
    "distinct_relations": False,
    "pairs_per_relation": 1,
    "p_blank": 0.45,
    "blank_as": "role",
    "input_mix": {"C+M": 0.92, "OnlyC": 0.04, "OnlyM": 0.04},
    "loss_representation": None,
    "cp_weight": 1.0,
    "mlm_probability": 0.15,
    "mlm_weight": 0.0,
    "pairs_per_step": 2048,
    "micro_batch_pairs": None,
    "memory_limit": None,
    "dropout": 0.0,
    "learning_rate": 5e-5,
    "weight_decay": 0.01,
    "adam_betas": (0.9, 0.999),
    "adam_eps": 1e-8,
    "warmup_steps": None,
    "schedule": "linear",
    "max_grad_norm": 1.0,
    "max_length": 64,
    "max_steps": 3500,
    "prefetch": True,
    "seed": 42,
}

# What stands in the sources; see CPTrainer.
_PUBLISHED: Final[dict[str, Any]] = {
    "mask_same_relation": False,
    "positives": "pair",
    "relation_sampling": "share",
    "distinct_relations": False,
    "pairs_per_relation": 1,
    "p_blank": 0.7,
    "blank_as": "blank",
    "input_mix": None,
    "cp_weight": 1.0,
    "mlm_probability": 0.15,
    "mlm_weight": 1.0,
    "pairs_per_step": 2048,
    "dropout": None,
    "learning_rate": 3e-5,
    "max_length": 64,
    "max_steps": 3500,
}
PRESETS: Final[dict[str, dict[str, Any]]] = {
    "paper": {**_PUBLISHED, "similarity": "dot", "temperature": 1.0, "symmetric": False},
    "released-code": {**_PUBLISHED, "similarity": "cosine", "temperature": 0.05, "symmetric": True},
}


class CPTrainer:
    """Pre-trains an encoder by contrast: sentences that state the same relation are drawn together, others apart.

    A step draws ``pairs_per_step`` pairs of sentences with the same relation (Peng et al. 2020, section 3.1), replaces
    each mention by [BLANK] with probability ``p_blank``, masks words, and minimises
    ``cp_weight * L_CP + mlm_weight * L_MLM`` (equation 3) by AdamW. L_CP is exact over all pairs of the step: where
    their activations do not fit ``memory_limit``, representations are computed first, then the loss, then each
    micro-batch again with the same dropout (gradient caching, Gao et al. 2021).

    Args:
        encoder: the ``Encoder``, changed in place.
        preset: None, "paper" (dot product, no temperature, anchors on one side, every other pair a negative: equation 2
            and table 7) or "released-code" (cosine, temperature 0.05, every other sentence a negative: what the
            published code computes). An option given besides a preset wins.
        similarity: "cosine" or "dot".
        temperature: the similarity is divided by it.
        symmetric: both sentences of a pair are anchors and all other sentences candidates (NT-Xent); False: the first
            sentences are anchors, the second ones candidates.
        mask_same_relation: other sentences of the anchor's relation are left out of its negatives.
        positives: "pair" (the partner) or "relation" (all sentences of the relation, SupCon; Khosla et al. 2020).
        relation_sampling: relations are drawn in proportion to their "share" of the corpus, "uniform", or in proportion
            to count ** x for a number x.
        distinct_relations: no relation twice in a step while others are left.
        pairs_per_relation: consecutive pairs that share one draw of a relation.
        p_blank: probability that a mention is blanked, per mention, sentence and step.
        blank_as: a blanked mention is the token "blank" ([BLANK], as published), or its "role": the subject or object
            token that the setting OnlyC has in its place.
        input_mix: how often a sentence is given in each input setting, such as {"C+M": 0.9, "OnlyM": 0.1}; None: C+M.
        loss_representation: what of the hidden states the contrastive loss compares, in the words of the encoder's
            ``representation``; None: that. A part of the relation vector that no loss shapes, such as "cls", keeps more
            of what the encoder knew before.
        cp_weight, mlm_weight: weights of the two losses; 0 leaves one out.
        mlm_probability: share of words that are masked, 80/10/10 (Devlin et al. 2019).
        pairs_per_step: pairs whose sentences are each other's candidates.
        micro_batch_pairs: pairs whose activations are held at a time; None: as many as fit memory_limit.
        memory_limit: bytes for gradients, moments and activations; None: half of the memory that is free.
        dropout: probability inside the network; None: what the encoder's config.json says (BERT: 0.1).
        learning_rate, weight_decay, adam_betas, adam_eps: of AdamW; biases and LayerNorm do not decay.
        warmup_steps: steps over which the rate rises; None: a tenth of max_steps.
        schedule: "linear" (down to 0), "cosine" or "constant".
        max_grad_norm: gradients are scaled down to this norm; 0: never.
        max_length: word pieces a sentence, 16 to the model's positions; a window keeps both entities and the
            prompt.
        max_steps: steps of the run.
        prefetch: prepare the next step's batch while one is computed; the same batches either way.
        seed: of every draw: a batch is a function of (seed, step).

    Raises:
        ValueError: an option is out of range; TypeError: there is no such option.
    """

    def __init__(self, encoder: Any, *, preset: str | None = None, **options: Unpack[CPOptions]) -> None:
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"preset is {preset!r}; expected None or one of {', '.join(PRESETS)}")
        _check_names(options)
        self.encoder, self.preset = encoder, preset
        self.options: dict[str, Any] = {**DEFAULTS, **(PRESETS[preset] if preset else {}), **options}
        self._check_values()

    def _check_values(self) -> None:
        o = self.options
        choice(o["similarity"], SIMILARITIES[:2], "similarity")
        choice(o["schedule"], _SCHEDULES, "schedule")
        choice(o["positives"], ("pair", "relation"), "positives")
        choice(o["blank_as"], ("blank", "role"), "blank_as")
        self._exponent()
        self._input_weights()
        self._loss_parts()
        for name in ("pairs_per_step", "pairs_per_relation", "max_steps", "max_length"):
            if isinstance(o[name], bool) or not isinstance(o[name], int) or o[name] < 1:
                raise ValueError(f"{name} is {o[name]!r}; expected a whole number from 1 on")

    def _exponent(self) -> float:
        value = self.options["relation_sampling"]
        if isinstance(value, str):
            return (1.0, 0.0)[choice(value, ("share", "uniform"), "relation_sampling")]
        return float(value)

    def _loss_parts(self) -> tuple[int, ...] | None:
        named = self.options["loss_representation"]
        return None if named is None else representation_parts(named, "loss_representation")

    def _input_weights(self) -> list[float]:
        mix = self.options["input_mix"] or {"C+M": 1.0}
        weights = dict.fromkeys(INPUTS, 0.0)
        for name, weight in mix.items():
            weights[input_name(name)] += float(weight)
        total = sum(weights.values())
        if not total > 0 or min(weights.values()) < 0:
            raise ValueError(f"input_mix is {mix!r}; expected weights of 0 or more, one above 0")
        return [weight / total for weight in weights.values()]

    def get_params(self) -> dict[str, Any]:
        """All options by name, the preset's among them."""
        return {"preset": self.preset, **self.options}

    def __repr__(self) -> str:
        changed = {key: value for key, value in self.options.items() if value != DEFAULTS[key]}
        given = {"preset": self.preset, **changed} if self.preset else changed
        return f"CPTrainer({', '.join([repr(self.encoder), *(f'{k}={v!r}' for k, v in given.items())])})"

    # -- making the core's objects -----------------------------------------------------------------------------------

    def _warmup(self) -> int:
        steps = self.options["warmup_steps"]
        return int(self.options["max_steps"]) // 10 if steps is None else int(steps)

    def _core_objectives(self) -> list[dict[str, Any]]:
        o = self.options
        part = {"first": 0, "samples": 2 * o["pairs_per_step"]}
        return [
            {
                "kind": "contrastive",
                "name": "cp",
                "weight": o["cp_weight"],
                "similarity": choice(o["similarity"], SIMILARITIES, "similarity"),
                "temperature": o["temperature"],
                "symmetric": o["symmetric"],
                "mask_same_relation": o["mask_same_relation"],
                "supervised": o["positives"] == "relation",
                **part,
            },
            {"kind": "mlm", "name": "mlm", "weight": o["mlm_weight"], **part},
        ]

    def _core_options(self, micro_batch_pairs: int) -> dict[str, Any]:
        o, encoder = self.options, self.encoder
        return {
            "model": encoder._model,
            "representation": self._loss_parts() or encoder._parts,
            "objectives": self._core_objectives(),
            "beta1": o["adam_betas"][0],
            "beta2": o["adam_betas"][1],
            "eps": o["adam_eps"],
            "weight_decay": o["weight_decay"],
            "max_grad_norm": o["max_grad_norm"],
            "schedule": choice(o["schedule"], _SCHEDULES, "schedule"),
            "learning_rate": o["learning_rate"],
            "warmup_steps": self._warmup(),
            "max_steps": o["max_steps"],
            "seed": o["seed"],
            "samples": 2 * o["pairs_per_step"],
            "max_length": o["max_length"],
            "micro_samples": 2 * micro_batch_pairs,
            "num_threads": encoder.num_threads,
            "hidden_dropout": encoder.config["hidden_dropout_prob"] if o["dropout"] is None else o["dropout"],
            "attention_dropout": (
                encoder.config["attention_probs_dropout_prob"] if o["dropout"] is None else o["dropout"]
            ),
            "dtype": choice(encoder.dtype, DTYPES, "dtype"),
        }

    def _micro_batch_pairs(self) -> int:
        """The option, or the largest even part of the step that fits the memory limit."""
        pairs = int(self.options["pairs_per_step"])
        if self.options["micro_batch_pairs"] is not None:
            if self.options["micro_batch_pairs"] < 1:
                raise ValueError(f"micro_batch_pairs is {self.options['micro_batch_pairs']}; expected 1 or more")
            return min(int(self.options["micro_batch_pairs"]), pairs)
        limit = self.options["memory_limit"] or _free_memory() // 2
        parts = 1
        while True:
            micro = -(-pairs // parts)
            if micro == 1 or _core.trainer_bytes(**self._core_options(micro)) <= limit:
                return micro
            parts += 1 if parts < 8 else parts // 4

    def _sampler(self, corpus: Any) -> Any:
        o = self.options
        settings = [name for name, weight in zip(INPUTS, self._input_weights(), strict=True) if weight > 0]
        return _core.Sampler(
            corpus.core(),
            self.encoder._input_tokens(corpus, settings),
            sources=[
                {
                    "kind": "relations",
                    "count": o["pairs_per_step"],
                    "relation_exponent": self._exponent(),
                    "distinct_relations": o["distinct_relations"],
                    "pairs_per_relation": o["pairs_per_relation"],
                }
            ],
            seed=o["seed"],
            max_length=o["max_length"],
            p_blank=o["p_blank"],
            mlm_probability=o["mlm_probability"] if o["mlm_weight"] > 0 else 0.0,
            input_weight=self._input_weights(),
            prefetch=o["prefetch"],
            role_blanks=o["blank_as"] == "role",
        )

    # -- training ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        corpus: Any,
        *,
        callbacks: Iterable[Callable[[dict[str, Any]], Any]] = (),
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 500,
        resume: bool | str | os.PathLike[str] | None = None,
        show_progress_bar: bool | None = None,
    ) -> History:
        """Runs the steps.

        Ctrl-C ends the run between operations: the encoder keeps the state of the last whole step, a checkpoint is
        written when there is a checkpoint_dir, and the history comes back with status "interrupted".

        Args:
            corpus: a labelled ``Corpus`` or ``Dataset``, or what ``relpt.load`` takes.
            callbacks: called with each step's record; one that returns True stops the run.
            checkpoint_dir: where checkpoints go, as step-NNNNNNNN, the last two kept.
            checkpoint_every: steps between checkpoints; there is always one at the end.
            resume: True goes on from the last checkpoint in checkpoint_dir (from the start when there is none), a path
                from that checkpoint. The result equals that of an uninterrupted run byte for byte.
            show_progress_bar: None shows it in a notebook or on a terminal.

        Returns:
            The History, the steps before a resume among them.

        Raises:
            ValueError: no pair of sentences with a common relation; a resumed run has other options or data.
            FloatingPointError: loss or gradients are not finite; the step is refused and the parameters unchanged.
        """
        corpus, _ = self.encoder._as_corpus(corpus, self.options["max_length"], show_progress_bar)
        if not corpus.labelled:
            raise ValueError(f"{corpus.name!r} names no relations; contrastive pre-training needs them")
        folder = None if checkpoint_dir is None else Path(checkpoint_dir)
        sampler = self._sampler(corpus)
        self._tell_left_out(sampler, corpus)
        start = self._resume_from(folder, resume)
        card = self.run_card(corpus)
        if start is not None:
            card["options"]["micro_batch_pairs"] = _compare_cards(card, start)
        trainer = _core.Trainer(**self._core_options(card["options"]["micro_batch_pairs"]))
        history = load_checkpoint(start, self.encoder, trainer)[0] if start is not None else History()
        self.encoder.card = card
        if self.encoder.projection is not None:
            self.encoder.projection = None
            _log.info("%s: its projection is of the weights before this run and is dropped", self.encoder.name)
        loop = _Loop(self, sampler, trainer, history, folder, checkpoint_every, card)
        return loop.run(list(callbacks), show_progress_bar)

    @staticmethod
    def _tell_left_out(sampler: Any, corpus: Any) -> None:
        ((relations, left_out),) = sampler.counts()
        if left_out:
            _log.warning(
                "%s: %d sentences are left out: each is the only one of its relation (%d of %d relations can be drawn)",
                corpus.name,
                left_out,
                relations,
                len(corpus.relations),
            )

    @staticmethod
    def _resume_from(folder: Path | None, resume: bool | str | os.PathLike[str] | None) -> Path | None:
        if resume is None or resume is False:
            return None
        if resume is not True:
            return Path(resume)
        if folder is None:
            raise ValueError("resume=True needs a checkpoint_dir; or give resume the path of a checkpoint")
        return latest_checkpoint(folder)

    def run_card(self, corpus: Any) -> dict[str, Any]:
        """What relpt.json says of the run: options, data, encoder, versions."""
        import numpy

        options = {**self.get_params(), "micro_batch_pairs": self._micro_batch_pairs(), "warmup_steps": self._warmup()}
        options["adam_betas"] = list(options["adam_betas"])
        if options["input_mix"] is not None:
            options["input_mix"] = dict(options["input_mix"])
        options.pop("memory_limit")
        from relpt import __version__

        return {
            "objective": "CP",
            "options": options,
            "seed": self.options["seed"],
            "encoder": {"name": self.encoder.name, **self.encoder.get_params()},
            "data": {
                "name": corpus.name,
                "hash": corpus.data_hash,
                "sentences": len(corpus),
                "relations": len(corpus.relations),
            },
            "versions": {"relpt": __version__, "python": platform.python_version(), "numpy": numpy.__version__},
            "cpu": _core.cpu_info()["level"],
        }


class _Loop:
    """The steps of one fit."""

    def __init__(
        self,
        owner: CPTrainer,
        sampler: Any,
        trainer: Any,
        history: History,
        folder: Path | None,
        every: int,
        card: dict[str, Any],
    ) -> None:
        self.owner, self.sampler, self.trainer, self.history = owner, sampler, trainer, history
        self.folder, self.every, self.card = folder, every, card
        self.saved = len(history)
        self.begin = 0.0  # of the step under way

    def run(self, callbacks: list[Callable[[dict[str, Any]], Any]], show: bool | None) -> History:
        """All steps that are left; always ends with a checkpoint of the last whole step."""
        steps = int(self.owner.options["max_steps"])
        self.history.status = "finished"
        with progress(steps, show, desc="pre-train", unit="step", initial=len(self.history)) as bar:
            try:
                while len(self.history) < steps:
                    record = self.step()
                    shown = {"loss": f"{record['loss']:.3f}", "sent_s": f"{record['sentences_per_second']:.0f}"}
                    bar.set_postfix(shown, refresh=False)
                    bar.update(1)
                    if any([callback(record) is True for callback in callbacks]):
                        self.history.status = "stopped"
                        break
                    if len(self.history) % self.every == 0:
                        self.save()
            except KeyboardInterrupt:
                self.complete()
                self.history.status = "interrupted"
                _log.warning("interrupted after step %d; the encoder keeps that step's state", len(self.history))
        try:
            self.save()
        except KeyboardInterrupt:  # held until the checkpoint was whole
            self.history.status = "interrupted"
        return self.history

    def step(self) -> dict[str, Any]:
        """One step and its record."""
        self.begin = time.perf_counter()
        # One call of C code makes the step and keeps its figures, so that no Ctrl-C falls between the two.
        self.history.records.extend(map(self.trainer.step, (self.sampler,), (len(self.history),)))
        self.complete()
        return self.history.records[-1]

    def complete(self) -> None:
        """Gives the last record its number and speed, where it has none yet."""
        records = self.history.records
        if records and "step" not in records[-1]:
            speed = records[-1]["sentences"] / (time.perf_counter() - self.begin)
            records[-1] = {"step": len(records), **records[-1], "sentences_per_second": speed}

    def save(self) -> None:
        """A checkpoint of the state after the last step, unless it has one."""
        if self.folder is None or self.saved == len(self.history):
            return
        with _interrupts_held():
            save_checkpoint(self.folder, self.owner.encoder, self.trainer, self.history, self.card)
            self.saved = len(self.history)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Lets a Ctrl-C that comes inside the block take effect at its end. Python hears them in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if caught:
        raise KeyboardInterrupt


def _check_names(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in DEFAULTS:
            near = difflib.get_close_matches(name, DEFAULTS, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(DEFAULTS)}"
            raise TypeError(f"CPTrainer has no option {name!r}{hint}")


def _free_memory() -> int:
    """Bytes of memory that can still be had: the system's, and what the cgroup leaves."""
    free = 4 << 30
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
        free = int(fields["MemAvailable"].split()[0]) * 1024
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        if limit != "max":
            free = min(free, int(limit) - used)
    except (OSError, KeyError, ValueError):
        pass  # no such files on this system: what was found so far
    return free


def _compare_cards(card: dict[str, Any], checkpoint: Path) -> int:
    """Refuses to resume with other options or data; returns the checkpoint's micro_batch_pairs."""
    from relpt.files import read_json

    if not (checkpoint / "relpt.json").is_file():
        raise FileNotFoundError(f"{checkpoint} is no checkpoint: there is no relpt.json")
    old = read_json(checkpoint / "relpt.json")
    compared = {name: (value, old["options"].get(name)) for name, value in card["options"].items()}
    encoder = ("representation", "dtype", "prompt", "markers", "marker_order", "types")
    compared |= {name: (card["encoder"][name], old["encoder"].get(name, _OLDER.get(name))) for name in encoder}
    for name, (value, was) in compared.items():
        if was != value and name not in ("micro_batch_pairs", "prefetch"):
            raise ValueError(
                f"resume: {name} is {value!r}, but the checkpoint {checkpoint} was made with {was!r}; "
                "resume with the same options, or start a new run"
            )
    if old["data"]["hash"] != card["data"]["hash"]:
        raise ValueError(f"resume: the data are others than those of the checkpoint {checkpoint}; start a new run")
    return int(old["options"]["micro_batch_pairs"])
