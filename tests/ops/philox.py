"""Philox4x32-10 (Salmon et al. 2011) and the dropout masks that follow from it, in NumPy, written from the paper."""

import math

import numpy as np

LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)


def philox(key, counter):
    """key: (low word, high word); counter: four arrays or numbers that broadcast together. Returns uint32(…, 4)."""
    c = [np.asarray(word, np.uint64) for word in np.broadcast_arrays(*counter)]
    k = [int(key[0]), int(key[1])]
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [
            (second >> SHIFT) ^ c[1] ^ np.uint64(k[0]),
            second & LOW,
            (first >> SHIFT) ^ c[3] ^ np.uint64(k[1]),
            first & LOW,
        ]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, axis=-1).astype(np.uint32)


def pieces(key, step, sample, rows, columns):
    """The 16-bit draws (len(rows), columns) of one sample, as rp_dropout defines them. key: 64 bits."""
    blocks = np.arange(-(-columns // 8), dtype=np.uint64)
    rows = np.asarray(rows, np.int64).astype(np.uint32)
    words = philox((key & 0xFFFFFFFF, key >> 32), (blocks[None, :], rows[:, None], int(sample) & 0xFFFFFFFF, step))
    halves = np.stack([words & 0xFFFF, words >> 16], axis=-1)  # (rows, blocks, 4, 2): low half first
    return halves.reshape(len(rows), math.prod(halves.shape[1:]))[:, :columns].astype(np.int64)


def keep(dropout, sample, rows, columns):
    """What the mask multiplies by: float64 (len(rows), columns) of 0 and 1 / (1 - p)."""
    if dropout.threshold == 0:
        return np.ones((len(rows), columns))
    drawn = pieces(dropout.key, dropout.step, sample, rows, columns)
    return np.where(drawn < dropout.threshold, 0.0, 65536.0 / (65536.0 - dropout.threshold))
