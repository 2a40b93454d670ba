"""N-way K-shot episodes: no repeats, uniform, and each a function of (seed, number)."""

import itertools

import numpy as np
import pytest

from relpt import _core

pytestmark = pytest.mark.core


def labels_of(counts, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return np.random.default_rng(seed).permutation(labels)


def draw(labels, n_way, k_shot, n_query, count, *, first=0, seed=42, n_classes=None):
    n_classes = int(labels.max()) + 1 if n_classes is None else n_classes
    return _core.draw_episodes(labels, n_classes, n_way, k_shot, n_query, seed, first, count)


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
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
