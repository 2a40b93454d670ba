"""Few-shot learning: N-way K-shot episodes by prototypes, to train on and to score, with none of the above."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from relpt import _core
from relpt.inputs import SIMILARITIES, check_count, choice, input_name, plain
from relpt.intervals import known, known_intervals, with_interval
from relpt.nota import NOTA_SCORES, accuracies, best_threshold, nota_scores
from relpt.runlog import counted

if TYPE_CHECKING:
    from relpt.episodes import Episodes
    from relpt.history import History
    from relpt.objectives import Prototypes

__all__ = ["FewShot", "FewShotResult"]

_NOTA = ("nota_rate", "nota_score", "nota_threshold", "known_accuracy", "known_ci95", "none_accuracy", "none_ci95")


@dataclass(frozen=True)
class FewShotResult:
    """Accuracy over episodes.

    Attributes:
        accuracy: mean over episodes, 0 to 1.
        ci95: half width of the 95 % confidence interval of the mean (1.96 standard errors over episodes); NaN for one
            episode, which says nothing about others.
        per_episode: float64 (episodes,), each episode's accuracy.
        nota_rate, nota_score, nota_threshold: as in ``FewShot``; None where none of the above is no answer.
        known_accuracy, known_ci95: accuracy on the queries of one of the ways, where "none of the above" is wrong.
        none_accuracy, none_ci95: accuracy on the others, where it alone is right; None where there are none.
    """

    inputs: str
    way: int
    shot: int
    similarity: str
    episodes: int
    accuracy: float
    ci95: float
    per_episode: np.ndarray = field(repr=False, compare=False)
    nota_rate: float | None = None
    nota_score: str | None = None
    nota_threshold: float | None = None
    known_accuracy: float | None = None
    known_ci95: float | None = None
    none_accuracy: float | None = None
    none_ci95: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as a row of plain values; those of none of the above where it is an answer.

        An interval that is not known is None, as JSON has no NaN.
        """
        names = ("inputs", "way", "shot", "similarity", "episodes", "accuracy", "ci95")
        row = {name: getattr(self, name) for name in (*names, *(_NOTA if self.nota_rate is not None else ()))}
        return known_intervals(row)

    def _figures(self) -> str:
        text = f"{self.way}-way {self.shot}-shot: {with_interval(self.accuracy, self.ci95, 3)}"
        if self.nota_rate is None:
            return text
        parts = (("known", self.known_accuracy, self.known_ci95), ("none", self.none_accuracy, self.none_ci95))
        listed = ", ".join(
            f"{name} {with_interval(value, ci95, 3)}" for name, value, ci95 in parts if value is not None
        )
        return f"{text} ({self.nota_rate:.0%} none of the above: {listed})"

    def __str__(self) -> str:
        return f"{self.inputs} {self._figures()}"

    def _repr_html_(self) -> str:
        return f"<b>{self.inputs}</b> {self._figures()}"


