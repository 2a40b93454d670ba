"""The parts of an encoder as fine-tuning takes them: each reads sentences in its own way and is trained, or stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from relpt.cnn import CNNEncoder
from relpt.encoder import Encoder
from relpt.hybrid import EntityTable, HybridEncoder
from relpt.runs import data_identity
from relpt.trainer import REPRESENTATION

if TYPE_CHECKING:
    from relpt.data.bags import Bag

__all__ = ["Parts", "Reading", "for_head"]

_TRAINED: Final = (Encoder, CNNEncoder)
_HEAD: Final = "entity_start"


class Reading:
    """Sentences as the parts of an encoder read them.

    Attributes:
        corpora: the Corpus of each part; None of a table, which reads the Dataset itself.
        data: the Dataset; None where a Corpus was given.
        single: whether it was one sentence alone.
    """

    def __init__(self, corpora: Sequence[Any], data: Any, single: bool) -> None:
        self.corpora, self.data, self.single = list(corpora), data, single

    @property
    def corpus(self) -> Any:
        """The first part's that has one: what is asked of the sentences beside their word pieces is the same in all."""
        return next(corpus for corpus in self.corpora if corpus is not None)

    @cached_property
    def bags(self) -> list[Bag]:
        """The sentences by pairs of entities; the errors of ``Dataset.bags``."""
        found: list[Bag] = self.corpus.bags()
        return found

    def __len__(self) -> int:
        return len(self.corpus)

    @property
    def data_hash(self) -> Any:
        """Equal for equal sentences, wherever they lie and whatever their name."""
        hashes = list(dict.fromkeys(corpus.data_hash for corpus in self.corpora if corpus is not None))
        if None in self.corpora:  # ids and names of entities are in no corpus
            hashes.append(data_identity(self.data))
        return hashes[0] if len(hashes) == 1 else hashes

    def map(self, change: Callable[[Any], Any]) -> Reading:
        """The same of changed corpora; those that are one stay one."""
        changed = {id(corpus): change(corpus) for corpus in self.corpora if corpus is not None}
        return Reading([changed.get(id(corpus)) for corpus in self.corpora], self.data, self.single)


