"""Reproduction kits: those that are shipped, how scales and settings are merged, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import relpt
from relpt.recipes import SCALES, kit_names, load_kit

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
PAPERS = sorted((ROOT.parent / "shared" / "papers").glob("001_*.txt"))
KIT = """
paper = "P"
table = "T"
about = "A"
differences = ["first"]
encoder.name = "base"

[data.D]
what = "w"
origin = "o"
train = "train.jsonl"
test = "test.jsonl"

[models.none]

[models.CP.train]
data = "D"
objectives = [{ type = "cp" }, { type = "mlm", weight = 0.5 }]
max_steps = 10

[models.both]
join = ["none", "CP"]

[evaluate.runs]
protocol = "fine-tuning"
data = ["D"]
seeds = [1, 2, 3]

[[published]]
data = "D"
setting = "100 %"
inputs = ["C+M", "OnlyC"]
figures.CP = [0.5, 0.25]

[[expected]]
says = "CP is above none"
evaluate = "runs"
above = "CP"
below = "none"

[small]
differences = ["second"]
encoder.name = "little"
models.CP.train.max_steps = 2
evaluate.runs.seeds = [1]
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def made(text: str = KIT) -> Path:
        path = tmp_path / "kit.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return made


# -- those that are shipped -------------------------------------------------------------------------------------------


def test_there_is_a_kit_for_each_table() -> None:
    names = kit_names()
    assert {f"peng2020-table{number}" for number in range(1, 10)} <= set(names)
    assert sum(name.startswith("mtumbuka2024-") for name in names) == 5
    assert sorted(path.stem for path in (ROOT / "recipes").glob("*.toml")) == names


@pytest.mark.parametrize("name", kit_names())
@pytest.mark.parametrize("scale", SCALES)
def test_shipped_kits_are_read(name: str, scale: str) -> None:
    kit = load_kit(name, scale)
    assert (kit.name, kit.scale, bool(kit.changes)) == (name, scale, scale == "small")
    assert kit.evaluate or kit.statistics
    printed = [figure for block in kit.published for row in block.figures.values() for figure in row]
    assert all(0 < figure < 1 for figure in printed)


@pytest.mark.parametrize("name", ["peng2020-table1", "peng2020-table5"])
def test_runs_at_full_scale_have_the_settings_of_tables_7_and_10(name: str) -> None:
    kit = load_kit(name, "full")
    (run,) = kit.evaluate.values()
    wanted = {"learning_rate": 3e-5, "batch_size": 64, "epochs": 6, "max_length": 100}
    assert wanted.items() <= run.options.items()
    assert run.seeds == [42, 43, 44, 45, 46]
    batches = {"MTB": 256, "CP": 2048}
    for model, own in kit.models.items():
        if own.train is not None:
            wanted = {"pairs_per_step": batches[model], "learning_rate": 3e-5, "max_length": 64, "p_blank": 0.7}
            assert wanted.items() <= own.train.options.items()


@pytest.mark.real_data
@pytest.mark.skipif(not PAPERS, reason=f"no text of Peng et al. 2020 in {ROOT.parent / 'shared' / 'papers'}")
@pytest.mark.parametrize("name", ["peng2020-table1", "peng2020-table5", "peng2020-table6"])
def test_published_figures_are_those_of_the_paper(name: str) -> None:
    """A row of the paper's text is a model's name and its figures in the order of the kit's blocks."""
    text = PAPERS[0].read_text(encoding="utf-8")
    rows: dict[tuple[str, str], list[float]] = {}
    for block in load_kit(name, "full").published:
        for model, figures in block.figures.items():
            rows.setdefault((block.data, model), []).extend(figures)
    assert rows
    for (_, model), figures in rows.items():
        assert " ".join([model, *(f"{figure:.3f}" for figure in figures)]) in text


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data: there is no folder {DATA}")
@pytest.mark.parametrize("name", kit_names())
def test_the_small_scale_needs_no_licensed_file(name: str) -> None:
    kit = load_kit(name)
    used = {one for run in kit.evaluate.values() for one in run.data}
    used |= {one for counts in kit.statistics.values() for one in counts.data}
    used |= {one for model in kit.models.values() for one in model.data_sets()}
    files = [file for one in used for file in kit.data[one].files()]
    assert files
    assert [file for file in files if not (DATA / file).is_file()] == []


# -- scales and settings ----------------------------------------------------------------------------------------------


def test_small_is_laid_over_full(write: Any) -> None:
    full, small = (load_kit(write(), scale) for scale in ("full", "small"))
    assert full.changes == []
    assert full.differences == ["first"]
    assert small.differences == ["first", "second"]
    assert (full.encoder, small.encoder) == ({"name": "base"}, {"name": "little"})
    assert small.models["CP"].train is not None
    assert small.models["CP"].train.options == {"max_steps": 2}
    assert small.changes == [
        ("encoder.name", "base", "little"),
        ("models.CP.train.max_steps", 10, 2),
        ("evaluate.runs.seeds", [1, 2, 3], [1]),
    ]


def test_settings_are_laid_over_the_scale(write: Any) -> None:
    kit = load_kit(write(), "full", ['encoder.name = "mine"', "models.CP.train.learning_rate = 1e-4"])
    assert kit.changes == [("encoder.name", "base", "mine"), ("models.CP.train.learning_rate", None, 1e-4)]


