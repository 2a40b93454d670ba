"""The evaluation measures: published figures, cases worked out by hand, plain-loop definitions, scikit-learn."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import relpt
from relpt import metrics

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
SEEDS = range(20)
NEGATIVE = "no_relation"


def random_labels(seed: int, names: str | list[str] = "abcdef") -> tuple[list[str], list[str]]:
    """Gold and predicted labels of which about half agree; small ones leave labels out of either side."""
    rng = np.random.default_rng(seed)
    gold = rng.choice([*names, NEGATIVE], rng.integers(1, 60))
    predicted = np.where(rng.random(len(gold)) < 0.5, gold, rng.choice([*names, NEGATIVE], len(gold)))
    return gold.tolist(), predicted.tolist()


def f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


# -- sentences ---------------------------------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "published"), [("tacred_cnn", 62.23), ("tacred_bilstm_bert_cased", 66.07)])
def test_published_micro_f1_of_tacred(name: str, published: float) -> None:
    path = REAL / "metrics" / f"{name}.tsv"
    if not path.is_file():
        pytest.skip(f"needs the datasets: {path} is absent")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    gold, predicted = [row["gold"] for row in rows], [row["predicted"] for row in rows]
    assert round(100 * metrics.micro_f1(gold, predicted, NEGATIVE), 2) == published


def test_a_case_by_hand() -> None:
    gold = ["a", "a", "a", "b", "b", "-", "-", "-"]
    predicted = ["a", "a", "b", "b", "-", "-", "a", "c"]
    assert metrics.accuracy(gold, predicted) == 4 / 8
    assert metrics.micro_prf(gold, predicted, "-") == pytest.approx((3 / 6, 3 / 5, 6 / 11))
    assert metrics.relation_report(gold, predicted) == [
        ("-", pytest.approx(1 / 2), pytest.approx(1 / 3), pytest.approx(2 / 5), 3),
        ("a", pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3), 3),
        ("b", pytest.approx(1 / 2), pytest.approx(1 / 2), pytest.approx(1 / 2), 2),
        ("c", 0.0, 0.0, 0.0, 0),
    ]
    assert metrics.macro_f1(gold, predicted, "-") == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    labels, counts = metrics.confusion_matrix(gold, predicted)
    assert labels == ("-", "a", "b", "c")
    assert counts.dtype == np.int64
    assert counts.tolist() == [[1, 1, 0, 1], [0, 2, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("negative", [None, NEGATIVE])
def test_sentence_measures_equal_their_definitions(seed: int, negative: str | None) -> None:
    gold, predicted = random_labels(seed)
    pairs = list(zip(gold, predicted, strict=True))

    right = sum(g == p and g != negative for g, p in pairs)
    guessed, wanted = sum(p != negative for p in predicted), sum(g != negative for g in gold)
    precision, recall = right / guessed if guessed else 0.0, right / wanted if wanted else 0.0
    assert metrics.micro_prf(gold, predicted, negative) == pytest.approx((precision, recall, f1(precision, recall)))

    rows = []
    for label in sorted({*gold, *predicted} - {negative}):
        hit, said, true = pairs.count((label, label)), predicted.count(label), gold.count(label)
        precision, recall = hit / said if said else 0.0, hit / true if true else 0.0
        rows.append((label, *(pytest.approx(x) for x in (precision, recall, f1(precision, recall))), true))
    assert metrics.relation_report(gold, predicted, negative) == rows

    labels, counts = metrics.confusion_matrix(gold, predicted)
    assert {(g, p): counts[i, j] for i, g in enumerate(labels) for j, p in enumerate(labels)} == {
        pair: pairs.count(pair) for pair in itertools.product(labels, labels)
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_negative_class_micro_is_accuracy(seed: int) -> None:
    gold, predicted = random_labels(seed)
    assert metrics.micro_prf(gold, predicted) == (metrics.accuracy(gold, predicted),) * 3


def test_only_negatives_score_zero_without_nan() -> None:
    gold, predicted = ["Other", "Other"], ["Other", "Other"]
    assert metrics.accuracy(gold, predicted) == 1
    assert metrics.micro_prf(gold, predicted, "Other") == (0, 0, 0)
    assert metrics.macro_f1(gold, predicted, "Other") == 0
    assert metrics.semeval_f1(gold, predicted) == 0
    assert metrics.relation_report(gold, predicted, "Other") == []


# -- SemEval-2010 task 8 -----------------------------------------------------------------------------------------------

SEMEVAL = [  # what, (gold, predicted) pairs, macro F1 from the counts beside
    ("all right", ["CE> CE>", "CE< CE<", "MT> MT>", "O O"], 1),
    # CE: 2 right of 3 predicted, 3 gold; MT: 0 of 0, 1 gold
    ("wrong direction, Other predicted", ["CE> CE>", "CE> CE<", "CE< CE<", "MT> O"], (2 / 3 + 0) / 2),
    # CE: 1 of 2, 1 gold: predicting it for an Other costs precision
    ("a relation for Other", ["CE> CE>", "O CE<"], 2 / 3),
    ("right Others earn nothing", ["CE> CE<", "O O", "O O", "O O"], 0),
    # CE: 1 of 1, 2 gold; MT has no gold label and no part in the mean
    ("a relation that is absent from gold", ["CE> CE>", "CE> MT>", "O MT<"], 2 / 3),
    # CE: 3 of 3, 4 gold, F1 6/7; the mean over both directions apart would be (1 + 0) / 2
    ("directions are pooled", ["CE> CE>", "CE> CE>", "CE> CE>", "CE< O"], 6 / 7),
    # CE: 1 of 3, 2 gold; MT: 1 of 1, 2 gold
    ("relations mixed up", ["CE> CE>", "CE> CE<", "MT> CE>", "MT> MT>"], (2 / 5 + 2 / 3) / 2),
]


def spelled(pairs: list[str], other: str = "Other") -> tuple[list[str], list[str]]:
    """Full labels of pairs such as "CE> O"."""
    words = {"CE": "Cause-Effect", "MT": "Message-Topic", ">": "(e1,e2)", "<": "(e2,e1)"}
    names = [
        [other if short == "O" else words[short[:2]] + words[short[2]] for short in pair.split()] for pair in pairs
    ]
    return [gold for gold, _ in names], [predicted for _, predicted in names]


@pytest.mark.parametrize(("pairs", "expected"), [case[1:] for case in SEMEVAL], ids=[case[0] for case in SEMEVAL])
def test_semeval_cases_by_hand(pairs: list[str], expected: float) -> None:
    assert metrics.semeval_f1(*spelled(pairs)) == pytest.approx(expected)
    assert metrics.semeval_f1(*spelled(pairs[::-1], NEGATIVE), NEGATIVE) == pytest.approx(expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_semeval_equals_its_definition(seed: int) -> None:
    directed = [f"{relation}({order})" for relation in ("A-B", "C-D", "E-F(x)") for order in ("e1,e2", "e2,e1")]
    gold, predicted = random_labels(seed, directed)
    pairs = list(zip(gold, predicted, strict=True))
    scores = []
    for relation in {label[:-7] for label in gold if label != NEGATIVE}:
        right = sum(g == p and g[:-7] == relation for g, p in pairs)
        wrong_way = sum(g != p and g[:-7] == p[:-7] == relation for g, p in pairs)
        others = sum(p[:-7] == relation != g[:-7] for g, p in pairs)
        missed = sum(g[:-7] == relation != p[:-7] for g, p in pairs)
        precision = right / (right + wrong_way + others) if right else 0.0
        scores.append(f1(precision, right / (right + wrong_way + missed)))
    expected = sum(scores) / len(scores) if scores else 0.0
    assert metrics.semeval_f1(gold, predicted, NEGATIVE) == pytest.approx(expected)


@pytest.mark.parametrize("label", ["Cause-Effect", "Cause-Effect(e1,e1)", "Cause-Effect(e1,e2) ", "(e1,e2)", "other"])
def test_semeval_refuses_a_label_without_direction(label: str) -> None:
    for gold, predicted in ((label, "Other"), ("Other", label)):
        with pytest.raises(ValueError, match=r"has no direction; expected one such as .*, or 'Other'") as caught:
            metrics.semeval_f1([gold], [predicted])
        assert repr(label) in str(caught.value)


# -- by name, bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("negative", [None, "Other"])
def test_score_takes_each_measure_by_name(negative: str | None) -> None:
    gold, predicted = spelled(["CE> CE>", "CE< CE>", "MT> MT>", "MT< O", "O CE<", "O O", "O O"])
    expected = {
        "accuracy": metrics.accuracy(gold, predicted),
        "micro_f1": metrics.micro_f1(gold, predicted, negative),
        "macro_f1": metrics.macro_f1(gold, predicted, negative),
        "semeval": metrics.semeval_f1(gold, predicted, "Other"),
    }
    assert len(set(expected.values())) == 4 - (negative is None)  # micro F1 is the accuracy without a negative class
    assert {name: metrics.score(name, gold, predicted, negative) for name in metrics.METRICS} == expected


def test_score_passes_the_negative_class_to_semeval() -> None:
    pairs = spelled(["CE> CE>", "O CE<"], NEGATIVE)
    assert metrics.score("semeval", *pairs, NEGATIVE) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=NEGATIVE):
        metrics.score("semeval", *pairs)


@pytest.mark.parametrize("name", ["f1", "", None, 3])
def test_an_unknown_measure_lists_the_names(name: Any) -> None:
    with pytest.raises(ValueError, match="expected one of accuracy, micro_f1, macro_f1, semeval"):
        metrics.score(name, ["a"], ["a"])


@pytest.mark.parametrize("measure", [metrics.confusion_matrix, metrics.relation_report, metrics.accuracy])
@pytest.mark.parametrize(
    ("gold", "predicted", "message"),
    [
        (["a", "b"], ["a"], "gold has 2 labels and predicted 1"),
        ([], [], "empty"),
        (["a", 1], ["a", "b"], r"gold\[1\] is 1; expected text"),
        (["a"], [None], r"predicted\[0\] is None; expected text"),
        (["a"], np.array([3]), r"predicted\[0\] is .*3.*; expected text"),
        ("ab", ["a", "b"], "gold is the text 'ab'; expected a list"),
    ],
)
def test_bad_labels_are_refused(measure: Any, gold: Any, predicted: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(gold, predicted)


@pytest.mark.parametrize("measure", [metrics.micro_f1, metrics.macro_f1, metrics.relation_report])
def test_a_negative_class_given_by_number_is_refused(measure: Any) -> None:
    with pytest.raises(ValueError, match="negative is 0; expected the negative class's name"):
        measure(["a"], ["a"], negative=0)


def test_labels_may_be_numpy_text() -> None:
    gold, predicted = random_labels(3)
    assert metrics.micro_f1(np.array(gold), np.array(predicted), NEGATIVE) == metrics.micro_f1(
        gold, predicted, NEGATIVE
    )


SEMEVAL_LABELS = ["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Other"]


@pytest.mark.parametrize(
    ("labels", "measures"),
    [
        (SEMEVAL_LABELS, ("micro_f1", "semeval", "Other")),
        (["no_relation", "per:age", "org:founded"], ("micro_f1", "micro_f1", "no_relation")),
        (["no_relation", *SEMEVAL_LABELS[:2]], ("micro_f1", "semeval", "no_relation")),  # KBP37
        (["INHIBITOR", "SUBSTRATE", "PRODUCT-OF"], ("micro_f1", "micro_f1", None)),
        (["spouse", "capital"], ("accuracy", "accuracy", None)),
        (["NA", "/people/person/place_lived"], ("micro_f1", "micro_f1", "NA")),
        (["P0", "P31"], ("micro_f1", "micro_f1", "P0")),
        (["Other", "spouse"], ("micro_f1", "micro_f1", "Other")),
        ([], ("accuracy", "accuracy", None)),
    ],
)
def test_the_measures_of_data_sets(labels: list[str], measures: tuple[str, str, str | None]) -> None:
    assert tuple(metrics.measures_of(labels)) == measures


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("file", "measures"),
    [
        ("semeval/train_0.01.txt", ("micro_f1", "semeval", "Other")),
        ("chemprot/test.jsonl", ("micro_f1", "micro_f1", None)),
        ("wiki80/train_0.01.txt", ("accuracy", "accuracy", None)),
    ],
)
def test_the_measures_of_published_files(file: str, measures: tuple[str, str, str | None]) -> None:
    """Peng et al. 2020, table 5: micro-F1 on SemEval and ChemProt, accuracy on Wiki80."""
    if not (REAL / file).is_file():
        pytest.skip(f"needs the datasets: {REAL / file} is absent")
    assert tuple(metrics.measures_of(relpt.load(REAL / file).labels)) == measures


# -- bags --------------------------------------------------------------------------------------------------------------


def random_facts(seed: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scores and gold of (bags, relations), true facts likelier to score high; with ties, of five values only."""
    rng = np.random.default_rng(seed)
    gold = rng.random((rng.integers(2, 12), 4)) < 0.3
    gold[0, 1] = True
    scores = rng.normal(size=gold.shape) + gold
    return (np.round(np.clip(scores, -1, 1) * 2) / 2 if ties else scores), gold


