"""Reproductions: what they compute, what goes on after a kill, what the report says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_dataset, tiny_encoder_folder, write_jsonl

import relpt
from relpt import cli
from relpt.ablation import Comparison
from relpt.report.page import Grid, Heading, Text, html_blocks, markdown_page, plain
from relpt.reproduction import _verdict

KIT = """
paper = "A paper"
table = "Table 0"
about = "A try."
differences = ["Nothing is as in the paper | at all."]

[data.pre]
what = "made up"
origin = "here"
train = "pre.jsonl"

[data.T]
what = "made up"
origin = "here"
train = "train.jsonl"
test = "test.jsonl"

[data.half]
what = "made up"
origin = "a licence"
train = "train.jsonl"
test = "test.jsonl"
holds = 0.5
stands_for = "TACRED"

[models.none]

[models.CP.train]
data = "pre"
objectives = [{ type = "cp" }, { type = "mlm", weight = 0.5 }]
max_steps = 6
pairs_per_step = 4
max_length = 40

[models.mask]
start = "CP"
representation = "mask"

[models.hybrid]
join = ["CP", "mask"]

[models.table]
entities = "none"
data = "T"

[evaluate.tuned]
protocol = "fine-tuning"
data = ["T"]
models = ["none", "CP"]
inputs = ["C+M", "OnlyC"]
seeds = [1, 2]
statistic = "median"
options = { epochs = 1, batch_size = 16, max_length = 60, learning_rate = 3e-3 }

[evaluate.few]
protocol = "few-shot"
data = ["T"]
models = ["CP", "hybrid", "table"]
inputs = ["C+M"]
seeds = [7]
way = [3]
shot = [1, 2]
episodes = 100
options = { max_length = 60 }

[agreement.x]
evaluate = "tuned"
data = "T"
model = "CP"
a = "C+M"
b = "OnlyC"
published."shared right" = 0.957

[complementarity.y]
a = "CP"
b = "mask"
data = "T"
way = 3
episodes = 50

[statistics.z]
data = ["T"]
show = ["relations", "instances", "negative", "train", "dev", "test", "50 %"]
published.T = [4, 72, "–", 48, "–", 24, 25]

[[published]]
data = "T"
setting = "100 %"
inputs = ["C+M", "OnlyC"]
figures.CP = [0.512, 0.256]
figures.CNN = [0.128, 0.064]

[[expected]]
says = "CP is above none"
evaluate = "tuned"
above = "CP"
below = "none"

[small]
models.CP.train.max_steps = 4
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reproduce")
    tiny_encoder_folder(folder / "encoder")
    (folder / "data").mkdir()
    for name, size, seed in (("train", 12, 0), ("test", 6, 2), ("pre", 10, 5)):
        write_jsonl(folder / "data" / f"{name}.jsonl", tiny_dataset(4, size, seed=seed))
    (folder / "kit.toml").write_text(f'encoder.name = "{folder / "encoder"}"\n{KIT}', encoding="utf-8")
    return folder


def run(place: Path, output: Path, **options: Any) -> relpt.Reproduction:
    given = {"num_threads": 1, "show_progress_bar": False, **options}
    return relpt.reproduce(place / "kit.toml", place / "data", output=output, **given)


@pytest.fixture(scope="module")
def made(place: Path) -> relpt.Reproduction:
    return run(place, place / "out")


