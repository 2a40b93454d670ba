"""The random numbers behind dropout: Philox4x32-10, the masks drawn from it, and what the masks depend on."""

import numpy as np
import pytest
from ops.harness import Device, Dropout, backends
from ops.philox import keep, philox, pieces

pytestmark = pytest.mark.core

KEY = 0xFEDCBA9876543210


@pytest.fixture(params=backends())
def dev(request):
    with Device(request.param, num_threads=2) as device:
        device.set_scratch((600, 600, 0, 600, 600))
        yield device


def hidden_mask(dev, p, H, sample=(0,), sequence=(0,), pos=(0,), key=KEY, step=0):
    """What dropout_forward multiplies each element of (T,H) by."""
    T = len(sequence)
    d = Dropout(p, key, step, *(np.array(value, np.int64).astype(np.int32) for value in (sample, sequence, pos)))
    inp = np.ones((T, H), np.float32)
    return dev.call("dropout_forward", out=np.full_like(inp, np.nan), inp=inp, d=d, T=T, H=H)["out"]


def attention_mask(dev, p, lengths, sample, A=1, key=KEY, step=0):
    """[(A,n,n)] by sequence. Without scores all weights are 1/n, and v = n * identity shows each one's mask."""
    D, T = max(lengths), sum(lengths)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    nothing, v = np.zeros((T, A * D), np.float32), np.zeros((T, A, D), np.float32)
    for first, n in zip(cu_seqlens, lengths, strict=False):
        v[first : first + n, :, :n] = (n * np.eye(n, dtype=np.float32))[:, None, :]
    sequence = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    pos = np.concatenate([np.arange(n) for n in lengths]).astype(np.int32)
    d = Dropout(p, key, step, np.array(sample, np.int32), sequence, pos)
    rest = dict(q=nothing, k=nothing, v=v.reshape(T, -1), cu_seqlens=cu_seqlens, cu_queries=cu_seqlens, query_pos=pos)
    rest |= dict(d=d, S=len(lengths), R=T, A=A, D=D, q_stride=A * D, kv_stride=A * D)
    outputs = dict(out=np.full((T, A * D), np.nan, np.float32), lse=np.full((A, T), np.nan, np.float32))
    out = dev.call("attention_forward", **outputs, **rest)["out"].reshape(T, A, D)
    return [out[first : first + n, :, :n].transpose(1, 0, 2) for first, n in zip(cu_seqlens, lengths, strict=False)]


# -- the generator -------------------------------------------------------------------------------------------------

