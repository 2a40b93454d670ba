"""The analysis: cases worked out by hand, plain-loop definitions, invariances, scikit-learn and SciPy."""

from __future__ import annotations

import html.parser
import math
from collections import Counter
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import relpt
from relpt import analysis
from relpt.data.instance import Instance

SEEDS = range(8)
HOSTILE = "<script>alert(1)</script> & | `x` [a](http://b) *c* \\| $d$\n# e"


def random_answers(seed: int) -> tuple[list[str], list[str], list[str]]:
    """Gold labels and two settings' predictions, each right about half the time."""
    rng = np.random.default_rng(seed)
    gold = rng.choice(list("abcd"), rng.integers(1, 80))
    a, b = (np.where(rng.random(len(gold)) < 0.5, gold, rng.choice(list("abcde"), len(gold))) for _ in "ab")
    return gold.tolist(), a.tolist(), b.tolist()


def clusters(seed: int, per_class: int = 12, dim: int = 6, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors around a centre for each of six classes, and the classes' numbers."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(6), per_class)
    return rng.normal(size=(6, dim))[labels] + noise * rng.normal(size=(len(labels), dim)), labels


# -- agreement ---------------------------------------------------------------------------------------------------------


def exact_mcnemar(only_a: int, only_b: int) -> Fraction:
    n = only_a + only_b
    tail = sum(math.comb(n, i) for i in range(min(only_a, only_b) + 1))
    return min(Fraction(1), Fraction(2 * tail, 2**n))


def test_agreement_by_hand() -> None:
    gold = ["x", "x", "x", "y", "y", "y", "z", "z"]
    a = ["x", "x", "x", "y", "x", "x", "x", "y"]
    b = ["x", "x", "y", "x", "y", "x", "y", "y"]
    found = analysis.agreement(gold, a, b)
    assert found[:6] == (8, 2 / 8, 3 / 8, 2 / 8, 2 / 8, 1 / 8)
    chance = (6 * 4 + 2 * 4) / 64  # a says x six times and y twice, b each four times
    assert found.kappa == pytest.approx((4 / 8 - chance) / (1 - chance))
    assert found.p_value == 1  # two against one


@pytest.mark.parametrize("seed", SEEDS)
def test_agreement_equals_its_definition(seed: int) -> None:
    gold, a, b = random_answers(seed)
    found, n = analysis.agreement(gold, a, b), len(gold)
    outcome = Counter((x == g, y == g) for g, x, y in zip(gold, a, b, strict=True))
    same_wrong = sum(x == y != g for g, x, y in zip(gold, a, b, strict=True))
    shares = [outcome[True, True], outcome[False, False], same_wrong, outcome[True, False], outcome[False, True]]
    assert found[:6] == (n, *(share / n for share in shares))
    assert found.p_value == pytest.approx(float(exact_mcnemar(outcome[True, False], outcome[False, True])), rel=1e-12)
    swapped = analysis.agreement(gold, b, a)
    assert (swapped.only_a, swapped.only_b) == (found.only_b, found.only_a)
    assert (swapped.kappa, swapped.p_value) == pytest.approx((found.kappa, found.p_value))


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (7, 7), (8, 7), (600, 500), (0, 1000), (3000, 2900)])
def test_mcnemar_is_exact_for_few_and_many(only_a: int, only_b: int) -> None:
    gold = ["x"] * (only_a + only_b + 1)
    a, b = ["x"] * only_a + ["y"] * only_b + ["x"], ["y"] * only_a + ["x"] * only_b + ["x"]
    expected = float(exact_mcnemar(only_a, only_b))
    assert analysis.agreement(gold, a, b).p_value == pytest.approx(expected, rel=1e-11, abs=0)


