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


def relation_pairs(pairs, *, relation_exponent=1.0, distinct_relations=False, pairs_per_relation=1):
    """The source of _core.Sampler that draws pairs of one relation."""
    return {
        "kind": "relations",
        "count": pairs,
        "relation_exponent": relation_exponent,
        "distinct_relations": distinct_relations,
        "pairs_per_relation": pairs_per_relation,
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


HEAD, TAIL = -1, -2  # in a prompt


def with_form(tokens=TOKENS, *, prompt=None, types=None, text_order=False):
    """The tokens with a prompt, with typed markers (for each type the pieces of four), or with markers by the text's
    order."""
    form = {"text_order": int(text_order)}
    if prompt is not None:
        form["prompt"] = np.array(prompt, np.int32)
    if types is not None:
        markers = [marker for of_type in types for marker in of_type]
        form["marker_ids"] = np.concatenate(markers).astype(np.int32)
        form["marker_offsets"] = np.cumsum([0, *map(len, markers)], dtype=np.int32)
    return tokens | form


def parts_of(arrays, row, setting, blanks=(False, False), tokens=TOKENS):
    """left, first mention, middle, second mention, right (lists), and whether the first is the tail."""
    words, (hs, he, ts, te) = words_of(arrays, row), arrays["spans"][row].tolist()
    by_text = bool(tokens.get("text_order"))
    subject, object_ = ("object", "subject") if by_text and ts < hs else ("subject", "object")
    if setting == OC:
        head, tail = [tokens[subject]], [tokens[object_]]
    elif setting in (CT, OT):
        head, tail = (type_name(arrays, arrays[side][row]) for side in ("head_type", "tail_type"))
    else:
        head, tail = words[hs:he], words[ts:te]
        head = [tokens["blank"]] if blanks[0] else head
        tail = [tokens["blank"]] if blanks[1] else tail
    if setting in (OM, OT):
        return ([], tail, [], head, [], True) if by_text and ts < hs else ([], head, [], tail, [], False)
    if hs < ts:
        return words[:hs], head, words[he:ts], tail, words[te:], False
    return words[:ts], tail, words[te:hs], head, words[he:], True


def markers_of(arrays, row, setting, tokens=TOKENS):
    """Pieces before and behind the head, then before and behind the tail."""
    swapped = tokens.get("text_order") and arrays["spans"][row][2] < arrays["spans"][row][0]
    found = []
    for side in ("head", "tail"):
        role = {"head": "tail", "tail": "head"}[side] if swapped else side
        if "marker_ids" in tokens and setting in (CM, OM):
            at = 4 * arrays[f"{side}_type"][row] + 2 * (role == "tail")
            start, middle, end = tokens["marker_offsets"][at : at + 3]
            found += [tokens["marker_ids"][start:middle].tolist(), tokens["marker_ids"][middle:end].tolist()]
        else:
            found += [[tokens[f"{role}_start"]], [tokens[f"{role}_end"]]]
    return found


def build(arrays, row, setting, max_length, blanks=(False, False), tokens=TOKENS):
    """A sequence as rp_batch_add makes it: ids, head's place, tail's place, and what was cut: 0, 1 context, 2 mention.

    The window, one piece at a time: the last piece of the longer mention goes while the mentions alone are too much;
    then, while there are too many, the outermost piece of the longer outer side; without outer pieces, the piece in the
    midst of the middle. A piece of a mention counts once in the sentence and once wherever the prompt names it.
    """
    parts = parts_of(arrays, row, setting, blanks, tokens)
    left, first, middle, second, right = map(list, parts[:5])
    tail_first, markers = parts[5], markers_of(arrays, row, setting, tokens)
    prompt = tokens.get("prompt", np.empty(0, np.int32)).tolist()
    names = [TAIL, HEAD] if tail_first else [HEAD, TAIL]
    fixed = 2 + sum(map(len, markers)) + sum(piece >= 0 for piece in prompt) + bool(prompt)
    cut = 0

    def mentions():
        return len(first) * (1 + prompt.count(names[0])) + len(second) * (1 + prompt.count(names[1]))

    while fixed + mentions() > max_length:
        cut = 2
        first.pop() if len(first) > len(second) else second.pop()
    while fixed + mentions() + len(left) + len(middle) + len(right) > max_length:
        cut = max(cut, 1)
        if left or right:
            left.pop(0) if len(left) > len(right) else right.pop()
        else:
            del middle[len(middle) // 2]
    head, tail = (second, first) if tail_first else (first, second)
    marked = {False: markers[0] + head + markers[1], True: markers[2] + tail + markers[3]}
    ids, starts = [tokens["cls"], *left], {}
    for is_tail, after in ((tail_first, middle), (not tail_first, right)):
        starts[is_tail] = len(ids)
        ids += [*marked[is_tail], *after]
    ids.append(tokens["sep"])
    for piece in prompt:
        ids += {HEAD: head, TAIL: tail}.get(piece, [piece])
    return [*ids, *[tokens["sep"]] * bool(prompt)], starts[False], starts[True], cut


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
