"""Embeddings of a knowledge graph's entities and relations, trained from its triples."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from relpt import _core
from relpt.data.triples import Triple, read_triples
from relpt.errors import FormatError
from relpt.fields import check_names, refused_in
from relpt.files import read_table, replace_folder, replaceable, write_file, write_json
from relpt.inputs import check_count, choice
from relpt.loop import asks_to_stop
from relpt.metrics import hits_at, mrr
from relpt.progress import progress

__all__ = ["GraphEmbeddings", "LinkPrediction", "RankSummary"]

_log = logging.getLogger("relpt")
_CARD, _TENSORS = "graph.json", "graph.safetensors"
_MODELS: Final = ("transe", "distmult")
_LOSSES: Final = ("margin", "logistic", "softmax")
_CORRUPTIONS: Final = ("uniform", "bernoulli")
_OPTIMIZERS: Final = ("sgd", "adagrad")


class RankSummary(NamedTuple):
    """Measures of ranks that count from 1; see ``relpt.metrics``."""

    mrr: float
    hits_at_1: float
    hits_at_3: float
    hits_at_10: float
    mean_rank: float
    queries: int

    @classmethod
    def of(cls, ranks: np.ndarray) -> RankSummary:
        """Summary of ranks of any shape."""
        flat = np.asarray(ranks, np.float64).reshape(-1)
        hits = [hits_at(flat, k) for k in (1, 3, 10)]
        return cls(mrr(flat), hits[0], hits[1], hits[2], float(flat.mean()), len(flat))


@dataclass(frozen=True)
class LinkPrediction:
    """How well embeddings find the missing entity of test triples among all entities, the other known answers left out
    (filtered; Bordes et al. 2013, section 4.2).

    Attributes:
        both, head, tail: all queries; those that ask for the head; those that ask for the tail.
        raw: all queries, ranked among all entities.
        ranks, raw_ranks: float64 (triples, 2), of head and tail, from 1; equal scores share the mean of their ranks.
    """

    both: RankSummary
    head: RankSummary
    tail: RankSummary
    raw: RankSummary
    ranks: np.ndarray = field(repr=False, compare=False)
    raw_ranks: np.ndarray = field(repr=False, compare=False)

    @classmethod
    def of(cls, ranks: np.ndarray, raw_ranks: np.ndarray) -> LinkPrediction:
        """The result of filtered and raw ranks (triples, 2)."""
        parts = [RankSummary.of(part) for part in (ranks, ranks[:, 0], ranks[:, 1], raw_ranks)]
        return cls(parts[0], parts[1], parts[2], parts[3], ranks, raw_ranks)

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank of both sides."""
        return self.both.mrr

    @property
    def hits_at_1(self) -> float:
        """Share of queries of both sides whose answer ranks first."""
        return self.both.hits_at_1

    @property
    def hits_at_3(self) -> float:
        """Share within the first three."""
        return self.both.hits_at_3

    @property
    def hits_at_10(self) -> float:
        """Share within the first ten."""
        return self.both.hits_at_10

    @property
    def mean_rank(self) -> float:
        """Mean rank of both sides."""
        return self.both.mean_rank

    def to_dict(self) -> dict[str, dict[str, float]]:
        """The summaries as plain values."""
        return {name: getattr(self, name)._asdict() for name in ("both", "head", "tail", "raw")}

    def __str__(self) -> str:
        b = self.both
        return (
            f"MRR {b.mrr:.4f}, Hits@1 {b.hits_at_1:.4f}, @3 {b.hits_at_3:.4f}, @10 {b.hits_at_10:.4f}, "
            f"mean rank {b.mean_rank:.1f} of {b.queries:,} queries"
        )

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("", *RankSummary._fields))
        lines = [
            f"<tr><td>{name}</td>{''.join(f'<td>{value:.4g}</td>' for value in row.values())}</tr>"
            for name, row in self.to_dict().items()
        ]
        return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