class Parts:
    """The parts of an encoder in the order of its vector: itself, or those of a hybrid.

    Args:
        encoder: an ``Encoder``, ``CNNEncoder`` or ``HybridEncoder``.
        frozen: numbers of the parts that stay as they are; an ``EntityTable`` always does.

    Raises:
        TypeError: something that is no encoder, or has no part that can be trained.
        ValueError: ``frozen`` names a part that there is not, or leaves none to train.
    """

    def __init__(self, encoder: Any, frozen: Iterable[int] = ()) -> None:
        if not isinstance(encoder, (*_TRAINED, HybridEncoder)):
            raise TypeError(
                f"cannot fine-tune {type(encoder).__name__}; give a relpt.Encoder, CNNEncoder or HybridEncoder"
            )
        self.encoder, self.all = encoder, list(_leaves(encoder))
        named = list(frozen)
        wrong = [number for number in named if type(number) is not int or not 0 <= number < len(self.all)]
        if wrong:
            raise ValueError(f"frozen names part {wrong[0]!r}; {encoder.name} has parts 0 to {len(self.all) - 1}")
        networks = [number for number, part in enumerate(self.all) if isinstance(part, _TRAINED)]
        if not networks:
            raise TypeError(f"cannot fine-tune {encoder.name}: no part of it is a network; join a relpt.Encoder")
        self.numbers = [number for number in networks if number not in named]
        if not self.numbers:
            raise ValueError(f"frozen is {named}: no part of {encoder.name} is left to train")

    @property
    def trained(self) -> list[Any]:
        """The parts that are trained."""
        return [self.all[number] for number in self.numbers]

    def dropout(self) -> float:
        """The dropout that the parts' own configurations say.

        Raises:
            ValueError: they differ.
        """
        names = ("hidden_dropout_prob", "attention_probs_dropout_prob")
        found = {tuple(part.config[name] for name in names if name in part.config) for part in self.trained}
        if len(found) > 1:
            raise ValueError(f"the parts of {self.encoder.name} have dropouts of their own; give dropout=…")
        return float(self.trained[0].config[names[0]])

    def dtype(self) -> str:
        """The dtype of the parts that are trained.

        Raises:
            ValueError: they differ.
        """
        found = [part.dtype for part in self.trained]
        if len(set(found)) > 1:
            raise ValueError(f"the parts of {self.encoder.name} have dtypes {', '.join(found)}; open all with one")
        return str(found[0])

    def copy(self) -> Parts:
        """The same with copies of the parts that are trained; a projection of theirs is left behind."""
        made = [part.copy() if number in self.numbers else part for number, part in enumerate(self.all)]
        frozen = [number for number in range(len(made)) if number not in self.numbers]
        twin = Parts(_rebuilt(self.encoder, iter(made)), frozen)
        for part in twin.trained:  # a run would drop it with a word, and the one given keeps it
            part.projection = None
        return twin

    def read(self, data: Any, max_length: int, show: bool | None) -> Reading:
        """What each part reads of data; parts with the same tokenizer share a corpus."""
        from relpt.corpus import Corpus, tokenizer_fingerprint
        from relpt.data.reading import as_dataset

        if isinstance(data, Reading):
            return data
        given, single = (None, False) if isinstance(data, Corpus) else as_dataset(data)
        made: dict[str, Any] = {}
        corpora: list[Any] = []
        for part in self.all:
            if isinstance(part, EntityTable):
                if given is None:
                    part.check_corpus(data)
                corpora.append(None)
                continue
            kind = tokenizer_fingerprint(part) + "".join(getattr(part, "tags", ()))
            if kind not in made:
                made[kind], _ = part._as_corpus(data if given is None else given, max_length, show)
            corpora.append(made[kind])
        return Reading(corpora, given, single)

    def check(self, reading: Reading, inputs: str) -> None:
        """ValueError where sentences lack what a setting or markers say of their mentions."""
        for part, corpus in zip(self.all, reading.corpora, strict=True):
            if corpus is not None:
                part._input_tokens(corpus, [inputs])

    def part_vectors(
        self, number: int, reading: Reading, inputs: str, max_length: int, show: bool | None
    ) -> np.ndarray:
        """One part's plain vectors, float32 (n, its dim)."""
        part, corpus = self.all[number], reading.corpora[number]
        if corpus is None:
            return np.ascontiguousarray(part.encode(reading.data, inputs=inputs), np.float32)
        vectors: np.ndarray = part._states(corpus, np.arange(len(corpus)), inputs, max_length, part.dtype, show)
        return vectors

    def vectors(self, reading: Reading, inputs: str, max_length: int, show: bool | None) -> np.ndarray:
        """The plain vectors of all parts side by side, float32 (n, dim): not scaled, weighted or projected."""
        found = [self.part_vectors(number, reading, inputs, max_length, show) for number in range(len(self.all))]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def for_head(encoder: Any, representation: str | None) -> Any:
    """The encoder as a head reads it: with the representation named, its own, or of ``relpt pretrain``'s default [H,T].

    It shares its weights with the one given, which it is where it reads the same.

    Raises:
        ValueError: one is named that is unknown, reads a prompt that there is not, or is for parts or a CNN.
    """
    if representation is not None:
        if isinstance(encoder, (HybridEncoder, CNNEncoder)):
            raise ValueError(
                f"representation is {representation!r}: a CNN has one, and each part of a hybrid its own; name it "
                "where the part is opened"
            )
        return encoder._read_as(representation) if isinstance(encoder, Encoder) else encoder
    leaves = list(_leaves(encoder))
    wide = [isinstance(part, Encoder) and part.representation == REPRESENTATION for part in leaves]
    if not any(wide):
        return encoder
    read = [part._read_as(_HEAD) if is_wide else part for part, is_wide in zip(leaves, wide, strict=True)]
    return _rebuilt(encoder, iter(read))


def _leaves(encoder: Any) -> Iterator[Any]:
    if isinstance(encoder, HybridEncoder):
        for part in encoder.encoders:
            yield from _leaves(part)
    else:
        yield encoder


def _rebuilt(encoder: Any, leaves: Iterator[Any]) -> Any:
    """The encoder with other parts in the places of its own."""
    if not isinstance(encoder, HybridEncoder):
        return next(leaves)
    return HybridEncoder(*(_rebuilt(part, leaves) for part in encoder.encoders), **encoder.get_params())
