"""relpt.GraphEmbeddings: reading triples, what it learns, evaluation, its life on disk, its errors."""

from __future__ import annotations

import gzip
import itertools
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import relpt
from relpt.data.triples import read_triples

TRIPLES = [("Ada", "knows", "Bob"), ("Bob", "knows", "Cem"), ("Ada", "likes", "Cem"), ("Dora", "likes", "Bob")]
FAST: dict[str, Any] = {"dim": 8, "epochs": 4, "negatives": 2, "batch_size": 2}


@pytest.fixture
def trained() -> relpt.GraphEmbeddings:
    return relpt.GraphEmbeddings(**FAST).fit(TRIPLES)


# -- what it learns ----------------------------------------------------------------------------------------------------


Triples = list[tuple[str, str, str]]


def places() -> tuple[Triples, Triples]:
    """Cities in regions of countries; whose country a held-out city is follows from its region's."""
    train, test = [], []
    for country, region in itertools.product(range(6), range(4)):
        train.append((f"region {country}-{region}", "region of", f"country {country}"))
        for number in range(5):
            city = f"city {country}-{region}-{number}"
            train.append((city, "in", f"region {country}-{region}"))
            (train if number else test).append((city, "city of", f"country {country}"))
    return train, test


def friends() -> tuple[Triples, Triples]:
    """Six circles of eight people who all know each other; one pair in six is held out."""
    pairs = [
        (f"person {circle}-{a}", "knows", f"person {circle}-{b}")
        for circle in range(6)
        for a, b in itertools.combinations(range(8), 2)
    ]
    return [pair for i, pair in enumerate(pairs) if i % 6], pairs[::6]


def test_transe_composes_relations() -> None:
    train, test = places()
    options: dict[str, Any] = {"dim": 16, "negatives": 16, "batch_size": 16}
    untrained = relpt.GraphEmbeddings(**options, epochs=1, learning_rate=1e-6).fit(train)
    g = relpt.GraphEmbeddings(**options, epochs=60).fit(train)
    assert untrained.evaluate(test).tail.mrr < 0.2
    assert g.evaluate(test).tail.mrr > 0.9
    city_of, path = g.relation("city of"), g.relation("in") + g.relation("region of")
    assert city_of @ path / (np.linalg.norm(city_of) * np.linalg.norm(path)) > 0.8


def test_distmult_finds_circles_and_takes_relations_as_symmetric() -> None:
    train, test = friends()
    options: dict[str, Any] = {"model": "distmult", "dim": 16, "negatives": 16, "batch_size": 16}
    untrained = relpt.GraphEmbeddings(**options, epochs=1, learning_rate=1e-6).fit(train)
    g = relpt.GraphEmbeddings(**options, epochs=60).fit(train)
    assert untrained.evaluate(test).hits_at_10 < 0.6
    assert g.evaluate(test).hits_at_10 > 0.9  # the circle's eight; oneself comes first, which no triple excludes
    assert g.history[-1]["loss"] < g.history[0]["loss"] / 2
    there, back = g.score([("person 0-0", "knows", "person 0-1"), ("person 0-1", "knows", "person 0-0")])
    assert there == pytest.approx(back, rel=1e-6)


@pytest.mark.parametrize("loss", ["margin", "logistic", "softmax"])
@pytest.mark.parametrize("model", ["transe", "distmult"])
def test_each_loss_puts_the_training_triples_first(model: str, loss: str) -> None:
    train, _ = places()
    margin = 3.0 if loss == "logistic" else 1.0
    g = relpt.GraphEmbeddings(model=model, loss=loss, margin=margin, dim=16, epochs=60, negatives=8, batch_size=16)
    assert g.fit(train).evaluate(train).tail.mrr > 0.8


def test_transe_as_in_its_paper_keeps_entities_at_length_1() -> None:
    train, _ = places()
    g = relpt.GraphEmbeddings(
        loss="margin", negatives=1, normalize_entities=True, optimizer="sgd", learning_rate=1.0, dim=16,
        filter_negatives=False, norm=1, epochs=120, batch_size=16,
    ).fit(train)  # fmt: skip
    np.testing.assert_allclose(np.linalg.norm(g.entity_embeddings, axis=1), 1, atol=1e-5)
    assert g.evaluate(train).tail.mrr > 0.5