def test_kappa_is_1_for_equal_and_0_without_a_choice() -> None:
    gold = ["x", "y", "z"]
    assert analysis.agreement(gold, ["y", "z", "x"], ["y", "z", "x"]).kappa == pytest.approx(1)
    assert analysis.agreement(gold, ["x"] * 3, ["x"] * 3).kappa == 0


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ((["x"], ["x"], []), "gold has 1 labels and b 0"),
        (([], [], []), "gold and a and b are empty"),
        ((["x"], [1], ["x"]), r"a\[0\] is 1; expected text"),
        ((["x"], ["x"], "x"), "b is the text 'x'"),
    ],
)
def test_agreement_refuses(answers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        analysis.agreement(*answers)


@pytest.mark.oracle
@pytest.mark.parametrize("seed", SEEDS)
def test_agreement_against_scikit_learn_and_scipy(seed: int) -> None:
    sklearn, stats = pytest.importorskip("sklearn.metrics"), pytest.importorskip("scipy.stats")
    gold, a, b = random_answers(seed + 100)
    found, n = analysis.agreement(gold, a, b), len(gold)
    assert found.kappa == pytest.approx(sklearn.cohen_kappa_score(a, b))
    only_a, only_b = round(found.only_a * n), round(found.only_b * n)
    if only_a + only_b:
        assert found.p_value == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)


# -- cases -------------------------------------------------------------------------------------------------------------


def sentences(n: int, text: str = "Ann met Bob") -> relpt.Dataset:
    return relpt.Dataset([Instance(f"{text} {i}", (0, 3), (4, 7)) for i in range(n)])


def test_cases_come_in_the_order_that_is_promised() -> None:
    gold = ["x"] * 6
    predictions = {
        "C+M": ["x", "y", "x", "y", "x", "y"],
        "OnlyC": ["x", "z", "x", "x", "y", "z"],
        "OnlyM": ["x", "z", "y", "y", "z", "w"],
    }
    found = analysis.cases(sentences(6), gold, predictions)
    # one right and three answers; one right and two; two right; none right and three answers; none right and two
    assert [row["row"] for row in found.rows] == [4, 3, 2, 5, 1]
    assert found.rows[0] == {
        "row": 4, "text": "Ann met Bob 4", "head": "Ann", "tail": "met", "gold": "x",
        "C+M": "x", "OnlyC": "y", "OnlyM": "z",
    }  # fmt: skip
    assert (found.differing, found.sentences, len(found)) == (5, 6, 5)
    few = analysis.cases(sentences(6), gold, predictions, limit=2)
    assert few.rows == found.rows[:2]
    assert few.differing == 5


@pytest.mark.parametrize("seed", SEEDS)
def test_cases_are_the_sentences_that_differ(seed: int) -> None:
    gold, a, b = random_answers(seed)
    found = analysis.cases(sentences(len(gold)), gold, {"a": a, "b": b})
    assert {row["row"] for row in found.rows} == {i for i in range(len(gold)) if a[i] != b[i]}
    for row in found.rows:
        i = row["row"]
        assert (row["text"], row["gold"], row["a"], row["b"]) == (f"Ann met Bob {i}", gold[i], a[i], b[i])


