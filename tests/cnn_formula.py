"""A CNN and a PCNN written again in NumPy, sentence by sentence, in float64."""

import itertools

import numpy as np
from corpora import CM, CT, OC, OM, TOKENS, VOCAB, arrays_of, parts_of, random_arrays, sentence
from network import CnnConfig

BARE = {"bare": True, **{name: TOKENS[name] for name in ("mask", "blank", "subject", "object", "special")}}
BASE = {
    "vocab_size": VOCAB,
    "word_size": 4,
    "max_distance": 5,
    "position_size": 2,
    "pos_tags": 6,
    "pos_size": 0,
    "ner_tags": 4,
    "ner_size": 0,
    "window": 3,
    "hidden_size": 7,
    "piecewise": False,
    "activation": 0,
    "initializer_range": 0.5,
}


def config_of(**changes):
    return {**BASE, **changes}


def struct_of(config):
    return CnnConfig(**config)


def tagged(arrays):
    """The corpus with tags that are a function of the word, the same word with several."""
    place = np.arange(len(arrays["ids"]), dtype=np.int32)
    tags = {"pos_tag": (arrays["ids"] + place) % 5 + 1, "ner_tag": (arrays["ids"] + place // 2) % 4}
    return arrays | {name: tag.astype(np.int32) for name, tag in tags.items()} | {"n_pos": 6, "n_ner": 4}


def some_arrays(seed=3, n=40):
    """Sentences of all proportions, those with mentions at the very ends and side by side among them."""
    rng = np.random.default_rng(seed)
    lengths = [(0, 1, 0, 1, 0), (0, 2, 0, 1, 3), (4, 1, 0, 3, 0), (0, 1, 5, 1, 0), (2, 2, 3, 1, 4), (1, 3, 1, 2, 0)]
    parts = [sentence(rng, *parts, tail_first) for parts in lengths for tail_first in (False, True)]
    return tagged(arrays_of(parts)), tagged(random_arrays(seed, n=n, longest=9))


def words_of(arrays, row, setting=CM, tokens=TOKENS):
    """A bare sequence: ids (n,), tags (2, n), and the half-open places of head and tail."""
    left, first, middle, second, right, tail_first = parts_of(arrays, row, setting, tokens=tokens)
    start, (hs, he, ts, te) = int(arrays["offsets"][row]), arrays["spans"][row].tolist()
    end = int(arrays["offsets"][row + 1]) - start
    a, b = ((ts, te), (hs, he)) if tail_first else ((hs, he), (ts, te))
    context, kept = setting in (CM, CT, OC), setting in (CM, OM)
    parts = [(0, a[0], left, context), (*a, first, kept), (a[1], b[0], middle, context)]
    parts += [(*b, second, kept), (b[1], end, right, context)]
    tags = [np.zeros((2, 0), np.int64)]
    for at, to, words, own in parts:  # what stands in place of a mention has none
        both = [arrays[name][start + at : start + to] for name in ("pos_tag", "ner_tag")]
        tags.append(np.array(both) if own else np.zeros((2, len(words)), np.int64))
    begin = len(left) + len(first) + len(middle)
    sides = (len(left), len(left) + len(first)), (begin, begin + len(second))
    head, tail = sides[::-1] if tail_first else sides
    return np.array(left + first + middle + second + right), np.concatenate(tags, axis=1), head, tail


def distances(n, span, most):
    t = np.arange(n)
    d = np.where(t < span[0], t - span[0], np.where(t < span[1], 0, t - span[1] + 1))
    return np.clip(d, -most, most) + most


def vector(config, values, arrays, row, setting=CM, tokens=TOKENS):
    """The vector of one sentence, without dropout."""
    c = config
    ids, tags, head, tail = words_of(arrays, row, setting, tokens)
    columns = [
        values["word_embeddings.weight"][ids],
        values["head_position_embeddings.weight"][distances(len(ids), head, c["max_distance"])],
        values["tail_position_embeddings.weight"][distances(len(ids), tail, c["max_distance"])],
    ]
    columns += [
        values[f"{k}_embeddings.weight"][tag] for k, tag in zip(("pos", "ner"), tags, strict=True) if c[f"{k}_size"]
    ]
    x = np.concatenate(columns, axis=1)
    before, W = (c["window"] - 1) // 2, c["window"]
    padded = np.pad(x, ((before, W - 1 - before), (0, 0)))
    windows = np.stack([padded[t : t + W].reshape(-1) for t in range(len(ids))])
    states = windows @ values["convolution.weight"].T + values["convolution.bias"]
    ends = [0, *sorted((head[1], tail[1])), len(ids)] if c["piecewise"] else [0, len(ids)]
    pooled = [states[a:b].max(axis=0) if a < b else np.zeros(c["hidden_size"]) for a, b in itertools.pairwise(ends)]
    pooled = np.concatenate(pooled)
    return np.tanh(pooled) if c["activation"] == 0 else np.maximum(pooled, 0)


def vectors(config, values, arrays, rows, setting=CM):
    values = {name: np.asarray(value, np.float64) for name, value in values.items()}
    return np.array([vector(config, values, arrays, row, setting) for row in rows])
