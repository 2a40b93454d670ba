"""Sentences whose entities have ids, so that pairs of entities stand in several of them."""

from __future__ import annotations

from typing import Any

from oracle import tiny_bert


def records_with_entities(n: int = 60, heads: int = 6, tails: int = 4) -> list[dict[str, Any]]:
    """tiny_bert's records; relation i % … has entity pairs that come again, and share one entity with others."""
    records = tiny_bert.records(n)
    for i, record in enumerate(records):
        record["h"]["id"], record["t"]["id"] = f"H{i * 7 % heads}", f"T{i * 5 % tails}"
    return records