# -- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("models.CP.train.maxsteps = 3", r"= 3': models\.CP\.train has a key 'maxsteps'.*did you mean max_steps"),
        ('models.CP.train.max_steps = "3"', r"models\.CP\.train\.max_steps is '3', expected a whole number"),
        ("models.CP.train.max_steps = 0", r"models\.CP\.train cannot be run: max_steps is 0"),
        ('models.CP.train.data = "E"', r"models\.CP names the data set 'E', expected one of D"),
        ('models.CP.train.objectives = [{type = "cpp"}]', r"objectives\[0\] is .*expected a table with type cp, mlm"),
        ('models.CP.train.objectives = [{type = "cp", tau = 1}]', r"objectives\[0\] has a key 'tau'"),
        ('models.CP.train.objectives = [{type = "cp", symmetric = 1}]', r"symmetric is 1, expected true or false"),
        ('models.both.join = ["none", "MTB"]', r"models\.both names the model 'MTB', expected one of none, CP, both"),
        ('models.both.start = "CP"', r"models\.both has two of start, join, entities and cnn"),
        ("models.both.cnn = {}", r"models\.both has two of start, join, entities and cnn"),
        ('models.CP.entities = "none"', r"models\.CP has one of entities and data"),
        ("models.none.cnn = {}", r"models\.none has one of entities and data, or of cnn and data"),
        ('models.CP = {cnn = {}, data = "D"}', r"models\.CP has a cnn and train; expected data, cnn and tuning alone"),
        ('models.C = {cnn = {windows = 3}, data = "D"}', r"C\.cnn has a key 'windows'.*did you mean window"),
        ('models.C = {cnn = {tags = "pos"}, data = "D"}', r"C\.cnn\.tags is 'pos', expected a list, each a word"),
        ('models.C = {cnn = {vectors = "G"}, data = "D"}', r"models\.C names the data set 'G', expected one of D"),
        ("models.none.tuning.epoch = 3", r"models\.none\.tuning has a key 'epoch'.*did you mean epochs"),
        ('evaluate.runs.protocol = "zero-shot"', r"evaluate\.runs\.protocol is 'zero-shot', expected fine-tuning or"),
        ('evaluate.runs.seeds = ["a"]', r"evaluate\.runs\.seeds is \['a'\], expected a list, each a whole number"),
        ("evaluate.runs.options.epoch = 3", r"evaluate\.runs\.options has a key 'epoch'.*did you mean epochs"),
        ('data.D.train = 3', r"data\.D\.train is 3, expected a word or a list, each a word or none"),
        ('data.E.what = "w"', r"data\.E has no origin, expected a word"),
        ('encoder.representation = 1', r"encoder\.representation is 1, expected a word"),
        ("published = 3", r"published is 3, expected a list"),
        ('published = [{data = "D", setting = "1 %", inputs = ["C+M"], figures.CP = [1.0, 2.0]}]', r"CP has not 1 fig"),
        ('expected = [{says = "s", evaluate = "x", above = "a", below = "b"}]', r"the evaluation 'x', expected one"),
        ('expected = [{says = "s", evaluate = "runs", above = "XP", below = "CP"}]', r"expected\[0\]\.above.*'XP'"),
        ('statistics.s = {data = ["D"], show = ["tokens"]}', r"show holds 'tokens', expected relations, instances"),
        ('evaluate.runs.data = ["D"]\ndata.D.train = []', r"data\.D has no train, which evaluate\.runs needs"),
        ("models = 3", r"^setting 'models = 3': models is 3, expected a table"),
        ("small", "is no valid TOML"),
    ],
)  # fmt: skip
def test_errors_name_setting_key_got_and_expected(write: Any, setting: str, message: str) -> None:
    with pytest.raises(relpt.FormatError, match=message):
        load_kit(write(), "full", [setting])


def test_a_broken_file_is_named(write: Any) -> None:
    with pytest.raises(relpt.FormatError, match=r"kit\.toml: is no valid TOML \("):
        load_kit(write("paper = "))
    with pytest.raises(relpt.FormatError, match="the kit has no paper, expected a word"):
        load_kit(write('[data.D]\nwhat = "w"\norigin = "o"'))
    with pytest.raises(relpt.FormatError, match="evaluates nothing"):
        load_kit(write('paper = "P"\ntable = "T"\nabout = "A"\n[data.D]\nwhat = "w"\norigin = "o"'))


def test_a_kit_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="no kit 'peng2020-tabel5'; did you mean peng2020-table5"):
        load_kit("peng2020-tabel5")
    with pytest.raises(FileNotFoundError, match=r"mine\.toml: there is no such file; relpt ships the kits"):
        load_kit("mine.toml")


@pytest.mark.parametrize(
    ("settings", "blamed"),
    [
        (["models.CP.train.max_stepz = 3"], "setting 'models.CP.train.max_stepz = 3': models.CP.train has a key"),
        (["models.CP.train.max_steps = 3", "evaluate.runs.sedes = [1]"], "setting 'evaluate.runs.sedes = [1]': eval"),
        # what needs another setting is not at fault
        (
            ["models.N.start = 'M'", "models.M.start = 'none'", "evaluate.runs.data = ['E']"],
            'setting "evaluate.runs.da',
        ),
        # two are: both are named
        (
            ["models.A.x = 1", "models.B.y = 2"],
            "setting 'models.A.x = 1', setting 'models.B.y = 2': models.A has a key",
        ),
    ],
)
def test_a_setting_is_blamed_for_its_own_mistakes(write: Any, settings: list[str], blamed: str) -> None:
    with pytest.raises(relpt.FormatError) as error:
        load_kit(write(), "full", settings)
    assert str(error.value).startswith(blamed)


def test_a_file_is_blamed_for_its_own_mistakes_whatever_the_settings(write: Any) -> None:
    path = write()
    path.write_text(path.read_text() + "\n[models.C]\nstrat = 'none'\n")
    with pytest.raises(relpt.FormatError, match=rf"^{path}: models\.C has a key 'strat'"):
        load_kit(path, "full", ["models.CP.train.max_steps = 3"])