# -- what is computed -------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_parts_used_by_hand(made: relpt.Reproduction, place: Path) -> None:
    encoder = relpt.Encoder.from_pretrained(place / "encoder", num_threads=1)
    objectives = [relpt.objectives.CP(), relpt.objectives.MLM(weight=0.5)]
    trainer = relpt.Trainer(encoder, objectives=objectives, max_steps=4, pairs_per_step=4, max_length=40)
    history = trainer.fit(place / "data" / "pre.jsonl", show_progress_bar=False)
    assert made.trained["CP"]["loss_last"] == history[-1]["loss"]
    test = relpt.load(place / "data" / "test.jsonl")
    task = relpt.FewShot(n_way=3, k_shot=2, episodes=100, seed=7)
    mask = relpt.Encoder.from_pretrained(made.output / "models" / model_folder(made), representation="mask")
    for model, own in (("CP", encoder), ("hybrid", relpt.HybridEncoder(encoder, mask))):
        (row,) = made.ablations["few"].select(model=model, setting="3-way 2-shot")
        assert row["score"] == task.evaluate(own, test, max_length=60).accuracy
    parts = {"train": place / "data" / "train.jsonl", "test": place / "data" / "test.jsonl"}
    options = {"epochs": 1, "batch_size": 16, "max_length": 60, "learning_rate": 3e-3}
    tuned = relpt.finetune(encoder, **parts, inputs="OnlyC", seeds=2, show_progress_bar=False, **options)
    (row,) = made.ablations["tuned"].select(model="CP", inputs="OnlyC", seed=2)
    assert row["score"] == tuned.rows[0]["test"]


def model_folder(result: relpt.Reproduction) -> str:
    (folder,) = (result.output / "models").glob("CP-*")
    return folder.name


def test_published_figures_stand_beside(made: relpt.Reproduction) -> None:
    found = {(row["model"], row["inputs"]): row["published"] for row in made.summary() if row["evaluation"] == "tuned"}
    assert found == {
        ("none", "C+M"): None,
        ("none", "OnlyC"): None,
        ("CP", "C+M"): 0.512,
        ("CP", "OnlyC"): 0.256,
    }
    places = [finding.found.inputs for finding in made.findings if finding.found is not None]
    assert places == ["C+M", "OnlyC"]
    assert made.counts["z"]["T"] == [4, 72, None, 48, None, 24, 24]
    share = made.pairs["x"].figures
    assert share["shared right"] == pytest.approx(share["both_right"] / (share["both_right"] + share["only_a"]))


