"""N-way K-shot episodes: no repeats, uniform, and each a function of (seed, number)."""

import itertools
import math

import numpy as np
import pytest

from relpt import _core

pytestmark = pytest.mark.core


def labels_of(counts, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return np.random.default_rng(seed).permutation(labels)


def draw(labels, n_way, k_shot, n_query, count, *, first=0, seed=42, n_classes=None, nota_rate=0.0):
    n_classes = int(labels.max()) + 1 if n_classes is None else n_classes
    return _core.draw_episodes(labels, n_classes, n_way, k_shot, n_query, seed, first, count, nota_rate)


def assert_uniform(counts):
    counts = np.asarray(counts, float)
    freedom = len(counts) - 1
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < freedom + 4.5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize(
    ("n_way", "k_shot", "n_query"), [(5, 1, 1), (5, 5, 3), (12, 1, 1), (1, 1, 1), (12, 9, 6), (2, 1, 14)]
)
def test_an_episode_repeats_nothing(n_way, k_shot, n_query):
    labels = labels_of(range(15, 27))
    support, query = draw(labels, n_way, k_shot, n_query, 300)
    assert support.shape == (300, n_way, k_shot)
    assert query.shape == (300, n_way, n_query)
    rows = np.concatenate([support, query], axis=2)
    for episode in rows:
        classes = labels[episode]
        assert (classes == classes[:, :1]).all()  # one class a way
        assert len(set(classes[:, 0])) == n_way
        assert len(set(episode.ravel())) == episode.size


def test_an_episode_is_a_function_of_seed_and_number():
    labels = labels_of([10] * 8)
    support, query = draw(labels, 3, 2, 2, 50)
    for first in (0, 1, 17, 49):
        one = draw(labels, 3, 2, 2, 1, first=first)
        np.testing.assert_array_equal(one[0][0], support[first])
        np.testing.assert_array_equal(one[1][0], query[first])
    assert len({episode.tobytes() for episode in support}) == 50
    assert (draw(labels, 3, 2, 2, 50, seed=43)[0] != support).any()
    far = draw(labels, 3, 2, 2, 1, first=2**32)[0][0]  # the number's high half counts too
    assert (far != support[0]).any()


def test_the_seed_is_64_bits_wide():
    labels = labels_of([10] * 8)
    seeds = (0, 1, 2**32, 2**63, 2**64 - 1)
    assert len({draw(labels, 3, 2, 2, 5, seed=seed)[0].tobytes() for seed in seeds}) == len(seeds)


def test_classes_and_rows_are_uniform():
    labels = labels_of([20, 5, 9, 14])
    support, query = draw(labels, 2, 1, 1, 12_000)
    ways = labels[support[:, :, 0]]
    assert_uniform([((ways[:, 0] == a) & (ways[:, 1] == b)).sum() for a, b in itertools.permutations(range(4), 2)])
    for c in range(4):
        rows = np.flatnonzero(labels == c)
        for drawn in (support[:, :, 0], query[:, :, 0]):
            assert_uniform([(drawn == row).sum() for row in rows])


def test_every_order_of_a_whole_class_is_equally_likely():
    labels = labels_of([4])
    support, query = draw(labels, 1, 2, 2, 12_000)
    rows = np.concatenate([support, query], axis=2).reshape(-1, 4)
    orders = list(itertools.permutations(range(4)))
    assert_uniform([(rows == order).all(axis=1).sum() for order in orders])


def test_large_classes_are_drawn_to_the_last_row():
    labels = labels_of([700] * 3)
    support, query = draw(labels, 3, 350, 350, 2)
    for episode in np.concatenate([support, query], axis=2):
        np.testing.assert_array_equal(np.sort(episode.ravel()), np.arange(2100))


# -- none of the above -------------------------------------------------------------------------------------------------


def is_none(labels, support, query):
    return labels[query] != labels[support[:, :, :1]]


def test_rate_0_is_the_episode_without_a_rate():
    labels = labels_of([10] * 8)
    plain = _core.draw_episodes(labels, 8, 3, 2, 4, 42, 0, 200)
    for one, other in zip(plain, draw(labels, 3, 2, 4, 200, nota_rate=0.0), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.5, 0.95])