def test_a_bag_curve_by_hand() -> None:
    scores = [[0.9, 0.8, 0.1], [0.7, 0.6, 0.2]]
    gold = [[1, 1, 0], [0, 1, 1]]
    curve = metrics.bag_curve(scores, gold)  # by score: right, right, wrong, right, right, wrong
    assert curve.precision.tolist() == pytest.approx([1, 1, 2 / 3, 3 / 4, 4 / 5, 4 / 6])
    assert curve.recall.tolist() == pytest.approx([1 / 4, 2 / 4, 2 / 4, 3 / 4, 1, 1])
    assert [curve.precision_at(n) for n in (1, 3, 6)] == pytest.approx([1, 2 / 3, 4 / 6])
    assert curve.auc == pytest.approx(1 / 2 + (2 / 3 + 3 / 4) / 8 + (3 / 4 + 4 / 5) / 8)
    assert curve.max_f1 == pytest.approx(8 / 9)


def test_the_negative_class_is_left_out_of_a_bag_curve() -> None:
    scores, gold = random_facts(1, ties=False)
    for column in range(scores.shape[1]):
        rest = np.arange(scores.shape[1]) != column
        curve, expected = metrics.bag_curve(scores, gold, column), metrics.bag_curve(scores[:, rest], gold[:, rest])
        assert curve.precision.tolist() == expected.precision.tolist()
        assert curve.recall.tolist() == expected.recall.tolist()
    assert len(metrics.bag_curve(scores, gold).precision) == scores.size


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ties", [False, True])
def test_a_bag_curve_equals_its_definition(seed: int, ties: bool) -> None:
    scores, gold = random_facts(seed, ties=ties)
    curve = metrics.bag_curve(scores, gold)
    facts, true = scores.ravel().tolist(), gold.ravel().tolist()
    for n in range(1, len(facts) + 1):
        threshold = sorted(facts, reverse=True)[n - 1]
        above = [t for s, t in zip(facts, true, strict=True) if s > threshold]
        level = [t for s, t in zip(facts, true, strict=True) if s == threshold]
        found = sum(above) + (n - len(above)) * sum(level) / len(level)
        assert curve.precision_at(n) == pytest.approx(found / n)
        assert curve.recall[n - 1] == pytest.approx(found / sum(true))
    at_thresholds = []
    for threshold in set(facts):
        taken = [t for s, t in zip(facts, true, strict=True) if s >= threshold]
        at_thresholds.append(f1(sum(taken) / len(taken), sum(taken) / sum(true)))
    assert curve.max_f1 == pytest.approx(max(at_thresholds))