class Page(html.parser.HTMLParser):
    """The tags of a page, and the text of its cells and of those in bold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.bold: list[str] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self._tag = tag
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data
        if self._tag == "b":
            self.bold.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""


def hostile_cases() -> analysis.Cases:
    data = [Instance(HOSTILE, (0, 8), (9, 17)), Instance("a b", (0, 1), (2, 3))]
    return analysis.cases(data, ["<b>", "y"], {"<i>one": ["<b>", "y"], "two|": ["y", "y"]})


def test_hostile_text_is_no_html() -> None:
    page = Page(hostile_cases()._repr_html_())
    assert page.tags == {"p", "table", "tr", "th", "td", "b"}
    assert page.cells == ["0", HOSTILE, HOSTILE[:8], HOSTILE[9:17], "<b>", "<b>", "y"]
    assert page.bold == ["<b>"]  # the one right answer, not the gold label


def test_hostile_text_keeps_to_its_cell_in_markdown() -> None:
    table = hostile_cases().to_markdown()
    assert "<" not in table
    assert ">" not in table
    lines = table.split("\n")
    assert len(lines) == 3
    unescaped = [line.replace("\\\\", "").replace("\\|", "").count("|") for line in lines]
    assert unescaped == [8, 8, 8]


@pytest.mark.oracle
def test_markdown_shows_text_as_it_is() -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"linkify": False}).disable("linkify")
    page = Page(markdown.render(hostile_cases().to_markdown()))
    assert page.tags == {"table", "thead", "tbody", "tr", "th", "td", "strong"}
    assert [cell.strip("\n") for cell in page.cells[:2]] == ["0", HOSTILE.replace("\n", " ")]


@pytest.mark.oracle
@pytest.mark.parametrize(
    "text", ["micro_f1", "_a_", "__a__ b", "a__b__c", "x _y_ z", "per:city_of_birth", "_", "a_ _b", "(_a_)"]
)
def test_underscores_are_shown(text: str) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"linkify": False}).disable("linkify")
    assert markdown.render(analysis._markdown(text)) == f"<p>{text}</p>\n"


def test_names_with_underscores_stay_readable() -> None:
    assert analysis._markdown("micro_f1 of train_wiki.json") == "micro_f1 of train_wiki.json"


def test_a_long_table_says_what_it_leaves_out() -> None:
    found = analysis.cases(sentences(80), ["x"] * 80, {"a": ["x"] * 80, "b": ["y"] * 80})
    page = found._repr_html_()
    assert page.count("<tr>") == 51
    assert "80 of 80 sentences, the first 50 shown" in page
    assert len(found.to_markdown().split("\n")) == 82


def test_cases_as_a_frame() -> None:
    pytest.importorskip("pandas")
    frame = hostile_cases().to_frame()
    assert frame.to_dict("records") == hostile_cases().rows


def test_to_frame_hands_pandas_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns))
    monkeypatch.setitem(__import__("sys").modules, "pandas", fake)
    found = hostile_cases()
    assert found.to_frame() == (found.rows, ["row", "text", "head", "tail", "gold", "<i>one", "two|"])


@pytest.mark.parametrize(
    ("n", "predictions", "limit", "message"),
    [
        (2, {"a": ["x", "x"]}, None, "predictions hold 1 settings"),
        (2, {"a": ["x", "x"], "b": ["x"]}, None, r"gold has 2 labels and predictions\['b'\] 1"),
        (3, {"a": ["x", "x"], "b": ["x", "y"]}, None, "data has 3 sentences and gold 2 labels"),
        (2, {"a": ["x", "x"], "text": ["x", "y"]}, None, "a setting is called 'text'"),
        (2, {"a": ["x", "x"], "b": ["x", "y"]}, 0, "limit is 0"),
    ],
)
def test_cases_refuse(n: int, predictions: Any, limit: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        analysis.cases(sentences(n), ["x", "x"], predictions, limit=limit)


# -- nearest -----------------------------------------------------------------------------------------------------------


def similarity_by_loop(a: np.ndarray, b: np.ndarray, similarity: str) -> float:
    if similarity == "euclidean":
        return -math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    lengths = math.sqrt(math.fsum(a * a)) * math.sqrt(math.fsum(b * b))
    return dot if similarity == "dot" else dot / lengths if lengths else 0.0


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("seed", SEEDS)
def test_nearest_equals_a_loop(seed: int, similarity: str) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, (rng.integers(1, 40), 3)).astype(np.float32)  # small integers: many ties, zeros
    queries = rng.integers(-2, 3, (5, 3))
    k = int(rng.integers(1, len(vectors) + 1))
    found = analysis.nearest(vectors, queries, k, similarity)
    assert found.indices.dtype == np.int64
    for query, indices, similarities in zip(queries, *found, strict=True):
        every = [similarity_by_loop(row, query, similarity) for row in vectors.astype(float)]
        best = sorted(range(len(every)), key=lambda i: (-round(every[i], 9), i))[:k]
        np.testing.assert_allclose(similarities, [every[i] for i in best], atol=1e-12)
        if similarity != "cosine":  # exact in these numbers, so that ties are ties
            assert indices.tolist() == best


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_equal_rows_come_by_index_wherever_they_stand(similarity: str) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(203, 37))
    vectors[::3] = vectors[0]
    found = analysis.nearest(vectors, vectors[0] + 0.01, 68, similarity)
    assert found.indices.tolist() == list(range(0, 203, 3))
    assert len(set(found.similarities.tolist())) == 1


def test_far_from_the_origin_neighbours_are_still_exact() -> None:
    rng = np.random.default_rng(1)
    near = rng.normal(size=(100, 8))
    shifted = near + 2.0**24  # the squares' difference loses all that tells the rows apart
    distances = [similarity_by_loop(row, shifted[0], "euclidean") for row in shifted]
    found = analysis.nearest(shifted, shifted[0], 20, "euclidean")
    np.testing.assert_allclose(found.similarities, sorted(distances, reverse=True)[:20], rtol=1e-12)


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    vectors, queries = rng.normal(size=(50, 7)), rng.normal(size=(33, 7))
    whole = analysis.nearest(vectors, queries, 5)
    monkeypatch.setattr(analysis, "_CELLS", 3 * 50)
    parts = analysis.nearest(vectors, queries, 5)
    single = [analysis.nearest(vectors, query, 5) for query in queries]
    for i in range(2):
        np.testing.assert_array_equal(whole[i], parts[i])
        np.testing.assert_array_equal(whole[i], [one[i] for one in single])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k is 0; expected 1 to 4"),
        ({"k": 5}, "k is 5; expected 1 to 4"),
        ({"similarity": "l1"}, "similarity is 'l1'; expected one of dot, cosine, euclidean"),
        ({"query": [1.0]}, "vectors have 2 columns and query 1"),
        ({"query": [math.nan, 1]}, "query has 1 NaN"),
        ({"vectors": np.empty((0, 2))}, r"vectors has shape \(0, 2\)"),
        ({"vectors": np.ones(2)}, r"vectors has shape \(2,\)"),
    ],
)
def test_nearest_refuses(change: dict[str, Any], message: str) -> None:
    options = {"vectors": np.eye(4, 2), "query": np.ones(2), "k": 1, **change}
    with pytest.raises(ValueError, match=message):
        analysis.nearest(**options)


# -- alignment ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d", "e"), [(30, 5, 3), (10, 20, 3), (12, 20, 40), (10, 10, 9)])
def test_cka_equals_its_definition_through_kernels(n: int, d: int, e: int) -> None:
    rng = np.random.default_rng(n * d)
    x = rng.normal(size=(n, d)) + 3
    y = x[:, :2] @ rng.normal(size=(2, e)) + rng.normal(size=(n, e))
    centre = np.eye(n) - 1 / n

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        return float(np.trace(k @ centre @ m @ centre))

    k, m = x @ x.T, y @ y.T
    found = analysis.cka(x, y)
    assert found == pytest.approx(hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m)))
    assert found == pytest.approx(analysis.cka(y, x))
    assert 0 < found < 0.999


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_cka_sees_no_rotation_scale_or_shift(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=shape), rng.normal(size=shape)
    rotation, _ = np.linalg.qr(rng.normal(size=(shape[1], shape[1])))
    assert analysis.cka(x, 1e-3 * x @ rotation + 5) == pytest.approx(1)
    assert analysis.cka(x @ rotation * 7 - 2, y) == pytest.approx(analysis.cka(x, y))
    uneven = x * np.linspace(1, 30, shape[1])  # not every invertible map: stretched axes count
    assert analysis.cka(x, uneven) < 0.99


@pytest.mark.parametrize("shape", [(400_000, 2), (3, 400_000)])
def test_the_smaller_side_is_squared(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(4).normal(size=shape)  # the larger side squared would take over a terabyte
    assert analysis.cka(x, 2 * x) == pytest.approx(1)
    labels = np.arange(shape[0]) % 2
    assert analysis.probe(x, labels, test_vectors=x[:3], test_labels=labels[:3]).predictions.shape == (3,)


def test_cka_of_unrelated_features_is_0() -> None:
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    assert analysis.cka(signs[:, :1], signs[:, 1:]) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.eye(3), np.eye(4), "x has 3 rows and y 4"),
        (np.eye(3), np.full((3, 2), 0.1), "all 3 rows of y are the same"),
        (np.full((2, 2), np.inf), np.eye(2), "x has 4 NaN or infinite"),
    ],
)
def test_cka_refuses(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        analysis.cka(x, y)


# -- probe -------------------------------------------------------------------------------------------------------------


def loss(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, y: np.ndarray, l2: float) -> float:
    return float(((x @ weight + bias - y) ** 2).sum() + l2 * (weight**2).sum())


@pytest.mark.parametrize(("dim", "l2"), [(4, 1.0), (4, 100.0), (90, 1.0)])
def test_the_probe_is_the_minimum_of_its_loss(dim: int, l2: float) -> None:
    x, labels = clusters(0, per_class=5, dim=dim)
    y = np.eye(6)[labels]
    bias = analysis._ridge(x, y, np.zeros((1, dim)), l2)[0]
    weight = analysis._ridge(x, y, np.eye(dim), l2) - bias
    best, rng = loss(weight, bias, x, y, l2), np.random.default_rng(1)
    for _ in range(20):
        d_weight, d_bias = 1e-3 * rng.normal(size=weight.shape), 1e-3 * rng.normal(size=bias.shape)
        up = loss(weight + d_weight, bias + d_bias, x, y, l2)
        down = loss(weight - d_weight, bias - d_bias, x, y, l2)
        assert min(up, down) > best  # a convex function's slope is 0 where both ways lead up
        assert up - best == pytest.approx(down - best, rel=1e-6)


def test_the_probe_learns_what_is_linear_and_names_it() -> None:
    x, numbers = clusters(1, noise=0.05)
    names = np.array(["no", "yes", "per:age", "a", "b", "long name"])[numbers]
    found = analysis.probe(x[::2], names[::2].tolist(), test_vectors=x[1::2], test_labels=names[1::2].astype(object))
    assert found.accuracy == 1
    assert found.predictions.tolist() == names[1::2].tolist()
    shifted = analysis.probe(x[::2] + 9, names[::2], test_vectors=x[1::2] + 9, test_labels=names[1::2])
    assert shifted.predictions.tolist() == found.predictions.tolist()


def test_the_probe_counts_what_it_gets_wrong() -> None:
    x = np.array([[-1.0], [-1.0], [1.0], [1.0]])
    found = analysis.probe(x, [7, 7, 3, 3], test_vectors=[[-2], [2], [3], [-3]], test_labels=[7, 3, 7, 3])
    assert found.predictions.tolist() == [7, 3, 3, 7]
    assert found.accuracy == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [1, 1]}, "labels are all 1; expected two relations or more"),
        ({"labels": [1, 2, 3]}, r"labels has shape \(3,\), but vectors has 2 rows"),
        ({"labels": [0, -1]}, r"labels\[1\] is -1; leave out sentences without a relation"),
        ({"labels": [0.5, 1.5]}, "labels are float64; expected relations by name or number"),
        ({"labels": ["a", None]}, "labels are object"),
        ({"test_labels": [2, 5]}, "1 test_labels are not among the labels, such as 5"),
        ({"test_labels": ["1", "2"]}, "2 test_labels are not among the labels, such as '1'"),
        ({"test_vectors": np.eye(2, 3)}, "vectors have 2 columns and test_vectors 3"),
        ({"vectors": [[1, math.nan], [0, 1]]}, "vectors has 1 NaN or infinite numbers, the first in row 0"),
        ({"l2": 0.0}, "l2 is 0.0; expected a number above 0"),
        ({"l2": math.nan}, "l2 is nan"),
    ],
)
def test_probe_refuses(change: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"vectors": np.eye(2), "labels": [1, 2], "test_vectors": np.eye(2), "test_labels": [1, 2]}
    with pytest.raises(ValueError, match=message):
        analysis.probe(**{**options, **change})


@pytest.mark.oracle
@pytest.mark.parametrize(("dim", "l2"), [(5, 0.3), (90, 2.0)])
def test_probe_against_scikit_learn(dim: int, l2: float) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x, labels = clusters(2, per_class=6, dim=dim, noise=2)
    test, gold = clusters(3, per_class=20, dim=dim, noise=2)
    ridge = linear.Ridge(alpha=l2).fit(x, np.eye(6)[labels])
    np.testing.assert_allclose(analysis._ridge(x, np.eye(6)[labels], test, l2), ridge.predict(test), atol=1e-9)
    found = analysis.probe(x, labels, test_vectors=test, test_labels=gold, l2=l2)
    assert found.predictions.tolist() == ridge.predict(test).argmax(axis=1).tolist()


# -- two representations -----------------------------------------------------------------------------------------------


def complementarity(a: Any, b: Any, labels: Any, **options: Any) -> analysis.Complementarity:
    return analysis.complementarity(a, b, labels, **{"episodes": 200, "num_threads": 1, **options})


def halves(per_class: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a tells class // 2 alone, b class % 2 alone: six classes that only both tell apart."""
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(6), per_class)
    a, b = np.eye(3)[labels // 2], np.eye(2)[labels % 2]
    return a + 0.01 * rng.normal(size=a.shape), b + 0.01 * rng.normal(size=b.shape), labels


def test_two_halves_make_a_whole() -> None:
    a, b, labels = halves()
    found = complementarity(1000 * a, b, labels, n_way=6, names=("[H,T]", "[MASK]"))
    assert found.both.accuracy == 1
    assert found.a.accuracy < 0.7
    assert found.b.accuracy < 0.5
    assert [row.both for row in found.relations] == [1.0] * 6
    assert sum(row.gain for row in found.relations) > 1
    assert [row.gain for row in found.relations] == sorted((row.gain for row in found.relations), reverse=True)
    assert {row.relation: row.support for row in found.relations} == dict.fromkeys(range(6), 5)
    assert found.cka == pytest.approx(analysis.cka(a, b))
    assert found.cka < 0.1


def test_the_same_twice_gains_nothing() -> None:
    x, labels = clusters(5)
    found = complementarity(x, 2 * x, labels)
    assert found.a == found.b == found.both
    assert [row.gain for row in found.relations] == [0.0] * 6
    assert found.cka == pytest.approx(1)


def test_fewshot_accuracy_is_that_of_fewshot() -> None:
    a, labels = clusters(6)
    b, _ = clusters(7, dim=3)
    found = complementarity(a, b, labels, k_shot=1, seed=3, inputs="OnlyC")
    fewshot = relpt.FewShot(episodes=200, seed=3)
    joined = np.hstack([x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)])
    for result, vectors in ((found.a, a), (found.b, b), (found.both, joined)):
        expected = fewshot.score(vectors.astype(np.float32), labels, num_threads=1)
        np.testing.assert_array_equal(result.per_episode, expected.per_episode)
        assert result.inputs == "OnlyC"


