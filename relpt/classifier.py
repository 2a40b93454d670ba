"""Supervised fine-tuning: an encoder with a linear head that names the relation a sentence states."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from relpt import _core
from relpt.cnn import CNNEncoder
from relpt.corpus import Corpus
from relpt.data.bags import Bag, cut_bags
from relpt.encoding import warn_truncated
from relpt.errors import FormatError, TruncationWarning
from relpt.fields import check_names, refused_in
from relpt.files import read_table, write_into, write_json
from relpt.history import History
from relpt.hybrid import HybridEncoder, open_encoder
from relpt.inputs import check_count, choice, input_name, plain
from relpt.objectives import MIL, POOLINGS, RC
from relpt.parts import Parts, Reading, for_head
from relpt.runlog import counted
from relpt.scores import (
    BAG_AUC,
    BagScore,
    ClassReport,
    Measures,
    Score,
    check_facts,
    choose_measures,
    score_bags,
    score_labels,
    unknown_text,
)
from relpt.trainer import Trainer

__all__ = ["Classifier", "Judged", "trainable_labels"]

_log = logging.getLogger("relpt")
_FILE: Final = "head.safetensors"
_UNKNOWN: Final = ("raise", "wrong")

Head = dict[str, np.ndarray]  # weight (classes, dim), bias (classes,), of selective attention also attention (dim,)


class Judged(NamedTuple):
    """Labelled sentences as predicted: their relations, the predicted ones with their probabilities, the score, and
    that of their bags where these are what is scored."""

    gold: list[str]
    predicted: list[str]
    probability: list[float]
    score: Score
    bags: BagScore | None = None


class _FineTuning(Trainer):
    """Trains the parts of an encoder under one head; those that stay have their vectors of each sentence at hand."""

    _task: ClassVar[str] = "fine-tune"

    def __init__(self, parts: Parts, reading: Reading, fixed: Mapping[int, np.ndarray], **options: Any) -> None:
        self.parts, self._reading, self._fixed = parts, reading, fixed
        super().__init__(parts.trained[0], **options)

    def _core_options(self, micro_batch_pairs: int, relations: Sequence[str] = ()) -> dict[str, Any]:
        parts = [
            self._fixed[number] if number in self._fixed else (part._model, part._parts)  # noqa: SIM401
            for number, part in enumerate(self.parts.all)
        ]
        return {**super()._core_options(micro_batch_pairs, relations), "parts": parts}

    def _sampler(self, corpus: Any, target: Any = None, *, encoder: Any = None) -> Any:
        """One for each part that is trained: they draw the same sentences, which each part reads in its own way."""
        corpora = self._reading.corpora
        return [super(_FineTuning, self)._sampler(corpora[n], encoder=self.parts.all[n]) for n in self.parts.numbers]

    def _tell_left_out(self, sampler: Any, corpus: Any) -> None:
        """What bags leave out; of single sentences each is used."""
        if "bags" in self._layout():
            super()._tell_left_out(sampler[0], corpus)

    def _tell_truncated(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Not here: ``Classifier.fit`` counts each sentence once."""

    def run_card(self, corpus: Any) -> dict[str, Any]:
        """What relpt.json says of the run."""
        card = super().run_card(corpus)
        if len(self.parts.all) > 1:
            described = [{"name": part.name, **_params(part)} for part in self.parts.all]
            card["encoder"] = {"name": self.parts.encoder.name, "parts": described}
        return card


def _params(part: Any) -> dict[str, Any]:
    return part.get_params() if hasattr(part, "get_params") else dict(part.card)


