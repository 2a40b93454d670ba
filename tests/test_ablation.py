"""Ablations: what a table holds, what resumes, how models are compared, the command."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_dataset, tiny_encoder_folder, write_jsonl

import relpt
from relpt import analysis, cli
from relpt.ablation import Ablation, Predictions, splits_of
from relpt.intervals import mean_interval, paired_t, student_quantile, student_within

FAST: dict[str, Any] = {"epochs": 2, "batch_size": 8, "max_length": 40, "learning_rate": 3e-3}
FLAGS = ("--epochs", 2, "--batch-size", 8, "--max-length", 40, "--lr", 3e-3, "--threads", 1)
TASKS = [relpt.FewShot(n_way=3, k_shot=k, episodes=150) for k in (1, 3)]
SIZES = (("train", 12, 0), ("dev", 4, 1), ("test", 6, 2))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    for number, name in enumerate(("a", "b")):
        tiny_encoder_folder(folder / name, seed=number)
    (folder / "tiny").mkdir()
    for name, size, seed in SIZES:
        write_jsonl(folder / "tiny" / f"{name}.jsonl", tiny_dataset(3, size, seed=seed))
    write_jsonl(folder / "few.jsonl", tiny_dataset(4, 5, seed=3))
    return folder


@pytest.fixture(scope="module")
def models(place: Path) -> dict[str, relpt.Encoder]:
    return {name: relpt.Encoder.from_pretrained(place / name, num_threads=1) for name in ("a", "b")}


def table(models: Any, place: Path, **options: Any) -> Ablation:
    given = {"inputs": ("C+M", "OnlyC"), "fractions": (0.5, 1.0), "seeds": (1, 2), **FAST, **options}
    data = given.pop("data", {"tiny": place / "tiny", "few": place / "few.jsonl"})
    if "few_shot" not in given and isinstance(data, dict) and "few" in data:
        given["few_shot"] = TASKS
    return relpt.ablate(models, data, show_progress_bar=False, **given)


@pytest.fixture(scope="module")
def made(models: Any, place: Path) -> Ablation:
    return table(models, place)


# -- the table --------------------------------------------------------------------------------------------------------


def test_a_run_for_every_place_and_seed(made: Ablation, models: Any, place: Path) -> None:
    """Each is what finetune and FewShot give."""
    found = [(row["data"], row["model"], row["inputs"], row["setting"], row["seed"]) for row in made.rows]
    tuned = itertools.product(("tiny",), "ab", ("C+M", "OnlyC"), ("50 %", "100 %"), (1, 2))
    tested = itertools.product(("few",), "ab", ("C+M", "OnlyC"), ("3-way 1-shot", "3-way 3-shot"), (1, 2))
    assert found == [*tuned, *tested]
    parts = {name: place / "tiny" / f"{name}.jsonl" for name in ("train", "dev", "test")}
    own = relpt.finetune(models["b"], parts.pop("train"), **parts, inputs="OnlyC", fractions=0.5, seeds=(1, 2), **FAST)
    rows = made.select(data="tiny", model="b", inputs="OnlyC", setting="50 %")
    assert [row["score"] for row in rows] == [row["test"] for row in own.rows]
    assert {"metric", "dev", "official", "unknown", "fraction"} <= rows[0].keys()
    task = relpt.FewShot(n_way=3, k_shot=3, episodes=150, seed=2)
    result = task.evaluate(models["a"], place / "few.jsonl", inputs="OnlyC")
    (row,) = made.select(model="a", inputs="OnlyC", setting="3-way 3-shot", seed=2)
    assert (row["score"], row["ci95"], row["way"], row["shot"]) == (result.accuracy, result.ci95, 3, 3)
    assert made.computed == 32


def test_predictions_are_those_of_the_score(made: Ablation, place: Path) -> None:
    for row in made.rows:
        said = made.predictions(**{name: row[name] for name in ("data", "model", "inputs", "setting", "seed")})
        right = np.mean([x == y for x, y in zip(said.gold, said.predicted, strict=True)])
        assert right == pytest.approx(row["score"], abs=1e-12)
        data = relpt.load(place / ("few.jsonl" if row["data"] == "few" else "tiny/test.jsonl"))
        assert said.gold == [data[i].relation for i in said.rows]
    assert len(made.predictions(data="few", model="a", inputs="C+M", setting="3-way 1-shot", seed=1).rows) == 450


def test_predictions_go_into_the_analysis(made: Ablation, place: Path) -> None:
    where = {"data": "tiny", "setting": "100 %", "seed": 1, "inputs": "C+M"}
    a, b = (made.predictions(model=name, **where) for name in "ab")
    found = analysis.agreement(a.gold, a.predicted, b.predicted)
    (compared,) = Ablation(made.select(seed=1), 0, made._said).compare(
        "a", "b", data="tiny", setting="100 %", inputs="C+M"
    )
    assert compared.p_sentences == found.p_value
    assert compared.difference == pytest.approx(found.only_a - found.only_b)
    shown = analysis.cases(relpt.load(place / "tiny" / "test.jsonl"), a.gold, {"a": a.predicted, "b": b.predicted})
    assert shown.differing == sum(x != y for x, y in zip(a.predicted, b.predicted, strict=True))


def test_tables_hold_means_and_medians(made: Ablation) -> None:
    pytest.importorskip("pandas")
    scores = [row["score"] for row in made.select(data="tiny", model="b", inputs="OnlyC", setting="50 %")]
    tuned, tested = made.tables()
    assert tuned[0] == ["data", "metric", "model", "50 % C+M", "50 % OnlyC", "100 % C+M", "100 % OnlyC"]
    assert tested[0][3:5] == ["3-way 1-shot C+M", "3-way 1-shot OnlyC"]
    mean, half = mean_interval(scores)
    assert [*tuned[2][:3], tuned[2][4]] == ["tiny", "accuracy", "b", f"{mean:.3f} ± {half:.3f}"]
    low, high = min(scores), max(scores)
    assert made.tables("median")[0][2][4] == f"{np.median(scores):.3f} ({low:.3f} – {high:.3f})"
    assert made.to_markdown().splitlines()[0] == f"| {' | '.join(tuned[0])} |"
    assert f"<td>{tuned[2][4]}</td>" in made._repr_html_()
    frame = made.to_frame()
    assert frame.groupby(["data", "model", "inputs", "setting"])["score"].mean()["tiny", "b", "OnlyC", "50 %"] == mean
    with pytest.raises(ValueError, match="statistic is 'mode'"):
        made.to_markdown("mode")


def test_bars_are_the_means(made: Ablation) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = made.plot()
    assert [ax.get_title(loc="left") for ax in axes][:2] == ["tiny, 50 %", "tiny, 100 %"]
    items = [item for item in made.summary() if (item["data"], item["setting"]) == ("tiny", "50 %")]
    assert [bar.get_height() for bar in axes[0].patches] == [item["mean"] for item in items]
    own = made.plot(ax=pyplot.figure().subplots(), data="few", setting="3-way 1-shot")
    assert own.get_title(loc="left") == "few, 3-way 1-shot"
    with pytest.raises(ValueError, match="ax holds 1 Axes; expected 2"):
        made.plot(ax=own, data="few")
    pyplot.close("all")


# -- comparisons ------------------------------------------------------------------------------------------------------


def by_hand(said: dict[tuple[str, int], str], scores: dict[tuple[str, int], float]) -> Ablation:
    """Two models on sentences whose gold is "x"; predictions as text, a letter a sentence."""
    place = {"data": "d", "inputs": "C+M", "setting": "100 %", "metric": "accuracy", "protocol": "fine-tuning"}
    rows = [{**place, "model": m, "seed": s, "score": scores[m, s], "key": f"{m}{s}"} for m, s in said]
    texts = {f"{m}{s}": text for (m, s), text in said.items()}
    return Ablation(
        rows, 0, lambda key: Predictions(list(range(len(texts[key]))), ["x"] * len(texts[key]), [*texts[key]])
    )


def test_sign_test_counts_every_sentence_once() -> None:
    """Over all ways to swap the two models' answers on a sentence, in all seeds at once."""
    said = {("a", 1): "xxxxoxxo", ("b", 1): "oxoooxox", ("a", 2): "xoxxxxoo", ("b", 2): "ooxooxoo"}
    scores = {key: text.count("x") / 8 for key, text in said.items()}
    (found,) = by_hand(said, scores).compare("a", "b")
    lead = [sum((said["a", s][i] == "x") - (said["b", s][i] == "x") for s in (1, 2)) for i in range(8)]
    signs = np.sign([n for n in lead if n])
    sums = [
        abs(sum(s * x for s, x in zip(signs, flips, strict=True)))
        for flips in itertools.product((1, -1), repeat=len(signs))
    ]
    assert found.p_sentences == pytest.approx(np.mean([total >= abs(sum(signs)) for total in sums]))
    assert (found.seeds, found.score_a, found.model, found.inputs) == (2, 11 / 16, None, "C+M")
    (back,) = by_hand(said, scores).compare("b", "a")
    assert (back.difference, back.p_seeds, back.p_sentences) == (-found.difference, found.p_seeds, found.p_sentences)