def test_a_network_of_words_is_fine_tuned_by_options_of_its_own(place: Path, tmp_path: Path) -> None:
    """As the CNN of table 1 of Peng et al. 2020 is, by SGD; its rows stand among the others'."""
    words = ["sister", "in", "of"]
    (place / "data" / "words.txt").write_text("".join(f"{word} {i} 0.5 -1\n" for i, word in enumerate(words)))
    settings = [
        'data.W = {what = "vectors", origin = "here", train = "words.txt"}',
        'models.CNN = {cnn = {hidden_size = 8, vectors = "W", hidden_dropout_prob = 0.0}, data = "T"}',
        'models.CNN.tuning = {optimizer = "sgd", learning_rate = 0.5, batch_size = 8, epochs = 2}',
        'evaluate.tuned.models = ["CNN", "none"]',
        'evaluate.few.models = ["CNN"]',
        "agreement.x.model = 'none'",
        'expected = [{says = "s", evaluate = "tuned", above = "none", below = "CNN"}]',
    ]
    result = run(place, tmp_path / "out", settings=settings)
    parts = {name: relpt.load(place / "data" / f"{name}.jsonl") for name in ("train", "test")}
    cnn = relpt.CNNEncoder.from_data(
        parts["train"],
        vectors=place / "data" / "words.txt",
        hidden_size=8,
        hidden_dropout_prob=0.0,
        num_threads=1,
    )
    options = {"optimizer": "sgd", "learning_rate": 0.5, "batch_size": 8, "epochs": 2, "max_length": 60}
    own = relpt.finetune(cnn, **parts, inputs=("C+M", "OnlyC"), seeds=(1, 2), show_progress_bar=False, **options)
    rows = result.ablations["tuned"].select(model="CNN")
    assert [row["score"] for row in rows] == [row["test"] for row in own.rows]
    (few,) = result.ablations["few"].select(model="CNN", setting="3-way 1-shot")
    assert few["score"] == relpt.FewShot(n_way=3, k_shot=1, episodes=100, seed=7).evaluate(cnn, parts["test"]).accuracy
    assert {finding.found.a for finding in result.findings if finding.found is not None} == {"none"}
    assert result.summary()[0]["model"] == "CNN"
    (place / "data" / "words.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"words\.txt – vectors \(here\)"):
        run(place, tmp_path / "out", settings=settings)


def test_a_part_of_the_training_data_is_called_after_the_whole(place: Path, tmp_path: Path) -> None:
    """The file holds half of the training data: 25 % of all is half of it, 100 % cannot be had."""
    settings = [
        'evaluate.tuned.data = ["half"]',
        "evaluate.tuned.fractions = [0.25, 0.5, 1.0]",
        "agreement.x.data = 'T'",
    ]
    result = run(place, tmp_path / "out", settings=settings)
    table = result.ablations["tuned"]
    assert [row["setting"] for row in table.select(model="CP", inputs="C+M", seed=1)] == ["25 %", "50 %"]
    assert table.select(setting="25 %")[0]["sentences"] == 24
    assert any("100 % of the training data, of which 50 % are there" in text for text in result.left_out)
    assert result.pairs == {}
    assert "half stands for TACRED." in result.to_markdown()


@pytest.mark.parametrize(
    ("difference", "ci95", "p", "verdict"),
    [
        (0.1, 0.05, 0.9, "confirmed"),
        (-0.1, 0.05, 0.9, "denied"),
        (0.1, 0.2, 0.001, "open"),
        (0.1, None, 0.001, "confirmed"),
        (-0.1, None, 0.001, "denied"),
        (0.1, None, 0.5, "open"),
        (0.0, 0.0, 1.0, "open"),
    ],
)
def test_verdicts(difference: float, ci95: float | None, p: float, verdict: str) -> None:
    seeds = 1 if ci95 is None else 3
    one = Comparison("a", "b", "D", "1 %", None, "C+M", "accuracy", seeds, 0.5, 0.5, difference, ci95, None, p)
    assert _verdict(one) == verdict


# -- going on ---------------------------------------------------------------------------------------------------------


def test_again_nothing_is_computed(made: relpt.Reproduction, place: Path) -> None:
    before = made.output.joinpath("models", model_folder(made), "model.safetensors").stat().st_mtime_ns
    said: list[str] = []
    again = run(place, made.output, say=said.append)
    assert [table.computed for table in again.ablations.values()] == [0, 0]
    assert again.ablations["tuned"].rows == made.ablations["tuned"].rows
    assert "train CP: done before" in said
    assert made.output.joinpath("models", model_folder(made), "model.safetensors").stat().st_mtime_ns == before
    assert not list(made.output.rglob("checkpoints"))


def test_a_run_goes_on_after_an_interruption(made: relpt.Reproduction, place: Path, tmp_path: Path) -> None:
    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(place, tmp_path / "out", callbacks_of=lambda steps: [stop])
    assert [path.name for path in (tmp_path / "out").rglob("step-*")] == ["step-00000002"]
    steps: list[int] = []
    whole = run(place, tmp_path / "out", callbacks_of=lambda n: [lambda record: steps.append(record["step"])])
    assert steps == [3, 4]
    files = [one.output / "models" / model_folder(one) / "model.safetensors" for one in (made, whole)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert whole.ablations["few"].rows == made.ablations["few"].rows


def test_other_options_make_another_model(made: relpt.Reproduction, place: Path, tmp_path: Path) -> None:
    for steps in (2, 3):
        result = run(place, tmp_path / "out", settings=[f"models.CP.train.max_steps = {steps}"])
        assert result.trained["CP"]["steps"] == steps
    assert len(list((tmp_path / "out" / "models").iterdir())) == 2


# -- missing data -----------------------------------------------------------------------------------------------------


def test_missing_files_are_named_with_their_origin(place: Path, tmp_path: Path) -> None:
    settings = ['data.T.test = "gone.jsonl"']
    with pytest.raises(FileNotFoundError, match=r"1 of the 3 files .*gone\.jsonl – made up \(here\).*--skip-missing"):
        run(place, tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


def test_what_needs_missing_files_is_left_out_on_request(place: Path, tmp_path: Path) -> None:
    result = run(place, tmp_path / "out", settings=['data.pre.train = "gone.jsonl"'], skip_missing=True)
    assert {row["model"] for row in result.ablations["tuned"].rows} == {"none"}
    assert {row["model"] for row in result.ablations["few"].rows} == {"table"}
    assert [finding.verdict for finding in result.findings] == ["not run"]
    assert any(re.match(r"pre: gone\.jsonl not in", text) for text in result.left_out)
    assert {"model CP: its data are missing", "model hybrid: its data are missing"} <= set(result.left_out)
    assert "gone.jsonl" in (tmp_path / "out" / "report.md").read_text()
    with pytest.raises(FileNotFoundError, match="3 of the 3 files"):
        relpt.reproduce(place / "kit.toml", tmp_path / "none", output=tmp_path / "other", skip_missing=True)


# -- the report -------------------------------------------------------------------------------------------------------


def test_report_sets_the_figures_side_by_side(made: relpt.Reproduction) -> None:
    text = (made.output / "report.md").read_text()
    (row,) = [
        row for row in made.summary() if (row["evaluation"], row["model"], row["inputs"]) == ("tuned", "CP", "OnlyC")
    ]
    lines = text.splitlines()
    at = lines.index("| CP | published | 0.512 | 0.256 |")
    assert lines[at + 1].startswith("|  | here |")
    assert lines[at + 1].endswith(f" {row['median']:.3f} |")
    assert lines[at + 2] == f"|  | range | {lines[at + 2].split('|')[3].strip()} | {row['low']:.3f}–{row['high']:.3f} |"
    assert "| CNN | published | 0.128 | 0.064 |" in lines
    assert "| T | published | 4 | 72 | – | 48 | – | 24 | 25 |" in lines
    assert "| models.CP.train.max_steps | 6 | 4 |" in lines
    assert "- Nothing is as in the paper \\| at all." in lines
    assert "95.7%" in text
    for heading in ("Scale and differences", "What the paper found", "Training of the models", "Data", "Versions"):
        assert f"\n## {heading}" in text
    result = json.loads((made.output / "result.json").read_text())
    assert [item["verdict"] for item in result["findings"]] == [item.verdict for item in made.findings]
    assert {"kit", "scale", "results", "left_out", "changes", "statistics", "complementarity"} <= result.keys()


def test_report_in_html_needs_nothing_else(made: relpt.Reproduction) -> None:
    pytest.importorskip("matplotlib")
    page = (made.output / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page
    assert '<tr class="quiet"><td class="name"></td><td class="name">range</td>' in page
    assert (made.output / "tuned-T.png").read_bytes().startswith(b"\x89PNG")


def test_marks_of_the_figure_are_the_published_figures(made: relpt.Reproduction) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from relpt.report import plot_ablation

    axes = plot_ablation([row for row in made.summary() if row["evaluation"] == "tuned"])
    (marks,) = [line for line in axes.lines if line.get_marker() == "D"]
    assert list(marks.get_ydata()) == [0.512, 0.256]
    bars = [bar for bar in axes.patches if bar.get_x() <= marks.get_xdata()[0] <= bar.get_x() + bar.get_width()]
    (row,) = [
        row for row in made.summary() if (row["evaluation"], row["model"], row["inputs"]) == ("tuned", "CP", "C+M")
    ]
    assert [bar.get_height() for bar in bars] == [row["mean"]]
    assert [text.get_text() for text in axes.figure.legends[0].get_texts()][-1] == "published"


def test_no_number_stands_on_a_mark() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from relpt.report import plot_ablation

    common = {"data": "D", "setting": "1 %", "metric": "accuracy", "ci95": None, "model": "M"}
    means = [(0.5, 0.52), (0.5, 0.55), (0.5, 0.5), (0.5, 0.9), (0.02, 0.04), (0.99, 0.99)]
    rows = [{**common, "inputs": f"I{i}", "mean": mean, "published": y} for i, (mean, y) in enumerate(means)]
    axes = plot_ablation(rows)
    axes.figure.canvas.draw()
    (marks,) = [line for line in axes.lines if line.get_marker() == "D"]
    centres = axes.transData.transform(marks.get_xydata())
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [i for i, (box, (x, y)) in enumerate(zip(boxes, centres, strict=True)) if box.contains(x, y)] == []


def test_panels_wrap_on_request(made: relpt.Reproduction) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from relpt.report import plot_ablation

    rows = [row for row in made.summary() if row["evaluation"] == "few"]
    titles = ["T, 3-way 1-shot", "T, 3-way 2-shot"]
    for columns, shape in ((None, (1, 2)), (1, (2, 1)), (2, (1, 2)), (3, (1, 2))):
        axes = plot_ablation(rows, columns=columns)
        assert [ax.get_title(loc="left") for ax in axes] == titles
        grid = axes[0].get_subplotspec().get_gridspec()
        assert (grid.nrows, grid.ncols) == shape


def test_pages_show_text_as_it_is() -> None:
    blocks = [Heading("a < b"), Text("*c* | d"), Grid(["", "x|y"], [["<b>", "1"]])]
    text = markdown_page("t_1", "lead", blocks)
    assert "## a &lt; b" in text
    assert "\\*c\\* \\| d" in text
    assert "|  | x\\|y |\n| --- | ---: |\n| &lt;b&gt; | 1 |" in text
    page = html_blocks(blocks)
    assert "<h2>a &lt; b</h2>" in page
    assert '<td class="name">&lt;b&gt;</td><td class="n">1</td>' in page
    assert plain([{"type": "cp", "weight": 0.5}, {"symmetric": True}]) == "type cp, weight 0.5; symmetric yes"
    assert [plain(value) for value in (None, [], 30_000, 3e-5, ["a", 1])] == ["–", "–", "30,000", "3e-05", "a, 1"]


# -- the command ------------------------------------------------------------------------------------------------------


def test_command_lists_the_kits(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce"]) == 0
    out = capsys.readouterr().out
    assert "peng2020-table5" in out
    assert max(map(len, out.splitlines())) <= 83
    assert cli.main(["reproduce", "--json"]) == 0
    assert "mtumbuka2024-strategies" in [kit["name"] for kit in json.loads(capsys.readouterr().out)]


def test_command_runs_a_kit(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reproduce", str(place / "kit.toml"), "--data", str(place / "data"), "-o", str(tmp_path / "out"), "--json"]
    words += ["--seeds", "7", "--threads", "1", "--set", "models.CP.train.max_steps=1", "--scale", "full"]
    assert cli.main([*words, "--encoder", str(place / "encoder")]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["trained"]["CP"]["steps"] == 1
    assert {row["seeds"] for row in result["results"]} == {1}
    keys = [item["key"] for item in result["changes"]]
    assert keys == ["models.CP.train.max_steps", "evaluate.tuned.seeds"]  # few has seed 7 by itself
    assert Path(result["report"]).is_file()
    assert "train CP" in printed.err


def test_command_says_what_is_wrong_in_a_line(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reproduce", str(place / "kit.toml"), "-o", str(tmp_path / "out")]
    assert cli.main([*words, "--data", str(tmp_path)]) == 1
    assert cli.main([*words, "--data", str(place / "data"), "--set", "models.CP.train.maxsteps=1"]) == 1
    assert cli.main(["reproduce", "table5"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("relpt: error:") for line in errors] == [True] * 3
    assert not (tmp_path / "out").exists()


def test_interrupted_command_says_how_to_go_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("relpt.cli_reproduce.callbacks_for", lambda args, steps: [stop])
    words = ["reproduce", str(place / "kit.toml"), "--data", str(place / "data"), "-o", str(tmp_path / "out")]
    assert cli.main(words) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_interrupted_before_there_is_anything_nothing_is_said_to_be_kept(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("relpt.reproduction._Run.model", stop)
    words = ["reproduce", str(place / "kit.toml"), "--data", str(place / "data"), "-o", str(tmp_path / "out")]
    assert cli.main(words) == 130
    assert capsys.readouterr().err == "relpt: interrupted\n"
    assert not (tmp_path / "out").exists()