class Classifier:
    """Names the relation of a sentence: ``softmax(W x + b)`` of its relation vector x, trained with the encoder.

    Source: Peng et al. 2020, section 4.1 and appendix B, table 10: learning rate 3e-5, batches of 64, 6 epochs, 100
    word pieces; their CNN has rate 0.5 by SGD and batches of 160. Of a hybrid, x = [a; b] of its parts' plain vectors,
    and all of its encoders are trained together under the one head (arXiv 2312.11062, section 3.3). Every sentence is
    used once an epoch, in an order that is a function of (seed, epoch); an epoch's last batch has what is left (of
    bags, it is filled from the next epoch's). The result is the same to the byte for any number of threads.

    Args:
        encoder: the ``Encoder``, ``CNNEncoder`` or ``HybridEncoder`` to start from. It stays as it is, unless ``copy``
            is False; each ``fit`` starts from its weights. A projection of it, and a hybrid's scale and weights, are
            not used: the head sees the plain vectors and learns what each counts.
        learning_rate, adam_betas, adam_eps: of AdamW.
        weight_decay: biases and LayerNorm do not decay; None: 0.01 with AdamW, 0 with SGD.
        optimizer, momentum: "adamw", or "sgd" with momentum; see ``relpt.Trainer``.
        frozen: numbers of a hybrid's parts, from 0, that stay as they are; nested hybrids count part by part. An
            ``EntityTable`` always stays.
        batch_size: sentences a step, or bags.
        epochs: how often each sentence is used, or each bag.
        bags: None trains on single sentences; "attention", "one" or "mean" on bags of sentences with the same pair of
            entities and relation, for distant labels that not every sentence states: how a bag's vector is made of
            theirs (``relpt.objectives.MIL``). Bags are what is scored then, by the area under precision over recall.
        bag_size: sentences of a bag, at most; of a larger one so many are drawn, anew in each epoch.
        representation: what of an ``Encoder``'s hidden states the head reads, in its words; None: what its vector is,
            but of "cls+entity_start+mean", ``relpt pretrain``'s default, "entity_start" alone, as in the paper. What
            few-shot tests gain from the whole sentence costs a head accuracy where sentences are few: MiniLM-L6 after
            CP, SemEval's 73 of 1 %, seed 42: micro-F1 0.384 from all three, 0.460 from [H,T].
        max_length: word pieces a sentence; a window keeps both entities.
        dropout: probability inside the encoder; None: what its config.json says (BERT: 0.1).
        head_dropout: of the relation vector before the head; None: as ``dropout``, as BERT's classifiers do, and 0
            behind a CNN, which drops out its vector itself.
        label_smoothing: this share of the wanted distribution is spread over all relations (Szegedy et al. 2016).
        warmup_steps: steps over which the rate rises before it falls; None: a tenth of all (the paper names none).
        schedule: "linear" (down to 0), "cosine" or "constant".
        max_grad_norm: gradients are scaled down to this norm; 0: never.
        early_stopping: None uses all epochs. A number stops after that many epochs without a better score on dev, and
            keeps the weights of the best epoch.
        micro_batch_size: sentences whose activations are held at a time, rounded up to an even number; None: a whole
            batch, of bags as many as fit the memory. Dropout is replayed, so the gradients are those of the whole
            batch.
        copy: train a copy of the encoder, at the cost of one more set of weights. False changes the one given.
        unknown_labels: what ``score`` and ``report`` do with sentences of a relation that was not trained: "raise", or
            count them as "wrong".
        seed: of the head's initial values, the order of sentences, and dropout.

    Attributes:
        labels: the relations' names, in the order of the columns of ``predict_proba``.
        inputs: the input setting that was trained, and is predicted in.
        tuned: the fine-tuned encoder, of the kind of the one given.
        head: weight float32 (relations, dim) and bias float32 (relations); None before ``fit``.
        attention: float32 (dim,), the diagonal of A of bags="attention"; else None.
        history: the ``History`` of the steps; its status is "interrupted" after Ctrl-C, "stopped" after an early stop.
        dev_scores: a ``Score`` for each epoch, where there was a dev set.
        best_epoch: the epoch, from 1, whose weights were kept; None: the last step's.

    Raises:
        ValueError: an option is out of range (the core checks those of the optimiser when ``fit`` begins).
        TypeError: the encoder is none that can be fine-tuned.
    """

    def __init__(
        self,
        encoder: Any,
        *,
        learning_rate: float = 3e-5,
        batch_size: int = 64,
        epochs: int = 6,
        representation: str | None = None,
        max_length: int = 100,
        dropout: float | None = None,
        head_dropout: float | None = None,
        label_smoothing: float = 0.0,
        weight_decay: float | None = None,
        adam_betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-8,
        warmup_steps: int | None = None,
        schedule: str = "linear",
        max_grad_norm: float = 1.0,
        optimizer: str = "adamw",
        momentum: float = 0.0,
        frozen: Sequence[int] = (),
        bags: str | None = None,
        bag_size: int = 8,
        early_stopping: int | None = None,
        micro_batch_size: int | None = None,
        copy: bool = True,
        unknown_labels: str = "raise",
        seed: int = 42,
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in ("self", "encoder")}
        self.options: dict[str, Any] = plain(options)
        self.options["frozen"] = tuple(frozen)
        self.encoder = encoder
        self.parts.dtype()
        for name in ("batch_size", "epochs", "max_length", "bag_size", "early_stopping", "micro_batch_size"):
            check_count(name, self.options[name], optional=name in ("early_stopping", "micro_batch_size"))
        choice(unknown_labels, _UNKNOWN, "unknown_labels")
        if bags is not None:
            choice(bags, POOLINGS, "bags")
        self.labels: list[str] = []
        self.inputs = "C+M"
        self.tuned: Any = None
        self._head: Head | None = None
        self.history = History()
        self.dev_scores: list[Score] = []
        self.best_epoch: int | None = None

    @property
    def parts(self) -> Parts:
        """What ``fit`` starts from."""
        return Parts(for_head(self.encoder, self.options["representation"]), self.options["frozen"])

    @property
    def head(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Weight and bias; see the class."""
        return None if self._head is None else (self._head["weight"], self._head["bias"])

    @property
    def attention(self) -> np.ndarray | None:
        """The diagonal of A; see the class."""
        return None if self._head is None else self._head.get("attention")

    def get_params(self) -> dict[str, Any]:
        """The options by name."""
        return dict(plain(self.options))

    def __repr__(self) -> str:
        defaults = _defaults()
        changed = {key: value for key, value in self.options.items() if value != defaults[key]}
        options = "".join(f", {key}={value!r}" for key, value in changed.items())
        state = f"{counted(len(self.labels), 'relation')}, {self.inputs}" if self.labels else "not fitted"
        return f"<relpt.Classifier({self.encoder!r}{options}): {state}>"

    # -- training ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        train: Any,
        *,
        dev: Any = None,
        inputs: str = "C+M",
        labels: Iterable[str] | None = None,
        metric: str | None = None,
        negative: str | None = None,
        callbacks: Iterable[Callable[[dict[str, Any]], Any]] = (),
        show_progress_bar: bool | None = None,
    ) -> Classifier:
        """Fine-tunes on labelled sentences.

        Ctrl-C ends it between operations: the classifier is that of the last whole step (with early stopping, of the
        best epoch so far), and ``history.status`` is "interrupted".

        Args:
            train: labelled ``Dataset`` or ``Corpus``, or what ``relpt.load`` takes.
            dev: likewise; scored after each epoch (``dev_scores``), which early stopping needs.
            inputs: the input setting, "C+M", "C+T", "OnlyC", "OnlyM" or "OnlyT" (section 2.2).
            labels: the relations to tell apart; None: those of ``train``. Others than these may have no sentence in it.
            metric, negative: of the scores on dev, as in ``score``.
            callbacks: called with each step's record; one that returns True stops the run.
            show_progress_bar: None shows it in a notebook or on a terminal.

        Returns:
            The classifier itself.

        Raises:
            ValueError: no sentence, no labels or one relation alone in ``train``; ``dev`` has no labels, or some that
                are not trained; entity types are missing where the setting needs them, or what tells entities apart
                where bags are trained or scored; no bag of two sentences.
            FloatingPointError: loss or gradients are not finite; the step is refused.
        """
        inputs = input_name(inputs)
        if self.options["early_stopping"] is not None and dev is None:
            raise ValueError("early_stopping needs a dev set to judge epochs by; give fit(…, dev=…), or leave it out")
        parts = self.parts.copy() if self.options["copy"] else self.parts
        reading = self._read(parts, train, inputs, show_progress_bar)
        names = trainable_labels(reading.corpus, labels)
        reading = reading.map(lambda corpus: _numbered(corpus, names))
        frozen = [number for number in range(len(parts.all)) if number not in parts.numbers]
        fixed = {n: parts.part_vectors(n, reading, inputs, self._cut, show_progress_bar) for n in frozen}
        units = self._units(reading.corpus)
        batch, steps = min(self.options["batch_size"], units), -(-units // self.options["batch_size"])  # an epoch
        options = self._trainer_options(inputs, batch, steps)
        run = _FineTuning(parts, reading, fixed, objectives=[self._objective(parts, batch)], **options)
        watch = _Epochs(self, run, names, steps)
        if dev is not None:
            judged = self._read(parts, dev, inputs, show_progress_bar)
            watch.dev = judged, self._measures(names, metric, negative)
            self._check_judged(judged, names, watch.dev[1])
        if not self.options["copy"]:
            self.labels, self.tuned, self._head = [], None, None  # the old head is of the weights that change now
        begin = reading.corpora[parts.numbers[0]]
        history = run.fit(begin, callbacks=[watch, *callbacks], show_progress_bar=show_progress_bar)
        watch.restore_best()
        for part in parts.trained:
            part.card, part.projection = run.encoder.card, None
        self.labels, self.inputs, self.tuned, self._head = names, inputs, parts.encoder, watch.head
        self.history, self.dev_scores, self.best_epoch = history, watch.scores, watch.best_epoch
        cut, mentions = (
            sum(record[key] for record in history.records[:steps]) for key in ("truncated", "truncated_mentions")
        )
        warn_truncated(cut, mentions, self._cut)
        return self

    @property
    def _cut(self) -> int:
        return int(self.options["max_length"])

    def _units(self, corpus: Any) -> int:
        """What an epoch uses, each once: sentences, or bags."""
        if self.options["bags"] is None:
            return len(corpus)
        keys = np.stack([corpus.head_id, corpus.tail_id, corpus.relation])
        return max(1, np.unique(keys[:, (keys >= 0).all(axis=0)], axis=1).shape[1])  # of none, the core says why

    def _objective(self, parts: Parts, batch: int) -> RC | MIL:
        o = self.options
        inside = parts.dropout() if o["dropout"] is None else o["dropout"]
        dropout = inside if o["head_dropout"] is None else o["head_dropout"]
        if o["head_dropout"] is None and all(isinstance(part, CNNEncoder) for part in parts.trained):
            dropout = 0.0
        smoothing = o["label_smoothing"]
        if o["bags"] is None:
            return RC(label_smoothing=smoothing, dropout=dropout, whole_epochs=True)
        return MIL(pooling=o["bags"], label_smoothing=smoothing, dropout=dropout, bag_size=o["bag_size"], bags=batch)

    def _trainer_options(self, inputs: str, batch: int, steps: int) -> dict[str, Any]:
        o = self.options
        same = ["learning_rate", "weight_decay", "adam_betas", "adam_eps", "schedule", "max_grad_norm", "dropout"]
        same += ["optimizer", "momentum", "warmup_steps", "max_length", "seed"]
        held = o["micro_batch_size"] or (batch if o["bags"] is None else None)
        return {
            **{name: o[name] for name in same},
            "sentences_per_step": batch,
            "micro_batch_pairs": None if held is None else -(-held // 2),
            "input_mix": {inputs: 1.0},
            "p_blank": 0.0,
            "max_steps": steps * o["epochs"],
        }

    # -- prediction --------------------------------------------------------------------------------------------------

    def predict(self, data: Any, *, show_progress_bar: bool | None = None) -> list[str] | str:
        """The likeliest relation of each sentence.

        Args:
            data: what ``Encoder.encode`` takes; labels are not needed.

        Returns:
            A name for each sentence in order; the name alone for one ``Instance`` or dict.
        """
        logits, single = self._logits(data, show_progress_bar)
        names = [self.labels[i] for i in logits.argmax(axis=1)]
        return names[0] if single else names

    def predict_proba(self, data: Any, *, show_progress_bar: bool | None = None) -> np.ndarray:
        """Probabilities of all relations, float64 (n, relations) in the order of ``labels``; (relations,) for one
        ``Instance`` or dict. Each row sums to 1."""
        logits, single = self._logits(data, show_progress_bar)
        return _softmax(logits)[0] if single else _softmax(logits)

    def predict_top(self, data: Any, k: int = 3, *, show_progress_bar: bool | None = None) -> list[Any]:
        """The ``k`` likeliest relations of each sentence with their probabilities, best first.

        Returns:
            A list of pairs (relation, probability) for each sentence; that list alone for one ``Instance`` or dict.

        Raises:
            ValueError: k is not from 1 on.
        """
        check_count("k", k)
        logits, single = self._logits(data, show_progress_bar)
        best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        chances = _softmax(logits)
        top = [[(self.labels[j], float(row[j])) for j in order] for row, order in zip(chances, best, strict=True)]
        return top[0] if single else top

    def score(
        self,
        data: Any,
        *,
        metric: str | None = None,
        negative: str | None = None,
        show_progress_bar: bool | None = None,
    ) -> Score:
        """How well the relations of labelled sentences are predicted.

        Args:
            data: labelled; see ``Encoder.encode``.
            metric: "accuracy", "micro_f1", "macro_f1" or "semeval", of sentences, or "bag_auc" (``score_bags``); None:
                that of the data set, told by its relations (``relpt.metrics.measures_of``): micro-F1 where there is a
                negative class, and on ChemProt, else accuracy; "bag_auc" of a classifier with ``bags``.
            negative: the class that all but accuracy leave out; None: "no_relation", "Other", "NA" or "P0", where the
                relations have one of these.

        Returns:
            A ``Score``: a float that says which measure it is, with the official one beside it.

        Raises:
            ValueError: no labels; labels that are not trained (see ``unknown_labels``); a measure that does not fit.
        """
        return self._judge(data, metric, negative, show_progress_bar).score

    def score_bags(
        self,
        data: Any,
        *,
        negative: str | None = None,
        sentences: int | str | None = None,
        seed: int = 0,
        show_progress_bar: bool | None = None,
    ) -> BagScore:
        """How well the facts of distantly supervised data are found: all bags are ranked by each relation's score.

        A bag is the sentences with one pair of entities, whatever their relations, and its facts are the relations that
        any of them has. A classifier with ``bags`` scores it as ``relpt.objectives.MIL.scores`` says; one of single
        sentences by the largest probability among them, as "one" does.

        Args:
            data: labelled; see ``Encoder.encode``. Entities have an id, or a name.
            negative: the relation that is no fact; None: "no_relation", "Other", "NA" or "P0", where there is one.
            sentences: None scores all bags. 1, 2, … or "all": those of more than one sentence alone, with so many of
                their sentences, drawn by ``seed``; the settings One, Two and All of Lin et al. 2016 (section 3.4).

        Returns:
            A ``BagScore``: auc, precision_at(n), max_f1, the facts in their order, the curve.

        Raises:
            ValueError: as in ``score``; an entity has neither id nor name; no bag has a fact; ``sentences`` is neither
                of these, or no bag has more than one sentence.
        """
        choose = list if sentences is None else partial(cut_bags, sentences=sentences, seed=seed)
        bags = self._judge(data, BAG_AUC, negative, show_progress_bar, choose).bags
        assert bags is not None
        return bags

    def report(
        self,
        data: Any,
        *,
        metric: str | None = None,
        negative: str | None = None,
        show_progress_bar: bool | None = None,
    ) -> ClassReport:
        """Precision, recall and F1 of each relation, and the confusion matrix; arguments as in ``score``."""
        judged = self._judge(data, metric, negative, show_progress_bar)
        return ClassReport.of(judged.gold, judged.predicted, judged.score)

    def _judge(
        self,
        data: Any,
        metric: str | None,
        negative: str | None,
        show: bool | None,
        choose: Callable[[list[Bag]], list[Bag]] = list,
    ) -> Judged:
        parts, head = self._fitted()
        reading = self._read(parts, data, self.inputs, show)
        measures = self._measures(self.labels, metric, negative)
        return self._judged(parts, head, reading, self.inputs, self.labels, measures, show, choose)

    def _judged(
        self,
        parts: Parts,
        head: Head,
        reading: Reading,
        inputs: str,
        labels: list[str],
        measures: Measures,
        show: bool | None,
        choose: Callable[[list[Bag]], list[Bag]] = list,
    ) -> Judged:
        """Labelled sentences as these weights predict them; of bags those that are chosen."""
        gold, unknown = self._gold(reading.corpus, labels)
        bags = choose(reading.bags) if measures.metric == BAG_AUC else []  # refuses before anything is computed
        vectors = parts.vectors(reading, inputs, self._cut, show)
        logits = _logits(vectors, head, parts)
        predicted = [labels[i] for i in logits.argmax(axis=1)]
        chances = _softmax(logits).max(axis=1).tolist()
        if measures.metric != BAG_AUC:
            return Judged(gold, predicted, chances, score_labels(gold, predicted, measures, unknown))
        pooling = MIL(pooling=self.options["bags"] or "one")
        heads = {f"{pooling.name}.{name}": value for name, value in head.items()}
        scores = pooling.scores(vectors, bags, heads, num_threads=parts.trained[0].num_threads)
        found = score_bags(bags, labels, scores, measures.negative)
        same = {"metric": BAG_AUC, "official_metric": BAG_AUC, "official": found.auc, "negative": found.negative}
        return Judged(gold, predicted, chances, Score(found.auc, **same, sentences=len(gold), unknown=unknown), found)

    def _measures(self, labels: Sequence[str], metric: str | None, negative: str | None) -> Measures:
        return choose_measures(labels, metric, negative, bags=self.options["bags"] is not None)

    def _check_judged(self, reading: Reading, labels: Sequence[str], measures: Measures) -> None:
        """Refuses before any training what cannot be scored after it."""
        self._gold(reading.corpus, labels)
        if measures.metric == BAG_AUC:
            check_facts(reading.bags, measures.negative)

    def _fitted(self) -> tuple[Parts, Head]:
        if self.tuned is None or self._head is None:
            raise RuntimeError(
                "the classifier is not fitted; call fit(train), or open one by Classifier.from_pretrained"
            )
        return Parts(self.tuned, self.options["frozen"]), self._head

    def _logits(self, data: Any, show: bool | None) -> tuple[np.ndarray, bool]:
        parts, head = self._fitted()
        reading = self._read(parts, data, self.inputs, show)
        return _logits(parts.vectors(reading, self.inputs, self._cut, show), head, parts), reading.single

    # -- data --------------------------------------------------------------------------------------------------------

    def _read(self, parts: Parts, data: Any, inputs: str, show: bool | None) -> Reading:
        """What the parts read of data, with the types that setting and markers say."""
        reading = parts.read(data, self._cut, show)
        parts.check(reading, inputs)
        return reading

    def _gold(self, corpus: Any, labels: Sequence[str]) -> tuple[list[str], int]:
        """The sentences' relations, and how many of them are none of the labels."""
        if not len(corpus):
            raise ValueError(f"{corpus.name!r} has no sentences to score")
        if not corpus.labelled:
            raise ValueError(f"{corpus.name!r} names no relations; give labelled data, or call predict")
        gold = [corpus.relations[number] for number in corpus.relation]
        known = set(labels)
        unknown = sum(name not in known for name in gold)
        if unknown and self.options["unknown_labels"] == "raise":
            raise ValueError(
                f"{unknown:,} of {len(gold):,} sentences of {corpus.name!r} have a relation that is not among the "
                f"{len(labels)} trained ones: {unknown_text(gold, labels)}; train on sentences of it, name it in "
                "fit(labels=…), or count these sentences as wrong by unknown_labels='wrong' "
                "(--unknown-labels wrong)"
            )
        return gold, unknown

    # -- saving and loading ------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: Mapping[str, Any] | None = None) -> Path:
        """Writes the fine-tuned encoder as its ``save_pretrained`` does, head.safetensors, and the relations in
        relpt.json.

        ``transformers.AutoModel`` and ``Encoder.from_pretrained`` open the folder of an ``Encoder``. All files are
        complete and synced before the first one takes its place.

        Args:
            folder: made when it is not there.
            card: further fields of the classifier's part of relpt.json.

        Raises:
            FileExistsError: the folder has something else than a hybrid, for a hybrid; or a hybrid, for another one.
        """
        from relpt.weights import save_tensors

        parts, head = self._fitted()
        own = {
            "labels": self.labels,
            "inputs": self.inputs,
            "options": {**self.options, "adam_betas": list(self.options["adam_betas"])},
            "status": self.history.status,
            "steps": len(self.history),
            "best_epoch": self.best_epoch,
            "dev_scores": [float(score) for score in self.dev_scores],
        }
        whole = {**parts.trained[0].card, "classifier": {**(card or {}), **own}}
        with _writing(self.tuned, Path(folder)) as new:
            if isinstance(self.tuned, HybridEncoder):
                self.tuned._write(new)
                write_json(new / "relpt.json", {**whole, "format": "relpt"})
            else:
                self.tuned._write(new, whole)
            save_tensors(
                new / _FILE, [(name, value.shape, partial(head.__getitem__, name)) for name, value in head.items()]
            )
        return Path(folder)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        device: str = "cpu",
        dtype: str | None = None,
        num_threads: int | None = None,
    ) -> Classifier:
        """Opens what ``save_pretrained`` wrote. Fitting it again starts from the fine-tuned encoder, with a new head.

        Raises:
            FileNotFoundError: there is no such folder.
            FormatError: the folder holds no classifier, or a damaged one; names file and field.
        """
        path = Path(folder)
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: there is no such folder; give one written by Classifier.save_pretrained")
        card = read_table(path / "relpt.json") if (path / "relpt.json").is_file() else {}
        own = card.get("classifier")
        if not isinstance(own, dict) or not (path / _FILE).is_file():
            raise FormatError(
                f"{path} holds no classifier; make one by relpt finetune, or by Classifier.save_pretrained"
            )
        labels, options = own.get("labels"), own.get("options")
        if not isinstance(labels, list) or not isinstance(options, dict):
            raise FormatError(f"{path / 'relpt.json'}: classifier.labels or .options are missing; the file is damaged")
        check_names(path / "relpt.json", "classifier.labels", labels)
        encoder = open_encoder(path, device=device, dtype=dtype, num_threads=num_threads)
        known = {name: value for name, value in options.items() if name in _defaults()}
        with refused_in(path / "relpt.json"):
            made = cls(encoder, **{**known, "adam_betas": _betas(known.get("adam_betas", [0.9, 0.999]))})
            made.labels, made.inputs, made.tuned = labels, input_name(own.get("inputs")), encoder
        attention = made.options["bags"] == "attention"
        made._head, made.best_epoch = _load_head(path, len(labels), encoder.dim, attention), own.get("best_epoch")
        return made


