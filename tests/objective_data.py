"""Sentences whose entities have ids, so that pairs of entities stand in several of them."""

from __future__ import annotations

from typing import Any

from oracle import tiny_bert

import relpt


def records_with_entities(n: int = 60, heads: int = 6, tails: int = 4) -> list[dict[str, Any]]:
    """tiny_bert's records; relation i % … has entity pairs that come again, and share one entity with others."""
    records = tiny_bert.records(n)
    for i, record in enumerate(records):
        record["h"]["id"], record["t"]["id"] = f"H{i * 7 % heads}", f"T{i * 5 % tails}"
    return records


def graph_of(records: list[dict[str, Any]], leave_out: str = "", **options: Any) -> relpt.GraphEmbeddings:
    """Embeddings of the records' triples, those of one relation left out, and of two relations more."""
    triples = [(record["h"]["id"], record["relation"], record["t"]["id"]) for record in records]
    further = [("H0", "older than", "T1"), ("T1", "older than", "H2"), ("H1", "near", "H2")]
    kept = [triple for triple in triples if triple[1] != leave_out]
    return relpt.GraphEmbeddings(**{"dim": 12, "epochs": 5, "negatives": 4, **options}).fit(kept + further)