def test_compare_in_every_other_place(made: Ablation) -> None:
    found = made.compare("a", "b", data="tiny")
    assert [(c.inputs, c.setting) for c in found] == list(itertools.product(("C+M", "OnlyC"), ("50 %", "100 %")))
    found = made.compare({"model": "a", "inputs": "OnlyC"}, {"model": "b", "inputs": "C+M"}, data="few")
    assert [(c.a, c.model, c.inputs, c.setting) for c in found] == [
        ("a OnlyC", None, None, "3-way 1-shot"),
        ("a OnlyC", None, None, "3-way 3-shot"),
    ]
    differences = [
        made.select(model="a", inputs="OnlyC", setting="3-way 1-shot", seed=s)[0]["score"]
        - made.select(model="b", inputs="C+M", setting="3-way 1-shot", seed=s)[0]["score"]
        for s in (1, 2)
    ]
    assert (found[0].difference, found[0].ci95) == mean_interval(differences)
    assert found[0].p_seeds == paired_t(differences)
    one = Ablation(made.select(seed=1), 0, made._said).compare("OnlyC", "C+M")
    assert all(c.ci95 is None and c.p_seeds is None and c.model in "ab" for c in one)


@pytest.mark.parametrize(
    ("a", "b", "where", "message"),
    [
        ("a", "c", {}, "'c' is none of the table's models or settings; it has data 'tiny', 'few'; model 'a', 'b'"),
        ("a", "b", {"data": "no"}, "no run has data='no'"),
        ("a", {"seed": 1}, {}, "cannot compare by 'seed'"),
        ("50 %", "3-way 1-shot", {}, "were run at different places"),
        ("tiny", "few", {}, "were run at different places"),
    ],
)
def test_comparisons_that_make_no_sense(made: Ablation, a: Any, b: Any, where: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        made.compare(a, b, **where)


def test_names_that_hold_ends_of_lines(models: Any, place: Path, tmp_path: Path) -> None:
    """U+2028 and U+0085 end a line for str.splitlines, and none of a file."""
    train, test = (relpt.load(place / "tiny" / f"{part}.jsonl") for part in ("train", "test"))
    odd = [relpt.load([{**i.to_dict(), "relation": f"{i.relation}\u2028x"} for i in part]) for part in (train, test)]
    run = {"inputs": ["C+M"], "seeds": [np.int64(1)], "output": tmp_path, "epochs": 1, "batch_size": 8}
    sets = {"da\u0085ta": {"train": odd[0], "test": odd[1]}}
    first = relpt.ablate({"a": models["a"]}, sets, **run)
    assert set(first.predictions(seed=1).gold) == set(odd[1].labels)
    assert relpt.ablate({"a": models["a"]}, sets, **run).computed == 0
    (tmp_path / "rows.jsonl").write_text("")  # no line is no row
    assert relpt.ablate({"a": models["a"]}, sets, **run).computed == 1


def test_predictions_of_several_runs(made: Ablation) -> None:
    with pytest.raises(ValueError, match="4 runs have model='a', data='tiny', inputs='C"):
        made.predictions(model="a", data="tiny", inputs="C+M")


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 10, 31])
def test_student_against_its_density(freedom: int) -> None:
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
    for t in (0.1, 1.0, 2.5, 6.0):
        x, width = np.linspace(0, t, 20_001, retstep=True)
        y = scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        simpson = width / 3 * (y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum())
        assert student_within(t, freedom) == pytest.approx(2 * simpson, abs=1e-10)
        assert student_within(student_quantile(0.95, freedom), freedom) == pytest.approx(0.95, abs=1e-12)


