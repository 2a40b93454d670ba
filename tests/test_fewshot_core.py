"""Prototype scoring against NumPy, and what its result does not depend on."""

import os
import signal
import warnings

import numpy as np
import pytest

from relpt import _core

pytestmark = pytest.mark.core

SIMILARITIES = {"dot": 0, "cosine": 1, "euclidean": 2}


def data(seed=0, classes=8, each=30, dim=37, spread=1.0):
    """Vectors scattered about their class's centre, so that some queries are right and some are wrong."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), each)).astype(np.int32)
    centres = rng.normal(size=(classes, dim)) * rng.uniform(0.5, 2, (classes, 1))
    noise = rng.normal(size=(len(labels), dim)) * rng.uniform(0.5, 4, (len(labels), 1))
    return (spread * centres[labels] + noise).astype(np.float32), labels


def score(vectors, labels, *, n_way=5, k_shot=1, n_query=1, episodes=200, similarity="cosine", seed=42, num_threads=1):
    n_classes = int(labels.max()) + 1
    return _core.fewshot_score(
        vectors, labels, n_classes, n_way, k_shot, n_query, episodes, SIMILARITIES[similarity], seed, num_threads
    )


def recompute(vectors, labels, *, n_way, k_shot, n_query, episodes, similarity, seed=42):
    n_classes = int(labels.max()) + 1
    support, query = _core.draw_episodes(labels, n_classes, n_way, k_shot, n_query, seed, 0, episodes)
    vectors = vectors.astype(np.float64)
    prototypes, queries = (
        vectors[support].mean(axis=2),
        vectors[query],
    )  # (episodes, way, dim), (episodes, way, query, dim)
    dots = np.einsum("ewqd,epd->ewqp", queries, prototypes)
    if similarity == "cosine":
        norms = np.linalg.norm(queries, axis=-1)[..., None] * np.linalg.norm(prototypes, axis=-1)[:, None, None, :]
        dots = dots / norms
    elif similarity == "euclidean":
        dots = -((queries[:, :, :, None, :] - prototypes[:, None, None, :, :]) ** 2).sum(axis=-1)
    return (dots.argmax(axis=-1) == np.arange(n_way)[None, :, None]).mean(axis=(1, 2))


def similarities(vectors, support, query, similarity):
    """Of each query (episodes, queries) to each prototype, by NumPy."""
    vectors = vectors.astype(np.float64)
    prototypes, queries = vectors[support].mean(axis=2), vectors[query]
    if similarity == "euclidean":
        return -((queries[:, :, None, :] - prototypes[:, None, :, :]) ** 2).sum(axis=-1)
    if similarity == "cosine":
        prototypes, queries = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (prototypes, queries))
    return np.einsum("eqd,ewd->eqw", queries, prototypes)


def drawn(labels, *, n_way=5, k_shot=2, n_query=3, episodes=200, nota_rate=0.3, seed=42):
    n_classes = int(labels.max()) + 1
    support, query = _core.draw_episodes(labels, n_classes, n_way, k_shot, n_query, seed, 0, episodes, nota_rate)
    return support, np.ascontiguousarray(query.reshape(episodes, -1))


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(("n_way", "k_shot", "n_query"), [(5, 1, 1), (5, 5, 4), (7, 2, 3), (2, 10, 1), (1, 1, 2)])
def test_answers_equal_numpys(similarity, n_way, k_shot, n_query):
    vectors, labels = data()
    support, query = drawn(labels, n_way=n_way, k_shot=k_shot, n_query=n_query)
    way, best, margin = _core.fewshot_answers(vectors, support, query, SIMILARITIES[similarity], 1)
    wanted = similarities(vectors, support, query, similarity)
    ordered = np.sort(wanted, axis=-1)
    np.testing.assert_array_equal(way, wanted.argmax(axis=-1))
    np.testing.assert_allclose(best, ordered[..., -1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(margin, ordered[..., -1] - ordered[..., -min(2, n_way)], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_answers_are_those_that_score_counts(similarity):
    vectors, labels = data()
    support, query = drawn(labels, nota_rate=0.0)
    way = _core.fewshot_answers(vectors, support, query, SIMILARITIES[similarity], 1)[0]
    accuracy = score(vectors, labels, k_shot=2, n_query=3, similarity=similarity)
    np.testing.assert_array_equal((way.reshape(200, 5, 3) == np.arange(5)[:, None]).mean(axis=(1, 2)), accuracy)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_answers_do_not_depend_on_the_number_of_threads(similarity):
    vectors, labels = data(dim=64)
    rows = drawn(labels, episodes=501)
    one = _core.fewshot_answers(vectors, *rows, SIMILARITIES[similarity], 1)
    for threads in (2, 3, 7):
        other = _core.fewshot_answers(vectors, *rows, SIMILARITIES[similarity], threads)
        assert [a.tobytes() for a in one] == [a.tobytes() for a in other]


def test_the_first_of_equal_prototypes_answers_with_margin_0():
    labels = data()[1]
    way, best, margin = _core.fewshot_answers(np.ones((len(labels), 16), np.float32), *drawn(labels), 0, 1)
    assert not way.any()
    assert (best == 16).all()
    assert not margin.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"support": np.full((2, 3, 1), 240)}, "support holds 240 as its number 0; expected rows .* 0 .. 239"),
        ({"query": np.array([[0], [-1]])}, "query holds -1 as its number 1"),
        ({"query": np.zeros((3, 1), np.int64)}, r"query: expected .* of shape \(2, n\), got int64 \(3, 1\)"),
        ({"support": np.zeros((2, 0, 1), np.int64)}, "support has 0 ways of 1 shots"),
        ({"support": np.zeros((2, 3, 0), np.int64)}, "support has 3 ways of 0 shots"),
        ({"similarity": 3}, "similarity is 3; expected 0"),
        ({"num_threads": 0}, "num_threads is 0; expected 1 .. 4096"),
    ],
)
def test_episodes_that_cannot_be_answered_are_named(change, message):
    rows = {"support": np.zeros((2, 3, 1), np.int64), "query": np.zeros((2, 1), np.int64)}
    with pytest.raises(ValueError, match=message):
        _core.fewshot_answers(**{"vectors": data()[0], **rows, "similarity": 1, "num_threads": 1, **change})


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(("n_way", "k_shot", "n_query"), [(5, 1, 1), (5, 5, 4), (8, 2, 3), (2, 10, 1), (1, 1, 1)])
@pytest.mark.parametrize("dim", [1, 8, 37])
def test_accuracy_equals_numpys(similarity, n_way, k_shot, n_query, dim):
    vectors, labels = data(dim=dim)
    options = {"n_way": n_way, "k_shot": k_shot, "n_query": n_query, "episodes": 300, "similarity": similarity}
    accuracy = score(vectors, labels, **options)
    assert accuracy.dtype == np.float64
    if dim > 1 or similarity != "cosine":  # in one dimension every cosine is 1 or -1: ties by rounding
        np.testing.assert_allclose(accuracy, recompute(vectors, labels, **options), rtol=0, atol=1e-12)
    if dim == 37 and n_way > 1:
        assert 1 / n_way < accuracy.mean() < 1


def test_the_similarities_differ():
    vectors, labels = data()
    means = {name: score(vectors, labels, episodes=2000, similarity=name).mean() for name in SIMILARITIES}
    assert len(set(means.values())) == 3


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_result_does_not_depend_on_the_number_of_threads(similarity):
    vectors, labels = data(dim=64)
    one = score(vectors, labels, episodes=501, k_shot=3, similarity=similarity)
    for threads in (2, 3, 7):
        assert (
            score(vectors, labels, episodes=501, k_shot=3, similarity=similarity, num_threads=threads).tobytes()
            == one.tobytes()
        )


def test_episode_i_does_not_depend_on_how_many_there_are():
    vectors, labels = data()
    np.testing.assert_array_equal(score(vectors, labels, episodes=500)[:20], score(vectors, labels, episodes=20))
    assert score(vectors, labels, episodes=0).shape == (0,)
    assert score(vectors, labels, episodes=1, num_threads=4).shape == (1,)


def test_well_separated_classes_are_all_right():
    vectors, labels = data(spread=100.0)
    for similarity in ("cosine", "euclidean"):
        assert score(vectors, labels, similarity=similarity).mean() == 1


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_first_of_equal_prototypes_wins(similarity, value):
    labels = data()[1]
    accuracy = score(np.full((len(labels), 16), value, np.float32), labels, similarity=similarity)
    np.testing.assert_allclose(accuracy, 1 / 5)


@pytest.mark.parametrize("similarity", ["dot", "euclidean"])
def test_the_first_of_equal_prototypes_wins_among_others(similarity):
    labels = data()[1]
    vectors = np.random.default_rng(1).integers(-1, 2, (len(labels), 2)).astype(np.float32)  # exact sums, and many ties
    options = {"n_way": 5, "k_shot": 1, "n_query": 2, "episodes": 500, "similarity": similarity}
    np.testing.assert_array_equal(score(vectors, labels, **options), recompute(vectors, labels, **options))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_named(bad):
    vectors, labels = data()
    vectors[7, 3] = bad
    with pytest.raises(FloatingPointError, match=r"vectors\[7, 3\] is not finite"):
        score(vectors, labels)


def test_large_values_do_not_overflow():
    vectors, labels = data(spread=100.0)
    for similarity in ("cosine", "euclidean"):
        assert score((vectors * 1e34).astype(np.float32), labels, similarity=similarity).mean() == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_way": 9}, ValueError, "n_way is 9, but there are 8 classes"),
        ({"k_shot": 30}, ValueError, r"class 0 has 30 instances; 31 are needed"),
        ({"episodes": -1}, ValueError, "episodes is -1"),
        ({"num_threads": 0}, ValueError, "num_threads is 0; expected 1 .. 4096"),
        (
            {"vectors": np.zeros((240, 5))},
            ValueError,
            r"vectors: expected a C-contiguous float32 array of shape \(n, m\), got float64",
        ),
        ({"vectors": np.zeros((240, 0), np.float32)}, ValueError, "vectors have 0 columns"),
        ({"labels": np.zeros(3, np.int32)}, ValueError, r"labels: .* of shape \(240,\), got int32 \(3,\)"),
        ({"vectors": None}, TypeError, "vectors: expected .* got an object of type NoneType"),
    ],
)
def test_what_cannot_be_scored_is_named(change, error, message):
    vectors, labels = data()
    with pytest.raises(error, match=message):
        score(**{"vectors": vectors, "labels": labels, **change})


def test_an_unknown_similarity_is_named():
    vectors, labels = data()
    with pytest.raises(ValueError, match="similarity is 3; expected 0"):
        _core.fewshot_score(vectors, labels, 8, 5, 1, 1, 10, 3, 42, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_scores_on_one_thread_and_is_refused_more():
    vectors, labels = data()
    wanted = score(vectors, labels, num_threads=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads and fork: the very point
        child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(20)  # a deadlock ends the child
            code = 0 if (score(vectors, labels, num_threads=1) == wanted).all() else 2
            score(vectors, labels, num_threads=2)
            code = 3
        except RuntimeError as error:
            code = code if "forked child" in str(error) else 4
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_default_threads():
    assert _core.default_threads() >= 1