def test_tied_facts_give_the_mean_over_their_orders() -> None:
    scores, true = np.array([3.0, 2, 2, 2, 2, 1]), np.array([0, 1, 0, 1, 0, 1])
    curve = metrics.bag_curve(scores[None], true[None])
    orders = [[0, *order, 5] for order in itertools.permutations((1, 2, 3, 4))]
    precision = np.mean([true[order].cumsum() / np.arange(1, 7) for order in orders], axis=0)
    np.testing.assert_allclose(curve.precision, precision, atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bag_curve_does_not_depend_on_the_order_of_facts(seed: int) -> None:
    scores, gold = random_facts(seed, ties=True)
    order = np.random.default_rng(seed).permutation(scores.size)
    one, other = (
        metrics.bag_curve(scores, gold),
        metrics.bag_curve(scores.ravel()[order, None], gold.ravel()[order, None]),
    )
    assert one.precision.tolist() == other.precision.tolist()
    assert (one.auc, one.max_f1) == (other.auc, other.max_f1)


def test_the_area_of_a_perfect_a_constant_and_a_reversed_score() -> None:
    gold = np.arange(12).reshape(4, 3) % 4 == 0
    assert metrics.bag_curve(gold, gold).auc == pytest.approx(1)
    assert metrics.bag_curve(np.zeros(gold.shape), gold).auc == pytest.approx(gold.mean())
    assert metrics.bag_curve(-1.0 * gold, gold).auc < gold.mean()


@pytest.mark.parametrize(
    ("scores", "gold", "negative", "message"),
    [
        ([[1, 2]], [[1], [0]], None, r"scores have shape \(1, 2\) and gold \(2, 1\)"),
        ([1, 2], [1, 0], None, r"expected \(bags, relations\)"),
        ([[1, np.nan]], [[1, 0]], None, r"1 NaN, the first at \(0, 1\)"),
        ([[1, 2]], [[1, 0]], 2, "negative is 2; expected a column, 0 to 1"),
        ([[1, 2]], [[1, 0]], -1, "negative is -1; expected a column"),
        ([[1, 2]], [[1, 0]], 0, "no true fact"),
        ([[1, 2]], [[3, 0]], None, "gold has other values than 0 and 1"),
        (np.empty((0, 2)), np.empty((0, 2)), None, "no true fact"),
    ],
)
def test_bad_bags_are_refused(scores: Any, gold: Any, negative: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.bag_curve(scores, gold, negative)


@pytest.mark.parametrize("n", [0, -1, 3])
def test_precision_at_refuses_more_facts_than_there_are(n: int) -> None:
    with pytest.raises(ValueError, match=f"n is {n}; expected 1 to 2"):
        metrics.bag_curve([[1, 2]], [[1, 0]]).precision_at(n)


# -- link prediction ---------------------------------------------------------------------------------------------------


def test_filtered_ranks_by_hand() -> None:
    scores = [
        [5, 4, 3, 2, 1],  # 2 is third; entity 0 is known too: second
        [5, 4, 3, 2, 1],  # nothing known: third
        [1, 7, 7, 7, 0],  # the best three tie: ranks 1, 2, 3
        [1, 7, 7, 7, 0],  # a tied one is known: ranks 1, 2
    ]
    ranks = metrics.filtered_ranks(scores, [2, 2, 1, 1], [[0, 2], [], [1], np.array([2])])
    assert ranks.tolist() == [2, 3, 2, 1.5]
    assert ranks.dtype == np.float64
    assert metrics.mrr(ranks) == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 2 / 3) / 4)
    assert [metrics.hits_at(ranks, k) for k in (1, 2, 3)] == [0, 3 / 4, 1]