def test_a_run_is_a_function_of_its_seed() -> None:
    def run(**options: Any) -> bytes:
        return relpt.GraphEmbeddings(**{**FAST, **options}).fit(TRIPLES).entity_embeddings.tobytes()

    assert run(num_threads=1) == run(num_threads=2)
    assert run() != run(seed=7)


# -- evaluation and look-up --------------------------------------------------------------------------------------------


def test_names_lead_to_rows(trained: relpt.GraphEmbeddings) -> None:
    assert trained.entities == ("Ada", "Bob", "Cem", "Dora")
    assert trained.relations == ("knows", "likes")
    np.testing.assert_array_equal(trained.entity("Cem"), trained.entity_embeddings[2])
    np.testing.assert_array_equal(trained.relation("likes"), trained.relation_embeddings[1])
    with pytest.raises(KeyError, match=r"no entity 'Eve' among the 4 .*; entities lists"):
        trained.entity("Eve")
    with pytest.raises(KeyError, match=r"no relation 'hates' among the 2 .*; relations lists"):
        trained.relation("hates")


def test_scores_are_distances(trained: relpt.GraphEmbeddings) -> None:
    distance = trained.entity("Ada") + trained.relation("likes") - trained.entity("Bob")
    assert trained.score([("Ada", "likes", "Bob")])[0] == pytest.approx(-np.linalg.norm(distance), rel=1e-6)


def test_a_result_sums_up_its_ranks(trained: relpt.GraphEmbeddings) -> None:
    trained.entity_embeddings = np.arange(4, dtype=np.float32)[:, None] * np.ones(8, np.float32)
    trained.relation_embeddings = np.zeros((2, 8), np.float32)
    result = trained.evaluate([("Ada", "likes", "Dora")])  # the farthest of all
    assert result.raw_ranks.tolist() == [[4, 4]]
    assert result.ranks.tolist() == [[4, 3]]  # without Cem, whom Ada likes too
    assert result.head == relpt.graph.RankSummary(1 / 4, 0.0, 0.0, 1.0, 4.0, 1)
    assert result.tail == relpt.graph.RankSummary(1 / 3, 0.0, 1.0, 1.0, 3.0, 1)
    assert result.both[1:] == (0.0, 0.5, 1.0, 3.5, 2)
    assert result.raw.mrr == 0.25
    assert (result.mrr, result.hits_at_1, result.hits_at_3, result.hits_at_10, result.mean_rank) == result.both[:5]
    assert "MRR 0.2917" in str(result)
    assert result.to_dict()["head"]["queries"] == 1
    assert "<td>0.3333</td>" in result._repr_html_()


def test_filtering_takes_further_triples(trained: relpt.GraphEmbeddings, caplog: pytest.LogCaptureFixture) -> None:
    test, further = (
        [("Ada", "knows", "Dora")],
        [("Ada", "knows", "Cem"), ("Ada", "knows", "Ada"), ("Eve", "knows", "Cem")],
    )
    assert trained.evaluate(test, filter_with=further).ranks[0, 1] == 1  # none is left
    assert "1 of 3 triples to filter with have no embedding" in caplog.text
    assert trained.evaluate(test).ranks[0, 1] >= 1


def test_unknown_names_are_counted(trained: relpt.GraphEmbeddings) -> None:
    bad = [("Ada", "knows", "Eve"), ("Ada", "knows", "Bob"), ("Eve", "hates", "Finn")]
    for use in (trained.evaluate, trained.score):
        with pytest.raises(ValueError, match=r"2 of 3 .* triples name 2 entities and 1 relations that no training"):
            use(bad)
    with pytest.raises(ValueError, match="there are no test triples"):
        trained.evaluate([])


def test_without_training_there_is_nothing_to_use(tmp_path: Path) -> None:
    g = relpt.GraphEmbeddings()
    for use in (lambda: g.score(TRIPLES), lambda: g.evaluate(TRIPLES), lambda: g.save(tmp_path / "g")):
        with pytest.raises(RuntimeError, match="not trained; call fit first"):
            use()
    with pytest.raises(KeyError):
        g.entity("Ada")


