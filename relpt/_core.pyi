"""The compiled core (csrc/python). Its names are internal: use those of the package relpt."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, final

import numpy as np
from numpy.typing import NDArray

_Int32Array = NDArray[np.int32]
_Int64Array = NDArray[np.int64]

class FormatError(ValueError):
    """A file or record breaks its own format."""

class CudaError(RuntimeError):
    """The CUDA back end failed, or is not there."""

class _Batch(TypedDict):
    """A packed batch of S sequences, T tokens and M masked tokens (csrc/batch.h). Not a class of the module."""

    ids: _Int32Array  # (T) after MLM masking
    pos: _Int32Array  # (T) place in the sequence
    sequence: _Int32Array  # (T) sequence of the token
    cu_seqlens: _Int32Array  # (S+1)
    sample: _Int32Array  # (S) number of the sample in the step
    head: _Int32Array  # (S) rows of the start markers
    tail: _Int32Array  # (S)
    prompt_row: _Int32Array  # (S) rows of the prompts' [MASK], -1 without prompt
    relation: _Int32Array  # (S)
    pair: _Int32Array  # (S) number of the pair of entities, -1 where the source knows of none
    head_first: _Int32Array  # (S) rows of the mentions' first word pieces
    tail_first: _Int32Array
    head_entity: _Int32Array  # (S) rows in the graph's table, -1 where nothing is injected
    tail_entity: _Int32Array  # (S)
    head_end: _Int32Array  # (S) rows behind the mentions
    tail_end: _Int32Array  # (S)
    pos_tag: _Int32Array  # (T) of the corpus, 0 where a token has none
    ner_tag: _Int32Array  # (T)
    row: NDArray[np.int64]  # (S) of the corpus
    mlm_row: _Int32Array  # (M) rows of the masked tokens, ascending
    mlm_label: _Int32Array  # (M) their true ids
    span_left: _Int32Array  # (M) rows just before and just behind their spans
    span_right: _Int32Array
    span_place: _Int32Array  # (M) their places in them
    truncated: int  # samples cut by the window
    truncated_mentions: int  # samples of which a mention itself had to be cut
    max_len: int  # longest sequence

@final
class Corpus:
    """A tokenized corpus over flat arrays, which are checked once, kept, and must not be changed afterwards.

    ids int32 (n_ids), offsets int64 (n + 1), spans int32 (n, 4) as head start, head end, tail start, tail end
    (half-open, from the sentence's start), relation, head_id, tail_id, head_type and tail_type int32 (n), type_ids
    int32 with type_offsets int64 (n_types + 1). pos_tag and ner_tag, int32 (n_ids), are below n_pos and n_ner, and 0
    where a word has none. ValueError names the row, the field, the value and its range.
    """

    def __new__(
        cls,
        *,
        ids: _Int32Array,
        offsets: _Int64Array,
        spans: _Int32Array,
        relation: _Int32Array,
        head_id: _Int32Array,
        tail_id: _Int32Array,
        head_type: _Int32Array,
        tail_type: _Int32Array,
        type_ids: _Int32Array,
        type_offsets: _Int64Array,
        n_relations: int,
        vocab_size: int,
        pos_tag: _Int32Array | None = None,
        ner_tag: _Int32Array | None = None,
        n_pos: int = 0,
        n_ner: int = 0,
    ) -> Corpus: ...
    def __len__(self) -> int: ...

@final
class Sampler:
    """Draws the samples of a step and builds its batch, the next one in a worker thread.

    tokens: the ids cls, sep, mask, head_start, head_end, tail_start, tail_end, blank, subject and object, the uint8
    array special (vocab_size), and where wanted the flag text_order and the int32 arrays prompt (word pieces and one
    mask, -1 for the head and -2 for the tail), marker_ids and marker_offsets (4 n_types + 1), and graph_row (of each
    entity of the corpus the row in a graph's table, -1 for none); with the flag bare
    sequences are words alone, and the ids that only frame them are not read.
    sources: dicts whose samples follow one another (csrc/source.h):
    {"kind": "relations", "count": pairs, "relation_exponent", "distinct_relations", "pairs_per_relation"},
    {"kind": "entities", "count": pairs, "positive_share", "hard_share"}, {"kind": "instances", "count": sentences,
    "whole_epochs": a step ends with its epoch, which the last source alone may ask for},
    {"kind": "episodes", "count": episodes, "n_way", "k_shot", "n_query"}: n_way * k_shot supports, then the queries;
    samples 2i and 2i + 1 of a source of pairs are its pair i. input_weight: shares of C+M, C+T, OnlyC, OnlyM and OnlyT.
    spans: masked in place of words: {"mention_probability", "relation_probability", "length_p", "longest"}
    (csrc/masking.h).
    One call of batch at a time: a second thread gets RuntimeError "busy".
    """

    def __new__(
        cls,
        corpus: Corpus,
        tokens: Mapping[str, Any],
        *,
        sources: Sequence[Mapping[str, Any]],
        seed: int,
        max_length: int,
        p_blank: float = 0.7,
        mlm_probability: float = 0.15,
        input_weight: Sequence[float] = (1, 0, 0, 0, 0),
        prefetch: bool = True,
        role_blanks: bool = False,
        graph_dropout: float = 0,
        target: tuple[Corpus, Mapping[str, Any]] = ...,
        spans: Mapping[str, Any] | None = None,
    ) -> Sampler: ...
    def batch(self, step: int, /) -> _Batch:
        """The batch of a step, as a dict of fresh arrays."""
    def rows(self, step: int, /) -> _Int64Array:
        """The corpus rows of a step's samples (S); fewer than in other steps where a whole epoch ends."""
    def counts(self) -> list[tuple[int, int]]:
        """Of each source: relations, pairs of entities, sentences or bags that can be drawn; and sentences left out
        because their relation or pair of entities has no two different ones, or an entity is unknown."""

def build_batch(
    corpus: Corpus,
    tokens: Mapping[str, Any],
    rows: _Int64Array,
    input: int,
    max_length: int,
    blanks: NDArray[np.uint8] | None = None,
) -> _Batch:
    """The batch of these corpus rows in one input setting (0 .. 4); blanks: (n, 2) flags of head and tail."""

def draw_episodes(
    labels: _Int32Array,
    n_classes: int,
    n_way: int,
    k_shot: int,
    n_query: int,
    seed: int,
    first: int,
    count: int,
    nota_rate: float = 0.0,
) -> tuple[_Int64Array, _Int64Array]:
    """Rows of `count` episodes from `first` on: support (count, n_way, k_shot), query (count, n_way, n_query).

    A query is none of the above exactly if its class is not that of its way."""

def fewshot_score(
    vectors: NDArray[np.float32],
    labels: _Int32Array,
    n_classes: int,
    n_way: int,
    k_shot: int,
    n_query: int,
    episodes: int,
    similarity: int,
    seed: int,
    num_threads: int,
) -> NDArray[np.float64]:
    """The share of right queries of each episode; similarity 0 dot, 1 cosine, 2 euclidean."""

def fewshot_answers(
    vectors: NDArray[np.float32], support: _Int64Array, query: _Int64Array, similarity: int, num_threads: int
) -> tuple[_Int32Array, NDArray[np.float64], NDArray[np.float64]]:
    """Of each query (episodes, queries) of given episodes, support (episodes, n_way, k_shot) and query (episodes,
    queries) being rows of the vectors: the most similar way, its similarity, and its margin over the second most
    similar (0 where there is one way)."""

def fit_projection(
    vectors: NDArray[np.float32], labels: _Int32Array, n_classes: int, shrinkage: float, /
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The affine map that evens out what varies inside relations: weight (dim, dim), bias (dim)."""

def project(
    vectors: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32], num_threads: int, /
) -> NDArray[np.float32]:
    """weight x + bias of each vector's direction x, (n, dim)."""

def logits(
    vectors: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32], num_threads: int, /
) -> NDArray[np.float32]:
    """weight x + bias of each vector x itself, (n, classes)."""

def default_threads() -> int:
    """The number of threads used when none is given."""

@final
class Graph:
    """A knowledge graph's triples int32 (n, 3), head, relation, tail, and the index of their queries."""

    def __new__(cls, triples: _Int32Array, n_entities: int, n_relations: int) -> Graph: ...
    def __len__(self) -> int: ...
    def answers(self, side: int, entity: int, relation: int, /) -> _Int32Array:
        """The known heads (side 0) or tails (1) of a query, ascending."""
    def corrupt(
        self, seed: int, negatives: int, bernoulli: bool, filtered: bool, epoch: int, i: int, /
    ) -> tuple[int, _Int32Array]:
        """The side that triple i is asked for in an epoch; its right answer, then wrong ones."""

@final
class GraphTrainer:
    """Training of a Graph's embeddings. model 0 TransE L1, 1 TransE L2, 2 DistMult; loss 0 margin, 1 logistic,
    2 softmax; optimizer 0 SGD, 1 Adagrad. A second thread gets RuntimeError "busy"."""

    def __new__(
        cls,
        *,
        graph: Graph,
        model: int,
        loss: int,
        optimizer: int,
        normalize: bool,
        bernoulli: bool,
        filtered: bool,
        margin: float,
        l2: float,
        n3: float,
        dim: int,
        num_threads: int,
        negatives: int,
        learning_rate: float,
        batch: int,
        seed: int,
    ) -> GraphTrainer: ...
    @property
    def steps(self) -> int:
        """Steps of an epoch."""
    def step(self, epoch: int, step: int, /) -> float:
        """One update; the loss before it."""
    def loss(self, epoch: int, step: int, /) -> float:
        """The same without the update."""
    def values(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Copies of the embeddings of entities and of relations."""
    def gradients(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Copies of the last step's gradients of both."""
    def set(self, entities: NDArray[np.float32], relations: NDArray[np.float32], /) -> None:
        """Writes the embeddings."""

def graph_scores(
    model: int,
    entities: NDArray[np.float32],
    relations: NDArray[np.float32],
    triples: _Int32Array,
    num_threads: int,
    /,
) -> NDArray[np.float64]:
    """Scores of triples int32 (n, 3)."""

def graph_ranks(
    model: int,
    entities: NDArray[np.float32],
    relations: NDArray[np.float32],
    triples: _Int32Array,
    known: Graph,
    num_threads: int,
    /,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ranks (n, 2) of heads and tails: raw, and without the other known answers."""

@final
class Model:
    """An encoder with an MLM head, or a CNN (cnn_model): configuration and weights on a device. A call waits while
    another thread has the model; RuntimeError "busy" where both write. embedding_size 0 is hidden_size. graph: float32
    (entities, size), embeddings that stay as they are, injected by the parameter graph_projection.weight."""

    def __new__(
        cls,
        *,
        vocab_size: int,
        hidden_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        intermediate_size: int,
        max_position_embeddings: int,
        type_vocab_size: int,
        layer_norm_eps: float,
        initializer_range: float,
        hidden_dropout_prob: float,
        attention_probs_dropout_prob: float,
        embedding_size: int = 0,
        position_offset: int = 0,
        embedding_projection: bool = False,
        shared_layers: bool = False,
        attended_dropout: bool = True,
        feed_forward_dropout: bool = True,
        backend: str = "cpu",
        graph: NDArray[np.float32] | None = None,
    ) -> Model: ...
    @property
    def backend(self) -> str:
        """The back end's name."""
    @property
    def busy(self) -> bool:
        """Whether a call reads or writes it just now."""
    def parameters(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of all parameters, in the order of the table."""
    def get(self, name: str, /) -> NDArray[np.float32]:
        """A copy of a parameter."""
    def set(self, name: str, array: NDArray[np.float32], /) -> None:
        """Writes a parameter; float32 of its shape."""
    def init(self, name: str, seed: int, /) -> None:
        """Writes a parameter's initial value."""

@final
class EncodeRun:
    """A workspace that encodes, in batches of at most max_sequences sequences and max_tokens tokens."""

    def __new__(
        cls, model: Model, max_sequences: int, max_tokens: int, num_threads: int, dtype: int = 0
    ) -> EncodeRun: ...
    def rows(
        self,
        corpus: Corpus,
        tokens: Mapping[str, Any],
        rows: _Int64Array,
        input: int,
        max_length: int,
        representation: Sequence[int],
        /,
    ) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
        """Vectors (n, dim) of corpus rows, and the counts (tokens, truncated, truncated_mentions)."""
    def ids(self, ids: _Int32Array, cu_seqlens: _Int32Array, /) -> NDArray[np.float32]:
        """Hidden states (T, H) of packed sequences of token ids."""

@final
class Trainer:
    """Training of Models by a sum of objectives: gradients, moments, heads and workspace.

    parts: what a relation vector is joined of (csrc/join.h): a Model with its representation, or float32 (rows, dim)
    vectors of the corpus' rows, which stay as they are. A step takes a sampler for each Model, of the same samples.
    objectives: dicts with kind ("contrastive", "mlm", "match", "classify", "prototypes", "alignment", "bags",
    "domain", "boundary"), name, weight, first and samples (the samples of a step that it runs on), and what the kind
    has besides (csrc/loss.h). optimizer: 0 AdamW, 1 SGD, which reads momentum, weight_decay and max_grad_norm."""

    def __new__(
        cls,
        *,
        parts: Sequence[tuple[Model, Sequence[int]] | NDArray[np.float32]],
        objectives: Sequence[Mapping[str, Any]],
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        max_grad_norm: float,
        schedule: int,
        learning_rate: float,
        warmup_steps: int,
        max_steps: int,
        seed: int,
        samples: int,
        max_length: int,
        micro_samples: int,
        num_threads: int,
        hidden_dropout: float,
        attention_dropout: float,
        dtype: int = 0,
        optimizer: int = 0,
        momentum: float = 0.0,
    ) -> Trainer: ...
    def step(self, samplers: Sampler | Sequence[Sampler], step: int, /) -> dict[str, Any]:
        """One update on the samplers' batches of that step; the step's figures: loss, loss_<name> of each objective,
        accuracy of the first one that has one and accuracy_<name> of the others, lr, grad_norm and counts."""
    def gradients(self, samplers: Sampler | Sequence[Sampler], step: int, /) -> dict[str, Any]:
        """The same without the update."""
    def heads(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the objectives' own parameters."""
    def get(self, which: int, name: str, /) -> NDArray[np.float32]:
        """Gradient (0), first (1) or second (2) moment, or value (3) of a parameter of the model or the heads."""
    def set(self, which: int, name: str, array: NDArray[np.float32], /) -> None:
        """Writes a first (1) or second (2) moment, or a value (3)."""

def cnn_model(
    *,
    vocab_size: int,
    word_size: int,
    max_distance: int,
    position_size: int,
    pos_tags: int,
    pos_size: int,
    ner_tags: int,
    ner_size: int,
    window: int,
    hidden_size: int,
    piecewise: bool,
    activation: int,
    initializer_range: float,
    backend: str = "cpu",
) -> Model:
    """A Model that is a CNN (csrc/cnn.h); activation 0 tanh, 1 max(x, 0). It has no hidden states."""

def trainer_bytes(**options: Any) -> int:
    """Bytes that a Trainer of these options takes."""

def add_backend(capsule: Any, /) -> None:
    """Makes a back end of another extension, as relpt._cuda.backend is, known by its name."""

def cpu_info() -> dict[str, Any]:
    """levels: the CPU levels of this build that run here; level: the one chosen; problem: why none; bfloat16, int8:
    whether it has instructions for them."""