class GraphEmbeddings:
    """A vector for each entity and relation of a knowledge graph, trained so that its triples score above corrupted
    ones.

    "transe": a relation is a translation, the score of (h, r, t) is -|h + r - t| (Bordes et al. 2013). "distmult": a
    relation weighs components, the score is sum(h * r * t), the same from head to tail as back (Yang et al. 2015).

    Each epoch takes every triple once, in an order of its own, and asks for its head or for its tail; the right answer
    is to score above ``negatives`` entities drawn at random. The defaults were chosen in short runs, by the validation
    triples of CoDEx-M. TransE in the form of its paper is ``GraphEmbeddings(loss="margin", negatives=1,
    normalize_entities=True, optimizer="sgd", learning_rate=0.01, dim=50, filter_negatives=False)``; there a step's
    gradient is the sum over its triples, here the mean.

    Args:
        model: "transe" or "distmult".
        dim: numbers in a vector.
        norm: of TransE's distance: 1 (sum of absolute values) or 2 (Euclidean).
        loss: "margin" (ranking by pairs; Bordes et al. 2013, equation 1), "logistic" (Trouillon et al. 2016) or
            "softmax" (cross-entropy of the right answer against the drawn ones).
        margin: of the margin loss; with the logistic loss of TransE the distance at which a triple is as likely as not.
        negatives: wrong answers drawn for a triple and epoch; None: 64 with TransE, 256 with DistMult.
        corruption: head and tail are asked for equally often ("uniform"), or the head the more often the more tails per
            head the relation has ("bernoulli"; Wang et al. 2014).
        filter_negatives: no answer that is right in the training triples is drawn as wrong.
        normalize_entities: entities get length 1 after each step.
        l2: weight of the squared lengths of a triple's three vectors, added to its loss.
        n3: weight of the sums of their cubed absolute values (the nuclear 3-norm, Lacroix et al. 2018), which unlike
            the squares does not outweigh DistMult's products where these are small; None: 0.05 with DistMult, else 0.
        optimizer: "adagrad" or "sgd"; only the rows of a step's entities and relations are updated.
        learning_rate: its rate, constant. A step's gradient is the mean over its triples.
        batch_size: triples a step.
        epochs: how often every triple is seen; None: 20 with TransE, 10 with DistMult.
        seed: of every draw. Results do not depend on the number of threads.
        num_threads: None for all CPUs this process may use.

    Attributes:
        entities, relations: names in the order of the rows; those that ``fit`` was given.
        entity_embeddings, relation_embeddings: float32 (entities, dim), (relations, dim).
        history: a record of each epoch: epoch (from 1), loss (mean over triples), triples_per_second.
        status: "untrained", "finished", "interrupted" (Ctrl-C, or an exception) or "stopped" (by a callback).

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        *,
        model: str = "transe",
        dim: int = 128,
        norm: int = 2,
        loss: str = "softmax",
        margin: float = 1.0,
        negatives: int | None = None,
        corruption: str = "uniform",
        filter_negatives: bool = True,
        normalize_entities: bool = False,
        l2: float = 0.0,
        n3: float | None = None,
        optimizer: str = "adagrad",
        learning_rate: float = 0.1,
        batch_size: int = 1024,
        epochs: int | None = None,
        seed: int = 42,
        num_threads: int | None = None,
    ) -> None:
        choice(model, _MODELS, "model")
        choice(loss, _LOSSES, "loss")
        choice(corruption, _CORRUPTIONS, "corruption")
        choice(optimizer, _OPTIMIZERS, "optimizer")
        negatives = (256 if model == "distmult" else 64) if negatives is None else negatives
        epochs = (10 if model == "distmult" else 20) if epochs is None else epochs
        if norm not in (1, 2):
            raise ValueError(f"norm is {norm!r}; expected 1 or 2")
        for name, value in {"dim": dim, "negatives": negatives, "batch_size": batch_size, "epochs": epochs}.items():
            check_count(name, value)
        self.model, self.dim, self.norm, self.loss, self.margin = model, dim, norm, loss, margin
        self.negatives, self.corruption, self.filter_negatives = negatives, corruption, filter_negatives
        self.normalize_entities, self.optimizer, self.learning_rate = normalize_entities, optimizer, learning_rate
        self.l2, self.n3 = l2, (0.05 if model == "distmult" else 0.0) if n3 is None else n3
        self.batch_size, self.epochs, self.seed, self.num_threads = batch_size, epochs, seed, num_threads
        self.history: list[dict[str, Any]] = []
        self.status = "untrained"
        self._triples = np.empty((0, 3), np.int32)
        self._name_rows((), ())

    def get_params(self) -> dict[str, Any]:
        """The options by name."""
        return {name: getattr(self, name) for name in inspect.signature(GraphEmbeddings).parameters}

    def __repr__(self) -> str:
        defaults = GraphEmbeddings(model=self.model).get_params() | {"model": "transe"}
        changed = [f"{name}={value!r}" for name, value in self.get_params().items() if value != defaults[name]]
        what = f"{len(self.entities):,} entities, {len(self.relations):,} relations, " if self.entities else ""
        return f"<relpt.GraphEmbeddings({', '.join(changed)}): {what}{self.status}>"

    def _name_rows(self, entities: Sequence[str], relations: Sequence[str]) -> None:
        self.entities, self.relations = tuple(entities), tuple(relations)
        self._entity_rows = {name: row for row, name in enumerate(self.entities)}
        self._relation_rows = {name: row for row, name in enumerate(self.relations)}
        self.entity_embeddings = np.empty((len(self.entities), self.dim), np.float32)
        self.relation_embeddings = np.empty((len(self.relations), self.dim), np.float32)

    @property
    def _core_model(self) -> int:
        return 2 if self.model == "distmult" else self.norm - 1

    def _threads(self) -> int:
        return _core.default_threads() if self.num_threads is None else self.num_threads

    # -- training ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        triples: Any,
        *,
        callbacks: Iterable[Callable[[dict[str, Any]], Any]] = (),
        show_progress_bar: bool | None = None,
    ) -> GraphEmbeddings:
        """Trains the embeddings anew.

        Ctrl-C ends the training after a whole step; the embeddings are those of that step and can be used.

        Args:
            triples: a list of (head, relation, tail) names; a path, or a list of paths, of files with a triple a line
                between tabs; a pandas DataFrame with the columns head, relation, tail. A triple that occurs twice
                counts twice.
            callbacks: called with each epoch's record when the embeddings are up to date; one that returns True stops
                the training.
            show_progress_bar: None shows it in a notebook or on a terminal.

        Returns:
            The object itself.

        Raises:
            ValueError: no triples; an option is out of range; a query that all entities answer rightly.
            FormatError, TypeError, OSError: triples cannot be read.
            FloatingPointError: loss or gradient is not finite; that step is refused, and the embeddings are those of
                the step before.
        """
        named = read_triples(triples)
        if not named:
            raise ValueError("there are no triples to train on; give at least one (head, relation, tail)")
        entities = tuple(dict.fromkeys(name for head, _, tail in named for name in (head, tail)))
        relations = tuple(dict.fromkeys(relation for _, relation, _ in named))
        numbers = _numbered(named, _rows(entities), _rows(relations))
        trainer = self._trainer(numbers, len(entities), len(relations))
        self._name_rows(entities, relations)
        self._triples, self.history, self.status = numbers, [], "interrupted"  # where an exception ends it
        self._read(trainer)
        try:
            self._run(trainer, list(callbacks), show_progress_bar)
        except KeyboardInterrupt:
            _log.warning("interrupted after %d whole epochs; the embeddings can be used", len(self.history))
        finally:
            self._read(trainer)
        return self

    def _trainer(self, numbers: np.ndarray, n_entities: int, n_relations: int) -> _core.GraphTrainer:
        return _core.GraphTrainer(
            graph=_core.Graph(numbers, n_entities, n_relations),
            model=self._core_model,
            loss=_LOSSES.index(self.loss),
            optimizer=_OPTIMIZERS.index(self.optimizer),
            normalize=self.normalize_entities,
            bernoulli=self.corruption == "bernoulli",
            filtered=self.filter_negatives,
            margin=self.margin,
            l2=self.l2,
            n3=self.n3,
            dim=self.dim,
            num_threads=self._threads(),
            negatives=self.negatives,
            learning_rate=self.learning_rate,
            batch=self.batch_size,
            seed=self.seed,
        )

    def _read(self, trainer: _core.GraphTrainer) -> None:
        self.entity_embeddings, self.relation_embeddings = trainer.values()

    def _run(
        self, trainer: _core.GraphTrainer, callbacks: list[Callable[[dict[str, Any]], Any]], show: bool | None
    ) -> None:
        sizes = np.diff([*range(0, len(self._triples), min(self.batch_size, len(self._triples))), len(self._triples)])
        with progress(self.epochs, show, desc="embed", unit="epoch") as bar:
            for epoch in range(self.epochs):
                begin = time.perf_counter()
                losses = [trainer.step(epoch, step) for step in range(trainer.steps)]
                speed = len(self._triples) / (time.perf_counter() - begin)
                record = {"epoch": epoch + 1, "loss": float(np.average(losses, weights=sizes))}
                self.history.append({**record, "triples_per_second": speed})
                bar.set_postfix({"loss": f"{record['loss']:.3f}"}, refresh=False)
                bar.update(1)
                if callbacks:
                    self._read(trainer)
                if any([asks_to_stop(callback(self.history[-1])) for callback in callbacks]):
                    self.status = "stopped"
                    return
        self.status = "finished"

    # -- use ---------------------------------------------------------------------------------------------------------

    def entity(self, name: str) -> np.ndarray:
        """An entity's embedding, float32 (dim,), a view of ``entity_embeddings``; KeyError for an unknown one."""
        return self.entity_embeddings[self._row(self._entity_rows, name, "entity")]

    def relation(self, name: str) -> np.ndarray:
        """A relation's embedding, float32 (dim,); KeyError for an unknown one."""
        return self.relation_embeddings[self._row(self._relation_rows, name, "relation")]

    @staticmethod
    def _row(rows: dict[str, int], name: str, what: str) -> int:
        if name not in rows:
            listed = "entities" if what == "entity" else "relations"
            raise KeyError(f"no {what} {name!r} among the {len(rows):,} of the training triples; {listed} lists them")
        return rows[name]

    def _check_trained(self) -> None:
        if not self.entities:
            raise RuntimeError("these embeddings are not trained; call fit first, or GraphEmbeddings.load")

    def _rows_of(self, keys: Sequence[str]) -> np.ndarray:
        """The row of each entity of a corpus' table ``entities``, int32, -1 for those that are not here: by the id, or
        for one without id by its name, without regard to case and blanks, where that is one entity's alone."""
        from relpt.data.report import plain_name

        by_name: dict[str, int] = {}
        for row, name in enumerate(self.entities):
            plain = plain_name(name)
            by_name[plain] = -1 if plain in by_name else row
        tables = {"id": self._entity_rows, "name": by_name}
        kinds = (key.partition(":") for key in keys)
        return np.array([tables[kind].get(name, -1) for kind, _, name in kinds], np.int32)

    def _identity(self) -> dict[str, Any]:
        """What tells these embeddings from others, for the cards of runs that use them."""
        digest = hashlib.sha256(json.dumps([self.entities, self.relations]).encode())
        for table in (self.entity_embeddings, self.relation_embeddings):
            digest.update(np.ascontiguousarray(table).data)
        sizes = {"dim": self.dim, "entities": len(self.entities), "relations": len(self.relations)}
        return {"model": self.model, **sizes, "hash": digest.hexdigest()}

    def _known(self, triples: Any, what: str) -> np.ndarray:
        """Numbers int32 (n, 3) of triples; ValueError when names are unknown."""
        self._check_trained()
        named = read_triples(triples)
        unknown = [triple for triple in named if not self._knows(triple)]
        if unknown:
            entities = {name for head, _, tail in unknown for name in (head, tail)} - self._entity_rows.keys()
            relations = {relation for _, relation, _ in unknown} - self._relation_rows.keys()
            raise ValueError(
                f"{len(unknown):,} of {len(named):,} {what} triples name {len(entities):,} entities and "
                f"{len(relations):,} relations that no training triple names (first: {unknown[0]}); leave these "
                "triples out, or train with triples that name them"
            )
        return _numbered(named, self._entity_rows, self._relation_rows)

    def _knows(self, triple: Triple) -> bool:
        head, relation, tail = triple
        return head in self._entity_rows and tail in self._entity_rows and relation in self._relation_rows

    def score(self, triples: Any) -> np.ndarray:
        """Scores of triples, float64 (n,), larger is likelier; TransE's are distances below 0.

        Args:
            triples: as in ``fit``.

        Raises:
            ValueError: names that no training triple has, with counts.
            RuntimeError: not trained.
        """
        numbers = self._known(triples, "given")
        tables = self.entity_embeddings, self.relation_embeddings
        return _core.graph_scores(self._core_model, *tables, numbers, self._threads())

    def evaluate(self, test: Any, *, filter_with: Any = None) -> LinkPrediction:
        """Link prediction: where the right head and the right tail of each test triple rank among all entities.

        Args:
            test: triples, as in ``fit``.
            filter_with: further triples known to be right, such as those of the validation split. They, the training
                triples and the test triples themselves are left out of the filtered ranks. Those that name an entity or
                relation without embedding cannot compete anyway; the log says how many.

        Raises:
            ValueError: no test triples, or names that no training triple has, with counts.
            FloatingPointError: an embedding is not finite.
            RuntimeError: not trained.
        """
        numbers = self._known(test, "test")
        if not len(numbers):
            raise ValueError("there are no test triples; give at least one (head, relation, tail)")
        further = [] if filter_with is None else read_triples(filter_with)
        kept = [triple for triple in further if self._knows(triple)]
        if len(kept) < len(further):
            _log.warning("%d of %d triples to filter with have no embedding", len(further) - len(kept), len(further))
        known = np.concatenate([self._triples, numbers, _numbered(kept, self._entity_rows, self._relation_rows)])
        graph = _core.Graph(known, len(self.entities), len(self.relations))
        tables = self.entity_embeddings, self.relation_embeddings
        raw, filtered = _core.graph_ranks(self._core_model, *tables, numbers, graph, self._threads())
        return LinkPrediction.of(filtered, raw)

    # -- saving and opening ------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes graph.safetensors and graph.json; embeddings that are there are replaced once they are complete.

        Raises:
            FileExistsError: something else than embeddings is there.
            RuntimeError: not trained.
            OSError: the folder cannot be written.
        """
        self._check_trained()
        with replace_folder(replaceable(folder, _CARD, "relpt-graph", _TENSORS)) as new:
            self._write(new)
        return Path(folder)

    def _write(self, folder: Path) -> None:
        """Writes the two files into a folder."""
        from safetensors.numpy import save

        from relpt import __version__

        tensors = {
            "entities": np.ascontiguousarray(self.entity_embeddings),
            "relations": np.ascontiguousarray(self.relation_embeddings),
            "triples": self._triples,
        }
        card = {
            "format": "relpt-graph",
            "version": 1,
            "options": self.get_params(),
            "status": self.status,
            "history": self.history,
            "versions": {"relpt": __version__, "python": platform.python_version(), "numpy": np.__version__},
            "entities": self.entities,
            "relations": self.relations,
        }
        write_file(folder / _TENSORS, partial(_write, save(tensors)))
        write_json(folder / _CARD, card)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, num_threads: int | None = None) -> GraphEmbeddings:
        """Opens what ``save`` wrote.

        Raises:
            FileNotFoundError: there are no embeddings.
            FormatError: a file is missing, damaged, or does not fit the other.
        """
        path = Path(folder)
        if not (path / _CARD).is_file():
            raise FileNotFoundError(f"{folder}: has no {_CARD}; give a folder written by GraphEmbeddings.save")
        card = read_table(path / _CARD)
        kinds = {"options": dict, "status": str, "history": list, "entities": list, "relations": list}
        for key, kind in kinds.items():
            if not isinstance(card.get(key), kind):
                raise FormatError(f"{path / _CARD}: {key!r} is missing or no {kind.__name__}; save it again")
        with refused_in(path / _CARD, "options"):
            loaded = cls(**card["options"] | {"num_threads": num_threads})
        entities, relations = (check_names(path / _CARD, key, card[key]) for key in ("entities", "relations"))
        tables = _read_tensors(path, len(entities), len(relations), loaded.dim)  # before memory is taken for them
        loaded._name_rows(entities, relations)
        loaded.entity_embeddings, loaded.relation_embeddings, loaded._triples = tables
        loaded.status, loaded.history = card["status"], card["history"]
        return loaded


def _read_tensors(path: Path, entities: int, relations: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The embeddings and triples of a folder; FormatError where they do not fit the names."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not (path / _TENSORS).is_file():
        raise FormatError(f"{path}: there is no {_TENSORS}; copy the whole folder, or save it again")
    try:
        tensors = load((path / _TENSORS).read_bytes())
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a type that NumPy lacks
        raise FormatError(f"{path / _TENSORS}: is no whole safetensors file ({error})") from None
    for name, shape in {"entities": (entities, dim), "relations": (relations, dim)}.items():
        if name not in tensors or tensors[name].shape != shape or tensors[name].dtype != np.float32:
            raise FormatError(f"{path / _TENSORS}: {name} is no float32 tensor of shape {shape}; save it again")
    triples = tensors.get("triples")
    if triples is None or triples.dtype != np.int32 or triples.ndim != 2 or triples.shape[1] != 3:
        raise FormatError(f"{path / _TENSORS}: triples is no int32 tensor of shape (n, 3); save it again")
    if (triples < 0).any() or (triples >= (entities, relations, entities)).any():
        raise FormatError(
            f"{path / _TENSORS}: triples has rows beyond the {entities} entities and {relations} relations; save it "
            "again"
        )
    return tensors["entities"], tensors["relations"], triples


def _rows(names: Sequence[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names)}


def _numbered(triples: list[Triple], entities: dict[str, int], relations: dict[str, int]) -> np.ndarray:
    """int32 (n, 3)."""
    numbers = [(entities[head], relations[relation], entities[tail]) for head, relation, tail in triples]
    return np.array(numbers, np.int32).reshape(len(numbers), 3)


def _write(data: bytes, file: Any) -> None:
    file.write(data)
