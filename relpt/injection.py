"""Embeddings of a knowledge graph's entities, injected at an encoder's markers."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from relpt.errors import FormatError
from relpt.graph import GraphEmbeddings

__all__ = ["Injection", "load_injection"]

_log = logging.getLogger("relpt")


@dataclasses.dataclass(frozen=True)
class Injection:
    """What ``Encoder.inject`` was given.

    Attributes:
        graph: the embeddings; those of entities are injected.
        dropout: probability that a sentence gets none of them, per sentence and step of training.
    """

    graph: GraphEmbeddings
    dropout: float = 0.0

    @classmethod
    def of(cls, graph: GraphEmbeddings | str | os.PathLike[str], dropout: float) -> Injection:
        """Checks what the user gave.

        Raises:
            TypeError, ValueError: another kind of graph; dropout out of range. RuntimeError: an untrained graph.
            FileNotFoundError, FormatError: there is no such folder, or it is damaged.
        """
        if isinstance(graph, (str, os.PathLike)):
            graph = GraphEmbeddings.load(graph)
        if not isinstance(graph, GraphEmbeddings):
            raise TypeError(f"graph is {graph!r}; expected relpt.GraphEmbeddings, or a folder of saved ones")
        graph._check_trained()
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ValueError(f"dropout is {dropout!r}; expected a number from 0 to 1")
        return cls(graph, float(dropout))

    @property
    def table(self) -> np.ndarray:
        """float32 (entities, dim), as the core takes it."""
        return np.ascontiguousarray(self.graph.entity_embeddings, np.float32)

    def rows(self, corpus: Any, part: np.ndarray | None = None) -> np.ndarray:
        """The table's row of each entity of a corpus, int32, -1 for those that the graph does not know.

        The log says how many mentions these are, in the corpus' rows ``part``, None for all.

        Raises:
            ValueError: the corpus does not name its entities.
        """
        if corpus.entities is None:
            raise ValueError(
                f"{corpus.name}: the corpus does not name its entities, by which the graph knows them; tokenize the "
                "data again"
            )
        found = self.graph._rows_of(corpus.entities)
        chosen = slice(None) if part is None else part
        mentions = np.stack([corpus.head_id[chosen], corpus.tail_id[chosen]])
        known = np.append(found, -1)[mentions] >= 0  # -1, an entity without id and name, is the last
        lacking = int((~known).sum())
        if lacking:
            _log.warning(
                "%s: %d of %d mentions are of entities that the graph does not know: nothing is injected at them",
                corpus.name,
                lacking,
                mentions.size,
            )
        return found

    def check(self, corpus: Any) -> None:
        """ValueError where the graph knows no entity of a corpus, so that nothing could be learned."""
        if (self.graph._rows_of(corpus.entities or ()) >= 0).any():
            return
        graph, data = (", ".join(map(repr, names[:3])) for names in (self.graph.entities, corpus.entities or ()))
        those = f"the graph's {len(self.graph.entities):,} are such as {graph}"
        if not data:
            raise ValueError(
                f"{corpus.name}: none of its {2 * len(corpus):,} mentions has an id or a name, by which the graph "
                f"knows entities ({those}); give the data's h and t an id or a name, or train without it: "
                "encoder.inject(None)"
            )
        raise ValueError(
            f"{corpus.name}: the graph knows none of its {corpus.n_entities:,} entities (such as {data}; {those}); "
            "give a graph whose names are the data's ids, or for entities without id their names, or train without it: "
            "encoder.inject(None)"
        )

    def identity(self) -> dict[str, Any]:
        """What tells it from others, as plain values."""
        return {**self.graph._identity(), "dropout": self.dropout}

    def save(self, folder: Path) -> None:
        """Writes the graph's files into the folder of an encoder."""
        self.graph._write(folder)


def load_injection(folder: Path, card: Mapping[str, Any]) -> Injection | None:
    """The injection that an encoder was saved with, None without.

    Raises:
        FormatError: the graph's files are missing or damaged.
    """
    options = card.get("injection")
    if options is None:
        return None
    try:
        return Injection.of(folder, options["dropout"])
    except (FileNotFoundError, ValueError, TypeError, KeyError) as error:
        raise FormatError(f"{folder}: the graph that it injects: {error}; copy the whole folder") from None