def _writing(encoder: Any, folder: Path) -> AbstractContextManager[Path]:
    """A temporary folder whose files go into ``folder``; a hybrid's, which has folders of its own, takes its place."""
    if isinstance(encoder, HybridEncoder):
        return HybridEncoder.replace(folder)
    return write_into(folder, unless="hybrid.json")


def _defaults() -> dict[str, Any]:
    """The options' default values."""
    return dict(Classifier.__init__.__kwdefaults__ or {})


def _betas(value: object) -> tuple[float, float]:
    """A card's adam_betas."""
    if not isinstance(value, list) or len(value) != 2 or not all(type(beta) in (int, float) for beta in value):
        raise TypeError(f"adam_betas is {value!r}; expected two numbers")
    return value[0], value[1]


def _logits(vectors: np.ndarray, head: Head, parts: Parts) -> np.ndarray:
    """float32 (n, relations)."""
    if not len(vectors):
        return np.empty((0, len(head["bias"])), np.float32)
    return _core.logits(vectors, head["weight"], head["bias"], parts.trained[0].num_threads)


def _load_head(path: Path, classes: int, dim: int, attention: bool) -> Head:
    from relpt.weights import load_tensors

    tensors = load_tensors(path, _FILE)
    shapes: dict[str, tuple[int, ...]] = {"weight": (classes, dim), "bias": (classes,)}
    if attention:
        shapes["attention"] = (dim,)
    for name, shape in shapes.items():
        if name not in tensors or tensors[name].shape != shape:
            found = f"has shape {tensors[name].shape}" if name in tensors else "is missing"
            raise FormatError(f"{path / _FILE}: tensor {name} {found}, expected {shape}")
    return {name: tensors[name] for name in shapes}


