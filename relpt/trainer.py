"""Training of a relation encoder: any objectives together, and the ready-made forms CP and MTB."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, TypedDict, Unpack

import numpy as np

from relpt import _core
from relpt.checkpoint import latest_checkpoint, load_checkpoint
from relpt.cnn import CNNEncoder
from relpt.devices import dtype_of, usable_memory
from relpt.encoding import warn_truncated
from relpt.files import check_can_write
from relpt.history import History
from relpt.inputs import DTYPES, INPUTS, check_count, choice, input_name, plain, representation_parts
from relpt.loop import Loop, compare_cards
from relpt.objectives import CP, EP, MIL, MLM, MTB, RC, Domain, Objective, Prototypes, Spans

__all__ = ["DEFAULTS", "LOSS_REPRESENTATION", "PRESETS", "REPRESENTATION", "CPTrainer", "MTBTrainer", "Trainer"]

_log = logging.getLogger("relpt")
_SCHEDULES: Final = ("constant", "linear", "cosine")
_DECAY: Final = {"adamw": 0.01, "sgd": 0.0}  # by optimizer: at SGD's rates, AdamW's would shrink weights to nothing
_OPTIMIZER: Final = "adamw"  # of trainers that leave no choice, too


class TrainerOptions(TypedDict, total=False):
    """Options of Trainer beside its objectives."""

    p_blank: float
    blank_as: str
    input_mix: Mapping[str, float] | None
    loss_representation: str | None
    pairs_per_step: int
    sentences_per_step: int | None
    micro_batch_pairs: int | None
    memory_limit: int | None
    dropout: float | None
    optimizer: str
    momentum: float
    learning_rate: float
    weight_decay: float | None
    adam_betas: tuple[float, float]
    adam_eps: float
    warmup_steps: int | None
    schedule: str
    max_grad_norm: float
    max_length: int
    max_steps: int
    prefetch: bool
    seed: int


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


class MTBOptions(TrainerOptions, total=False):
    """Options of MTBTrainer."""

    similarity: str
    temperature: float
    threshold: float
    positive_share: float
    hard_share: float
    mtb_weight: float
    mlm_probability: float
    mlm_weight: float


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

# Options of every trainer; of Trainer, beside its objectives.
_COMMON: Final[dict[str, Any]] = {name: DEFAULTS.get(name) for name in TrainerOptions.__annotations__} | {
    "optimizer": _OPTIMIZER,
    "momentum": 0.0,
    "weight_decay": None,
}
MTB_DEFAULTS: Final[dict[str, Any]] = {
    "similarity": "dot",
    "temperature": 1.0,
    "threshold": 0.0,
    "positive_share": 0.5,
    "hard_share": 0.5,
    "mtb_weight": 1.0,
    "mlm_probability": 0.15,
    "mlm_weight": 0.0,
    **_COMMON,
    "p_blank": 0.7,
}

# How a source draws where no objective says; what is said where several that share one say different things.
_NATIVES: Final[dict[str, Objective]] = {
    "relations": CP(),
    "entities": MTB(),
    "instances": RC(),
    "episodes": Prototypes(),
    "bags": MIL(),
}
_SHARED: Final[dict[type[Objective], str]] = {
    Prototypes: "objectives by prototypes share their episodes: give all the same ways, shots, queries",
    MIL: "objectives over bags share these: give all the same bag_size and bags",
}


class Trainer:
    """Trains an encoder by a weighted sum of objectives.

    A step draws samples from the sources of its objectives, one after another in one batch; one forward pass gives
    the relation vectors and hidden states that all of them read. Objectives over relation vectors see all samples of
    the step at once: where their activations do not fit ``memory_limit``, vectors are computed first, then the
    losses, then each micro-batch again with the same dropout (gradient caching, Gao et al. 2021).

    Args:
        encoder: the ``Encoder`` or ``CNNEncoder``, changed in place. A CNN has no hidden states: it masks no words, and
            has one representation.
        objectives: what is minimised: ``relpt.objectives.CP``, ``MLM``, ``SpanMLM``, ``SBO``, ``MTB``, ``EP``, ``RC``,
            ``MIL``, ``Prototypes``, ``Alignment``, ``Domain``, with weights.
        pairs_per_step: pairs of sentences that each source of pairs gives a step.
        sentences_per_step: sentences that the source "instances" gives a step; None: two for each pair.
        micro_batch_pairs: half of the sentences whose activations are held at a time; None: as many as fit. Where a
            step does not fit in one part, their number is in the log and the run card: for the same bytes on a machine
            with another free memory, give it.
        optimizer: "adamw", or "sgd" with momentum (as PyTorch has it) and max_grad_norm. Peng et al. 2020 train CNNs
            by SGD at rate 0.5.
        momentum: of SGD, 0 or more and below 1.
        weight_decay: of both, but for biases and LayerNorm; None: 0.01 of AdamW, 0 of SGD.
        p_blank, blank_as, input_mix, loss_representation, memory_limit, dropout, learning_rate, adam_betas, adam_eps,
            warmup_steps, schedule, max_grad_norm, max_length, max_steps, prefetch, seed: as in ``CPTrainer``.

    Attributes:
        heads: parameters of the objectives' own by name, such as "rc.weight" (relations, dim) and "rc.bias".

    Raises:
        ValueError: an option is out of range; TypeError: there is no such option.
    """

    _kind: ClassVar[str] = "Trainer"
    _task: ClassVar[str] = "pre-train"  # beside the progress bar
    _defaults: ClassVar[dict[str, Any]] = _COMMON

    def __init__(self, encoder: Any, *, objectives: Sequence[Objective], **options: Unpack[TrainerOptions]) -> None:
        self._set(encoder, None, {}, options)
        self._objectives = list(objectives)
        if not self._objectives or not all(isinstance(item, Objective) for item in self._objectives):
            raise TypeError(f"objectives is {objectives!r}; expected some of relpt.objectives.CP(), MLM(), …")
        self._check_objectives()

    def _set(
        self, encoder: Any, preset: str | None, preset_options: dict[str, Any], options: Mapping[str, Any]
    ) -> None:
        """The options, the user's over the preset's over the defaults."""
        for name in options:
            if name not in self._defaults:
                near = difflib.get_close_matches(name, self._defaults, 1)
                hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(self._defaults)}"
                raise TypeError(f"{self._kind} has no option {name!r}{hint}")
        self.encoder, self.preset = encoder, preset
        self.options: dict[str, Any] = plain({**self._defaults, **preset_options, **options})
        self._running: Any = None  # the core's trainer, while fit runs
        self._heads: dict[str, np.ndarray] = {}
        self._check_values()

    @property
    def objectives(self) -> list[Objective]:
        """What is minimised."""
        return self._objectives

    @property
    def heads(self) -> dict[str, np.ndarray]:
        """Copies of the objectives' own parameters, during ``fit`` (in a callback) and after it."""
        if self._running is None:
            return dict(self._heads)
        return {name: self._running.get(3, name) for name, _ in self._running.heads()}

    def logits(self, vectors: np.ndarray, *, name: str = "rc") -> np.ndarray:
        """What the head of an RC objective makes of relation vectors: ``W x + b``, as in training without dropout.

        Args:
            vectors: float32 (n, dim), from ``encoder.encode``; of the parts in ``loss_representation`` where it is set.
            name: of the objective.

        Returns:
            float32 (n, relations), in the order of the corpus's ``relations``.

        Raises:
            KeyError: there is no such head, or ``fit`` has not run.
        """
        heads = self.heads
        if f"{name}.bias" not in heads:
            raise KeyError(f"there is no head {name!r}; there are {', '.join(heads) or 'none: run fit first'}")
        weight, bias = heads[f"{name}.weight"], heads[f"{name}.bias"]
        return _core.logits(np.ascontiguousarray(vectors, np.float32), weight, bias, self.encoder.num_threads)

    def bag_scores(self, vectors: np.ndarray, bags: Iterable[Any], *, name: str = "mil") -> np.ndarray:
        """What an MIL objective makes of bags of sentences: ``MIL.scores`` with the run's head.

        Args:
            vectors, bags: as there.
            name: of the objective.

        Returns:
            float64 (bags, relations).

        Raises:
            KeyError: there is no such objective, or ``fit`` has not run. ValueError: see there.
        """
        named = {item.name: item for item in self.objectives if isinstance(item, MIL)}
        if name not in named:
            raise KeyError(f"there is no MIL objective {name!r}; there are {', '.join(named) or 'none'}")
        return named[name].scores(vectors, bags, self.heads, num_threads=self.encoder.num_threads)

    @property
    def _optimizer(self) -> str:
        return str(self.options.get("optimizer", _OPTIMIZER))

    def _check_values(self) -> None:
        o = self.options
        choice(o["schedule"], _SCHEDULES, "schedule")
        choice(self._optimizer, tuple(_DECAY), "optimizer")
        if o["weight_decay"] is None:
            o["weight_decay"] = _DECAY[self._optimizer]
        choice(o["blank_as"], ("blank", "role"), "blank_as")
        self._input_weights()
        self._loss_parts()
        for name in ("pairs_per_step", "sentences_per_step", "micro_batch_pairs", "max_steps", "max_length"):
            check_count(name, o.get(name), optional=name in ("sentences_per_step", "micro_batch_pairs"))
        check_count("warmup_steps", o["warmup_steps"], 0, optional=True)
        betas = o["adam_betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"adam_betas is {betas!r}; expected two numbers, such as (0.9, 0.999)")

    def _check_objectives(self) -> None:
        names = [item.name for item in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"objectives are called {', '.join(names)}; give each a name of its own")
        words = [item for item in self.objectives if isinstance(item, MLM)]
        if len(words) > 1:
            raise ValueError("there are two MLM objectives; words are masked once: take one")
        spans = [item for item in self.objectives if isinstance(item, Spans)]
        if words and spans:
            raise ValueError(
                f"words are masked once: {words[0].name} masks single words, {spans[0].name} spans; take SpanMLM in "
                "place of MLM"
            )
        if any(item.masking() != spans[0].masking() for item in spans):
            raise ValueError("objectives over spans share them: give all the same probabilities and lengths")
        for kind, said in _SHARED.items():
            if (
                len({(*item._source_options().items(), item._draws) for item in self.objectives if type(item) is kind})
                > 1
            ):
                raise ValueError(said)

    def _native(self, source: str) -> Objective:
        """The objective that says how a source draws: the first of them that can, else one of defaults."""
        asked = (item for item in self.objectives if item.source == source and item._source_options())
        return next(asked, _NATIVES[source])

    def _loss_parts(self) -> tuple[int, ...] | None:
        named = self.options["loss_representation"]
        if named is not None and isinstance(self.encoder, CNNEncoder):
            raise ValueError(f"loss_representation is {named!r}; a CNNEncoder has one representation: leave it out")
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
        """All options by name, the objectives among them."""
        return {"objectives": [*self.objectives], **plain(self.options)}

    def __repr__(self) -> str:
        changed = {key: value for key, value in self.options.items() if value != self._defaults[key]}
        given = {"objectives": self.objectives, **changed}
        return f"{self._kind}({', '.join([repr(self.encoder), *(f'{k}={v!r}' for k, v in given.items())])})"

    # -- making the core's objects -----------------------------------------------------------------------------------

    def _warmup(self) -> int:
        steps = self.options["warmup_steps"]
        return int(self.options["max_steps"]) // 10 if steps is None else int(steps)

    def _layout(self) -> dict[str, tuple[int, int]]:
        """The step's sources in order: the first sample and the number of samples of each."""
        kinds = dict.fromkeys(item.source for item in self.objectives if item.source is not None)
        own = [kind for kind in kinds if kind != "target"] or ["instances"]
        sizes = {kind: count * size for kind in own for count, size in [self._draws(kind)]}
        if "target" in kinds:
            sizes["target"] = sum(sizes.values())
        layout, first = {}, 0
        for kind in sorted(sizes, key=self._varies):
            layout[kind] = (first, sizes[kind])
            first += sizes[kind]
        return layout

    def _varies(self, source: str) -> bool:
        """Whether steps differ in the number of its sentences: such a source comes last, or others would move."""
        return source == "bags" or (
            source == "instances" and bool(self._native(source)._source_options()["whole_epochs"])
        )

    def _draws(self, source: str) -> tuple[int, int]:
        """What a step draws from a source: how many, of how many sentences each."""
        pairs = int(self.options["pairs_per_step"])
        return self._own_draws(source) or ((2 * pairs, 1) if source == "instances" else (pairs, 2))

    def _own_draws(self, source: str) -> tuple[int, int] | None:
        """The same, where it does not follow from pairs_per_step."""
        if source == "instances":
            sentences = self.options.get("sentences_per_step")
            return None if sentences is None else (int(sentences), 1)
        return None if source == "same_entities" else self._native(source)._draws

    def _reads_pairs(self) -> bool:
        """Whether a step depends on pairs_per_step."""
        return any(self._own_draws(source) is None for source in self._layout() if source != "target")

    def _samples(self) -> int:
        """Sentences of a step."""
        return sum(samples for _, samples in self._layout().values())

    def _core_objectives(self, relations: Sequence[str]) -> list[dict[str, Any]]:
        layout = self._layout()
        found = []
        for item in self.objectives:
            first, samples = (0, self._samples()) if item.source in (None, "target") else layout[str(item.source)]
            common = {"name": item.name, "weight": item.weight, "first": first, "samples": samples}
            found.append({**item._core(relations), **common})
        return found

    def _core_options(self, micro_batch_pairs: int, relations: Sequence[str] = ()) -> dict[str, Any]:
        o, encoder = self.options, self.encoder
        return {
            "parts": [(encoder._model, self._loss_parts() or encoder._parts)],
            "objectives": self._core_objectives(relations),
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
            "samples": self._samples(),
            "max_length": o["max_length"],
            "micro_samples": min(2 * micro_batch_pairs, self._samples()),
            "num_threads": encoder.num_threads,
            "hidden_dropout": encoder.config["hidden_dropout_prob"] if o["dropout"] is None else o["dropout"],
            "attention_dropout": (
                encoder.config.get("attention_probs_dropout_prob", 0.0) if o["dropout"] is None else o["dropout"]
            ),
            "dtype": DTYPES.index(dtype_of(getattr(encoder, "device", "cpu"), encoder.dtype)),
            "optimizer": choice(self._optimizer, tuple(_DECAY), "optimizer"),
            "momentum": o.get("momentum", 0.0),
        }

    def _micro_batch_pairs(self, relations: Sequence[str] = ()) -> int:
        """The option, or the largest even part of the step that fits the memory limit."""
        pairs = -(-self._samples() // 2)
        if self.options["micro_batch_pairs"] is not None:
            return min(int(self.options["micro_batch_pairs"]), pairs)
        limit = self.options["memory_limit"] or usable_memory(getattr(self.encoder, "device", "cpu"))
        parts = 1
        while True:
            micro = -(-pairs // parts)
            if micro == 1 or _core.trainer_bytes(**self._core_options(micro, relations)) <= limit:
                if parts > 1:
                    _log.info(
                        "a step of %d pairs is computed in %d parts: %.1f GiB may be used (micro_batch_pairs=%d gives "
                        "these bytes anywhere)",
                        pairs,
                        parts,
                        limit / 2**30,
                        micro,
                    )
                return micro
            parts += 1 if parts < 8 else parts // 4

    def _core_sources(self) -> list[dict[str, Any]]:
        sources = []
        for kind, (_, samples) in self._layout().items():
            if kind == "target":
                sources.append({"kind": kind, "count": samples})
                continue
            count, _ = self._draws(kind)
            if kind == "same_entities":
                sources.append({"kind": "entities", "count": count, "positive_share": 1.0, "hard_share": 0.0})
            else:
                sources.append({"kind": kind, "count": count, **self._native(kind)._source_options()})
        return sources

    def _mlm_probability(self) -> float:
        shares = [item.probability for item in self.objectives if isinstance(item, MLM) and item.weight > 0]
        return shares[0] if shares else 0.0

    def _spans(self) -> dict[str, Any] | None:
        """How spans are masked; None: they are not."""
        return next((item.masking() for item in self.objectives if isinstance(item, Spans) and item.weight > 0), None)

    def _sampler(self, corpus: Any, target: Any = None, *, encoder: Any = None) -> Any:
        """The step's samples as the encoder reads them; None: the one that is trained."""
        o, encoder = self.options, self.encoder if encoder is None else encoder
        injection, spans = getattr(encoder, "injection", None), self._spans()
        settings = [name for name, weight in zip(INPUTS, self._input_weights(), strict=True) if weight > 0]

        def read(text: Any) -> tuple[Any, dict[str, Any]]:
            tokens = encoder._input_tokens(text, settings)
            if spans is None:
                return encoder._core_corpus(text), tokens
            from relpt.corpus.tokenizing import continuations

            continues = continuations(encoder.tokenizer, len(tokens["special"]))
            return encoder._core_corpus(text), {**tokens, "continues": continues}

        more: dict[str, Any] = {} if target is None else {"target": read(target)}
        return _core.Sampler(
            *read(corpus),
            **more,
            sources=self._core_sources(),
            seed=o["seed"],
            max_length=o["max_length"],
            p_blank=o["p_blank"],
            mlm_probability=self._mlm_probability(),
            input_weight=self._input_weights(),
            prefetch=o["prefetch"],
            role_blanks=o["blank_as"] == "role",
            graph_dropout=0.0 if injection is None else injection.dropout,
            spans=spans,
        )

    # -- training ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        corpus: Any,
        *,
        target: Any = None,
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
            corpus: a ``Corpus`` or ``Dataset``, or what ``relpt.load`` takes; labelled, for CP and RC.
            target: likewise, the text of the domain to adapt to, for ``Domain``; its relations are not used.
            callbacks: called with each step's record; one that returns True stops the run.
            checkpoint_dir: where checkpoints go, as step-NNNNNNNN, the last two kept.
            checkpoint_every: steps between checkpoints; there is always one at the end.
            resume: True goes on from the last checkpoint in checkpoint_dir (from the start when there is none), a path
                from that checkpoint. The result equals that of an uninterrupted run byte for byte.
            show_progress_bar: None shows it in a notebook or on a terminal.

        Returns:
            The History, the steps before a resume among them.

        Raises:
            FileExistsError: checkpoint_dir holds checkpoints, and the run does not resume.
            ValueError: a source can draw nothing (no two sentences with a common relation, or pair of entities), or
                nothing that an objective could tell apart; a resumed run has other options or data; an objective can
                use no sentence; a target without ``Domain``, or ``Domain`` without one.
            FloatingPointError: loss or gradients are not finite; the step is refused and the parameters unchanged.
        """
        corpus, _ = self.encoder._as_corpus(corpus, self.options["max_length"], show_progress_bar)
        asking = [item.name for item in self.objectives if item.needs_relations]
        if asking and not corpus.labelled:
            raise ValueError(f"{corpus.name!r} names no relations; {' and '.join(asking)} cannot be trained without")
        for item in self.objectives:
            if item.weight > 0:
                item._check_corpus(corpus)
        check = getattr(self.encoder, "_check_trainable", None)
        if check is not None:
            check(corpus)
        target = self._target(target, show_progress_bar)
        check_count("checkpoint_every", checkpoint_every)
        folder = None if checkpoint_dir is None else Path(checkpoint_dir)
        if folder is not None:
            check_can_write(folder, "checkpoint_dir")  # rather than at the first checkpoint
        sampler = self._sampler(corpus, target)
        self._tell_left_out(sampler, corpus)
        self._check_negatives(sampler, corpus)
        start = self._resume_from(folder, resume)
        card = self.run_card(corpus)
        if target is not None:
            card["target"] = _describe(target)
        if start is not None:
            card["options"]["micro_batch_pairs"] = compare_cards(card, start)
        micro = card["options"]["micro_batch_pairs"]
        trainer = _core.Trainer(**self._core_options(micro, corpus.relations))
        history = load_checkpoint(start, self.encoder, trainer)[0] if start is not None else History()
        self.encoder.card = card
        if self.encoder.projection is not None:
            self.encoder.projection = None
            _log.info("%s: its projection is of the weights before this run and is dropped", self.encoder.name)
        loop = Loop(self, sampler, trainer, history, folder, checkpoint_every, card)
        before = len(history)
        self._running = trainer
        try:
            loop.run(list(callbacks), show_progress_bar)
        finally:
            self._heads, self._running = self.heads, None
        self._tell_truncated(history.records[before:])
        return history

    def _tell_truncated(self, records: Sequence[Mapping[str, Any]]) -> None:
        names = ("truncated", "truncated_mentions", "sentences")
        cut, mentions, drawn = (sum(record[name] for record in records) for name in names)
        warn_truncated(cut, mentions, self.options["max_length"], drawn=drawn)

    def _target(self, target: Any, show: bool | None) -> Any:
        """The tokenized target text; None where no objective asks for it."""
        asking = [item.name for item in self.objectives if isinstance(item, Domain)]
        if bool(asking) != (target is not None):
            got = (
                f"{asking[0]} adapts to unlabelled text: give it by target=" if asking else "no objective reads target"
            )
            raise ValueError(f"{got}; relpt.objectives.Domain and a target go together")
        if target is None:
            return None
        corpus, _ = self.encoder._as_corpus(target, self.options["max_length"], show)
        if not len(corpus):
            raise ValueError(f"the target {corpus.name!r} has no sentences; give text of the domain to adapt to")
        return corpus

    def _tell_left_out(self, sampler: Any, corpus: Any) -> None:
        for kind, (drawable, left_out) in zip(self._layout(), sampler.counts(), strict=True):
            if left_out and kind == "relations":
                _log.warning(
                    "%s: %d sentences are left out: each is the only one of its relation "
                    "(%d of %d relations can be drawn)",
                    corpus.name,
                    left_out,
                    drawable,
                    len(corpus.relations),
                )
            elif left_out and kind == "episodes":
                shape = self._native(kind)
                assert isinstance(shape, Prototypes)
                _log.warning(
                    "%s: %d of %d sentences are left out: their relations have fewer than %d different ones, k_shot + "
                    "n_query (%d of %d relations can be drawn)",
                    corpus.name,
                    left_out,
                    len(corpus),
                    shape.k_shot + shape.n_query,
                    drawable,
                    len(corpus.relations),
                )
            elif left_out and kind == "bags":
                _log.warning(
                    "%s: %d of %d sentences are left out: they have an entity with neither id nor name (%d bags)",
                    corpus.name,
                    left_out,
                    len(corpus),
                    drawable,
                )
            elif left_out:
                _log.warning(
                    "%s: %d of %d sentences are left out%s: no other sentence has their pair of entities (%d pairs "
                    "stand in two different ones)",
                    corpus.name,
                    left_out,
                    len(corpus),
                    ", or hard negatives of MTB at most" if kind == "entities" else "",
                    drawable,
                )

    def _check_negatives(self, sampler: Any, corpus: Any) -> None:
        """ValueError where nothing can be told apart: a loss of 0, whose rounding would move the weights."""
        for item in self.objectives:
            if not isinstance(item, (CP, EP)) or not item.weight > 0:
                continue
            pairs = self._draws(str(item.source))[0]
            if pairs < 2:
                raise ValueError(f"{item.name} has no negatives in a step of one pair; take pairs_per_step=2 or more")
            if not isinstance(item, CP) or not (item.mask_same_relation or item.positives == "relation"):
                continue
            drawable = dict(zip(self._layout(), sampler.counts(), strict=True))["relations"][0]
            if drawable < 2 or item.pairs_per_relation >= pairs:
                what = f"can be drawn of {corpus.name!r}" if drawable < 2 else "is drawn in a step (pairs_per_relation)"
                raise ValueError(
                    f"{item.name} has no negatives: one relation alone {what}, and its sentences are not contrasted; "
                    "give data of several relations, or mask_same_relation=False and positives='pair'"
                )

    @staticmethod
    def _resume_from(folder: Path | None, resume: bool | str | os.PathLike[str] | None) -> Path | None:
        if resume is None or resume is False:
            there = None if folder is None else latest_checkpoint(folder)
            if there is not None:
                raise FileExistsError(
                    f"{there} is there, of an earlier run: resume=True goes on from it; for a new run give another "
                    "checkpoint_dir, or remove that one"
                )
            return None
        if resume is not True:
            return Path(resume)
        if folder is None:
            raise ValueError("resume=True needs a checkpoint_dir; or give resume the path of a checkpoint")
        return latest_checkpoint(folder)

    def _card_options(self) -> dict[str, Any]:
        described = [{"type": type(item).__name__, **item._card()} for item in self.objectives]
        return {"objectives": described, **self.options}

    def run_card(self, corpus: Any) -> dict[str, Any]:
        """What relpt.json says of the run: objective, options, data, encoder, versions."""
        options = {
            **self._card_options(),
            "micro_batch_pairs": self._micro_batch_pairs(corpus.relations),
            "warmup_steps": self._warmup(),
        }
        options["adam_betas"] = list(options["adam_betas"])
        if options["input_mix"] is not None:
            options["input_mix"] = dict(options["input_mix"])
        options.pop("memory_limit")
        from relpt import __version__

        card = {
            "objective": "+".join(item.name.upper() for item in self.objectives if item.weight > 0),
            "options": options,
            "seed": self.options["seed"],
            "encoder": {"name": self.encoder.name, **self.encoder.get_params()},
            "data": {**_describe(corpus), "relations": len(corpus.relations)},
            "versions": {"relpt": __version__, "python": platform.python_version(), "numpy": np.__version__},
            "cpu": _core.cpu_info()["level"],
        }
        if any(isinstance(item, (RC, MIL)) for item in self.objectives):
            card["relations"] = list(corpus.relations)  # the rows of the heads, in their order
        return card


def _describe(corpus: Any) -> dict[str, Any]:
    return {"name": corpus.name, "hash": corpus.data_hash, "sentences": len(corpus)}


class _ReadyMade(Trainer):
    """A trainer whose objectives are made of its own options."""

    def get_params(self) -> dict[str, Any]:
        """All options by name, the preset's among them."""
        return {"preset": self.preset, **plain(self.options)}

    def __repr__(self) -> str:
        changed = {key: value for key, value in self.options.items() if value != self._defaults[key]}
        given = {"preset": self.preset, **changed} if self.preset else changed
        return f"{self._kind}({', '.join([repr(self.encoder), *(f'{k}={v!r}' for k, v in given.items())])})"

    def _card_options(self) -> dict[str, Any]:
        return self.get_params()

    def run_card(self, corpus: Any) -> dict[str, Any]:
        """What relpt.json says of the run: objective, options, data, encoder, versions."""
        return {**super().run_card(corpus), "objective": self._kind.removesuffix("Trainer")}


class CPTrainer(_ReadyMade):
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
        micro_batch_pairs: pairs whose activations are held at a time; None: as many as fit memory_limit. See
            ``Trainer`` for when to give it.
        memory_limit: bytes for gradients, moments and activations; None: half of the memory that is free.
        dropout: probability inside the network; None: what the encoder's config.json says (BERT: 0.1). The default, 0,
            is for short runs; one of thousands of steps overfits without it.
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

    _kind = "CPTrainer"
    _defaults = DEFAULTS

    def __init__(self, encoder: Any, *, preset: str | None = None, **options: Unpack[CPOptions]) -> None:
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"preset is {preset!r}; expected None or one of {', '.join(PRESETS)}")
        self._set(encoder, preset, PRESETS[preset] if preset else {}, options)
        self._check_objectives()

    @property
    def objectives(self) -> list[Objective]:
        """CP and MLM, of these options."""
        o = self.options
        names = {field.name for field in dataclasses.fields(CP)} & o.keys()
        contrast = CP(weight=o["cp_weight"], **{name: o[name] for name in names})
        return [contrast, MLM(weight=o["mlm_weight"], probability=o["mlm_probability"])]


class MTBTrainer(_ReadyMade):
    """Pre-trains an encoder by matching the blanks: do two sentences have the same pair of entities?

    A step draws ``pairs_per_step`` pairs of sentences, half of them with the same pair of entities (Baldini Soares et
    al. 2019, section 4; Peng et al. 2020, section 2.1), replaces mentions by [BLANK] with probability ``p_blank``, and
    minimises ``mtb_weight * L_MTB + mlm_weight * L_MLM`` by AdamW. No relation is needed, but the same entities in
    several sentences are.

    Args:
        encoder: the ``Encoder``, changed in place.
        similarity, temperature, threshold, positive_share, hard_share: as in ``relpt.objectives.MTB``.
        mtb_weight, mlm_weight: weights of the two losses; 0 leaves one out.
        mlm_probability: share of words that are masked.
        pairs_per_step and all others: as in ``relpt.Trainer``; p_blank is 0.7, as published.

    Raises:
        ValueError: an option is out of range; TypeError: there is no such option.
    """

    _kind = "MTBTrainer"
    _defaults = MTB_DEFAULTS

    def __init__(self, encoder: Any, **options: Unpack[MTBOptions]) -> None:
        self._set(encoder, None, {}, options)
        self._check_objectives()

    @property
    def objectives(self) -> list[Objective]:
        """MTB and MLM, of these options."""
        o = self.options
        names = {field.name for field in dataclasses.fields(MTB)} & o.keys()
        matching = MTB(weight=o["mtb_weight"], **{name: o[name] for name in names})
        return [matching, MLM(weight=o["mlm_weight"], probability=o["mlm_probability"])]
