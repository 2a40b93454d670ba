"""Few-shot evaluation: N-way K-shot episodes scored by prototypes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from relpt import _core
from relpt.inputs import SIMILARITIES, choice, input_name

__all__ = ["FewShot", "FewShotResult"]


@dataclass(frozen=True)
class FewShotResult:
    """Accuracy over episodes.

    Attributes:
        accuracy: mean over episodes, 0 to 1.
        ci95: half width of the 95 % confidence interval of the mean (1.96 standard errors over episodes).
        per_episode: float64 (episodes,), each episode's accuracy.
    """

    inputs: str
    way: int
    shot: int
    similarity: str
    episodes: int
    accuracy: float
    ci95: float
    per_episode: np.ndarray = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The result as a row of plain values."""
        names = ("inputs", "way", "shot", "similarity", "episodes", "accuracy", "ci95")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        return f"{self.inputs} {self.way}-way {self.shot}-shot: {self.accuracy:.3f} ± {self.ci95:.3f}"

    def _repr_html_(self) -> str:
        return f"<b>{self.inputs}</b> {self.way}-way {self.shot}-shot: {self.accuracy:.3f} ± {self.ci95:.3f}"


class FewShot:
    """N-way K-shot episodes with prototypes (Snell et al. 2017; Peng et al. 2020, section 4.1).

    Every instance is encoded once; an episode draws ``n_way`` relations, and of each ``k_shot`` support and ``n_query``
    query instances; a query counts as right when its own relation's prototype, the mean of the support vectors, is the
    most similar one. Episode i is a function of (seed, i).

    Args:
        n_way: relations an episode.
        k_shot: support instances a relation.
        n_query: query instances a relation.
        episodes: how many.
        similarity: "cosine", "dot" or "euclidean".
        seed: of the draws.
    """

    def __init__(
        self,
        *,
        n_way: int = 5,
        k_shot: int = 1,
        n_query: int = 1,
        episodes: int = 10_000,
        similarity: str = "cosine",
        seed: int = 42,
    ) -> None:
        choice(similarity, SIMILARITIES, "similarity")
        self.n_way, self.k_shot, self.n_query, self.episodes = n_way, k_shot, n_query, episodes
        self.similarity, self.seed = similarity, seed

    def get_params(self) -> dict[str, Any]:
        """The options by name."""
        return dict(self.__dict__)

    def __repr__(self) -> str:
        return f"FewShot({', '.join(f'{key}={value!r}' for key, value in self.get_params().items())})"

    def evaluate(
        self,
        encoder: Any,
        data: Any,
        *,
        inputs: str = "C+M",
        max_length: int = 128,
        show_progress_bar: bool | None = None,
    ) -> FewShotResult:
        """Encodes the data once and scores the episodes.

        Args:
            encoder: an ``Encoder``, ``HybridEncoder`` or ``EntityTable``, or what else has an ``encode`` like theirs.
            data: labelled ``Dataset`` or ``Corpus``, or what ``relpt.load`` takes.
            inputs: the input setting.
            max_length: as in ``Encoder.encode``.

        Raises:
            ValueError: n_way beyond the relations, k_shot + n_query beyond a relation's instances (named), no labels.
        """
        from relpt.corpus import Corpus
        from relpt.corpus.tokenizing import number_relations
        from relpt.data.reading import as_dataset

        if not isinstance(data, Corpus):
            data, _ = as_dataset(data)
        self._check(data)
        vectors = encoder.encode(data, inputs=inputs, max_length=max_length, show_progress_bar=show_progress_bar)
        relation = data.relation if isinstance(data, Corpus) else number_relations(data)[1]
        return self.score(vectors, relation, inputs=inputs, num_threads=getattr(encoder, "num_threads", None))

    def score(
        self, vectors: np.ndarray, labels: np.ndarray, *, inputs: str = "C+M", num_threads: int | None = None
    ) -> FewShotResult:
        """Scores the episodes from a table of vectors.

        Args:
            vectors: float32 (n, dim).
            labels: int (n,), class numbers.
            inputs: the setting the vectors were made in, for the result's row.
        """
        numbers = np.unique(labels, return_inverse=True)
        accuracy = _core.fewshot_score(
            np.ascontiguousarray(vectors, np.float32),
            np.ascontiguousarray(numbers[1].reshape(-1), np.int32),
            len(numbers[0]),
            self.n_way,
            self.k_shot,
            self.n_query,
            self.episodes,
            choice(self.similarity, SIMILARITIES, "similarity"),
            self.seed,
            _core.default_threads() if num_threads is None else num_threads,
        )
        spread = float(accuracy.std(ddof=1)) / math.sqrt(len(accuracy)) if len(accuracy) > 1 else 0.0
        return FewShotResult(
            inputs=input_name(inputs),
            way=self.n_way,
            shot=self.k_shot,
            similarity=self.similarity,
            episodes=self.episodes,
            accuracy=float(accuracy.mean()),
            ci95=1.96 * spread,
            per_episode=accuracy,
        )

    def _check(self, corpus: Any) -> None:
        counts = corpus.label_counts()
        if not counts:
            raise ValueError(f"few-shot episodes need labelled data; {corpus.name!r} names no relations")
        if self.n_way > len(counts):
            raise ValueError(
                f"n_way is {self.n_way}, but {corpus.name!r} has {len(counts)} relations; lower n_way (--way)"
            )
        label, least = min(counts.items(), key=lambda item: item[1])
        if self.k_shot + self.n_query > least:
            raise ValueError(
                f"k_shot + n_query is {self.k_shot + self.n_query}, but relation {label!r} has {least} sentences; "
                "lower k_shot (--shot) or leave the relation out"
            )