def test_intervals_without_spread() -> None:
    assert mean_interval([0.5]) == (0.5, None)
    assert paired_t([0.1]) is None
    assert paired_t([0.0, 0.0]) == 1
    assert paired_t([0.5, 0.5]) == 0


@pytest.mark.oracle
def test_intervals_and_tests_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(0)
    for n in (2, 3, 5, 8):
        a, b = draw.normal(0, 1, n), draw.normal(0.5, 1, n)
        test = stats.ttest_rel(a, b)
        assert paired_t(list(a - b)) == pytest.approx(test.pvalue, rel=1e-9)
        mean, half = mean_interval(list(a - b))
        interval = test.confidence_interval(0.95)
        assert [mean - half, mean + half] == pytest.approx([interval.low, interval.high], rel=1e-9)
    said = {("a", 1): "xxxxoxxoxxxx", ("b", 1): "oxoooxoxoooo"}
    (found,) = by_hand(said, {key: 0.5 for key in said}).compare("a", "b")
    assert found.p_sentences == pytest.approx(stats.binomtest(8, 9).pvalue)


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_runs_in_the_folder_are_not_computed_again(models: Any, made: Ablation, place: Path, tmp_path: Path) -> None:
    first = table(models, place, output=tmp_path)
    assert first.rows == made.rows
    assert first.compare("a", "b") == made.compare("a", "b")
    renamed = {"one": models["a"], "two": models["b"]}
    again = table(renamed, place, output=tmp_path)
    assert again.computed == 0
    assert [row["score"] for row in again.rows] == [row["score"] for row in first.rows]
    assert {row["model"] for row in again.rows} == {"one", "two"}
    assert table(models, place, output=tmp_path, seeds=(1, 3)).computed == 16
    bare: dict[str, Any] = {"max_length": 40, "seeds": 1}
    changes: list[dict[str, Any]] = [
        {"few_shot": TASKS[:1], "inputs": "OnlyC"},
        {"few_shot": relpt.FewShot(n_way=3, episodes=150, similarity="dot"), "inputs": "OnlyC"},
        {"few_shot": TASKS[:1], "inputs": "OnlyC", "max_length": 30},
    ]
    for change, computed in zip(changes, (0, 1, 1), strict=True):
        found = relpt.ablate(models["a"], place / "few.jsonl", output=tmp_path, **{**bare, **change})
        assert found.computed == computed, change
    projected = models["a"].copy()
    projected.fit_projection(relpt.load(place / "tiny" / "train.jsonl"))
    given = {"few_shot": TASKS[:1], "inputs": "OnlyC", "seeds": 1, "max_length": 40, "output": tmp_path}
    assert relpt.ablate(projected, {"few": place / "few.jsonl"}, **given).computed == 1


