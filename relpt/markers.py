"""The tokens around and in place of entities, in an encoder's vocabulary."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from relpt.errors import FormatError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["MARKERS", "card_markers", "choose_markers", "core_tokens"]

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
_UNUSED: Final = re.compile(r"\[unused(\d+)\]")
_NEEDED: Final = ("cls", "sep", "mask")


def _unused(tokenizer: Tokenizer) -> list[str]:
    found = {int(m[1]): token for token in tokenizer.get_vocab() if (m := _UNUSED.fullmatch(token))}
    return [found[number] for number in sorted(found)]


def choose_markers(tokenizer: Tokenizer) -> dict[str, str]:
    """Token strings of the markers, [BLANK], subject and object.

    Spare [unusedN] pieces are taken in their order from [unused1] on, one for each; a vocabulary with too few of them
    gets the seven tokens added (the tokenizer is changed).
    """
    spare = [token for token in _unused(tokenizer) if token != "[unused0]"]
    if len(spare) >= len(MARKERS):
        return dict(zip(MARKERS, spare, strict=False))
    tokenizer.add_special_tokens(list(MARKERS.values()))
    return dict(MARKERS)


def card_markers(card: dict[str, Any], path: Path) -> dict[str, str]:
    """The markers that a relpt.json names.

    Raises:
        FormatError: it does not name each of them.
    """
    markers = card["markers"]
    if not isinstance(markers, dict) or not all(isinstance(markers.get(name), str) for name in MARKERS):
        raise FormatError(f"{path}: markers is {markers!r}; expected a token for each of {', '.join(MARKERS)}")
    return {name: markers[name] for name in MARKERS}


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
    special = np.zeros(vocab_size, np.uint8)
    special[tokenizer.get_vocab_size(with_added_tokens=True) :] = 1  # rows that no token has
    added = [number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    unused = [tokenizer.token_to_id(token) for token in _unused(tokenizer)]
    special[[*ids.values(), *added, *unused]] = 1
    ids["special"] = special
    return ids
