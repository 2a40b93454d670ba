"""None of the above: the threshold and its limits, accuracies and their intervals, against NumPy and by counting."""

import itertools

import numpy as np
import pytest
from tiny import tiny_dataset, tiny_encoder_folder

import relpt
from relpt import _core
from relpt.nota import NOTA_SCORES, accuracies, best_threshold, nota_scores, ratio


def table(seed=0, classes=9, each=20, dim=24, spread=1.0):
    """Vectors about their class's centre, and labels, some queries right and some wrong."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    return (spread * rng.normal(size=(classes, dim))[labels] + rng.normal(size=(len(labels), dim))), labels


def task(**options):
    return relpt.FewShot(**{"n_way": 4, "k_shot": 2, "n_query": 3, "episodes": 400, "nota_rate": 0.3, **options})


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_the_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for n, ties in itertools.product((1, 2, 7, 60), (False, True)):
        for _ in range(20):
            scores = rng.integers(0, 5, n) / 2 if ties else rng.normal(size=n)
            none = rng.random(n) < 0.4
            right = ~none & (rng.random(n) < 0.7)
            found = best_threshold(scores, right, none)
            places = [*scores, scores.min() - 1, scores.max() + 1]
            most = max(np.where(scores < place, none, right).sum() for place in places)
            assert np.isfinite(found)
            assert np.where(scores < found, none, right).sum() == most


def test_the_best_threshold_stands_between_the_scores_it_parts():
    scores = np.array([[0.1, 0.9], [0.3, 0.7]])
    none = scores < 0.5
    assert best_threshold(scores, ~none, none) == pytest.approx(0.5)
    all_known = best_threshold(scores, np.ones((2, 2), bool), np.zeros((2, 2), bool))
    assert not (scores < all_known).any()
    all_none = best_threshold(scores, np.zeros((2, 2), bool), np.ones((2, 2), bool))
    assert (scores < all_none).all()
    next_to_each_other = np.array([1.0, np.nextafter(1.0, 2.0)])
    parted = best_threshold(next_to_each_other, np.array([False, True]), np.array([True, False]))
    assert (next_to_each_other < parted).tolist() == [True, False]


def test_scores_are_the_sums_of_their_parts():
    similarity, margin = np.array([0.5, 0.25]), np.array([0.125, 0.0])
    named = {name: nota_scores(name, similarity, margin).tolist() for name in NOTA_SCORES}
    assert named == {"similarity": [0.5, 0.25], "margin": [0.125, 0.0], "similarity+margin": [0.625, 0.25]}


def test_a_ratio_of_equal_totals_is_the_mean_with_its_interval():
    hits = np.random.default_rng(0).integers(0, 6, 50)
    share, half = ratio(hits, np.full(50, 5))
    assert share == pytest.approx((hits / 5).mean())
    assert half == pytest.approx(1.96 * (hits / 5).std(ddof=1) / np.sqrt(50))
    share, half = ratio(np.array([2]), np.array([4]))
    assert share == 0.5
    assert np.isnan(half)  # one episode says nothing about others
    assert ratio(np.array([0, 0]), np.array([0, 0])) == (None, None)


def test_a_ratios_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        totals = rng.binomial(6, 0.4, 300)
        hits = rng.binomial(totals, rng.beta(6, 4, 300))  # queries of an episode hang together; 0.6 on average
        share, half = ratio(hits, totals)
        covered += abs(share - 0.6) <= half
    assert abs(covered / 400 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400)


def test_accuracies_count_both_kinds():
    none = np.array([[True, False], [False, False], [True, True]])
    right = np.array([[True, True], [False, True], [False, False]])
    found = accuracies(right, none)
    assert (found["known_accuracy"], found["none_accuracy"]) == (2 / 3, 1 / 3)
    assert accuracies(right, np.zeros((3, 2), bool))["none_accuracy"] is None


# -- FewShot -----------------------------------------------------------------------------------------------------------


def by_hand(vectors, labels, few):
    """Accuracy over all, known and none queries of a FewShot by cosine, query by query on the episodes it draws."""
    sizes = (few.n_way, few.k_shot, few.n_query)
    drawn = _core.draw_episodes(
        labels.astype(np.int32), int(labels.max()) + 1, *sizes, few.seed, 0, few.episodes, few.nota_rate
    )
    vectors = vectors.astype(np.float32).astype(np.float64)
    right, none = [], []
    for support, query in zip(*drawn, strict=True):
        prototypes = vectors[support].mean(axis=1)
        prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
        for way, number in itertools.product(range(few.n_way), range(few.n_query)):
            row = query[way, number]
            cosines = prototypes @ vectors[row] / np.linalg.norm(vectors[row])
            said = cosines.argmax() if cosines.max() >= few.nota_threshold else -1
            truth = way if labels[row] == labels[support[way, 0]] else -1
            right.append(said == truth)
            none.append(truth == -1)
    right, none = np.array(right), np.array(none)
    return right.mean(), right[~none].mean(), right[none].mean()


def test_accuracies_equal_those_counted_query_by_query():
    vectors, labels = table()
    few = task(nota_threshold=0.55)
    result = few.score(vectors, labels, num_threads=1)
    found = (result.accuracy, result.known_accuracy, result.none_accuracy)
    np.testing.assert_allclose(found, by_hand(vectors, labels, few), rtol=0, atol=1e-12)
    assert 0.2 < result.none_accuracy < 0.99
    assert result.per_episode.mean() == result.accuracy


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("nota_score", NOTA_SCORES)
def test_the_limits_of_the_threshold(similarity, nota_score):
    vectors, labels = table()
    options = {"similarity": similarity, "nota_score": nota_score}
    never = task(nota_threshold=-np.inf, **options).score(vectors, labels, num_threads=1)
    always = task(nota_threshold=np.inf, **options).score(vectors, labels, num_threads=1)
    assert never.none_accuracy == 0
    assert (always.known_accuracy, always.none_accuracy) == (0, 1)
    assert abs(always.accuracy - 0.3) < 4.5 * np.sqrt(0.3 * 0.7 / (400 * 12))
    plain = task(nota_rate=0.0, similarity=similarity).score(vectors, labels, num_threads=1)
    asked = task(nota_rate=0.0, nota_threshold=-np.inf, **options).score(vectors, labels, num_threads=1)
    assert asked.per_episode.tobytes() == plain.per_episode.tobytes()
    assert asked.none_accuracy is None
    assert asked.known_accuracy == pytest.approx(asked.accuracy)
    assert asked.known_ci95 == pytest.approx(asked.ci95)


def test_a_row_has_the_new_fields_only_where_none_is_an_answer():
    vectors, labels = table()
    plain = task(nota_rate=0.0).score(vectors, labels, num_threads=1)
    asked = task(nota_threshold=0.5).score(vectors, labels, num_threads=1)
    names = ["inputs", "way", "shot", "similarity", "episodes", "accuracy", "ci95"]
    more = ["nota_rate", "nota_score", "nota_threshold", "known_accuracy", "known_ci95", "none_accuracy", "none_ci95"]
    assert list(plain.to_dict()) == names
    assert list(asked.to_dict()) == names + more
    assert str(plain) == f"C+M 4-way 2-shot: {plain.accuracy:.3f} ± {plain.ci95:.3f}"
    assert f"30% none of the above: known {asked.known_accuracy:.3f}" in str(asked)


def test_one_episode_has_no_interval():
    vectors, labels = table()
    one = task(nota_threshold=0.5, episodes=1, n_query=20, k_shot=1, n_way=2).score(*table(each=30), num_threads=1)
    assert np.isnan([one.ci95, one.known_ci95, one.none_ci95]).all()
    row = one.to_dict()
    assert [row[name] for name in ("ci95", "known_ci95", "none_ci95")] == [None] * 3
    assert f"{one.accuracy:.3f} ± – (" in str(one)
    two = task(nota_rate=0.0, episodes=2).score(vectors, labels, num_threads=1)
    half = 1.96 * abs(two.per_episode[0] - two.per_episode[1]) / 2
    assert two.to_dict()["ci95"] == two.ci95 == pytest.approx(half)


@pytest.mark.parametrize("nota_score", NOTA_SCORES)
def test_the_threshold_is_fitted_to_other_relations_and_no_other_is_better_there(nota_score):
    vectors, labels = table(spread=0.8)
    fitted = task(nota_score=nota_score)
    fitted.nota_threshold = fitted.best_threshold(vectors, labels, num_threads=1)
    best = fitted.score(vectors, labels, num_threads=1).accuracy
    for shift in (-0.2, -0.05, -0.01, 0.01, 0.05, 0.2):
        near = task(nota_score=nota_score, nota_threshold=fitted.nota_threshold + shift)
        assert near.score(vectors, labels, num_threads=1).accuracy <= best
    limits = [task(nota_score=nota_score, nota_threshold=t).score(vectors, labels).accuracy for t in (-np.inf, np.inf)]
    assert best > max(limits)
    others = table(seed=1, spread=0.8)
    assert fitted.score(*others, num_threads=1).accuracy > max(limits) - 0.02


def test_a_higher_rate_asks_for_a_higher_threshold():
    vectors, labels = table(spread=0.8)
    thresholds = [task(nota_rate=rate).best_threshold(vectors, labels) for rate in (0.05, 0.3, 0.7)]
    assert thresholds == sorted(set(thresholds))


def test_a_shift_of_all_similarities_does_not_move_the_margin():
    vectors, labels = table()
    shifted = np.hstack([vectors, np.full((len(vectors), 1), 8.0)])  # adds 64 to each dot product
    plain, margin = task(similarity="dot"), task(similarity="dot", nota_score="margin")
    moved = [few.best_threshold(shifted, labels) - few.best_threshold(vectors, labels) for few in (plain, margin)]
    assert moved == pytest.approx([64, 0], abs=1e-3)


def test_the_result_does_not_depend_on_the_number_of_threads():
    vectors, labels = table()
    few = task(nota_threshold=0.5)
    one, other = (few.score(vectors, labels, num_threads=n) for n in (1, 3))
    assert one.per_episode.tobytes() == other.per_episode.tobytes()
    assert one.to_dict() == other.to_dict()
    assert few.best_threshold(vectors, labels, num_threads=1) == few.best_threshold(vectors, labels, num_threads=3)


def test_fit_threshold_and_evaluate_with_an_encoder(tmp_path):
    encoder = relpt.Encoder.from_pretrained(tiny_encoder_folder(tmp_path), num_threads=1)
    data, others = relpt.load(tiny_dataset(6, 8)), relpt.load(tiny_dataset(7, 8, seed=1))
    few = task(episodes=100)
    assert few.fit_threshold(encoder, others) is few
    relations = [instance.relation for instance in others]
    assert few.nota_threshold == few.best_threshold(encoder.encode(others), relations)
    labels = [instance.relation for instance in data]
    assert few.evaluate(encoder, data) == few.score(encoder.encode(data), labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "episodes is 0; expected a whole number from 1 on"),
        ({"episodes": 2.5}, "episodes is 2.5"),
        ({"nota_rate": 1.0}, "nota_rate is 1.0; expected at least 0 and less than 1"),
        ({"nota_rate": float("nan")}, "nota_rate is nan"),
        ({"nota_threshold": float("nan")}, "nota_threshold is not a number"),
        ({"nota_score": "entropy"}, "nota_score is 'entropy'; expected one of similarity, margin, similarity.margin"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        task(**options)


def test_what_is_missing_is_named_before_anything_is_encoded():
    data = relpt.load(tiny_dataset(4, 8))
    with pytest.raises(ValueError, match=r"nota_rate is 0.3, and there is no nota_threshold: give one, or fit it"):
        task().evaluate(None, data)
    with pytest.raises(ValueError, match="nota_rate is 0: give the share"):
        task(nota_rate=0.0).fit_threshold(None, data)
    with pytest.raises(ValueError, match=r"n_way takes all 4 relations of 'data', and a nota_rate of 0.3 needs others"):
        task(nota_threshold=0.5).evaluate(None, data)
    with pytest.raises(ValueError, match="n_way is 1, so that every answer is right; give two ways or more"):
        task(n_way=1, nota_rate=0.0).evaluate(None, data)
    vectors, labels = table()
    with pytest.raises(ValueError, match="n_way is 1, so that every answer is right"):
        task(n_way=1, nota_rate=0.0).score(vectors, labels)
    assert task(n_way=1, nota_rate=0.0, nota_threshold=0.9).score(vectors, labels).accuracy < 1
    with pytest.raises(ValueError, match="nota_score 'margin' needs two ways or more"):
        task(n_way=1, nota_score="margin", nota_threshold=0.0).score(vectors, labels)