class FewShot:
    """N-way K-shot episodes with prototypes (Snell et al. 2017; Peng et al. 2020, section 4.1).

    Every instance is encoded once; an episode draws ``n_way`` relations, and of each ``k_shot`` support and ``n_query``
    query instances; a query counts as right when its own relation's prototype, the mean of the support vectors, is the
    most similar one. Episode i is a function of (seed, i).

    None of the above (FewRel 2.0, Gao et al. 2019): with ``nota_rate`` r each query is, with chance r, one
    of a relation outside the episode, and "none of the above" is right. Supports and the other queries are those of
    rate 0. The answer is given where the score of the best way is below ``nota_threshold``, which is a number, or
    fitted to other relations (``fit_threshold``).

    Args:
        n_way: relations an episode.
        k_shot: support instances a relation.
        n_query: query instances a relation.
        episodes: how many.
        similarity: "cosine", "dot" or "euclidean".
        seed: of the draws.
        nota_rate: chance of a query that none of the ways is right; 0 to below 1.
        nota_threshold: None with a rate of 0 leaves "none of the above" out of the answers. Above it a query gets the
            most similar way, below it none.
        nota_score: what is compared with the threshold. "similarity", that to the best prototype, tells the most on
            text like that of the fit. On text of another kind all similarities may be higher or lower than there, and
            a line drawn through them falls beside the queries. "margin", what the best prototype has over the second,
            does not move with them, but tells less (the aim of nearest-neighbour ratios in open-set recognition, Mendes
            Júnior et al. 2017). Their sum "similarity+margin" keeps most of both. Measured with MiniLM after 300 steps
            of CP, 5-way 5-shot at rate 0.5, the threshold fitted on FewRel's training relations: on its validation
            relations similarity 0.752, margin 0.673, sum 0.742; on PubMed 0.469, 0.526 and 0.693, where the best
            thresholds there are give 0.704, 0.671 and 0.723.
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
        nota_rate: float = 0.0,
        nota_threshold: float | None = None,
        nota_score: str = "similarity",
    ) -> None:
        choice(similarity, SIMILARITIES, "similarity")
        choice(nota_score, NOTA_SCORES, "nota_score")
        check_count("episodes", plain(episodes))
        if not 0 <= nota_rate < 1:
            raise ValueError(f"nota_rate is {nota_rate}; expected at least 0 and less than 1")
        if nota_threshold is not None and math.isnan(nota_threshold):
            raise ValueError("nota_threshold is not a number; expected one, or None")
        self.n_way, self.k_shot, self.n_query, self.episodes = n_way, k_shot, n_query, episodes
        self.similarity, self.seed = similarity, seed
        self.nota_rate, self.nota_threshold, self.nota_score = nota_rate, nota_threshold, nota_score

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
            ValueError: n_way 1 without none of the above, or beyond the relations; k_shot + n_query beyond a relation's
                instances (named); no labels; a ``nota_rate`` without a threshold or without a relation outside the
                ways.
        """
        self._check_threshold()
        vectors, relation = self._encode(encoder, data, inputs, max_length, show_progress_bar)
        return self.score(vectors, relation, inputs=inputs, num_threads=getattr(encoder, "num_threads", None))

    def fit_threshold(
        self,
        encoder: Any,
        data: Any,
        *,
        inputs: str = "C+M",
        max_length: int = 128,
        show_progress_bar: bool | None = None,
    ) -> FewShot:
        """Sets ``nota_threshold`` to the one with the most right answers in episodes of other relations.

        The episodes have these ways, shots and this ``nota_rate``, which matters: the more queries are none of the
        above, the higher the threshold. Give relations that are not tested, those of the training or a part held out.

        Args:
            encoder, data, inputs, max_length, show_progress_bar: as in ``evaluate``.

        Returns:
            This object.

        Raises:
            ValueError: as in ``evaluate``, or the rate is 0.
        """
        self._check_rate()
        vectors, relation = self._encode(encoder, data, inputs, max_length, show_progress_bar)
        self.nota_threshold = self.best_threshold(vectors, relation, num_threads=getattr(encoder, "num_threads", None))
        return self

    def best_threshold(self, vectors: np.ndarray, labels: np.ndarray, *, num_threads: int | None = None) -> float:
        """What ``fit_threshold`` fits, from a table of vectors; see ``score``."""
        self._check_rate()
        numbers = np.unique(labels, return_inverse=True)
        right, none, scores = self._answers(vectors, numbers[1], len(numbers[0]), num_threads)
        return best_threshold(scores, right, none)

    def score(
        self, vectors: np.ndarray, labels: np.ndarray, *, inputs: str = "C+M", num_threads: int | None = None
    ) -> FewShotResult:
        """Scores the episodes from a table of vectors.

        Args:
            vectors: float32 (n, dim).
            labels: int (n,), class numbers.
            inputs: the setting the vectors were made in, for the result's row.
        """
        self._check_threshold()
        self._check_ways()
        numbers = np.unique(labels, return_inverse=True)
        nota: dict[str, Any] = {}
        if self.nota_threshold is None:
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
        else:
            right, none, scores = self._answers(vectors, numbers[1], len(numbers[0]), num_threads)
            right = np.where(scores < self.nota_threshold, none, right)
            accuracy = right.mean(axis=1)
            nota = {name: getattr(self, name) for name in _NOTA[:3]} | accuracies(right, none)
        n = len(accuracy)
        half = 1.96 * (float(accuracy.std(ddof=1)) / math.sqrt(n)) if n > 1 else math.nan
        return FewShotResult(
            inputs=input_name(inputs),
            way=self.n_way,
            shot=self.k_shot,
            similarity=self.similarity,
            episodes=self.episodes,
            accuracy=float(accuracy.mean()),
            ci95=half,
            per_episode=accuracy,
            **nota,
        )

    def predict(
        self,
        encoder: Any,
        episodes: Any,
        *,
        inputs: str = "C+M",
        max_length: int = 128,
        none_label: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> np.ndarray:
        """Answers given episodes, such as those of FewRel's leaderboards; ``json.dump(list)`` of it is a submission.

        Ways and shots are those of the episodes. Each different sentence is encoded once.

        FewRel's own code numbers none of the above N, after the ways 0 to N - 1 (thunlp/FewRel: the labels of
        ``fewshot_re_kit/data_loader.py``, the last score of ``models/pair.py``), and so does the generator of Sabo et
        al. 2021 (ofersabo/MNAV). The leaderboard's own page could not be consulted, as it stands behind a login:
        ``none_label`` is for the case that it asks for another number.

        Args:
            encoder, inputs, max_length, show_progress_bar: as in ``evaluate``.
            episodes: ``Episodes``, or what ``load_episodes`` takes: a JSON file's path, or the list in it.
            none_label: the number of none of the above; None for the number of ways. Given only where there is a
                ``nota_threshold``.

        Returns:
            int32 (episodes,), the way, 0 to N - 1, or ``none_label``.

        Raises:
            FormatError: the episodes are not in the format (file, episode, field).
            ValueError: ``none_label`` is a way's number; a ``nota_rate`` without threshold.
        """
        from relpt.episodes import Episodes, load_episodes

        self._check_threshold()
        given = episodes if isinstance(episodes, Episodes) else load_episodes(episodes)
        vectors = encoder.encode(given.data, inputs=inputs, max_length=max_length, show_progress_bar=show_progress_bar)
        return self.answer(vectors, given, none_label=none_label, num_threads=getattr(encoder, "num_threads", None))

    def answer(
        self,
        vectors: np.ndarray,
        episodes: Episodes,
        *,
        none_label: int | None = None,
        num_threads: int | None = None,
    ) -> np.ndarray:
        """What ``predict`` predicts, from the vectors of ``episodes.data``, float32 (n, dim)."""
        self._check_threshold()
        none = episodes.n_way if none_label is None else none_label
        if 0 <= none < episodes.n_way:
            raise ValueError(f"none_label is {none}, the number of a way; expected -1, say, or {episodes.n_way}")
        way, scores = self._nearest(vectors, episodes.support, episodes.query[:, None], num_threads)
        if self.nota_threshold is not None:
            way = np.where(scores < self.nota_threshold, np.int32(none), way)
        return way[:, 0]

    def draw(self, data: Any) -> Episodes:
        """The episodes with their answers, one for each query, in ``FewRel``'s form: to save and to predict.

        The n_way * n_query queries of an episode follow one another and share its supports, so that the accuracy over
        all is that of ``evaluate``.

        Args:
            data: labelled ``Dataset``, or what ``relpt.load`` takes.

        Raises:
            ValueError: see ``evaluate``.
        """
        from relpt.corpus.tokenizing import number_relations
        from relpt.data.reading import as_dataset
        from relpt.episodes import Episodes

        dataset, _ = as_dataset(data)
        self._check(dataset)
        names, numbers = number_relations(dataset)
        support, query, none = self._draw(numbers, len(names))
        ways = np.repeat(np.arange(self.n_way), self.n_query)
        return Episodes(
            dataset,
            np.repeat(support, query.shape[1], axis=0),
            query.ravel(),
            np.where(none, self.n_way, ways).ravel(),
        )

    def fit(
        self,
        encoder: Any,
        data: Any,
        *,
        learning_rate: float = 2e-5,
        batch_size: int = 4,
        epochs: int = 10,
        max_steps: int | None = None,
        max_length: int = 128,
        inputs: str = "C+M",
        temperature: float | None = None,
        val: Any = None,
        target: Any = None,
        reversal: float = 0.1,
        callbacks: Iterable[Callable[[dict[str, Any]], Any]] = (),
        checkpoint_dir: str | os.PathLike[str] | None = None,
        checkpoint_every: int = 500,
        resume: bool | str | os.PathLike[str] | None = None,
        show_progress_bar: bool | None = None,
        **options: Any,
    ) -> History:
        """Trains an encoder on episodes of these ways, shots and queries (``relpt.objectives.Prototypes``).

        With a ``target``, the encoder also learns vectors by which a discriminator cannot tell the data from that text
        (``relpt.objectives.Domain``; FewRel 2.0, Gao et al. 2019: train on Wikipedia, test on PubMed).

        Source: Snell et al. 2017; Peng et al. 2020, section 4.1 and appendix B, table 10: similarity "dot", learning
        rate 2e-5, 4 episodes a step, 10 epochs, 128 word pieces. An epoch is as many steps as draw as many sentences as
        the data have; the source does not say what it calls one. Step s draws what (seed, s) says. Training
        episodes have no query that is none of the above: ``fit_threshold`` comes after it.

        Args:
            encoder: the ``Encoder`` or ``CNNEncoder``, changed in place (``encoder.copy()`` keeps it), as by
                ``CPTrainer``. With a CNN this is a baseline of FewRel (Han et al. 2018, section 4), whose code trains
                by ``optimizer="sgd", learning_rate=0.1``.
            data: labelled ``Dataset`` or ``Corpus``, or what ``relpt.load`` takes. Relations with fewer than k_shot +
                n_query different sentences are left out, and counted in a warning.
            learning_rate: of AdamW.
            batch_size: episodes a step.
            epochs, max_steps: length of the run; max_steps wins.
            max_length: word pieces a sentence.
            inputs: the input setting.
            temperature: similarities are divided by it; None: 1 for "dot", as published, 0.07 for "cosine".
            val: labelled data of other relations, which ``evaluate`` scores after each epoch and at the end: the
                records of these steps have val_accuracy and val_ci95.
            target: text of the domain to be tested in, unlabelled or with labels that are not used; a step takes as
                many sentences of it as its episodes have.
            reversal: lambda of the reversed gradient, which is reached over the run as in Ganin and Lempitsky 2015.
            callbacks, checkpoint_dir, checkpoint_every, resume, show_progress_bar: as in ``CPTrainer.fit``.
            options: others of ``relpt.Trainer``, such as warmup_steps, micro_batch_pairs or dropout (that of the
                encoder's config.json unless given; no mention is blanked unless p_blank is).

        Returns:
            The History.

        Raises:
            ValueError: fewer than n_way relations with enough sentences (says how many, and what to lower); unlabelled
                data; similarity "euclidean"; an option out of range. TypeError: no such option; neither of the two
                encoders, such as a hybrid, whose parts are trained one by one.
        """
        from relpt.cnn import CNNEncoder
        from relpt.encoder import Encoder
        from relpt.objectives import Domain, Objective
        from relpt.trainer import Trainer

        if not isinstance(encoder, (Encoder, CNNEncoder)):
            raise TypeError(f"fit trains an Encoder or a CNNEncoder; got {type(encoder).__name__}")
        episodes = self._prototypes(batch_size, temperature)
        corpus, _ = encoder._as_corpus(data, max_length, show_progress_bar)
        epoch = max(1, -(-len(corpus) // episodes.sentences))
        given: dict[str, Any] = {"p_blank": 0.0, "input_mix": {input_name(inputs): 1.0}, "dropout": None}
        given |= {"learning_rate": learning_rate, "max_length": max_length, "seed": self.seed}
        given |= {"max_steps": _steps(epochs, epoch) if max_steps is None else max_steps, **options}
        objectives: list[Objective] = [episodes]
        if target is not None:
            objectives.append(Domain(reversal=reversal, ramp_steps=given["max_steps"]))
        trainer = Trainer(encoder, objectives=objectives, **given)
        watch = [] if val is None else [self._watch(encoder, val, inputs, max_length, epoch, given["max_steps"])]
        return trainer.fit(
            corpus,
            target=target,
            callbacks=[*watch, *callbacks],
            checkpoint_dir=checkpoint_dir,
            checkpoint_every=checkpoint_every,
            resume=resume,
            show_progress_bar=show_progress_bar,
        )

    def _prototypes(self, batch_size: int, temperature: float | None) -> Prototypes:
        """The objective of ``fit``."""
        from relpt.objectives import Prototypes

        if self.similarity == "euclidean":
            raise ValueError("fit trains by similarity 'dot' or 'cosine', not 'euclidean'; make a FewShot with one")
        usual = 1.0 if self.similarity == "dot" else 0.07
        return Prototypes(
            similarity=self.similarity,
            temperature=usual if temperature is None else temperature,
            n_way=self.n_way,
            k_shot=self.k_shot,
            n_query=self.n_query,
            episodes=batch_size,
        )

    def _watch(
        self, encoder: Any, val: Any, inputs: str, max_length: int, epoch: int, last: int
    ) -> Callable[[dict[str, Any]], None]:
        """A callback that scores ``val`` at the end of each epoch and of the run."""
        self._check_threshold()
        corpus, _ = encoder._as_corpus(val, max_length, False)
        self._check(corpus)

        def see(record: dict[str, Any]) -> None:
            if record["step"] % epoch == 0 or record["step"] == last:
                found = self.evaluate(encoder, corpus, inputs=inputs, max_length=max_length, show_progress_bar=False)
                record |= {"val_accuracy": found.accuracy, "val_ci95": known(found.ci95)}

        return see

    # -- the parts ---------------------------------------------------------------------------------------------------

    def _encode(
        self, encoder: Any, data: Any, inputs: str, max_length: int, show: bool | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and relation numbers of labelled data that is enough for the episodes."""
        from relpt.corpus import Corpus
        from relpt.corpus.tokenizing import number_relations
        from relpt.data.reading import as_dataset

        if not isinstance(data, Corpus):
            data, _ = as_dataset(data)
        self._check(data)
        vectors = encoder.encode(data, inputs=inputs, max_length=max_length, show_progress_bar=show)
        return vectors, data.relation if isinstance(data, Corpus) else number_relations(data)[1]

    def _draw(self, numbers: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of supports (episodes, n_way, k_shot) and queries (episodes, n_way * n_query); which are none."""
        labels = np.ascontiguousarray(numbers.reshape(-1), np.int32)
        support, query = _core.draw_episodes(
            labels,
            n_classes,
            self.n_way,
            self.k_shot,
            self.n_query,
            self.seed,
            0,
            self.episodes,
            self.nota_rate,
        )
        none = labels[query] != labels[support[:, :, :1]]
        return support, query.reshape(self.episodes, -1), none.reshape(self.episodes, -1)

    def _nearest(
        self, vectors: np.ndarray, support: np.ndarray, query: np.ndarray, num_threads: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The most similar way of each query, and the score that is compared with the threshold."""
        if "margin" in self.nota_score and support.shape[1] < 2:
            raise ValueError(f"nota_score {self.nota_score!r} needs two ways or more; use 'similarity' with one")
        way, similarity, margin = _core.fewshot_answers(
            np.ascontiguousarray(vectors, np.float32),
            np.ascontiguousarray(support, np.int64),
            np.ascontiguousarray(query, np.int64),
            choice(self.similarity, SIMILARITIES, "similarity"),
            _core.default_threads() if num_threads is None else num_threads,
        )
        return way, nota_scores(self.nota_score, similarity, margin)

    def _answers(
        self, vectors: np.ndarray, numbers: np.ndarray, n_classes: int, num_threads: int | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(episodes, n_way * n_query): whether the best way is right, whether none is, and the score."""
        support, query, none = self._draw(numbers, n_classes)
        way, scores = self._nearest(vectors, support, query, num_threads)
        return (way == np.repeat(np.arange(self.n_way), self.n_query)) & ~none, none, scores

    def _check_threshold(self) -> None:
        if self.nota_rate > 0 and self.nota_threshold is None:
            raise ValueError(
                f"nota_rate is {self.nota_rate}, and there is no nota_threshold: give one, or fit it to other "
                "relations by fit_threshold"
            )

    def _check_rate(self) -> None:
        if self.nota_rate == 0:
            raise ValueError("nota_rate is 0: give the share of queries to expect that are none of the above")

    def _check_ways(self) -> None:
        if self.n_way == 1 and self.nota_rate == 0 and self.nota_threshold is None:
            raise ValueError(
                "n_way is 1, so that every answer is right; give two ways or more (--way), or let none of the above be "
                "an answer by nota_threshold (--nota-threshold)"
            )

    def _check(self, corpus: Any) -> None:
        self._check_ways()
        counts = corpus.label_counts()
        if not counts:
            raise ValueError(f"few-shot episodes need labelled data; {corpus.name!r} names no relations")
        if self.n_way > len(counts):
            raise ValueError(
                f"n_way is {self.n_way}, but {corpus.name!r} has {counted(len(counts), 'relation')}; lower n_way "
                "(--way)"
            )
        if self.nota_rate > 0 and self.n_way == len(counts):
            raise ValueError(
                f"n_way takes all {self.n_way} relations of {corpus.name!r}, and a nota_rate of {self.nota_rate} needs "
                "others beside them; lower n_way (--way)"
            )
        label, least = min(counts.items(), key=lambda item: item[1])
        if self.k_shot + self.n_query > least:
            raise ValueError(
                f"k_shot + n_query is {self.k_shot + self.n_query}, but relation {label!r} has "
                f"{counted(least, 'sentence')}; lower k_shot (--shot) or leave the relation out"
            )


def _steps(epochs: int, epoch: int) -> int:
    check_count("epochs", epochs)
    return epochs * epoch