class _Epochs:
    """A callback that scores dev after each epoch, and keeps the weights of the best where the run may stop early."""

    def __init__(self, owner: Classifier, run: _FineTuning, labels: list[str], steps: int) -> None:
        self.owner, self.run, self.labels, self.steps = owner, run, labels, steps
        self.patience = owner.options["early_stopping"]
        self.dev: tuple[Reading, Measures] | None = None
        self.scores: list[Score] = []
        self.best_epoch: int | None = None
        self._best: tuple[list[dict[str, np.ndarray]], Head] | None = None

    @property
    def head(self) -> Head:
        """The one to keep: the best epoch's, else the last step's."""
        return self._best[1] if self._best is not None else self._heads()

    def _heads(self) -> Head:
        own = f"{self.run.objectives[0].name}."
        return {name.removeprefix(own): value for name, value in self.run.heads.items()}

    def __call__(self, record: dict[str, Any]) -> bool:
        """True where it is time to stop."""
        if self.dev is None or record["step"] % self.steps:
            return False
        self.scores.append(self._score(self.dev))
        score = self.scores[-1]
        _log.info("epoch %d: loss %.4f, dev %r", len(self.scores), record["loss"], score)
        if self.patience is None:
            return False
        if self.best_epoch is None or score > self.scores[self.best_epoch - 1]:
            models = [part._model for part in self.run.parts.trained]
            weights = [{name: model.get(name) for name, _ in model.parameters()} for model in models]
            self._best = weights, self._heads()
            self.best_epoch = len(self.scores)
        return len(self.scores) - self.best_epoch >= self.patience

    def _score(self, dev: tuple[Reading, Measures]) -> Score:
        reading, measures = dev
        with warnings.catch_warnings():
            if self.scores:  # said after the first epoch
                warnings.simplefilter("ignore", TruncationWarning)
            parts, (inputs,) = self.run.parts, self.run.options["input_mix"]
            return self.owner._judged(parts, self._heads(), reading, inputs, self.labels, measures, False).score

    def restore_best(self) -> None:
        """Puts the best epoch's weights back."""
        if self._best is not None:
            for part, weights in zip(self.run.parts.trained, self._best[0], strict=True):
                for name, value in weights.items():
                    part._model.set(name, value)


