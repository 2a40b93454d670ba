"""The convolutional encoders: words and their places in, one vector out."""

from __future__ import annotations

import copy
import html
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from relpt import _core
from relpt.devices import dtype_of, threads_of
from relpt.encoding import Runs, as_corpus, check_corpus, encode_rows, unit_length
from relpt.errors import FormatError
from relpt.fields import check_number
from relpt.files import read_table, write_file, write_into, write_json
from relpt.inputs import choice, input_name
from relpt.weights import map_tensors, read_tokenizer, save_tensors
from relpt.words import MARKERS, count_words, load_word_vectors, word_tokenizer, word_tokens

__all__ = ["CNNEncoder"]

_log = logging.getLogger("relpt")
MODEL_TYPE: Final = "relpt-cnn"
KINDS: Final = ("cnn", "pcnn")
ACTIVATIONS: Final = ("tanh", "relu")
_FEW: Final = 0.5  # of the text: fewer known words than this are rarely what is wanted
_OPTIONS: Final[dict[str, type]] = {
    "kind": str,
    "hidden_size": int,
    "window": int,
    "word_size": int,
    "position_size": int,
    "max_distance": int,
    "pos_tags": list,
    "pos_size": int,
    "ner_tags": list,
    "ner_size": int,
    "activation": str,
    "hidden_dropout_prob": float,
    "initializer_range": float,
}