# From Random123's kat_vectors: counter, key, words.
KNOWN = [
    ([0, 0, 0, 0], [0, 0], "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_tests_own_philox_gives_the_known_answers(counter, key, words):
    assert [f"{word:08x}" for word in philox(key, counter)] == words.split()


def drawn_pieces(dev, H, **where):
    """The 16-bit draws of one row of the library, found by bisection on the threshold: piece < threshold drops."""
    low, high = np.zeros(H, np.int64), np.full(H, 65536)  # low <= piece < high
    while (high - low > 1).any():
        for threshold in np.unique((low + high) // 2):
            here = (low + high) // 2 == threshold
            dropped = hidden_mask(dev, threshold / 65536, H, **where)[0] == 0
            high = np.where(here & dropped, threshold, high)
            low = np.where(here & ~dropped, threshold, low)
    return low


def test_the_library_draws_the_known_answer(dev):
    words = [int(word, 16) for word in KNOWN[0][2].split()]
    expected = [piece for word in words for piece in (word & 0xFFFF, word >> 16)]
    assert drawn_pieces(dev, 8, key=0).tolist() == expected


def test_every_field_has_its_place_in_the_counter(dev):
    """Known answer 3 has four different counter words and two of the key; each stands where rp_dropout says."""
    place = dict(key=0x299F31D0A4093822, step=0x03707344, sample=[0x13198A2E], pos=[0x85A308D3 - (1 << 32)])
    where = dict(key=place["key"], step=place["step"], sample=0x13198A2E, rows=[0x85A308D3])
    assert np.array_equal(drawn_pieces(dev, 19, **place), pieces(**where, columns=19)[0])


# -- masks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1 / 65536, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("H", [1, 8, 13, 40, 257])
def test_hidden_mask_is_the_one_that_numpy_draws(dev, H, p):
    sequence, pos, sample = [0, 0, 0, 1, 2, 2], [0, 1, 2, 0, 0, 511], [4, 0, 1_000_000]
    got = hidden_mask(dev, p, H, sample, sequence, pos, step=77)
    d = Dropout(p, KEY, 77)
    for t, row in enumerate(got):
        want = keep(d, sample[sequence[t]], [pos[t]], H)[0]
        np.testing.assert_allclose(row, want, rtol=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_attention_mask_is_the_one_that_numpy_draws(dev, p):
    lengths, sample = (9, 1, 33, 70), (3, 2, 900, 0)
    for s, masks in enumerate(attention_mask(dev, p, lengths, sample, A=3, step=5)):
        for a, got in enumerate(masks):
            want = keep(Dropout(p, KEY, 5), sample[s], a * 65536 + np.arange(lengths[s]), lengths[s])
            np.testing.assert_allclose(got, want, rtol=1e-5)


def test_hidden_mask_of_a_sample_is_the_same_alone_and_in_any_batch(dev):
    n, H = 12, 50
    alone = hidden_mask(dev, 0.3, H, [41], [0] * n, range(n))
    first = hidden_mask(dev, 0.3, H, [41, 8], [0] * n + [1] * 5, [*range(n), *range(5)])
    last = hidden_mask(dev, 0.3, H, [0, 3, 41], [0] * 4 + [1] + [2] * n, [*range(4), 0, *range(n)])
    assert np.array_equal(first[:n], alone)
    assert np.array_equal(last[5:], alone)


def test_attention_mask_of_a_sample_is_the_same_alone_and_in_any_batch(dev):
    n = 21
    (alone,) = attention_mask(dev, 0.3, (n,), (41,), A=2)
    first, _ = attention_mask(dev, 0.3, (n, 5), (41, 8), A=2)
    *_, last = attention_mask(dev, 0.3, (40, 1, n), (0, 3, 41), A=2)
    # v is n times the identity, 1/n the weight: the mask up to their rounding
    for other in (first, last):
        assert np.array_equal(other == 0, alone == 0)
        np.testing.assert_allclose(other, alone, rtol=1e-5)


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5])
def test_dropped_share_and_kept_scale(dev, p):
    T, H = 200, 500
    mask = hidden_mask(dev, p, H, [0], [0] * T, range(T))
    share, deviation = (mask == 0).mean(), np.sqrt(p * (1 - p) / (T * H))
    assert abs(share - p) < 5 * deviation + 1 / 65536  # 5 sigma; the seed is fixed
    exact = 65536 / (65536 - round(65536 * p))
    np.testing.assert_allclose(mask[mask != 0], exact, rtol=1e-6)
    attention = np.concatenate([m.ravel() for m in attention_mask(dev, p, (300,), (0,))])
    assert abs((attention == 0).mean() - p) < 5 * np.sqrt(p * (1 - p) / attention.size) + 1 / 65536


def test_masks_of_different_places_are_unrelated(dev):
    """Neighbouring columns, blocks, tokens, samples, steps and sites: correlations within 5 sigma of 0."""
    T, H = 64, 512
    tokens = dict(sequence=[0] * T, pos=range(T))
    base = hidden_mask(dev, 0.5, H, sample=[0], **tokens) != 0
    others = {
        "sample": hidden_mask(dev, 0.5, H, sample=[1], **tokens) != 0,
        "step": hidden_mask(dev, 0.5, H, sample=[0], step=1, **tokens) != 0,
        "site": hidden_mask(dev, 0.5, H, sample=[0], key=KEY + 1, **tokens) != 0,
        "token": np.roll(base, 1, axis=0),
        **{f"column {k}": np.roll(base, k, axis=1) for k in (1, 2, 4, 8, 16)},
    }
    for what, other in others.items():
        correlation = np.mean((2.0 * base - 1) * (2.0 * other - 1))
        assert abs(correlation) < 5 / np.sqrt(T * H), what


def test_heads_have_masks_of_their_own(dev):
    (masks,) = attention_mask(dev, 0.5, (64,), (7,), A=3)
    signs = np.where(masks == 0, -1.0, 1.0).reshape(3, -1)
    correlation = signs @ signs.T / signs.shape[1] - np.eye(3)
    assert np.abs(correlation).max() < 5 / 64


def test_without_dropout_nothing_is_read_and_nothing_changes(dev):
    inp = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    d = Dropout(p=0.0)  # its arrays are NULL
    got = dev.call("dropout_forward", out=np.zeros_like(inp), inp=inp, d=d, T=5, H=9)["out"]
    assert np.array_equal(got, inp)
