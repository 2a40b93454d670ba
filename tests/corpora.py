"""Random tokenized corpora, and what the core makes of them written again in plain Python, for the tests of level 1."""

import numpy as np
from ops.philox import philox

CM, CT, OC, OM, OT = range(5)
VOCAB, WORDS = 200, 20  # ids below WORDS are special
MASK64 = 2**64 - 1

TOKENS = {
    "cls": 1,
    "sep": 2,
    "mask": 3,
    "head_start": 4,
    "head_end": 5,
    "tail_start": 6,
    "tail_end": 7,
    "blank": 8,
    "subject": 9,
    "object": 10,
    "special": (np.arange(VOCAB) < WORDS).astype(np.uint8),
}


def arrays_of(sentences, *, relation=None, n_relations=1, pairs=None, types=None, type_names=()):
    """The arguments of _core.Corpus. sentences: (word pieces, spans of four numbers) each."""
    n = len(sentences)
    lengths = [len(ids) for ids, _ in sentences]
    pairs = np.full((n, 2), -1) if pairs is None else np.asarray(pairs)
    types = np.full((n, 2), -1) if types is None else np.asarray(types)
    columns = {
        "ids": np.concatenate([ids for ids, _ in sentences]) if n else [],
        "spans": np.array([spans for _, spans in sentences]).reshape(n, 4),
        "relation": np.zeros(n) if relation is None else relation,
        "head_id": pairs[:, 0],
        "tail_id": pairs[:, 1],
        "head_type": types[:, 0],
        "tail_type": types[:, 1],
        "type_ids": np.concatenate(type_names) if len(type_names) else [],
    }
    arrays = {name: np.ascontiguousarray(column, np.int32) for name, column in columns.items()}
    arrays["offsets"] = np.cumsum([0, *lengths], dtype=np.int64)
    arrays["type_offsets"] = np.cumsum([0, *map(len, type_names)], dtype=np.int64)
    return {**arrays, "n_relations": n_relations, "vocab_size": VOCAB}


def sentence(rng, left, first, middle, second, right, tail_first=False):
    """A sentence of random words whose parts have these lengths."""
    a, b = left, left + first + middle
    spans = [a, a + first, b, b + second]
    words = rng.integers(WORDS, VOCAB, left + first + middle + second + right)
    return words, spans[2:] + spans[:2] if tail_first else spans


def random_arrays(seed, n=400, n_relations=7, n_pairs=30, longest=20, n_types=4):
    """Sentences of all proportions; relations of uneven size, each with some repeated sentences."""
    rng = np.random.default_rng(seed)
    sentences = []
    for _ in range(n):
        left, middle, right = rng.integers(0, longest, 3) * (rng.random(3) < 0.8)
        first, second = np.minimum(rng.geometric(0.4, 2), longest)
        sentences.append(sentence(rng, left, first, middle, second, right, bool(rng.random() < 0.5)))
    share = np.arange(1, n_relations + 1) ** 1.5
    relation = rng.choice(n_relations, n, p=share / share.sum())
    for i in np.flatnonzero(rng.random(n) < 0.2):
        sentences[i] = sentences[rng.choice(np.flatnonzero(relation == relation[i]))]
    names = [rng.integers(WORDS, VOCAB, 1 + i % 3) for i in range(n_types)]
    pairs = rng.integers(-1, n_pairs, (n, 2))
    types = rng.integers(0, n_types, (n, 2))
    return arrays_of(sentences, relation=relation, n_relations=n_relations, pairs=pairs, types=types, type_names=names)


def words_of(arrays, row):
    """The sentence's word pieces, a list."""
    return arrays["ids"][arrays["offsets"][row] : arrays["offsets"][row + 1]].tolist()


def type_name(arrays, number):
    return arrays["type_ids"][arrays["type_offsets"][number] : arrays["type_offsets"][number + 1]].tolist()


def parts_of(arrays, row, setting, blanks=(False, False)):
    """left, first mention, middle, second mention, right (lists), and whether the first is the tail."""
    words, (hs, he, ts, te) = words_of(arrays, row), arrays["spans"][row].tolist()
    if setting == OC:
        head, tail = [TOKENS["subject"]], [TOKENS["object"]]
    elif setting in (CT, OT):
        head, tail = (type_name(arrays, arrays[side][row]) for side in ("head_type", "tail_type"))
    else:
        head, tail = words[hs:he], words[ts:te]
        head = [TOKENS["blank"]] if blanks[0] else head
        tail = [TOKENS["blank"]] if blanks[1] else tail
    if setting in (OM, OT):
        return [], head, [], tail, [], False
    if hs < ts:
        return words[:hs], head, words[he:ts], tail, words[te:], False
    return words[:ts], tail, words[te:hs], head, words[he:], True


def build(arrays, row, setting, max_length, blanks=(False, False)):
    """A sequence as rp_batch_add makes it: ids, head's place, tail's place, and what was cut: 0, 1 context, 2 mention.

    The window, one piece at a time: while there are too many, the outermost piece of the longer outer side goes;
    without outer pieces, the piece in the midst of the middle; without a middle, the last of the longer mention.
    """
    left, first, middle, second, right, tail_first = parts_of(arrays, row, setting, blanks)
    left, middle, right, first, second = map(list, (left, middle, right, first, second))
    cut = 0
    while len(left) + len(first) + len(middle) + len(second) + len(right) + 6 > max_length:
        cut = max(cut, 1)
        if left or right:
            left.pop(0) if len(left) > len(right) else right.pop()
        elif middle:
            del middle[len(middle) // 2]
        else:
            cut = 2
            first.pop() if len(first) > len(second) else second.pop()
    head = [TOKENS["head_start"], TOKENS["head_end"]]
    tail = [TOKENS["tail_start"], TOKENS["tail_end"]]
    a, b = (tail, head) if tail_first else (head, tail)
    ids = [TOKENS["cls"], *left, a[0], *first, a[1], *middle, b[0], *second, b[1], *right, TOKENS["sep"]]
    return ids, ids.index(head[0]), ids.index(tail[0]), cut


def sequences(batch, name="ids"):
    """The batch's rows of one array, sequence by sequence."""
    return [part.tolist() for part in np.split(batch[name], batch["cu_seqlens"][1:-1])]


def key(seed, purpose, site):
    """rp_rng_key."""
    z = (seed + 0x9E3779B97F4A7C15 * ((purpose << 32 | site) + 1)) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


class Stream:
    """rp_rng: the draws of one (key, step, sample, row)."""

    def __init__(self, key, step, sample, row):
        self.key, self.counter, self.block, self.words = (key & 0xFFFFFFFF, key >> 32), (row, sample, step), 0, []

    def u32(self):
        if not self.words:
            self.words = philox(self.key, (self.block, *self.counter)).reshape(4).tolist()
            self.block += 1
        return self.words.pop()

    def unit(self):
        high = self.u32()
        return ((high << 32 | self.u32()) >> 11) * 2.0**-53

    def below(self, bound):
        while True:
            m = self.u32() * bound
            if m & 0xFFFFFFFF >= (2**32 - bound) % bound:
                return m >> 32