@pytest.mark.parametrize("seed", SEEDS)
def test_gains_equal_a_loop(seed: int) -> None:
    a, labels = clusters(seed, per_class=7, noise=1.5)
    b, _ = clusters(seed + 50, per_class=7, dim=3, noise=1.5)
    found = complementarity(a, b, labels, seed=seed)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == c)).tolist() for c in range(6)]
    for row in found.relations:
        for x, accuracy in ((a, row.a), (b, row.b), (np.hstack([a, b]), row.both)):
            prototypes = [sum(x[i] for i in rows[:4]) / 4 for rows in drawn]
            said = [
                max(range(6), key=lambda c: similarity_by_loop(x[i], prototypes[c], "cosine"))
                for i in drawn[row.relation][4:]
            ]
            assert accuracy == pytest.approx(said.count(row.relation) / 3)
        assert row.gain == row.both - max(row.a, row.b)


def test_the_seed_decides_everything() -> None:
    a, labels = clusters(8, noise=2)
    b, _ = clusters(9, noise=2)
    first, again, other = (complementarity(a, b, labels, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.relations != other.relations
    assert first.a.accuracy != other.a.accuracy


def test_complementarity_in_markdown() -> None:
    a, b, labels = halves()
    names = np.array(["<i>", "p|q", "c", "d", "e", "f"])[labels]
    found = complementarity(a, b, names, names=("[H,T]", "<b>"))
    table = found.to_markdown()
    assert "<" not in table
    assert r"\[H,T\]" in table
    assert f"{found.both.accuracy:.3f} ± {found.both.ci95:.3f}" in table
    page = found._repr_html_()
    assert page.count("<table>") == 2
    assert "&lt;i&gt;" in page
    assert "<b>" not in page
    assert repr(found).startswith("<relpt.Complementarity: 5-way 1-shot [H,T] 0.")
    tables = [part.split("\n") for part in table.split("\n\n")]
    assert [len(lines) for lines in tables] == [3, 8]
    for lines in tables:
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    shown = [line.split(" | ")[0].removeprefix("| ") for line in tables[1][2:]]
    assert shown == [str(row.relation).replace("<i>", "&lt;i&gt;").replace("p|q", "p\\|q") for row in found.relations]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": np.ones((3, 2))}, "a has 60 rows and b 3"),
        ({"labels": [0] * 60}, "labels are all 0"),
        ({"n_way": 7}, "n_way is 7, but there are 6 relations"),
        ({"k_shot": 10}, "relation 0 has 10 sentences; expected 11 or more"),
        ({"labels": ["x"] * 59 + ["rare"], "n_way": 2}, "relation 'rare' has 1 sentence; expected 2 or more"),
        ({"episodes": 0}, "episodes is 0; expected 1 or more"),
    ],
)
def test_complementarity_refuses(change: dict[str, Any], message: str) -> None:
    a, b, labels = halves()
    with pytest.raises(ValueError, match=message):
        complementarity(**{"a": a, "b": b, "labels": labels, **change})
