"""Prompts with a [MASK], whose hidden state is a relation vector (arXiv 2312.11062, "Entity or Relation Embeddings?").

A prompt stands behind the sentence, as a second segment of the same sequence. Its {head} and {tail} are what stands in
the sentence for the two entities, which keep their markers there: the mentions, with C+T their types, with OnlyC or a
blank the token in their place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["PROMPTS", "PROMPT_DEFAULT", "prompt_pieces", "prompt_text"]

PROMPTS: Final = {
    "relation": "The relation is [MASK]?",  # what the code released with arXiv 2312.11062 appends
    "between": "The relation between {head} and {tail} is [MASK].",
    "is-of": "{head} is [MASK] of {tail}.",
    "triple": "{head} [MASK] {tail}",  # as in KnowPrompt (Chen et al. 2022)
}
PROMPT_DEFAULT: Final = "between"
_HOLES: Final = {"[MASK]": 0, "{head}": -1, "{tail}": -2}  # the entities' are csrc/batch.h's
_SPLIT: Final = re.compile(r"(\[MASK\]|\{[^{}]*\})")


def prompt_text(prompt: str) -> str:
    """The template of a name in PROMPTS, or the text itself.

    Raises:
        ValueError: the text has no [MASK] or several, or a placeholder that is neither {head} nor {tail}.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"prompt is {prompt!r}; expected text such as {PROMPTS['between']!r}")
    text = PROMPTS.get(prompt, prompt)
    masks = text.count("[MASK]")
    if masks != 1:
        raise ValueError(
            f"prompt {prompt!r} has {masks or 'no'} [MASK]; expected one, where the relation vector is read, "
            f"or a name of {', '.join(PROMPTS)}"
        )
    for part in _SPLIT.findall(text):
        if part not in _HOLES:
            raise ValueError(f"prompt {prompt!r}: {part} is unknown; there are {{head}} and {{tail}}")
    return text


def prompt_pieces(text: str, tokenizer: Tokenizer, mask: int) -> np.ndarray:
    """Word pieces int32 (n,) of a prompt for the core: ``mask`` for [MASK], -1 for the head and -2 for the tail.

    Text between them is tokenized by itself, without the blank before a hole: what fills it brings its own.
    """
    from relpt.corpus.tokenizing import PlainTokenizer

    plain = PlainTokenizer(tokenizer)
    pieces: list[int] = []
    for part in _SPLIT.split(text):
        if part in _HOLES:
            pieces.append(_HOLES[part] or mask)
        elif part.strip():
            pieces += plain.encode([part.rstrip()])[0].tolist()
    return np.array(pieces, np.int32)
