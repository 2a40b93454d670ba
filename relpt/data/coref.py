"""Documents with coreference chains: two sentences that mention the same pair of chains are about the same entities.

A record is a document: ``{"id": "d7", "sentences": [["Ada", "met", …], …], "coref": [[[0, 0, 1], [2, 4, 5]], …]}``. A
chain is a list of mentions, a mention [sentence, start, end], in tokens and half-open. ``coref`` may also be an object
with the chains of several systems by their names: then those are kept on which all agree, mention for mention, as for
the self-supervised pre-training of arXiv 2312.11062.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from relpt.data.values import Problem, kind_of, plain, show, string, whole

__all__ = ["chain_pairs", "is_coref"]

Mention = tuple[int, int, int]  # sentence, start, end


def is_coref(record: dict[str, Any]) -> bool:
    """Whether the record is a document with chains."""
    return "coref" in record and "sentences" in record


def chain_pairs(record: dict[str, Any], tally: Counter[str]) -> list[dict[str, Any]]:
    """A record for each sentence and each two chains that it mentions, each chain by its first mention there.

    The chain that begins first in the document is the head in all of its sentences, so that the order of two entities
    is the same wherever they meet. Entities' ids are "document#chain".

    Raises:
        Problem: no name of the document, sentences or chains of another form, a mention outside its sentence.
    """
    name = string(record.get("id", record.get("doc")), "id", number=True)
    if name is None:
        raise Problem("missing field", "id", "expected the document's name: chains of two documents differ")
    sentences = _sentences(record)
    chains = sorted(_agreed(record, sentences, tally), key=min)
    found = []
    for number, tokens in enumerate(sentences):
        inside = [(chain, min(m for m in mentions if m[0] == number)) for chain, mentions in _in(chains, number)]
        if len(inside) < 2:
            tally["sentences with fewer than two chains, which give no instance"] += 1
        for i, (chain, (_, start, end)) in enumerate(inside):
            for other, (_, begin, stop) in inside[i + 1 :]:
                if start < stop and begin < end:
                    tally["pairs of chains whose mentions overlap, left out"] += 1
                    continue
                sides = {"h": (chain, start, end), "t": (other, begin, stop)}
                entities = {side: _entity(name, tokens, *where) for side, where in sides.items()}
                found.append({"tokens": tokens, **entities})
    return found


def _in(chains: list[frozenset[Mention]], number: int) -> list[tuple[int, frozenset[Mention]]]:
    """The chains that a sentence mentions, with their numbers."""
    return [(i, chain) for i, chain in enumerate(chains) if any(mention[0] == number for mention in chain)]


def _entity(document: str, tokens: list[str], chain: int, start: int, end: int) -> dict[str, Any]:
    return {"pos": [start, end], "name": " ".join(tokens[start:end]), "id": f"{document}#{chain}"}


def _sentences(record: dict[str, Any]) -> list[list[str]]:
    sentences = plain(record.get("sentences"))
    if not isinstance(sentences, list) or not all(isinstance(plain(tokens), list) for tokens in sentences):
        raise Problem("wrong type", "sentences", f"expected a list of lists of tokens, got {show(sentences)}")
    for number, tokens in enumerate(map(plain, sentences)):
        if not all(isinstance(token, str) for token in tokens):
            raise Problem("wrong type", f"sentences[{number}]", f"expected tokens as strings, got {show(tokens)}")
    return [plain(tokens) for tokens in sentences]


def _agreed(record: dict[str, Any], sentences: list[list[str]], tally: Counter[str]) -> list[frozenset[Mention]]:
    """The chains that every system has."""
    given = record["coref"] if isinstance(record["coref"], dict) else {"": record["coref"]}
    if not given:
        raise Problem("missing field", "coref", "expected the chains of at least one system, got none")
    by_system = []
    for system, chains in given.items():
        field = f"coref.{system}" if system else "coref"
        chains = plain(chains)
        if not isinstance(chains, list):
            raise Problem("wrong type", field, f"expected a list of chains, got {kind_of(chains)} ({show(chains)})")
        by_system.append({_chain(chain, f"{field}[{n}]", sentences) for n, chain in enumerate(chains)})
    common = frozenset.intersection(*map(frozenset, by_system))
    left_out = len(set().union(*by_system)) - len(common)
    if left_out:
        tally["chains on which the systems do not agree, left out"] += left_out
    return list(common)


def _chain(chain: Any, field: str, sentences: list[list[str]]) -> frozenset[Mention]:
    chain = plain(chain)
    if not isinstance(chain, list) or not chain:
        raise Problem("wrong type", field, f"expected a list of mentions, got {kind_of(chain)} ({show(chain)})")
    mentions = set()
    for mention in map(plain, chain):
        numbers = [whole(n) for n in mention] if isinstance(mention, (list, tuple)) else []
        if len(numbers) != 3 or None in numbers:
            raise Problem("wrong type", field, f"expected mentions [sentence, start, end], got {show(mention)}")
        sentence, start, end = (int(n or 0) for n in numbers)
        if not 0 <= sentence < len(sentences):
            raise Problem(
                "span outside",
                field,
                f"mention {show(mention)} is in no sentence of the document, which has {len(sentences)}; expected "
                f"0 to {len(sentences) - 1}",
            )
        if not 0 <= start < end <= len(sentences[sentence]):
            raise Problem(
                "span outside",
                field,
                f"mention {show(mention)} lies outside its sentence, which has {len(sentences[sentence])} tokens; "
                "expected 0 <= start < end <= that",
            )
        mentions.add((sentence, start, end))
    return frozenset(mentions)