def test_a_folder_of_finetune_serves(models: Any, place: Path, tmp_path: Path) -> None:
    parts = {name: str(place / "tiny" / f"{name}.jsonl") for name in ("train", "dev", "test")}
    own = relpt.finetune(
        models["a"], parts["train"], dev=parts["dev"], test=parts["test"], seeds=(1, 2), output=tmp_path, **FAST
    )
    result = table(models["a"], place, data={"tiny": parts}, inputs="C+M", fractions=1.0, output=tmp_path)
    assert (result.computed, [row["score"] for row in result.rows]) == (0, [row["test"] for row in own.rows])


KILLED = """
import os, signal, sys
import relpt, relpt.runs
sys.path.insert(0, {tests!r})
from pathlib import Path
import test_ablation as t
count = [0]
def die(*_):
    count[0] += 1
    if count[0] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
place = Path({place!r})
models = {{name: relpt.Encoder.from_pretrained(place / name, num_threads=1) for name in ("a", "b")}}
if {where!r} == "after a row":
    t.table(models, place, output={output!r}, on_row=die)
replace = os.replace
def half(new, target):
    if Path(target).name == {where!r}:
        die()
    replace(new, target)
os.replace = half
t.table(models, place, output={output!r})
"""


@pytest.mark.parametrize("where", ["after a row", "rows.jsonl"])
def test_a_killed_run_resumed_gives_the_same_table(
    models: Any, made: Ablation, place: Path, tmp_path: Path, where: str
) -> None:
    given = {"tests": str(Path(__file__).parent), "place": str(place), "output": str(tmp_path), "where": where}
    killed = subprocess.run([sys.executable, "-c", KILLED.format(**given)], capture_output=True, text=True, timeout=120)
    assert killed.returncode == -9, killed.stderr
    kept = 3 if where == "after a row" else 2
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == kept
    resumed = table(models, place, output=tmp_path)
    assert (resumed.rows, resumed.computed) == (made.rows, 32 - kept)
    assert resumed.to_markdown() == made.to_markdown()
    assert resumed.compare("a", "b") == made.compare("a", "b")


