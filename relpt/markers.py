"""The tokens around and in place of entities, in an encoder's vocabulary.

Markers are plain, or of punctuation, or say the type of the mention that they mark, or both (Zhou and Chen 2021, "An
Improved Baseline for Sentence-level Relation Extraction", section 3.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from relpt.errors import FormatError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "MARKERS",
    "MARKER_ORDERS",
    "MARKER_STYLES",
    "TypedMarkers",
    "card_markers",
    "card_typed_markers",
    "choose_markers",
    "choose_typed_markers",
    "core_tokens",
    "core_typed_markers",
]

MARKER_STYLES: Final = ("plain", "punct", "typed", "typed_punct")
MARKER_ORDERS: Final = ("role", "text")
TypedMarkers = dict[str, dict[str, list[str]]]  # by type and place: tokens

# name: the token that is added where the vocabulary has no spare [unusedN] piece.
MARKERS: Final = {
    "head_start": "[E1]",
    "head_end": "[/E1]",
    "tail_start": "[E2]",
    "tail_end": "[/E2]",
    "blank": "[BLANK]",
    "subject": "[SUBJ]",
    "object": "[OBJ]",
}
# Where a typed marker stands, in the core's order; its added token; around the type's name in "typed_punct".
_PLACES: Final = {
    "head_start": ("[S:{}]", "@ * {} *"),
    "head_end": ("[/S:{}]", "@"),
    "tail_start": ("[O:{}]", "# ^ {} ^"),
    "tail_end": ("[/O:{}]", "#"),
}
_PUNCT: Final = {"head_start": "@", "head_end": "@", "tail_start": "#", "tail_end": "#"}
_SIGNS: Final = {"punct": "@#", "typed_punct": "@#*^"}
_UNUSED: Final = re.compile(r"\[unused(\d+)\]")
_NEEDED: Final = ("cls", "sep", "mask")


def _unused(tokenizer: Tokenizer) -> list[str]:
    found = {int(m[1]): token for token in tokenizer.get_vocab() if (m := _UNUSED.fullmatch(token))}
    return [found[number] for number in sorted(found)]


def choose_markers(tokenizer: Tokenizer, style: str = "plain", kept: Mapping[str, str] | None = None) -> dict[str, str]:
    """Token strings of the markers of one token, [BLANK], subject and object.

    Spare [unusedN] pieces are taken in their order from [unused1] on, one for each; a vocabulary with too few of them
    gets the seven tokens added (the tokenizer is changed). The styles of punctuation have @ and # for markers.

    Args:
        tokenizer: the encoder's.
        style: one of MARKER_STYLES.
        kept: what an encoder has that was saved: stays, but for markers of another style.

    Raises:
        ValueError: the vocabulary lacks the punctuation.
    """
    chosen = dict(kept or _spare_markers(tokenizer))
    if style.endswith("punct"):
        lacking = [sign for sign in _SIGNS[style] if tokenizer.token_to_id(sign) is None]
        if lacking:
            raise ValueError(
                f"markers={style!r}: the vocabulary has no token {' '.join(lacking)}; take "
                f"markers={style.removesuffix('_punct') if '_' in style else 'plain'!r}, whose tokens can be added"
            )
        return chosen | _PUNCT
    if chosen["head_start"] == _PUNCT["head_start"]:
        spare = _spare_markers(tokenizer)
        chosen |= {place: spare[place] for place in _PLACES}
    return chosen


def _spare_markers(tokenizer: Tokenizer) -> dict[str, str]:
    spare = [token for token in _unused(tokenizer) if token != "[unused0]"]
    if len(spare) >= len(MARKERS):
        return dict(zip(MARKERS, spare, strict=False))
    tokenizer.add_special_tokens(list(MARKERS.values()))
    return dict(MARKERS)


def card_markers(card: Mapping[str, Any], path: Path) -> dict[str, str]:
    """The markers that a relpt.json names.

    Raises:
        FormatError: it does not name each of them.
    """
    markers = card["markers"]
    if not isinstance(markers, dict) or not all(isinstance(markers.get(name), str) for name in MARKERS):
        raise FormatError(f"{path}: markers is {markers!r}; expected a token for each of {', '.join(MARKERS)}")
    return {name: markers[name] for name in MARKERS}


def choose_typed_markers(
    tokenizer: Tokenizer, types: Iterable[str], style: str, markers: Mapping[str, str], kept: TypedMarkers
) -> TypedMarkers:
    """The tokens of the markers of each type, those kept first, then the new ones by name.

    In the style "typed" each marker is one token, a spare [unusedN] piece that is not in use, four for each type in
    order; where the vocabulary has too few for all new types, tokens such as [S:PERSON] and [O:PERSON] are added (the
    tokenizer is changed). In "typed_punct" a marker is a few pieces of text, as in "@ * person * Marie Curie @".

    Args:
        tokenizer: the encoder's.
        types: names of entity types.
        style: "typed" or "typed_punct".
        markers: those of one token.
        kept: those that an encoder has that was saved, in the same style.
    """
    new = sorted(set(types) - kept.keys())
    if style == "typed_punct":
        return kept | {
            name: {place: _punctuated(tokenizer, name, form) for place, (_, form) in _PLACES.items()} for name in new
        }
    used = {*markers.values(), *(token for of_type in kept.values() for tokens in of_type.values() for token in tokens)}
    spare = [token for token in _unused(tokenizer) if token != "[unused0]" and token not in used]
    if len(spare) < len(_PLACES) * len(new):
        spare = [form.format(name) for name in new for form, _ in _PLACES.values()]
        tokenizer.add_special_tokens(spare)
    each = iter(spare)
    return kept | {name: {place: [next(each)] for place in _PLACES} for name in new}


def _punctuated(tokenizer: Tokenizer, name: str, form: str) -> list[str]:
    """The form's tokens, {} the type's name as C+T gives it."""
    from relpt.corpus.tokenizing import PlainTokenizer, type_text

    pieces = PlainTokenizer(tokenizer).encode([f" {type_text(name)}"])[0].tolist()
    said = [str(tokenizer.id_to_token(piece)) for piece in pieces]
    return [token for part in form.split() for token in (said if part == "{}" else [part])]


def card_typed_markers(card: Mapping[str, Any], path: Path) -> TypedMarkers:
    """The typed markers that a relpt.json names, none where it does not.

    Raises:
        FormatError: a type lacks one of its four.
    """
    found = card.get("typed_markers") or {}
    for name, places in found.items() if isinstance(found, dict) else [("typed_markers", None)]:
        tokens = [places.get(place) for place in _PLACES] if isinstance(places, dict) else [None]
        if not all(isinstance(given, list) and given and all(isinstance(t, str) for t in given) for given in tokens):
            raise FormatError(
                f"{path}: the markers of {name!r} are {places!r}; expected tokens for {', '.join(_PLACES)}"
            )
    return {name: {place: list(places[place]) for place in _PLACES} for name, places in found.items()}


def core_typed_markers(
    tokenizer: Tokenizer, typed: TypedMarkers, types: Iterable[str], markers: Mapping[str, str], where: str
) -> dict[str, np.ndarray]:
    """``marker_ids`` and ``marker_offsets`` for the core, of a corpus' types in its order.

    A type without markers, which no mention of the corpus has (``Encoder`` checks it), gets those of no type.
    """
    ids: list[int] = []
    offsets = [0]
    for name in types:
        for place in _PLACES:
            for token in typed[name][place] if name in typed else [markers[place]]:
                number = tokenizer.token_to_id(token)
                if number is None:
                    raise FormatError(f"{where}: the tokenizer has no token {token}, of the markers of {name!r}")
                ids.append(number)
            offsets.append(len(ids))
    return {"marker_ids": np.array(ids, np.int32), "marker_offsets": np.array(offsets, np.int32)}


def core_tokens(
    tokenizer: Tokenizer, special_tokens: Mapping[str, str], markers: dict[str, str], vocab_size: int, where: str
) -> dict[str, Any]:
    """Ids for the core: cls, sep, mask, the markers, and ``special``: uint8 (vocab_size,), 1 for what is no text.

    Args:
        tokenizer: the encoder's.
        special_tokens: its tokens by role.
        markers: token strings.
        vocab_size: of the model.
        where: the encoder's name in messages.

    Raises:
        FormatError: the tokenizer lacks one of the tokens.
    """
    ids: dict[str, Any] = {}
    for name, token in {**{role: special_tokens[role] for role in _NEEDED}, **markers}.items():
        number = tokenizer.token_to_id(token)
        if number is None:
            raise FormatError(f"{where}: the tokenizer has no token {token} ({name}); give the tokenizer of this model")
        ids[name] = number
    special = np.ones(vocab_size, np.uint8)  # rows that no token has stay so
    special[list(tokenizer.get_vocab().values())] = 0
    added = [number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    unused = [tokenizer.token_to_id(token) for token in _unused(tokenizer)]
    special[[*ids.values(), *added, *unused]] = 1
    ids["special"] = special
    return ids