class CNNEncoder:
    """A convolutional network that gives the vector of the relation a sentence states.

    Each word is the vectors, side by side, of the word, of its distance to the head and of that to the tail (0 inside
    the mention; Zhang et al. 2017, section 3.2), and by option of its part of speech and kind of named entity. A
    convolution goes over the sentence, which is padded by zeros; of each of its outputs, the largest over the sentence
    is taken ("cnn", Nguyen and Grishman 2015), or the largest up to the end of the first mention, from there to the end
    of the second, and behind it ("pcnn", Zeng et al. 2015; 0 where nothing stands behind); then tanh. Peng et al. 2020
    use "cnn" with POS and NER tags and hidden_size 230, trained by SGD at rate 0.5 on batches of 160.

    A mention needs no marker, and the settings need none: C+T has the words of the type in the mention's place, OnlyC
    [SUBJ] and [OBJ]. What stands in place of a mention has no tags, so that they do not tell what the setting hides.

    Args:
        words: the vocabulary, or the ``tokenizers.Tokenizer`` of another CNNEncoder's. Other words are [UNK].
        vectors: float32 (m, word_size) of the first m words, as ``load_word_vectors`` gives them; the seed draws those
            of the others.
        kind: "cnn" or "pcnn".
        hidden_size: outputs of the convolution.
        window: words that it looks at at a time.
        word_size: size of a word's vector; None takes that of ``vectors``, else 50.
        position_size: size of the vector of a distance, one for the head's and one for the tail's.
        max_distance: words further off have the vector of this distance.
        pos_tags, ner_tags: the names of the tags that are read; empty: none are, and data needs none. Other tags count
            as no tag.
        pos_size, ner_size: sizes of a tag's vector.
        activation: "tanh" or "relu".
        hidden_dropout_prob: dropout of the vector in training.
        initializer_range: standard deviation of what the seed draws in place of vectors of words, places and tags.
        lowercase: put text, not the vocabulary, into lower case.
        split: where words end: at "blanks", as in data that is tokenized, or at "punctuation" too.
        dtype: of matrix products, "float32" or "bfloat16"; None: float32.
        num_threads: threads of the core; None takes the CPUs that this process may use.
        seed: of what is drawn.
        name: what it is called in messages.

    Attributes:
        config: the options that shape the network.
        tokenizer: the ``tokenizers.Tokenizer``, of whole words.
        tags: the kinds of tags that it reads, of "pos" and "ner".
        markers: the words that stand in place of others.
        dim: size of a relation vector: hidden_size, or three times that.
    """

    def __init__(
        self,
        words: Iterable[str] | Any,
        *,
        vectors: np.ndarray | None = None,
        kind: str = "cnn",
        hidden_size: int = 230,
        window: int = 3,
        word_size: int | None = None,
        position_size: int = 5,
        max_distance: int = 100,
        pos_tags: Sequence[str] = (),
        pos_size: int = 30,
        ner_tags: Sequence[str] = (),
        ner_size: int = 30,
        activation: str = "tanh",
        hidden_dropout_prob: float = 0.5,
        initializer_range: float = 0.1,
        lowercase: bool = True,
        split: str = "blanks",
        dtype: str | None = None,
        num_threads: int | None = None,
        seed: int = 42,
        name: str = "cnn",
    ) -> None:
        dtype = dtype_of("cpu", dtype)
        if not 0 <= hidden_dropout_prob < 1:
            raise ValueError(f"hidden_dropout_prob is {hidden_dropout_prob}; expected 0 <= p < 1")
        made = hasattr(words, "get_vocab")
        given = [] if made else list(words)
        self.tokenizer: Any = words if made else word_tokenizer(given, lowercase=lowercase, split=split)
        self.config: dict[str, Any] = {
            "kind": kind,
            "hidden_size": hidden_size,
            "window": window,
            "word_size": (50 if vectors is None else vectors.shape[1]) if word_size is None else word_size,
            "position_size": position_size,
            "max_distance": max_distance,
            "pos_tags": _tag_list(pos_tags),
            "pos_size": pos_size,
            "ner_tags": _tag_list(ner_tags),
            "ner_size": ner_size,
            "activation": activation,
            "hidden_dropout_prob": float(hidden_dropout_prob),
            "initializer_range": float(initializer_range),
        }
        self.name, self.dtype, self.seed, self.markers = name, dtype, seed, dict(MARKERS)
        self.num_threads = threads_of(num_threads)
        self.tags = tuple(tag for tag in ("pos", "ner") if self.config[f"{tag}_tags"])
        self.card: dict[str, Any] = {}
        self.projection: None = None  # an Encoder's alone
        self._parts = (0,)  # the one representation
        self._tokens = word_tokens(self.tokenizer, name)
        self._model = _core.cnn_model(**self._core_config())
        self._runs = Runs(self._model, self.num_threads)
        for parameter, _ in self._model.parameters():
            self._model.init(parameter, seed)
        if vectors is not None:
            self._set_words(given, vectors)

    def _core_config(self) -> dict[str, Any]:
        names = ("hidden_size", "window", "word_size", "position_size", "max_distance", "initializer_range")
        own: dict[str, Any] = {name: self.config[name] for name in names}
        for tag in ("pos", "ner"):
            count = len(self.config[f"{tag}_tags"])
            own |= {f"{tag}_tags": count + 1, f"{tag}_size": self.config[f"{tag}_size"] if count else 0}
        own["piecewise"] = choice(self.config["kind"], KINDS, "kind") == 1
        own["activation"] = choice(self.config["activation"], ACTIVATIONS, "activation")
        return {**own, "vocab_size": self.tokenizer.get_vocab_size(with_added_tokens=True)}

    def _set_words(self, words: list[str], vectors: np.ndarray) -> None:
        if vectors.ndim != 2 or len(vectors) > len(words) or vectors.shape[1] != self.config["word_size"]:
            raise ValueError(
                f"vectors is {vectors.shape}; expected at most ({len(words)}, {self.config['word_size']}), a vector of "
                "word_size for each of the first words"
            )
        table = self._model.get("word_embeddings.weight")
        rows = [self.tokenizer.token_to_id(word) for word in words[: len(vectors)]]
        table[rows[::-1]] = vectors[::-1]  # of a word that is given twice, the first vector
        self._model.set("word_embeddings.weight", table)

    # -- making, loading and saving ----------------------------------------------------------------------------------

    @classmethod
    def from_data(
        cls,
        data: Any,
        *,
        vectors: str | os.PathLike[str] | None = None,
        min_count: int = 1,
        tags: Sequence[str] = (),
        **options: Any,
    ) -> CNNEncoder:
        """Makes a network for the words of a dataset, and of the names of its types.

        Args:
            data: a ``Dataset``, or what ``relpt.load`` takes.
            vectors: a file of word vectors (``load_word_vectors``), of which words of the data take theirs; the log
                says how many have none and are drawn, as a warning where these are half of the text. To know words
                that the data lacks, load the file and give the class all of its words. None: all are drawn.
            min_count: words that stand in the data less often are left out.
            tags: "pos", "ner" or both: tags that the data has, and that are read.
            options: those of the class.

        Raises:
            ValueError: a sentence has none of the tags (says how many), or an option is out of range.
            FormatError: the file of vectors is damaged.
        """
        from relpt.corpus.tokenizing import tag_names
        from relpt.data.reading import as_dataset

        dataset, _ = as_dataset(data)
        reading = {"lowercase": options.get("lowercase", True), "split": options.get("split", "blanks")}
        counts, types = count_words(dataset, **reading)
        words = [
            word for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if count >= min_count
        ]
        words = list(dict.fromkeys([*words, *types]))
        known: dict[str, Any] = {f"{tag}_tags": tag_names(dataset, tag)[1:] for tag in tags}
        if vectors is None:
            return cls(words, **known, **options)
        found, table = load_word_vectors(vectors, words)
        share = sum(counts[word] for word in found) / max(counts.total(), 1)
        doubt = "; do case (lowercase) and what ends a word (split) fit the file?" if share < _FEW else ""
        _log.log(
            logging.WARNING if doubt else logging.INFO,
            "%s: %d of %d words have a vector, %.0f %% of the text; the others are drawn%s",
            *(vectors, len(found), len(words), 100 * share, doubt),
        )
        return cls(dict.fromkeys([*found, *words]), vectors=table, **known, **options)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        dtype: str | None = None,
        num_threads: int | None = None,
        seed: int = 42,
    ) -> CNNEncoder:
        """Opens what ``save_pretrained`` wrote.

        Args:
            folder: with config.json, model.safetensors and tokenizer.json.
            dtype, num_threads, seed: see the class.

        Raises:
            FileNotFoundError: there is no config.json.
            FormatError: a file is missing or damaged, of another kind of model, or does not fit the others.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} has no config.json; give a folder written by CNNEncoder.save_pretrained")
        config = _read_config(folder / "config.json")
        options = {name: config[name] for name in _OPTIONS}
        rest: dict[str, Any] = {"dtype": dtype, "num_threads": num_threads, "seed": seed, "name": str(folder)}
        tokenizer = _read_tokenizer(folder / "tokenizer.json", config["vocab_size"])
        try:
            encoder = cls(tokenizer, **options, **rest)
        except FormatError:
            raise  # names its file
        except ValueError as error:
            raise FormatError(f"{folder / 'config.json'}: {error}") from None
        tensors = map_tensors(folder)
        for name, shape in encoder._model.parameters():
            found = tensors[name].shape if name in tensors else None
            if found != shape:
                raise FormatError(f"{folder / 'model.safetensors'}: {name} is {found}, config.json needs {shape}")
            encoder._model.set(name, tensors[name])
        encoder.card = read_table(folder / "relpt.json") if (folder / "relpt.json").is_file() else {}
        return encoder

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: Mapping[str, Any] | None = None) -> Path:
        """Writes config.json (model_type "relpt-cnn"), model.safetensors, tokenizer.json and relpt.json.

        All files are complete and synced before the first one takes its place; other files of the folder stay.

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
        size, get = self._tokens["special"].size, self._model.get
        write_json(folder / "config.json", {"model_type": MODEL_TYPE, "vocab_size": size, **self.config})
        tensors = [(name, shape, partial(get, name)) for name, shape in self._model.parameters()]
        save_tensors(folder / "model.safetensors", tensors)
        tokenizer = self.tokenizer.to_str(pretty=False)
        write_file(folder / "tokenizer.json", lambda file: file.write(tokenizer.encode()))
        write_json(folder / "relpt.json", {**card, "format": "relpt", "markers": self.markers})

    def copy(self) -> CNNEncoder:
        """An encoder with weights of its own, equal to these; takes as much memory again."""
        twin = copy.copy(self)
        twin.config, twin.card = copy.deepcopy(self.config), copy.deepcopy(self.card)
        twin._model = _core.cnn_model(**self._core_config())
        twin._runs = Runs(twin._model, twin.num_threads)
        for name, _ in self._model.parameters():
            twin._model.set(name, self._model.get(name))
        return twin

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

        The log says how many words are unknown, and which tags.

        Args:
            data: a ``Dataset``, or a ``Corpus`` that was tokenized by this encoder, or what ``relpt.load`` takes; one
                ``Instance`` or dict gives one vector.
            inputs: the input setting "C+M", "C+T", "OnlyC", "OnlyM" or "OnlyT" (Peng et al. 2020, section 2.2).
            max_length: words a sentence, 16 or more. Longer ones get a window around both entities, counted in one
                TruncationWarning.
            dtype: "float32", "bfloat16" or "int8", that of matrix products; None takes the encoder's own.
            normalize_embeddings: divide each vector by its Euclidean length.
            show_progress_bar: None shows it in a notebook or on a terminal.

        Returns:
            float32 (n, dim) in the data's order, or (dim,) for one instance.

        Raises:
            ValueError: unknown setting or dtype, max_length out of range; tags that the encoder reads or types that the
                setting needs are missing, or a type has a word that the vocabulary lacks.
        """
        inputs = input_name(inputs)
        dtype = dtype_of("cpu", self.dtype if dtype is None else dtype, encodes=True)
        corpus, single = self._as_corpus(data, max_length, show_progress_bar)
        vectors = self._states(corpus, np.arange(len(corpus)), inputs, max_length, dtype, show_progress_bar)
        if normalize_embeddings:
            vectors = unit_length(vectors)
        return vectors[0] if single else vectors

    def _states(
        self, corpus: Any, rows: np.ndarray, inputs: str, max_length: int, dtype: str, show: bool | None
    ) -> np.ndarray:
        """The vectors of a corpus' rows."""
        return encode_rows(
            self._runs.of(max_length, dtype),
            self._core_corpus(corpus),
            self._input_tokens(corpus, [inputs]),
            rows,
            inputs=inputs,
            max_length=max_length,
            parts=self._parts,
            dim=self.dim,
            chunk=self._runs.chunk,
            show=show,
        )

    def _as_corpus(self, data: Any, max_length: int, show: bool | None) -> tuple[Any, bool]:
        return as_corpus(self, data, max_length, show)

    def _core_corpus(self, corpus: Any) -> Any:
        """The core's view of a corpus, with the tags that this encoder reads, numbered as in its tables."""
        return corpus.core({f"{tag}_tag": ["", *self.config[f"{tag}_tags"]] for tag in self.tags})

    def _input_tokens(self, corpus: Any, inputs: Iterable[str]) -> dict[str, Any]:
        """What the core makes sequences of a corpus with, in these settings; see ``_check_words``."""
        self._check_words(corpus, {input_name(name) for name in inputs})
        return self._tokens

    def _tensor_name(self, name: str) -> str:
        return name

    def _check_words(self, corpus: Any, inputs: set[str]) -> None:
        """Logs how many words and tags are unknown; ValueError where names of types are, in settings that say them."""
        unknown = self._tokens["unk"]
        _log.info("%s: %d of %d words are unknown", corpus.name, int((corpus.ids == unknown).sum()), corpus.ids.size)
        for tag in self.tags:
            new = sorted({*(getattr(corpus, f"{tag}_tags") or ())[1:]} - {*self.config[f"{tag}_tags"]})
            if new:
                _log.info("%s: %d %s tags are unknown: %s", corpus.name, len(new), tag.upper(), ", ".join(new))
        if not inputs & {"C+T", "OnlyT"}:
            return
        type_of = np.repeat(np.arange(len(corpus.types)), np.diff(corpus.type_offsets))
        lacking = [corpus.types[number] for number in np.unique(type_of[corpus.type_ids == unknown])]
        if lacking:
            raise ValueError(
                f"{corpus.name}: {len(lacking)} of {len(corpus.types)} types have a word that {self.name}'s vocabulary "
                f"lacks ({', '.join(lacking[:5])}{'…' if len(lacking) > 5 else ''}); give the vocabulary the words of "
                "the types' names, as CNNEncoder.from_data does, or choose other inputs"
            )

    def input_lengths(self, lengths: np.ndarray, spans: np.ndarray) -> np.ndarray:
        """Tokens that sentences of so many words (n,) take: these alone."""
        return lengths

    def check_corpus(self, corpus: Any) -> None:
        """ValueError when a corpus was tokenized by another tokenizer than this encoder's."""
        check_corpus(self, corpus)

    # -- looking at it -----------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Size of a relation vector: hidden_size, of "pcnn" three times that."""
        return int(self.config["hidden_size"]) * (3 if self.config["kind"] == "pcnn" else 1)

    @property
    def num_parameters(self) -> int:
        """Numbers in all weights."""
        return sum(int(np.prod(shape)) for _, shape in self._model.parameters())

    def get_params(self) -> dict[str, Any]:
        """The options by name, but for the vocabulary and its vectors."""
        return {**self.config, **{name: getattr(self, name) for name in ("dtype", "num_threads", "seed", "name")}}

    def __repr__(self) -> str:
        c, read = self.config, " + ".join(tag.upper() for tag in self.tags)
        return (
            f"<relpt.CNNEncoder {self.name!r}: {c['kind']}, {self._tokens['special'].size:,} words of {c['word_size']}"
            f"{f' with {read}' if read else ''}, window {c['window']}, {self.num_parameters / 1e6:.1f} M parameters "
            f"-> {self.dim}, {self._model.backend} x {self.num_threads}>"
        )

    def _repr_html_(self) -> str:
        c = self.config
        rows = {
            "kind": f"{c['kind']}, window {c['window']}, {c['activation']}",
            "vocabulary": f"{self._tokens['special'].size:,} words of {c['word_size']}",
            "position": f"2 × {c['position_size']}, up to {c['max_distance']} words off",
            "tags": ", ".join(f"{t.upper()} ({len(c[f'{t}_tags'])}) of {c[f'{t}_size']}" for t in self.tags) or "none",
            "parameters": f"{self.num_parameters:,}",
            "relation vector": f"{self.dim}",
            "device": f"{self._model.backend}, {self.num_threads} threads, {self.dtype}",
        }
        cells = "".join(
            f'<tr><th style="text-align:left">{key}</th><td style="text-align:left">{html.escape(value)}</td></tr>'
            for key, value in rows.items()
        )
        return f"<b>{html.escape(self.name)}</b><table>{cells}</table>"