def test_predictions_that_somebody_removed(models: Any, place: Path, tmp_path: Path) -> None:
    given = {"data": place / "few.jsonl", "few_shot": TASKS[:1], "inputs": "C+M", "seeds": 1}
    given = {**given, "output": tmp_path}
    result = relpt.ablate(models["a"], **given)
    for file in (tmp_path / "predictions").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="has no file of the run"):
        result.predictions()


# -- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"models": "no/such/model"}, FileNotFoundError, "no/such/model"),
        ({"models": [3]}, TypeError, "a model is a int; give a name, a folder, or an encoder"),
        ({"data": {"d": {"test": "x"}}}, ValueError, "data set 'd' has no train"),
        ({"data": {"d": {"train": "x", "valid": "y"}}}, ValueError, "data set 'd' has a part 'valid'"),
        ({"early_stopping": 1, "only": ("train", "test")}, ValueError, "early_stopping needs a dev set"),
        ({"only": ("train",)}, ValueError, "finetune has nothing to score; give dev="),
        ({"inputs": "OnlyX"}, ValueError, "inputs is 'OnlyX'"),
        ({"fractions": 2}, ValueError, "the fraction is 2"),
        ({"seeds": ()}, ValueError, "nothing to run"),
        ({"only": ("train", "dev"), "few_shot": relpt.FewShot()}, ValueError, "few_shot is given, but every data set"),
        ({"few_shot": [relpt.FewShot(), relpt.FewShot(seed=1)]}, ValueError, "the same ways and shots"),
        ({"few_shot": relpt.FewShot(n_way=9)}, ValueError, "n_way is 9, but 'few.jsonl' has 4 relations"),
        ({"few_shot": relpt.FewShot(n_way=2, nota_rate=0.5)}, ValueError, "there is no nota_threshold"),
        ({"bare": True}, TypeError, "option 'epochs' is for fine-tuning, but no data set has training sentences"),
        ({"untyped": "tiny", "inputs": "C+T"}, ValueError, "type"),
        ({"untyped": "few", "inputs": ("C+M", "OnlyT")}, ValueError, "type"),
    ],
)
def test_what_would_fail_fails_before_any_run(
    models: Any, place: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    def never(row: dict[str, Any], seconds: float | None) -> None:
        raise AssertionError("a run was made")

    given = dict(change)
    if "only" in given:
        given["data"] = {"tiny": {name: place / "tiny" / f"{name}.jsonl" for name in given.pop("only")}}
    if given.pop("bare", False):
        given["data"] = {"few": place / "few.jsonl"}
    if kind := given.pop("untyped", None):
        records = tiny_dataset(4, 8)
        for record in records:
            del record["h"]["type"], record["t"]["type"]
        tuned = {"train": place / "tiny" / "train.jsonl", "dev": place / "tiny" / "dev.jsonl"}
        given["data"] = {"tiny": tuned, "few": records} if kind == "few" else {"tiny": {**tuned, "dev": records[:12]}}
    with pytest.raises(error, match=message):
        table(given.pop("models", models), place, on_row=never, **given)


def test_labels_must_differ(models: Any, place: Path) -> None:
    with pytest.raises(ValueError, match="two models are called 'a'; give a mapping"):
        table([models["a"], models["a"]], place)


def test_hybrids_are_tested_and_fine_tuned(models: Any, place: Path, tmp_path: Path) -> None:
    hybrid = relpt.HybridEncoder(models["a"], models["b"])
    few = {"data": place / "few.jsonl", "few_shot": TASKS[:1], "inputs": "C+M", "seeds": (1,)}
    result = relpt.ablate({"h": hybrid}, output=tmp_path, **few)
    own = relpt.FewShot(n_way=3, episodes=150, seed=1).evaluate(hybrid, place / "few.jsonl")
    assert result.rows[0]["score"] == own.accuracy
    hybrid.save_pretrained(tmp_path / "hybrid")
    assert relpt.ablate(tmp_path / "hybrid", output=tmp_path, **few).computed == 0
    weighted = relpt.HybridEncoder(models["a"], models["b"], weights=(1, 2))
    assert relpt.ablate(weighted, output=tmp_path, **few).computed == 1
    rows = table({"h": hybrid}, place).rows
    assert {row["protocol"] for row in rows} == {"fine-tuning", "few-shot"}
    only = relpt.HybridEncoder(*[relpt.EntityTable.from_corpus(models["a"], place / "few.jsonl")] * 2)
    with pytest.raises(TypeError, match="no part of it is a network"):
        table({"t": only}, place)


def test_folders_of_parts(place: Path, tmp_path: Path) -> None:
    assert list(splits_of(place / "tiny")) == ["train", "dev", "test"]
    with pytest.raises(ValueError, match="has no file called train"):
        splits_of(tmp_path)
    for name in ("train.txt", "train_0.01.txt", "dev.json", "valid.json"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"has dev\.json, valid\.json; name the one for dev"):
        splits_of(tmp_path)


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(place)

    def run(*words: Any) -> tuple[int, str, str]:
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capfd.readouterr()

    return run


def test_the_command_writes_table_figure_and_rows(command: Any, made: Ablation, place: Path, tmp_path: Path) -> None:
    words = ("ablate", "--model", "a", "two=b", "--data", "tiny", "few=few.jsonl", "--inputs", "CM,OC", *FLAGS)
    words = (*words, "--fraction", "0.5,1", "--seeds", "1-2", "--way", 3, "--shot", "1,3", "--episodes", 150)
    code, out, err = command(*words, "-o", tmp_path / "o", "--json", "-q")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [row["score"] for row in found["results"]] == [row["score"] for row in made.rows]
    assert {row["model"] for row in found["results"]} == {"a", "two"}
    assert len(found["summary"]) == 16
    assert (tmp_path / "o" / "table.md").read_text().startswith("| data | metric | model | 50 % C+M")
    assert (tmp_path / "o" / "figure.png").read_bytes()[:4] == b"\x89PNG"
    code, out, err = command(*words, "-o", tmp_path / "o", "--statistic", "median")
    assert code == 0
    title, blank, *table = out.splitlines()
    assert (title, blank) == ("median (lowest – highest) over 2 seeds", "")
    assert all(line == line.rstrip() for line in table)
    assert table[0].split()[:3] == ["data", "metric", "model"]
    assert len({line.find("accuracy") for line in table if "accuracy" in line}) == 1  # columns are aligned
    assert [line.find("(") for line in table[1:3]] == [table[1].find("(")] * 2 != [-1] * 2
    assert "32 runs, 0 of them new" in err
    assert "few, two, OnlyC, 3-way 3-shot, seed 2: accuracy" in err


def test_a_representation_of_few_shot_tests_is_the_encoders(command: Any, tmp_path: Path) -> None:
    words = ("ablate", "--model", "a", "--data", "few=few.jsonl", "--way", 3, "--episodes", 150, "--seeds", 1, "--json")
    found = []
    for number, more in enumerate(((), ("--representation", "entity_start"), ("--representation", "mean"))):
        code, out, err = command(*words, *more, "-o", tmp_path / f"o{number}", "-q")
        assert code == 0, err
        found.append([row["score"] for row in json.loads(out)["results"]])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--model", "none", "--data", "tiny"), 1, "none"),
        (("--model", "a"), 2, "no data: give --data, or --train with --dev or --test"),
        (("--model", "a", "--dev", "tiny/dev.jsonl"), 2, "--dev and --test go with --train"),
        (("--model", "a", "a=b", "--data", "tiny"), 2, "--model: two are called 'a'"),
        (("--model", "=b", "--data", "tiny"), 2, "expected NAME=PATH or a path"),
        (("--model", "a", "--train", "tiny/train.jsonl"), 1, "finetune has nothing to score"),
        (("--model", "a", "--data", "few.jsonl", "--epochs", "3"), 1, "option 'epochs' is for fine-tuning"),
    ],
)
def test_the_command_with_bad_input(command: Any, tmp_path: Path, words: Any, code: int, message: str) -> None:
    found, out, err = command("ablate", *words, "-o", tmp_path / "o")
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