# -- training's end ----------------------------------------------------------------------------------------------------


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Python's own handler, which a job in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_keeps_the_whole_epochs() -> None:
    def interrupt(record: dict[str, Any]) -> None:
        if record["epoch"] == 2:
            signal.raise_signal(signal.SIGINT)

    g = relpt.GraphEmbeddings(**FAST).fit(TRIPLES, callbacks=[interrupt])
    assert (g.status, len(g.history)) == ("interrupted", 2)
    two = relpt.GraphEmbeddings(**FAST | {"epochs": 2}).fit(TRIPLES)
    np.testing.assert_array_equal(g.entity_embeddings, two.entity_embeddings)
    assert g.evaluate(TRIPLES) == two.evaluate(TRIPLES)


def test_a_callback_sees_the_epoch_and_may_stop() -> None:
    g, seen = relpt.GraphEmbeddings(**FAST), []

    def callback(record: dict[str, Any]) -> bool:
        seen.append(g.entity_embeddings.copy())
        return record["epoch"] == 3

    assert g.fit(TRIPLES, callbacks=[callback]).status == "stopped"
    assert len(seen) == len(g.history) == 3
    assert not np.array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[-1], g.entity_embeddings)


def test_a_loss_that_is_not_finite_leaves_usable_embeddings() -> None:
    g = relpt.GraphEmbeddings(**FAST | {"model": "distmult", "optimizer": "sgd", "learning_rate": 1e6, "epochs": 50})
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        g.fit(TRIPLES)
    assert np.isfinite(g.entity_embeddings).all()
    assert np.isfinite(g.relation_embeddings).all()


def test_the_loss_is_the_mean_over_triples() -> None:
    """A triple of the last, smaller step counts as much as others."""
    options = FAST | {"epochs": 1, "learning_rate": 1e-9, "batch_size": 3}
    loss = relpt.GraphEmbeddings(**options).fit(TRIPLES).history[0]["loss"]
    whole = relpt.GraphEmbeddings(**options | {"batch_size": 4}).fit(TRIPLES).history[0]["loss"]
    assert loss == pytest.approx(whole, rel=1e-6)