def trainable_labels(corpus: Any, labels: Iterable[str] | None) -> list[str]:
    """The relations to tell apart, sorted; refuses data on which nothing can be learned."""
    if not len(corpus):
        raise ValueError(f"{corpus.name!r} has no sentences to train on")
    if not corpus.labelled:
        raise ValueError(f"{corpus.name!r} names no relations; a classifier is trained on labelled sentences")
    counts = {name: count for name, count in corpus.label_counts().items() if count}
    if len(counts) < 2:
        raise ValueError(
            f"{corpus.name!r} has one relation alone, {next(iter(counts))!r} ({len(corpus):,} sentences); a classifier "
            "needs sentences of two at least"
        )
    if labels is None:
        return sorted(counts)
    names = sorted(set(labels))
    outside = [name for name in counts for _ in range(counts[name]) if name not in set(names)]
    if outside:
        raise ValueError(
            f"{len(outside):,} of {len(corpus):,} sentences of {corpus.name!r} have a relation that is not among the "
            f"{len(names)} labels given: {unknown_text(outside, names)}; name it too, or filter them out"
        )
    return names


def _numbered(corpus: Any, labels: list[str]) -> Any:
    """The corpus with relations numbered as in ``labels``."""
    if corpus.relations == labels:
        return corpus
    places = {name: number for number, name in enumerate(labels)}
    of = np.array([places.get(name, -1) for name in corpus.relations], np.int32)
    arrays = {**corpus.arrays(), "relation": of[corpus.relation]}
    tables = {**corpus.tables(), "relations": labels}
    return Corpus(arrays=arrays, tables=tables, entities=corpus._entities, name=corpus.name)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(axis=1, keepdims=True)
