"""What names alone give away of few-shot tests, without any model: shared words, and names that come again.

    python benchmarks/names.py FILE…

5 ways, 1 shot, 10,000 episodes: the way is chosen whose names share most of their words with the query's (of both, the
shared part; equals share the point). Then for each relation the commonest head and tail, and how many have it.
"""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np

import relpt

WAYS, EPISODES, SEED = 5, 10_000, 42


def words(instance: relpt.Instance) -> frozenset[str]:
    return frozenset(f"{instance.head_text} {instance.tail_text}".lower().split())


def accuracy(data: relpt.Dataset) -> float:
    """Of choosing by shared words."""
    rng, relations = np.random.default_rng(SEED), data.labels
    of = {relation: [words(i) for i in data if i.relation == relation] for relation in relations}
    points = 0.0
    for _ in range(EPISODES):
        ways = rng.choice(len(relations), WAYS, replace=False)
        query, first = rng.choice(len(of[relations[ways[0]]]), 2, replace=False)  # the first way is the right one
        support = [of[relations[ways[0]]][first]]
        support += [of[relations[way]][rng.integers(len(of[relations[way]]))] for way in ways[1:]]
        asked = of[relations[ways[0]]][query]
        shared = [len(asked & names) / len(asked | names) for names in support]
        points += (shared[0] == max(shared)) / shared.count(max(shared))
    return points / EPISODES


def main() -> int:
    for path in sys.argv[1:]:
        data = relpt.load(path)
        print(f"{data.name}: {WAYS}-way 1-shot by shared words of names {accuracy(data):.3f} (chance {1 / WAYS:.3f})")
        for relation in data.labels:
            found = [i for i in data if i.relation == relation]
            heads, tails = (
                Counter(name.lower() for name in names).most_common(1)[0]
                for names in ([i.head_text for i in found], [i.tail_text for i in found])
            )
            print(f"  {relation}: {heads[1]} of {len(found)} heads {heads[0]!r}, {tails[1]} tails {tails[0]!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