def test_a_rate_changes_its_share_of_the_queries_and_nothing_else(rate):
    labels = labels_of([12] * 9)
    plain, asked = (draw(labels, 4, 2, 3, 2000, nota_rate=r) for r in (0.0, rate))
    assert plain[0].tobytes() == asked[0].tobytes()
    none = is_none(labels, *asked)
    assert abs(none.mean() - rate) < 4.5 * np.sqrt(rate * (1 - rate) / none.size)
    np.testing.assert_array_equal(asked[1][~none], plain[1][~none])
    ways = labels[asked[0][:, :, 0]]
    outside = (labels[asked[1]].reshape(2000, -1, 1) != ways[:, None, :]).all(axis=2)
    np.testing.assert_array_equal(outside, none.reshape(2000, -1))


def test_what_is_none_at_one_rate_is_so_at_every_higher_one():
    labels = labels_of([12] * 9)
    support, low = draw(labels, 4, 1, 3, 500, nota_rate=0.2)
    none, high = is_none(labels, support, low), draw(labels, 4, 1, 3, 500, nota_rate=0.6)[1]
    assert none.any()
    np.testing.assert_array_equal(low[none], high[none])


def test_classes_outside_and_their_rows_are_uniform():
    labels = labels_of([20, 5, 9, 14, 7, 2])
    support, query = draw(labels, 3, 1, 1, 12_000, nota_rate=0.8)
    none = is_none(labels, support, query)
    ways = np.sort(labels[support[:, :, 0]], axis=1)
    for chosen in itertools.combinations(range(6), 3):
        mine = query[(ways == chosen).all(axis=1)]
        drawn = labels[mine[none[(ways == chosen).all(axis=1)]]]
        assert_uniform([(drawn == c).sum() for c in set(range(6)) - set(chosen)])
    for c in range(6):
        rows = np.flatnonzero(labels == c)
        assert_uniform([(query[none] == row).sum() for row in rows])


def test_queries_that_are_none_are_so_independently():
    labels = labels_of([12] * 9)
    none = is_none(labels, *draw(labels, 5, 1, 1, 12_000, nota_rate=0.4))
    counts = np.bincount(none.sum(axis=(1, 2)), minlength=6)
    binomial = [math.comb(5, k) * 0.4**k * 0.6 ** (5 - k) * 12_000 for k in range(6)]
    assert ((counts - binomial) ** 2 / binomial).sum() < 5 + 4.5 * np.sqrt(10)


def test_an_episode_with_a_rate_is_a_function_of_seed_and_number():
    labels = labels_of([10] * 8)
    whole = draw(labels, 3, 2, 2, 50, nota_rate=0.5)
    for first in (0, 17, 49):
        np.testing.assert_array_equal(draw(labels, 3, 2, 2, 1, first=first, nota_rate=0.5)[1][0], whole[1][first])
    assert (is_none(labels, *whole) != is_none(labels, *draw(labels, 3, 2, 2, 50, nota_rate=0.5, seed=43))).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nota_rate": 1.0}, "nota_rate is 1; expected at least 0 and less than 1"),
        ({"nota_rate": -0.1}, "nota_rate is -0.1"),
        ({"nota_rate": float("nan")}, "nota_rate is -?nan"),
        ({"nota_rate": 0.1, "n_way": 4}, "n_way takes all 4 classes, and a nota_rate of 0.1 needs others"),
        ({"n_way": 5}, "n_way is 5, but there are 4 classes"),
        ({"n_way": 0}, "n_way is 0; expected 1 .. "),
        ({"k_shot": 0}, "k_shot is 0"),
        ({"n_query": 0}, "n_query is 0"),
        ({"k_shot": 3}, r"class 1 has 3 instances; 4 are needed \(k_shot 3 \+ n_query 1\)"),
        ({"k_shot": 2**40}, "k_shot is 1099511627776"),
        ({"n_classes": 5}, "class 4 has 0 instances; 2 are needed"),
        ({"n_classes": 3}, r"labels\[\d+\] is 3; expected 0 .. 2"),
        ({"labels": np.zeros(0, np.int32), "n_classes": 4}, "the number of instances is 0"),
        ({"labels": np.zeros(5)}, r"labels: expected a C-contiguous int32 array of shape \(n,\), got float64 \(5,\)"),
        ({"seed": -1}, r"seed is -1; expected 0 .. 2\*\*64 - 1"),
        ({"count": -1}, "first is 0 and count -1"),
        ({"first": -1}, "first is -1 and count 1"),
    ],
)
def test_what_cannot_be_drawn_is_named(change, message):
    arguments = {"labels": labels_of([5, 3, 6, 4]), "n_way": 2, "k_shot": 1, "n_query": 1, "count": 1, "n_classes": 4}
    with pytest.raises(ValueError, match=message):
        draw(**{**arguments, **change})