@pytest.mark.parametrize("seed", SEEDS)
def test_filtered_ranks_are_the_mean_place_among_the_unknown(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, entities = 6, int(rng.integers(1, 15))
    scores = rng.integers(0, 5, (queries, entities)).astype(np.float32)
    true = rng.integers(0, entities, queries)
    known = [np.flatnonzero(rng.random(entities) < 0.3) for _ in range(queries)]
    expected = []
    for row, answer, others in zip(scores.tolist(), true.tolist(), known, strict=True):
        left = sorted((s for e, s in enumerate(row) if e == answer or e not in others), reverse=True)
        expected.append(np.mean([place for place, s in enumerate(left, 1) if s == row[answer]]))
    assert metrics.filtered_ranks(scores, true, known).tolist() == pytest.approx(expected)


def test_a_constant_score_ranks_in_the_middle() -> None:
    assert metrics.filtered_ranks(np.zeros((1, 101)), [0], [[]]).tolist() == [51]


@pytest.mark.parametrize(
    ("scores", "true", "known", "message"),
    [
        ([[1, 2]], [0, 1], [[]], r"true \(2,\), known length 1"),
        ([[1, 2]], [0], [], "known length 0"),
        ([1, 2], [0, 1], [[], []], r"expected \(queries, entities\)"),
        ([[1, 2]], [2], [[]], r"true is \[2\]; expected columns of scores, 0 to 1"),
        ([[1, 2]], [0], [[-1]], r"known\[0\] is \[-1\]; expected columns"),
        ([[1, 2]], [0.0], [[]], "true is .*; expected columns"),
        ([[1, np.nan]], [0], [[]], "1 NaN"),
    ],
)
def test_bad_queries_are_refused(scores: Any, true: Any, known: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.filtered_ranks(scores, true, known)


@pytest.mark.parametrize("measure", [metrics.mrr, lambda ranks: metrics.hits_at(ranks, 1)])
@pytest.mark.parametrize(
    ("ranks", "message"),
    [([], "at least one"), ([1, 0], "a rank is 0.0; .* from 1"), ([np.nan], "rank is nan"), ([[1]], r"\(1, 1\)")],
)
def test_bad_ranks_are_refused(measure: Any, ranks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(ranks)


def test_hits_refuse_a_cut_below_one() -> None:
    with pytest.raises(ValueError, match="k is 0; expected 1 or more"):
        metrics.hits_at([1], 0)


# -- scikit-learn ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sklearn() -> Any:
    return pytest.importorskip("sklearn.metrics")


@pytest.mark.oracle
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("negative", [None, NEGATIVE])
def test_sentence_measures_against_scikit_learn(sklearn: Any, seed: int, negative: str | None) -> None:
    gold, predicted = random_labels(seed)
    labels = sorted({*gold, *predicted} - {negative})
    options = {"labels": labels, "zero_division": 0}
    assert metrics.accuracy(gold, predicted) == pytest.approx(sklearn.accuracy_score(gold, predicted))
    confusion = metrics.confusion_matrix(gold, predicted)
    np.testing.assert_array_equal(
        confusion.counts, sklearn.confusion_matrix(gold, predicted, labels=list(confusion.labels))
    )
    micro = sklearn.precision_recall_fscore_support(gold, predicted, average="micro", **options)[:3]
    assert metrics.micro_prf(gold, predicted, negative) == pytest.approx(micro)
    macro = sklearn.f1_score(gold, predicted, average="macro", **options)
    assert metrics.macro_f1(gold, predicted, negative) == pytest.approx(macro)
    columns = sklearn.precision_recall_fscore_support(gold, predicted, **options)
    rows = metrics.relation_report(gold, predicted, negative)
    assert [row.relation for row in rows] == labels
    np.testing.assert_allclose([row[1:] for row in rows], np.transpose(columns), atol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ties", [False, True])
def test_bag_curves_against_scikit_learn(sklearn: Any, seed: int, ties: bool) -> None:
    scores, gold = random_facts(seed, ties=ties)
    curve = metrics.bag_curve(scores, gold)
    precision, recall, thresholds = sklearn.precision_recall_curve(
        gold.ravel(), scores.ravel(), drop_intermediate=False
    )
    at = (scores.ravel() >= thresholds[:, None]).sum(axis=1) - 1  # scikit-learn has a point for each distinct score
    np.testing.assert_allclose(curve.precision[at], precision[:-1], atol=1e-12)
    np.testing.assert_allclose(curve.recall[at], recall[:-1], atol=1e-12)
    if not ties:
        start = curve.precision[0]  # theirs starts at precision 1, ours at that of the first fact
        assert curve.auc == pytest.approx(sklearn.auc(recall, precision) - (1 - start) * curve.recall[0] / 2)