# -- options and triples -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("model", "rotate", "model is 'rotate'; expected one of transe, distmult"),
        ("loss", "hinge", "loss is 'hinge'; expected one of margin, logistic, softmax"),
        ("norm", 3, "norm is 3; expected 1 or 2"),
        ("dim", 0, "dim is 0; expected a whole number"),
        ("epochs", 1.5, "epochs is 1.5; expected a whole number"),
    ],
)
def test_options_are_checked(option: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relpt.GraphEmbeddings(**{option: value})


def test_params_make_an_equal_object() -> None:
    g = relpt.GraphEmbeddings(model="distmult", dim=7, corruption="bernoulli")
    assert relpt.GraphEmbeddings(**g.get_params()).get_params() == g.get_params()
    assert repr(g) == "<relpt.GraphEmbeddings(model='distmult', dim=7, corruption='bernoulli'): untrained>"


def test_triples_come_from_lists_files_and_tables(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    text = "".join("\t".join(triple) + "\r\n" for triple in TRIPLES) + "\n"
    plain, packed = tmp_path / "a.tsv", tmp_path / "b.tsv.gz"
    plain.write_text(text, encoding="utf-8")
    packed.write_bytes(gzip.compress(text.encode()))
    swapped = pandas.DataFrame(TRIPLES, columns=["head", "relation", "tail"])[["tail", "head", "relation"]]
    sources = [TRIPLES, [list(t) for t in TRIPLES], plain, str(packed), pandas.DataFrame(TRIPLES), swapped]
    assert all(read_triples(source) == TRIPLES for source in sources)
    assert read_triples([plain, packed]) == TRIPLES * 2
    assert read_triples(iter(TRIPLES)) == TRIPLES


@pytest.mark.parametrize(
    ("line", "message"),
    [("a\tb", r"t\.tsv:2: expected head, relation and tail between tabs, got 2 columns"), ("a\t\tb", "got 3 columns")],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "t.tsv").write_text(f"x\ty\tz\n{line}\n", encoding="utf-8")
    with pytest.raises(relpt.FormatError, match=message):
        read_triples(tmp_path / "t.tsv")


@pytest.mark.parametrize("item", [("a", "b"), ("a", 1, "b"), ("a", "", "b"), "abc", 3])
def test_a_bad_triple_is_named(item: Any) -> None:
    with pytest.raises(ValueError, match=r"triple 1 is .*; expected"):
        read_triples([("x", "y", "z"), item])


def test_sources_of_no_triples_are_refused(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="there are no triples to train on"):
        relpt.GraphEmbeddings().fit([])
    with pytest.raises(TypeError, match="triples are a int"):
        read_triples(3)
    with pytest.raises(ValueError, match="the table has the columns a, b; expected head, relation, tail"):
        read_triples(pandas.DataFrame({"a": ["x"], "b": ["y"]}))
    with pytest.raises(FileNotFoundError):
        read_triples(tmp_path / "none.tsv")


# -- on disk -----------------------------------------------------------------------------------------------------------


def test_what_is_saved_comes_back(trained: relpt.GraphEmbeddings, tmp_path: Path) -> None:
    folder = trained.save(tmp_path / "g")
    assert sorted(path.name for path in folder.iterdir()) == ["graph.json", "graph.safetensors"]
    loaded = relpt.GraphEmbeddings.load(folder)
    assert loaded.entity_embeddings.tobytes() == trained.entity_embeddings.tobytes()
    assert loaded.relation_embeddings.tobytes() == trained.relation_embeddings.tobytes()
    assert (loaded.entities, loaded.history, loaded.status) == (trained.entities, trained.history, "finished")
    assert loaded.get_params() == trained.get_params()
    test = [("Dora", "knows", "Cem")]  # the training triples, which are filtered, come back too
    np.testing.assert_array_equal(loaded.evaluate(test).ranks, trained.evaluate(test).ranks)
    relpt.GraphEmbeddings(**FAST | {"seed": 1}).fit(TRIPLES).save(folder)
    assert relpt.GraphEmbeddings.load(folder).seed == 1


def test_a_training_that_ends_in_an_exception_is_not_finished() -> None:
    graph = relpt.GraphEmbeddings(dim=4, epochs=3, negatives=2)

    def fail(record: dict[str, Any]) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        graph.fit([("a", "r", "b"), ("c", "r", "d")], callbacks=[fail])
    assert (graph.status, len(graph.history)) == ("interrupted", 1)
    graph.fit([("a", "r", "b"), ("c", "r", "d")], callbacks=[lambda record: np.bool_(record["epoch"] == 2)])
    assert (graph.status, len(graph.history)) == ("stopped", 2)
    assert graph.fit([("a", "r", "b"), ("c", "r", "d")]).status == "finished"


def test_other_things_are_not_overwritten(trained: relpt.GraphEmbeddings, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"has no graph\.json"):
        trained.save(tmp_path)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"
    trained.save(tmp_path / "graph")
    (tmp_path / "graph" / "config.json").write_text("{}", encoding="utf-8")  # as where it is injected into an encoder
    with pytest.raises(FileExistsError, match=r"holds config\.json, which would be lost"):
        trained.save(tmp_path / "graph")


def test_damaged_folders_are_named(trained: relpt.GraphEmbeddings, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no graph\.json"):
        relpt.GraphEmbeddings.load(tmp_path)
    folder = trained.save(tmp_path / "g")
    card = json.loads((folder / "graph.json").read_text(encoding="utf-8"))

    def change(**parts: Any) -> None:
        (folder / "graph.json").write_text(json.dumps({**card, **parts}), encoding="utf-8")

    for parts, message in (
        ({"entities": card["entities"][:-1]}, r"entities is no float32 tensor of shape \(3, 8\)"),
        ({"relations": None}, "'relations' is missing or no list"),
        ({"options": {**card["options"], "model": "x"}}, "options: model is 'x'"),
        ({"options": {**card["options"], "colour": 1}}, "options: .*colour"),
    ):
        change(**parts)
        with pytest.raises(relpt.FormatError, match=message):
            relpt.GraphEmbeddings.load(folder)
    change()
    data = (folder / "graph.safetensors").read_bytes()
    (folder / "graph.safetensors").write_bytes(data[:-9])
    with pytest.raises(relpt.FormatError, match="is no whole safetensors file"):
        relpt.GraphEmbeddings.load(folder)
    (folder / "graph.safetensors").unlink()
    with pytest.raises(relpt.FormatError, match=r"there is no graph\.safetensors"):
        relpt.GraphEmbeddings.load(folder)
