"""What a run of ``relpt.Trainer`` minimises: objectives, whose weighted losses are summed on one forward pass."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, Final

import numpy as np

from relpt import _core
from relpt.encoding import unit_length
from relpt.graph import GraphEmbeddings
from relpt.inputs import SIMILARITIES, check_count, choice

__all__ = [
    "CP",
    "EP",
    "MIL",
    "MLM",
    "MTB",
    "OBJECTIVES",
    "POOLINGS",
    "RC",
    "SBO",
    "SOURCES",
    "Alignment",
    "Domain",
    "Objective",
    "Prototypes",
    "SpanMLM",
    "Spans",
]

_log = logging.getLogger("relpt")

SOURCES: Final = ("relations", "entities", "same_entities", "instances", "episodes", "bags")
POOLINGS: Final = ("attention", "one", "mean")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """What all objectives have in common; use CP, MLM, SpanMLM, SBO, MTB, EP, RC, MIL, Prototypes, Alignment or Domain.

    An objective runs on the samples of a source: "relations" (pairs of sentences with the same relation), "entities"
    (pairs with the same pair of entities or not), "same_entities" (those that have it alone), "instances" (single
    sentences, each once an epoch), "episodes" (N-way K-shot) or "bags" (sentences with the same pair of entities and
    relation). Objectives that name the same source see the same samples. Domain alone draws from the "target", other
    text than the run's.
    """

    needs_relations: ClassVar[bool] = False
    sources: ClassVar[tuple[str | None, ...]] = (None,)  # those it can run on; None: all samples
    weight: float = 1.0
    name: str = ""
    source: str | None = None

    def __post_init__(self) -> None:
        for name, value in self.get_params().items():
            if isinstance(value, np.generic):
                object.__setattr__(self, name, value.item())
        if not isinstance(self.name, str) or not self.name.isidentifier() or len(self.name) > 20:
            raise ValueError(f"name is {self.name!r}; expected letters, digits and _, at most 20")
        if isinstance(self.weight, bool) or not isinstance(self.weight, (int, float)) or not self.weight >= 0:
            raise ValueError(f"{self.name}_weight is {self.weight!r}; expected a number of 0 or more")
        if self.source not in self.sources:
            expected = " or ".join(map(repr, self.sources))
            raise ValueError(f"source of {self.name} is {self.source!r}; expected {expected}")
        self._check()

    def _check(self) -> None:
        """Refuses options that are out of range; the core checks numbers."""

    def get_params(self) -> dict[str, Any]:
        """All options by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def _card(self) -> dict[str, Any]:
        """What the run card says of the options."""
        return self.get_params()

    def _check_corpus(self, corpus: Any) -> None:
        """Says what of a corpus the objective cannot use; ValueError where that is everything."""

    def _core(self, relations: Sequence[str]) -> dict[str, Any]:
        """The core's options beside name, weight and samples."""
        raise NotImplementedError

    def _source_options(self) -> dict[str, Any]:
        """Options of the objective's own source, where it says how that draws."""
        return {}

    @property
    def _draws(self) -> tuple[int, int] | None:
        """What a step draws from the objective's own source, where it says so: how many, of how many sentences."""
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CP(Objective):
    """Contrast of sentences that state the same relation (Peng et al. 2020, section 3.1, equation 2).

    With x_a, x_b the vectors of a pair and x_i those of other pairs, s a similarity over the temperature:
    ``-log(exp s(x_a, x_b) / (exp s(x_a, x_b) + sum_i exp s(x_a, x_i)))``, mean over the anchors.

    Args:
        weight: of the loss in the sum; 0 leaves it out.
        similarity, temperature, symmetric, mask_same_relation, positives: as in ``CPTrainer``.
        relation_sampling, distinct_relations, pairs_per_relation: how the source "relations" draws, as in
            ``CPTrainer``.
        name, source: of its figures; what it runs on, which is fixed.
    """

    needs_relations: ClassVar[bool] = True
    sources: ClassVar[tuple[str | None, ...]] = ("relations",)
    name: str = "cp"
    source: str | None = "relations"
    similarity: str = "cosine"
    temperature: float = 0.07
    symmetric: bool = True
    mask_same_relation: bool = True
    positives: str = "pair"
    relation_sampling: str | float = "share"
    distinct_relations: bool = False
    pairs_per_relation: int = 1

    def _check(self) -> None:
        choice(self.similarity, SIMILARITIES[:2], "similarity")
        choice(self.positives, ("pair", "relation"), "positives")
        _check_counts(self, pairs_per_relation=1)
        self._exponent()

    def _exponent(self) -> float:
        value = self.relation_sampling
        if isinstance(value, str):
            return (1.0, 0.0)[choice(value, ("share", "uniform"), "relation_sampling")]
        return float(value)

    def _core(self, relations: Sequence[str]) -> dict[str, Any]:
        return {
            "kind": "contrastive",
            "similarity": choice(self.similarity, SIMILARITIES, "similarity"),
            "temperature": self.temperature,
            "symmetric": self.symmetric,
            "mask_same_group": self.mask_same_relation,
            "supervised": self.positives == "relation",
            "by_entities": False,
        }

    def _source_options(self) -> dict[str, Any]:
        return {
            "relation_exponent": self._exponent(),
            "distinct_relations": self.distinct_relations,
            "pairs_per_relation": self.pairs_per_relation,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLM(Objective):
    """Masked words of all samples (Devlin et al. 2019, section 3.1): mean cross-entropy over them.

    Args:
        weight: of the loss in the sum; 0 leaves it out.
        probability: share of words that are masked: 80 % by [MASK], 10 % by a random word, 10 % by itself.
        name: of its figures.
    """

    name: str = "mlm"
    source: None = None
    probability: float = 0.15

    def _core(self, relations: Sequence[str]) -> dict[str, Any]:
        return {"kind": "mlm"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spans(Objective):
    """What SpanMLM and SBO have in common: spans of entity and relation words of all samples, masked in place of words.

    In each sample each mention is masked as a whole (all that stands between its markers) with ``mention_probability``,
    and with ``relation_probability`` one run of whole words between the two mentions, where data name no words for the
    relation: its length l is drawn from ``P(l) ~ (1 - length_p)^(l - 1)``, l = 1 .. longest or as many words as stand
    there, and its first word uniformly (Joshi et al. 2020, section 3.1). Of the spans 80 % become [MASK], 10 % random
    words, 10 % stay, each as a whole (ibid.). What is special, such as the [BLANK] of a blanked mention, stays and is
    not recovered. Objectives over relation vectors, such as RC, see the same masked sentences: so the relation is
    recovered, too.
    """

    source: None = None
    mention_probability: float = 0.5
    relation_probability: float = 0.5
    length_p: float = 0.2
    longest: int = 10

    def _check(self) -> None:
        if self.mention_probability == self.relation_probability == 0:
            raise ValueError(f"{self.name}: mention_probability and relation_probability are 0; expected one above 0")

    def masking(self) -> dict[str, Any]:
        """How spans are masked, which all objectives of a run share."""
        names = ("mention_probability", "relation_probability", "length_p", "longest")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpanMLM(Spans):
    """Masked spans of entity and relation words, recovered as masked words are (Joshi et al. 2020, section 3.1; the
    head is that of MLM, Devlin et al. 2019, section 3.1): mean cross-entropy over their tokens.

    Args:
        weight: of the loss in the sum; 0 leaves it out.
        mention_probability: that a mention is masked, per mention, sentence and step.
        relation_probability: that a run of words between the mentions is.
        length_p, longest: of the length of this run in words: as published.
        name: of its figures.
    """

    name: str = "span_mlm"

    def _core(self, relations: Sequence[str]) -> dict[str, Any]:
        return {"kind": "mlm"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SBO(Spans):
    """Span boundary objective (Joshi et al. 2020, section 3.2): the tokens of a masked span from those just outside.

    With x_l and x_r the hidden states just before and behind the span, p_i a vector for place i in it, and w_v the word
    embeddings: ``h = LN(gelu(W1 [x_l; x_r; p_i] + b1))``, ``y = LN(gelu(W2 h + b2))``,
    ``-log softmax(w y + b)[token]``, mean over the tokens of all spans. A mention's x_l and x_r are the states of its
    markers, which so learn what they mark. W1, W2, b and p belong to the run (``Trainer.heads``). Published beside
    SpanMLM, which recovers the same tokens.

    Args:
        weight: of the loss in the sum; 0 leaves it out.
        mention_probability, relation_probability, length_p, longest: as in SpanMLM.
        position_size: of p_i, as published. There are 64; tokens further into a span share the last one.
        name: of its figures and its head.
    """

    name: str = "sbo"
    position_size: int = 200

    def _core(self, relations: Sequence[str]) -> dict[str, Any]:
        return {"kind": "boundary", "position_size": self.position_size}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MTB(Objective):
    """Matching the blanks: do two sentences have the same pair of entities? (Baldini Soares et al. 2019, section 4.1;
    Peng et al. 2020, section 2.1.)

    ``p = 1 / (1 + exp(-x_a · x_b))``, binary cross-entropy, mean over pairs of sentences. Entities are the same where
    the data give them the same id, or without ids the same name; blank them (``p_blank``), or their names tell.

    As published, p is below one half only where x_a · x_b is below 0, and many vectors cannot all point away from each
    other. With a threshold that similarity is compared instead, as a bias does in a sigmoid loss over pairs (Zhai et
    al. 2023, section 3.2).

    Args:
        weight: of the loss in the sum; 0 leaves it out.
        similarity: "dot", as published, or "cosine".
        temperature: the similarity is divided by it; 1 as published. A cosine needs one below 1.
        threshold: a similarity above it says that the two match; 0 as published.
        positive_share: share of pairs with the same entities; exact in each step, as far as a whole number goes.
        hard_share: share of the others that have exactly one entity in common.
        name, source: of its figures; what it runs on, which is fixed.
    """

    sources: ClassVar[tuple[str | None, ...]] = ("entities",)
    name: str = "mtb"
    source: str | None = "entities"
    similarity: str = "dot"
    temperature: float = 1.0
    threshold: float = 0.0
    positive_share: float = 0.5
    hard_share: float = 0.5

    def _check(self) -> None:
        choice(self.similarity, SIMILARITIES[:2], "similarity")

    def _core(self, relations: Sequence[str]) -> dict[str, Any]:
        similarity = choice(self.similarity, SIMILARITIES, "similarity")
        return {
            "kind": "match",
            "similarity": similarity,
            "temperature": self.temperature,
            "threshold": self.threshold,
        }

    def _source_options(self) -> dict[str, Any]:
        return {"positive_share": self.positive_share, "hard_share": self.hard_share}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EP(Objective):
    """Contrast of sentences with the same pair of entities (arXiv 2312.11062, section 3.1): InfoNCE.

    ``-log(exp s(x_a, x_b) / (exp s(x_a, x_b) + sum_i exp s(x_a, x_i)))`` as in CP, with the sentences of a pair drawn
    by their pair of entities and no relation needed; candidates with the anchor's pair are left out. Entities are those
    of the data; those of documents with coreference chains are the chains (``relpt.load``'s format "coref").

    Args:
        weight: of the loss in the sum; 0 leaves it out.
        similarity, temperature, symmetric: as in ``CPTrainer``.
        positives: "pair" (the partner) or "entities" (all sentences of the step with the same pair of entities).
        name, source: of its figures; what it runs on, which is fixed.
    """

    sources: ClassVar[tuple[str | None, ...]] = ("same_entities",)
    name: str = "ep"
    source: str | None = "same_entities"
    similarity: str = "cosine"
    temperature: float = 0.05
    symmetric: bool = True
    positives: str = "pair"

    def _check(self) -> None:
        choice(self.similarity, SIMILARITIES[:2], "similarity")
        choice(self.positives, ("pair", "entities"), "positives")

    def _core(self, relations: Sequence[str]) -> dict[str, Any]:
        return {
            "kind": "contrastive",
            "similarity": choice(self.similarity, SIMILARITIES, "similarity"),
            "temperature": self.temperature,
            "symmetric": self.symmetric,
            "mask_same_group": True,
            "supervised": self.positives == "entities",
            "by_entities": True,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class RC(Objective):
    """Relation classification: which of the data's relations does the sentence state? (Devlin et al. 2019, section 4.)

    ``softmax(W dropout(x) + b)``, cross-entropy with the sentence's relation, mean over sentences. The head ``W`` (a
    row for each of the corpus's ``relations``) and ``b`` belong to the run: ``Trainer.heads`` has them as
    "<name>.weight" and "<name>.bias". A relation of the data that means "none of these" is a class like the others;
    ``Dataset.with_negatives`` adds one where sentences mention more entities than they relate.

    Args:
        weight: of the loss in the sum; 0 leaves it out.
        label_smoothing: this share of the wanted distribution is spread over all relations (Szegedy et al. 2016).
        dropout: of the vector, before the head.
        whole_epochs: a step ends with the epoch, with fewer sentences where the batches do not go round.
        name, source: of its figures and its head; what it runs on: "instances", or the sentences of another objective.
    """

    needs_relations: ClassVar[bool] = True
    sources: ClassVar[tuple[str | None, ...]] = SOURCES
    name: str = "rc"
    source: str | None = "instances"
    label_smoothing: float = 0.0
    dropout: float = 0.1
    whole_epochs: bool = False

    def _source_options(self) -> dict[str, Any]:
        return {"whole_epochs": self.whole_epochs} if self.source == "instances" else {}

    def _core(self, relations: Sequence[str]) -> dict[str, Any]:
        return {
            "kind": "classify",
            "classes": len(relations),
            "label_smoothing": self.label_smoothing,
            "dropout": self.dropout,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class MIL(Objective):
    """Relation classification of bags, for distant labels (multi-instance learning; Riedel et al. 2010).

    A bag is the sentences with one pair of entities and one relation, of which a knowledge base says the relation and
    not every sentence does. Its vector is a weighted sum of theirs, ``s = sum_i a_i x_i``, and the loss is that of
    RC: ``softmax(W dropout(s) + b)``, cross-entropy with the bag's relation, mean over bags. The weights are

    - "attention" (selective attention, Lin et al. 2016, section 3.2): ``a = softmax(e)`` over the bag,
      ``e_i = x_i A r``, r the row of W for the bag's relation, A a diagonal matrix, at first the identity;
    - "one" (at least one, Zeng et al. 2015): 1 of the sentence with the largest probability of the relation, without
      dropout, the first of equals; 0 of the others;
    - "mean": ``1 / n``.

    A bag's relation is not known when it is to be predicted: ``Trainer.bag_scores`` asks for each relation in turn. The
    head is in ``Trainer.heads`` as "<name>.weight", "<name>.bias" and, of attention, the diagonal of A as
    "<name>.attention". A relation that means "none of these" is a class like the others.

    Args:
        weight: of the loss in the sum; 0 leaves it out.
        pooling: "attention", "one" or "mean".
        label_smoothing, dropout: as in RC; the dropout is of the bag's vector.
        bag_size: sentences of a bag, at most; of a larger one so many are drawn, anew each time.
        bags: how many a step draws, each once an epoch. Steps differ in their number of sentences, as bags do.
        name, source: of its figures and its head; what it runs on, which is fixed.
    """

    needs_relations: ClassVar[bool] = True
    sources: ClassVar[tuple[str | None, ...]] = ("bags",)
    name: str = "mil"
    source: str | None = "bags"
    pooling: str = "attention"
    label_smoothing: float = 0.0
    dropout: float = 0.1
    bag_size: int = 8
    bags: int = 16

    def _check(self) -> None:
        choice(self.pooling, POOLINGS, "pooling")
        _check_counts(self, bag_size=1, bags=1)

    @property
    def _draws(self) -> tuple[int, int] | None:
        return self.bags, self.bag_size

    def _core(self, relations: Sequence[str]) -> dict[str, Any]:
        return {
            "kind": "bags",
            "pooling": self.pooling,
            "classes": len(relations),
            "label_smoothing": self.label_smoothing,
            "dropout": self.dropout,
        }

    def _source_options(self) -> dict[str, Any]:
        return {"bag_size": self.bag_size}

    def scores(
        self,
        vectors: np.ndarray,
        bags: Iterable[Any],
        heads: Mapping[str, np.ndarray],
        *,
        num_threads: int | None = None,
    ) -> np.ndarray:
        """How likely each bag has each relation, for ``relpt.metrics.bag_curve``.

        Of "attention", the probability of a relation where the bag's vector is made by that relation's query, so that
        the probabilities of a bag need not sum to 1 (Lin et al. 2016); of "one", the largest probability of the
        relation among the bag's sentences (Zeng et al. 2015); of "mean", that of the mean vector.

        Args:
            vectors: float32 (n, dim), of the sentences, as in training.
            bags: of ``Dataset.bags``, or lists of the numbers of their sentences.
            heads: as in ``Trainer.heads``, or in a run's heads.safetensors.
            num_threads: None: all.

        Returns:
            float64 (bags, relations), relations in the order of the corpus.

        Raises:
            KeyError: there is no head of this name.
            ValueError: a bag without sentences, or with numbers that are none of the vectors'.
        """
        parts = ("weight", "bias", "attention")[: 3 if self.pooling == "attention" else 2]
        if missing := [f"{self.name}.{part}" for part in parts if f"{self.name}.{part}" not in heads]:
            raise KeyError(f"there is no {missing[0]!r}; there are {', '.join(heads) or 'no heads: run fit first'}")
        weight, bias, *attention = (heads[f"{self.name}.{part}"] for part in parts)
        rows, starts = _rows_of(bags, len(vectors))
        if not len(starts):
            return np.empty((0, len(bias)))
        x, threads = np.ascontiguousarray(vectors[rows], np.float32), num_threads or _core.default_threads()
        logits = _core.logits(x, weight, bias, threads).astype(np.float64)
        if self.pooling == "one":
            return np.maximum.reduceat(_softmax(logits), starts)
        sizes = np.diff(starts, append=len(rows))
        if self.pooling == "mean":
            return _softmax(np.add.reduceat(logits, starts) / sizes[:, None])
        asked = _core.logits(x, np.ascontiguousarray(weight * attention[0]), np.zeros_like(bias), threads)
        powers = np.exp(asked - np.repeat(np.maximum.reduceat(asked, starts), sizes, axis=0), dtype=np.float64)
        shares = powers / np.repeat(np.add.reduceat(powers, starts), sizes, axis=0)  # (n, relations), of each query
        pooled = (np.add.reduceat(share[:, None] * logits, starts) for share in shares.T)
        return np.stack([_softmax(found)[:, relation] for relation, found in enumerate(pooled)], axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prototypes(Objective):
    """Few-shot training by prototypes (Snell et al. 2017, equations 1 and 2), compared by dot product as in Peng et al.
    2020, section 4.1.

    A step draws episodes: n_way relations, and of each k_shot supports and n_query queries, all different sentences.
    With c_w the mean of the supports' vectors of way w, x a query of way y and s a similarity over the temperature:
    ``-log(exp s(x, c_y) / sum_w exp s(x, c_w))``, mean over the queries. Supports and queries both have gradients.

    Args:
        weight: of the loss in the sum; 0 leaves it out.
        similarity: "dot", as published, or "cosine".
        temperature: the similarity is divided by it; 1 as published. A cosine needs one below 1.
        n_way, k_shot, n_query: relations of an episode; supports and queries of each.
        episodes: how many a step draws.
        name, source: of its figures; what it runs on, which is fixed.
    """

    needs_relations: ClassVar[bool] = True
    sources: ClassVar[tuple[str | None, ...]] = ("episodes",)
    name: str = "prototypes"
    source: str | None = "episodes"
    similarity: str = "dot"
    temperature: float = 1.0
    n_way: int = 5
    k_shot: int = 1
    n_query: int = 1
    episodes: int = 4

    def _check(self) -> None:
        choice(self.similarity, SIMILARITIES[:2], "similarity")
        _check_counts(self, n_way=2, k_shot=1, n_query=1, episodes=1)

    @property
    def sentences(self) -> int:
        """Sentences of a step."""
        return self.episodes * self.n_way * (self.k_shot + self.n_query)

    @property
    def _draws(self) -> tuple[int, int] | None:
        return self.episodes, self.n_way * (self.k_shot + self.n_query)

    def _core(self, relations: Sequence[str]) -> dict[str, Any]:
        return {
            "kind": "prototypes",
            "similarity": choice(self.similarity, SIMILARITIES, "similarity"),
            "temperature": self.temperature,
            **self._source_options(),
        }

    def _source_options(self) -> dict[str, Any]:
        return {"n_way": self.n_way, "k_shot": self.k_shot, "n_query": self.n_query}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domain(Objective):
    """Adversarial domain adaptation: relation vectors that do not tell the run's text from unlabelled target text.

    A discriminator learns which of the two texts a sentence of the step is from,
    ``softmax(W dropout(max(U x + c, 0)) + b)`` by cross-entropy, mean over sentences, and the encoder learns to make it
    err: the gradient that reaches the vectors x is multiplied by ``-lambda`` (gradient reversal, Ganin and Lempitsky
    2015, section 3; FewRel 2.0, Gao et al. 2019, on adversarial training for few-shot domain adaptation, whose code
    trains the encoder on exchanged labels in place of reversed gradients). The run's part are the sentences that the
    other objectives drew, and the target gives as many: ``Trainer.fit(corpus, target=…)``. Its relations are not used;
    MLM beside it masks words of both.

    Args:
        weight: of the loss in the sum; 0 leaves it out. It multiplies the discriminator's and the encoder's gradients.
        reversal: lambda, of the encoder's alone; with 0 it does not learn from this loss. Ganin and Lempitsky 2015 go
            up to 1 by SGD; where AdamW moves encoder and discriminator at one rate, so much can outrun the latter.
        ramp_steps: lambda rises as ``reversal (2 / (1 + exp(-10 step / ramp_steps)) - 1)`` (Ganin and Lempitsky 2015,
            section 4, with the run's length); 0: it is the same from the first step on.
        hidden: units of the discriminator's hidden layer; None: as many as a vector has; 0: none, ``W x + b``.
        dropout: behind that layer.
        name, source: of its figures and its head, "<name>.hidden.weight" (U), ".hidden.bias", ".weight", ".bias"; what
            it draws from, which is fixed.
    """

    sources: ClassVar[tuple[str | None, ...]] = ("target",)
    name: str = "domain"
    source: str | None = "target"
    reversal: float = 0.1
    ramp_steps: int = 0
    hidden: int | None = None
    dropout: float = 0.5

    def _check(self) -> None:
        _check_counts(self, ramp_steps=0, **({} if self.hidden is None else {"hidden": 0}))

    def _core(self, relations: Sequence[str]) -> dict[str, Any]:
        return {
            "kind": "domain",
            "reversal": self.reversal,
            "ramp_steps": self.ramp_steps,
            "hidden": -1 if self.hidden is None else self.hidden,
            "dropout": self.dropout,
        }


def _rows_of(bags: Iterable[Any], n: int) -> tuple[np.ndarray, np.ndarray]:
    """The sentences of all bags one after another, and where each bag begins; int64."""
    lists = [list(getattr(bag, "indices", bag)) for bag in bags]
    sizes = np.fromiter(map(len, lists), np.int64, len(lists))
    rows = np.fromiter(chain.from_iterable(lists), np.int64, int(sizes.sum()))
    if not sizes.all():
        raise ValueError(f"bag {int(np.argmin(sizes))} has no sentence; leave it out")
    if rows.size and not 0 <= rows.min() <= rows.max() < n:
        raise ValueError(f"bags name sentences {rows.min()} to {rows.max()}, and there are vectors of {n}")
    return rows, np.cumsum(sizes) - sizes


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _check_counts(item: Objective, **least: int) -> None:
    for name, low in least.items():
        check_count(name, getattr(item, name), low)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment(Objective):
    """Alignment of relation vectors with a knowledge graph's embeddings of relations (graph-text fusion), by InfoNCE.

    With x the sentence's vector, r_j the embedding of relation j of the graph, y the sentence's relation, and W a
    learned projection into the graph's space: ``s_j = cos(W x, r_j) / temperature``,
    ``-log(exp s_y / sum_j exp s_j)``, mean over the sentences whose relation the graph knows. All relations of the
    graph are candidates, those without a sentence too; its embeddings stay as they are. Text and graph in one space:
    Weston et al. 2013 ("Connecting language and knowledge bases with embedding models for relation extraction",
    section 3), there by a ranking loss; InfoNCE: van den Oord et al. 2018, equation 4. ``W`` (graph.dim, dim) belongs
    to the run: ``Trainer.heads`` has it as "<name>.weight".

    Args:
        weight: of the loss in the sum; 0 leaves it out.
        graph: the ``GraphEmbeddings``, trained, or the folder of saved ones.
        temperature: the cosine is divided by it.
        relation_names: what the graph calls a relation of the data, where the two differ, such as {"country": "P17"}.
        name, source: of its figures and its head; what it runs on: "instances", or the sentences of another objective.

    Raises:
        FileNotFoundError, FormatError: there is no such folder, or it is damaged; RuntimeError: not trained.
    """

    needs_relations: ClassVar[bool] = True
    sources: ClassVar[tuple[str | None, ...]] = SOURCES
    name: str = "alignment"
    source: str | None = "instances"
    graph: GraphEmbeddings | str | os.PathLike[str] | None = None
    temperature: float = 0.07
    relation_names: Mapping[str, str] | None = None

    def _check(self) -> None:
        if isinstance(self.graph, (str, os.PathLike)):
            object.__setattr__(self, "graph", GraphEmbeddings.load(self.graph))
        if not isinstance(self.graph, GraphEmbeddings):
            raise ValueError(
                f"graph of {self.name} is {self.graph!r}; expected relpt.GraphEmbeddings, or a folder of saved ones "
                f"(--set {self.name}.graph=DIR)"
            )
        self.graph._check_trained()

    @property
    def _embeddings(self) -> GraphEmbeddings:
        assert isinstance(self.graph, GraphEmbeddings)
        return self.graph

    def _relation_of(self, relations: Sequence[str]) -> np.ndarray:
        """int32 (relations,): the graph's row of each, -1 for none."""
        rows, names = self._embeddings._relation_rows, self.relation_names or {}
        return np.array([rows.get(names.get(name, name), -1) for name in relations], np.int32)

    def _check_corpus(self, corpus: Any) -> None:
        unknown = self._relation_of(corpus.relations) < 0
        sentences = int(unknown[corpus.relation].sum())
        lacking = [name for name, lacks in zip(corpus.relations, unknown, strict=True) if lacks]
        counts = (
            f"{self.name}: the graph knows {len(corpus.relations) - len(lacking):,} of {corpus.name}'s "
            f"{len(corpus.relations):,} relations; {sentences:,} of {len(corpus):,} sentences are of others, such as "
            f"{', '.join(map(repr, lacking[:3]))}"
        )
        if len(lacking) == len(corpus.relations):
            known = ", ".join(map(repr, self._embeddings.relations[:3]))
            raise ValueError(
                f"{counts}, the graph's such as {known}; give relation_names={{the data's: the graph's}}, or a graph "
                "with these relations"
            )
        if sentences:
            _log.warning("%s, and take no part in it", counts)

    def _card(self) -> dict[str, Any]:
        return {**self.get_params(), "graph": self._embeddings._identity()}

    def _core(self, relations: Sequence[str]) -> dict[str, Any]:
        return {
            "kind": "alignment",
            "temperature": self.temperature,
            "graph": unit_length(self._embeddings.relation_embeddings.copy()),
            "relation_of": self._relation_of(relations),
        }


OBJECTIVES: Final[dict[str, type[Objective]]] = {
    "cp": CP,
    "mlm": MLM,
    "span_mlm": SpanMLM,
    "sbo": SBO,
    "mtb": MTB,
    "ep": EP,
    "rc": RC,
    "mil": MIL,
    "prototypes": Prototypes,
    "alignment": Alignment,
    "domain": Domain,
}