def _tag_list(tags: Sequence[str]) -> list[str]:
    if isinstance(tags, str) or not all(isinstance(tag, str) and tag for tag in tags):
        raise ValueError(f"tags are {tags!r}; expected a list of their names")
    return list(dict.fromkeys(tags))


def _read_config(path: Path) -> dict[str, Any]:
    config = read_table(path)
    if config.get("model_type") != MODEL_TYPE:
        raise FormatError(
            f"{path}: model_type is {config.get('model_type')!r}, expected {MODEL_TYPE!r}; relpt.Encoder opens others"
        )
    for name, kind in {"vocab_size": int, **_OPTIONS}.items():
        value = config.get(name)
        if kind in (int, float):
            check_number(path, name, value)
        elif not isinstance(value, kind):
            raise FormatError(f"{path}: {name} is {value!r}; expected a {kind.__name__}")
    return config


def _read_tokenizer(path: Path, vocab_size: int) -> Any:
    if not path.is_file():
        raise FormatError(f"{path}: missing; save the encoder again")
    tokenizer = read_tokenizer(path, vocab_size)
    if tokenizer.get_vocab_size() != vocab_size:
        raise FormatError(
            f"{path}: has {tokenizer.get_vocab_size()} words, and config.json's vocab_size is {vocab_size}; save the "
            "encoder again"
        )
    return tokenizer
