"""The command line: outputs, exit codes, runs that are refused, resumed and interrupted."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_dataset, tiny_encoder_folder, write_jsonl

import relpt
from relpt import cli, cli_finetune, cli_shared
from relpt.data.formats import FORMATS
from relpt.devices import cuda_facts
from relpt.metrics import METRICS
from relpt.objectives import POOLINGS
from relpt.scores import BAG_AUC
from relpt.settings import UsageError, make_trainer, parse_objectives, parse_settings
from relpt.trainer import LOSS_REPRESENTATION, REPRESENTATION

ROOT = Path(__file__).resolve().parent.parent
STEP_FIELDS = ("step", "loss", "loss_cp", "loss_mlm", "accuracy", "lr", "grad_norm", "sentences_per_second")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an encoder and data files."""
    folder = tmp_path_factory.mktemp("cli")
    tiny_encoder_folder(folder / "encoder")
    records = tiny_dataset(6, 12)
    write_jsonl(folder / "data.jsonl", records)
    write_jsonl(folder / "more.jsonl", tiny_dataset(6, 4, seed=1))
    bad = [dict(record) for record in records[:5]]
    bad[2] = {**bad[2], "h": {**bad[2]["h"], "pos": [3, 900]}}
    write_jsonl(folder / "bad.jsonl", bad)
    (folder / "torn.jsonl").write_text("{\n")
    chars = {"tokens": ["Ada", "met", "Bob"], "h": {"pos": [0, 3], "name": "Ada"}, "t": {"pos": [8, 11], "name": "Bob"}}
    write_jsonl(folder / "chars.jsonl", [chars])
    (folder / "tuned").mkdir()
    (folder / "tuned" / "rows.jsonl").touch()
    return folder


@pytest.fixture
def relpt_command(place, monkeypatch, capfd):
    """Runs a command line in that folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(place)

    def run(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return code, out, err

    return run


def pretrain(run, *more, steps=6):
    fixed = ("--data", "data.jsonl", "--encoder", "encoder", "--pairs", 4, "--threads", 1, "--steps", steps)
    return ("pretrain", *fixed, "-o", run, *more)


@pytest.fixture(scope="module")
def finished(place):
    """A finished run of 6 steps."""
    here = os.getcwd()
    os.chdir(place)
    try:
        assert cli.main([str(word) for word in pretrain("finished", "--quiet", "--json")]) == 0
    finally:
        os.chdir(here)
    return place / "finished"


def history(run):
    return [json.loads(line) for line in (Path(run) / "history.jsonl").read_text().splitlines()]


def same_records(first, second):
    """Equal but for the speed."""
    timeless = [[{k: v for k, v in r.items() if k != "sentences_per_second"} for r in side] for side in (first, second)]
    return timeless[0] == timeless[1]


# -- the command line itself ------------------------------------------------------------------------------------------


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom relpt import cli\n"
        "try:\n    cli.main(['pretrain', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'tokenizers', 'safetensors', 'matplotlib', 'pandas', 'tqdm', 'relpt.trainer'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stderr.strip() == "[]"
    assert max(map(len, run.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", ["demo", "info", "check", "pretrain", "encode", "fewshot"])
def test_every_command_has_help_and_the_common_options(relpt_command, command):
    code, out, err = relpt_command(command, "--help")
    assert (code, err) == (0, "")
    assert "--json" in out
    assert "--debug" in out


def test_help_tells_the_defaults(relpt_command):
    """The trainer's, the classifier's and the evaluation's, which are named in the commands once more."""
    defaults, presets = relpt.CPTrainer(None).options, [relpt.CPTrainer(None, preset=p).options for p in cli.PRESETS]
    text = " ".join(relpt_command("pretrain", "--help")[1].split())
    assert f"steps of the run (default: {defaults['max_steps']})" in text
    assert f"pairs of sentences a step (default: {defaults['pairs_per_step']})" in text
    assert f"word pieces a sentence (default: {defaults['max_length']})" in text
    (rate,) = {options["learning_rate"] for options in presets}
    written = [f"{value:.0e}".replace("e-0", "e-") for value in (defaults["learning_rate"], rate)]
    assert f"learning rate (default: {written[0]}, of the presets {written[1]})" in text
    names = ("max_steps", "pairs_per_step", "max_length")
    assert all(options[name] == defaults[name] for options in presets for name in names)
    length = inspect.signature(relpt.Classifier).parameters["max_length"].default
    assert f"word pieces a sentence (default: {length})" in " ".join(relpt_command("finetune", "--help")[1].split())
    for command, call in (("encode", relpt.Encoder.encode), ("fewshot", relpt.FewShot.evaluate)):
        length = inspect.signature(call).parameters["max_length"].default
        assert f"word pieces a sentence (default: {length})" in " ".join(relpt_command(command, "--help")[1].split())


def test_a_usage_error_is_a_line_and_where_to_look(relpt_command):
    code, out, err = relpt_command("pretrain", "--data", "data.jsonl", "--steps", "0")
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert first == "relpt pretrain: error: argument --steps: '0': expected a whole number from 1 on"
    assert second == "relpt pretrain --help tells its options"
    assert relpt_command()[2].splitlines()[1] == "relpt --help tells the commands"


def test_ctrl_c_while_the_parser_is_built(relpt_command, monkeypatch):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build_parser", stop)
    assert relpt_command("info") == (130, "", "relpt: interrupted\n")


def test_version(relpt_command):
    assert relpt_command("--version")[1].strip() == f"relpt {relpt.__version__}"


def test_python_m_is_the_same(place):
    run = subprocess.run(
        [sys.executable, "-m", "relpt", "check", str(place / "data.jsonl")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "instances           72" in run.stdout


def test_presets_are_the_trainers():
    from relpt.trainer import PRESETS

    assert set(cli.PRESETS) == set(PRESETS)


def test_formats_and_measures_are_those_of_the_package():
    """They are named in the commands once more, so that --help loads nothing."""
    assert tuple(FORMATS) == cli_shared.FORMATS
    assert (*METRICS, BAG_AUC) == cli_finetune._METRICS
    assert cli_finetune._POOLINGS == POOLINGS


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nonsense",),
        ("fewshot", "--model", "x"),
        ("fewshot", "--model", "encoder", "--data", "data.jsonl", "--inputs", "C+X"),
        ("fewshot", "--model", "encoder", "--data", "data.jsonl", "--way", "0"),
        ("fewshot", "--model", "encoder", "--data", "data.jsonl", "--similarity", "manhattan"),
        ("encode", "--model", "encoder", "data.jsonl"),
        pretrain("never", "--preset", "papers"),
        pretrain("never", "--set", "p_blnk=0.3"),
        pretrain("never", "--set", "p_blank=often"),
        pretrain("never", "--set", "p_blank"),
        pretrain("never", "--set", "max_steps=7"),
    ],
)
def test_usage_errors_exit_2_and_write_nothing(relpt_command, place, words):
    code, out, err = relpt_command(*words)
    assert (code, out) == (2, "")
    assert "error:" in err
    assert "Traceback" not in err
    assert not (place / "never").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("check", "missing.jsonl"), "missing.jsonl: no such file"),
        (("encode", "--model", "encoder", "bad.jsonl", "-o", "x.npy"), "bad.jsonl:3"),
        (("encode", "--model", "encoder", "data.jsonl", "-o", "no/such/x.npy"), "no/such"),
        (("encode", "--model", "encoder", "data.jsonl", "-o", "encoder"), "encoder is a folder"),
        (("fewshot", "--model", "encoder", "--data", "data.jsonl", "--way", "7"), "n_way is 7"),
        (("fewshot", "--model", "encoder", "--data", "data.jsonl", "--shot", "1,12"), "k_shot + n_query is 13"),
        (("encode", "--model", "data.jsonl", "data.jsonl", "-o", "x.npy"), "data.jsonl is a file"),
        (pretrain("never", "--set", "p_blank=3"), "p_blank is 3"),
        *(
            pytest.param(
                (*words, "--device", "cuda"),
                "; or use device='cpu' (--device cpu)",
                marks=pytest.mark.skipif(cuda_facts()["problem"] is None, reason="this machine has a GPU"),
            )
            for words in (
                pretrain("never"),
                ("encode", "--model", "encoder", "data.jsonl", "-o", "x.npy"),
                ("fewshot", "--model", "encoder", "--data", "data.jsonl", "--way", "2"),
                ("ablate", "--model", "encoder", "--data", "data.jsonl", "-o", "table"),
            )
        ),
        (pretrain("never", "--dtype", "float16"), "float32"),
        (pretrain("data.jsonl"), "data.jsonl is a file"),
        (("check", "data.jsonl", "--format", "tacred", "--spans", "char"), "leave out spans (--spans)"),
        (("finetune", "--model", "encoder", "--train", "data.jsonl"), "give dev=… (--dev), test=… (--test), or both"),
        (("encode", "--model", "encoder", "torn.jsonl", "-o", "x.npy"), 'pass on_bad="skip" (--on-bad skip)'),
        (("encode", "--model", "encoder", "chars.jsonl", "-o", "x.npy"), 'pass spans="char" (--spans char)'),
        (pretrain("encoder"), "holds an encoder"),
        (pretrain("encoder", "--resume"), "holds an encoder"),
        (pretrain("tuned"), "holds runs of relpt finetune or relpt ablate"),
        (pretrain("tuned", "--resume"), "holds runs of relpt finetune or relpt ablate"),
        (pretrain("data.jsonl/run"), "data.jsonl/run cannot be written (data.jsonl is a file); give another path"),
    ],
)
def test_errors_are_one_line_and_exit_1(relpt_command, place, words, said):
    code, out, err = relpt_command(*words, "--quiet", "--json")
    assert (code, out) == (1, "")
    assert err.startswith("relpt: error: ")
    assert err.count("\n") == 1
    assert said in err
    assert not (place / "never").exists()
    assert not (place / "x.npy").exists()


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("encode", "--model", "encoder", "data.jsonl", "-o", "closed/x.npy"), "-o"),
        (("predict", "--model", "encoder", "data.jsonl", "-o", "closed/x.jsonl"), "-o"),
        (("fewshot", "--model", "encoder", "--predict", "e.json", "-o", "closed/x.json"), "-o"),
        (("fewshot", "--data", "data.jsonl", "--write-episodes", "closed/x.json"), "--write-episodes"),
        (("demo", "--encoder", "encoder", "--out", "closed/new"), "--out"),
        (("finetune", "--model", "encoder", "--train", "data.jsonl", "--dev", "more.jsonl", "-o", "closed"), "-o"),
        (("ablate", "--model", "encoder", "--data", "data.jsonl", "-o", "closed/new"), "-o"),
        (("reproduce", "kit.toml", "--data", ".", "-o", "closed/new/newer"), "-o"),
        (pretrain("closed/new"), "-o"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(relpt_command, place, monkeypatch, words, option):
    """Also where whoever runs this may write everywhere."""
    (place / "closed").mkdir(exist_ok=True)
    (place / "kit.toml").write_text(
        'paper = "A"\ntable = "1"\nabout = "x"\ndata.T = {what = "x", origin = "y", train = "data.jsonl"}\n'
        'statistics.z = {data = ["T"], show = ["train"]}\n'
    )

    def refused(*args, dir=None, **more):
        raise PermissionError(13, "Permission denied", str(dir))

    def work(*args, **more):
        raise AssertionError("work was done")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    for name in ("relpt.encoder.Encoder.encode", "relpt.trainer.Trainer.fit", "relpt.classifier.Classifier.fit"):
        monkeypatch.setattr(name, work)
    monkeypatch.setattr("relpt.fewshot.FewShot.draw", work)
    monkeypatch.setattr("relpt.reproduction._Run.all", work)
    code, out, err = relpt_command(*words, "-q")
    assert (code, out) == (1, "")
    assert re.search(f"closed.* cannot be written .Permission denied.; give another path with {option}$", err.strip())
    assert not list((place / "closed").iterdir())


def test_debug_shows_the_traceback(relpt_command):
    with pytest.raises(FileNotFoundError):
        relpt_command("check", "missing.jsonl", "--debug")


def test_a_closed_pipe_is_no_traceback(place):
    command = f"{sys.executable} -m relpt check {' '.join(['data.jsonl'] * 2000)} | head -n 1"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(["bash", "-c", command], cwd=place, env=env, capture_output=True, text=True)
    assert run.stdout == "data.jsonl\n"
    assert run.stderr == ""


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_are_parsed_by_the_options_types():
    texts = ["p-blank=0.5", "schedule=cosine", "symmetric=false", "warmup_steps=None", "adam_betas=0.9,0.98"]
    texts += ["relation_sampling=0.5", "input_mix={'C+M': 1, 'OnlyC': 0.5}", "learning_rate=1"]
    assert parse_settings(texts) == {
        "p_blank": 0.5,
        "schedule": "cosine",
        "symmetric": False,
        "warmup_steps": None,
        "adam_betas": (0.9, 0.98),
        "relation_sampling": 0.5,
        "input_mix": {"C+M": 1, "OnlyC": 0.5},
        "learning_rate": 1,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("temprature=0.1", "did you mean temperature"),
        ("zzz=1", "there are similarity"),
        ("symmetric=1", "expected true or false"),
        ("max_steps=3.5", "expected a whole number"),
        ("adam_betas=0.9", "expected 2 numbers"),
        ("input_mix=C+M", "expected a dict"),
        ("warmup_steps=soon", "expected a whole number or none"),
    ],
)
def test_bad_settings_name_the_option(text, said):
    with pytest.raises(UsageError, match=said) as error:
        parse_settings([text])
    assert text in str(error.value)


# -- objectives -------------------------------------------------------------------------------------------------------


def trainer_of(*texts, settings=(), preset=None, **flags):
    return make_trainer(parse_objectives(texts), preset, flags, settings)


def test_objectives_of_ready_made_trainers():
    plain = trainer_of()
    assert type(plain) is relpt.CPTrainer
    assert plain.options == relpt.CPTrainer(None).options
    mixed = trainer_of("cp:2", "mlm:0.5", preset="paper", settings=["temperature=3"], max_steps=7)
    assert type(mixed) is relpt.CPTrainer
    names = ("cp_weight", "mlm_weight", "temperature", "max_steps", "similarity")
    assert [mixed.options[name] for name in names] == [2.0, 0.5, 3, 7, "dot"]
    blanks = trainer_of("mtb, mlm", settings=["hard_share=0.1"])
    assert type(blanks) is relpt.MTBTrainer
    assert [blanks.options[name] for name in ("mtb_weight", "mlm_weight", "hard_share")] == [1.0, 1.0, 0.1]


def test_objectives_put_together():
    trainer = trainer_of("cp:0.5,rc", settings=["rc.dropout=0", "rc.source=relations", "p_blank=0.2"], max_steps=9)
    assert type(trainer) is relpt.Trainer
    cp, rc = trainer.objectives
    assert (cp.name, cp.weight, rc.name, rc.weight, rc.dropout, rc.source) == ("cp", 0.5, "rc", 1.0, 0, "relations")
    assert (trainer.options["p_blank"], trainer.options["max_steps"]) == (0.2, 9)
    assert trainer_of("mil,cp", pairs_per_step=8).options["pairs_per_step"] == 8  # CP's
    assert trainer_of("rc", pairs_per_step=8)._samples() == 16


@pytest.mark.parametrize(
    ("texts", "more", "said"),
    [
        (["cq"], {}, "there is no objective 'cq'; there are cp, mlm, span_mlm, sbo, mtb, ep, rc, mil, prototypes, "),
        (["cp,cp"], {}, "cp is named twice"),
        (["cp:much"], {}, "the weight is 'much', expected a number"),
        (["mtb"], {"preset": "paper"}, "is of the objective cp, not of mtb"),
        (["cp,rc"], {"preset": "paper"}, "is of cp and mlm alone"),
        (["cp:1"], {"settings": ["cp_weight=2"]}, "cp_weight is given twice"),
        (["rc:1"], {"settings": ["rc.weight=2"]}, r"rc\.weight is given twice"),
        (["rc"], {"settings": ["rc.droput=0"]}, r"did you mean rc\.dropout"),
        (["rc"], {"settings": ["mtb.hard_share=0"]}, r"there is no option 'mtb\.hard_share'"),
        (["mtb"], {"settings": ["symmetric=true"]}, "there is no option 'symmetric'"),
        (["mil"], {"pairs_per_step": 8}, "no objective of mil draws pairs: .*; leave out --pairs"),
        (["prototypes"], {"settings": ["pairs_per_step=8"]}, "no objective of prototypes draws pairs"),
        (["rc"], {"settings": ["sentences_per_step=8"], "pairs_per_step": 8}, "no objective of rc draws pairs"),
    ],
)
def test_objectives_that_do_not_go(texts, more, said):
    with pytest.raises(UsageError, match=said):
        trainer_of(*texts, **more)


# -- info and check ---------------------------------------------------------------------------------------------------


def test_info(relpt_command):
    code, out, err = relpt_command("info")
    assert (code, err) == (0, "")
    for name in ("versions", "instructions", "bfloat16", "int8", "threads", "memory", "CUDA", "MiniLM"):
        assert any(line.startswith(name) for line in out.splitlines())
    facts = json.loads(relpt_command("info", "--json")[1])
    assert facts["versions"]["relpt"] == relpt.__version__
    assert facts["cpu"]["level"] in facts["cpu"]["levels"]
    assert facts["threads"]["default"] >= 1
    assert facts["cuda"]["available"] is (facts["cuda"]["problem"] is None)
    assert facts["cuda"]["why"]
    if not facts["cuda"]["available"]:
        assert re.search("is not built|no NVIDIA driver|no GPU|cuBLASLt", facts["cuda"]["why"])


def test_info_says_why_there_are_so_many_threads():
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-m", "relpt", "info", "--json"], cwd=ROOT, env=env, capture_output=True)
    threads = json.loads(run.stdout)["threads"]
    assert threads["default"] == 1
    assert "OMP_NUM_THREADS=1" in threads["why"]


def test_check_of_good_data(relpt_command):
    code, out, err = relpt_command("check", "data.jsonl", "more.jsonl")
    assert (code, err) == (0, "")
    assert "72" in out
    assert "more.jsonl" in out
    assert max(map(len, out.splitlines())) <= 80


def test_relabel_writes_patched_data(relpt_command, tmp_path):
    records = [{**record, "id": f"e{n}"} for n, record in enumerate(tiny_dataset(2, 2))]
    data = write_jsonl(tmp_path / "data.jsonl", records)
    patch = tmp_path / "patch.json"
    patch.write_text(json.dumps({"e0": "other", "e1": records[1]["relation"]}))
    new = tmp_path / "new.jsonl"
    code, _, err = relpt_command("relabel", data, patch, "-o", new)
    assert code == 1
    assert "--drop-missing" in err
    assert not new.exists()
    code, out, _ = relpt_command("relabel", data, patch, "-o", new, "--keep-missing", "--json")
    assert (code, json.loads(out)) == (0, {"output": str(new), "instances": 4, "changed": 1, "left_out": 0})
    assert [i.relation for i in relpt.load(new)] == ["other", *(record["relation"] for record in records[1:])]
    code, out, _ = relpt_command("relabel", data, patch, "-o", new, "--drop-missing")
    assert code == 0
    assert "2 instances; relations changed 1, instances left out 2" in out
    assert [i.id for i in relpt.load(new)] == ["e0", "e1"]


def test_check_lists_bad_records_and_exits_1(relpt_command):
    code, out, err = relpt_command("check", "bad.jsonl")
    assert (code, err) == (1, "")
    assert "bad.jsonl:3: h.pos" in out
    code, out, _ = relpt_command("check", "bad.jsonl", "--show", 0)
    assert code == 1
    assert "1 more" in out
    code, out, _ = relpt_command("check", "bad.jsonl", "data.jsonl", "--json")
    found = json.loads(out)
    assert code == 1
    assert found["bad"] == 1
    assert [report["n"] for report in found["files"]] == [4, 72]
    assert found["files"][0]["bad"][0]["line"] == 3


def test_check_of_a_file_of_which_nothing_can_be_read(relpt_command, place):
    """No figures of nothing; one mistake in all records is told once."""
    write_jsonl(place / "alien.jsonl", [*({"sentence": "x", "n": n} for n in range(30)), {"text": "x y"}])
    code, out, err = relpt_command("check", "alien.jsonl")
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[:2] == ["alien.jsonl", "  none of its 31 records can be read:"]
    assert lines[2].startswith("    alien.jsonl:1: text: the record has neither text nor tokens")
    assert lines[2].endswith("(and 29 more like it)")
    assert lines[3].startswith("    alien.jsonl:31: h: missing")
    assert all(name in " ".join(lines[4:]) for name in ("--format", *FORMATS))
    assert "median" not in out
    found = json.loads(relpt_command("check", "alien.jsonl", "--json")[1])
    assert (found["bad"], len(found["files"][0]["bad"]), found["files"][0]["n"]) == (31, 31, 0)


# -- pretrain ---------------------------------------------------------------------------------------------------------


def test_pretrain_writes_a_run_that_opens(finished, place):
    names = {path.name for path in finished.iterdir()}
    expected = {"config.json", "model.safetensors", "tokenizer.json", "relpt.json", "history.jsonl", "checkpoints"}
    assert expected <= names
    records = history(finished)
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert all(field in records[0] for field in STEP_FIELDS)
    card = json.loads((finished / "relpt.json").read_text())
    assert card["options"]["max_steps"] == 6
    assert card["options"]["pairs_per_step"] == 4
    assert card["options"]["p_blank"] == relpt.CPTrainer(None).options["p_blank"]
    assert card["metrics"]["steps"] == 6
    assert card["metrics"]["loss_last"] == records[-1]["loss"]
    assert {"markers", "data", "seed", "versions"} <= card.keys()
    encoder = relpt.Encoder.from_pretrained(finished)
    start = relpt.Encoder.from_pretrained(place / "encoder", representation=encoder.representation)
    sentence = tiny_dataset(1, 1)[0]
    assert not np.allclose(encoder.encode(sentence), start.encode(sentence))


def test_pretrain_fits_a_projection_last(finished, place, relpt_command):
    """To the final weights, and where it is asked for alone."""
    assert relpt.Encoder.from_pretrained(finished).projection is None
    assert relpt_command(*pretrain("projected"), "--data", "data.jsonl", "--projection")[0] == 0
    encoder = relpt.Encoder.from_pretrained(place / "projected")
    last = max((place / "projected" / "checkpoints").iterdir())
    checkpoint = relpt.Encoder.from_pretrained(last)
    assert checkpoint.projection is None
    trained = relpt.load(place / "data.jsonl").tokenize(checkpoint, max_length=64)
    checkpoint.fit_projection(trained, max_length=64)
    for name in ("weight", "bias"):
        np.testing.assert_array_equal(getattr(encoder.projection, name), getattr(checkpoint.projection, name))


def test_pretrain_says_what_came_out(relpt_command):
    code, out, err = relpt_command(*pretrain("told"), "--data", "data.jsonl", "more.jsonl")
    assert code == 0
    assert "96 instances" in err  # the last --data wins, with both files
    assert "Pre-training is complete." in out
    assert "--model told" in out
    assert max(map(len, out.splitlines())) <= 80


def test_json_is_all_of_stdout(relpt_command):
    code, out, _ = relpt_command(*pretrain("as-json"), "--json", "-v")
    result = json.loads(out)
    assert code == 0
    assert result["status"] == "finished"
    assert result["steps"] == 6
    assert Path(result["checkpoint"]).is_dir()


def test_pretrain_by_other_objectives(relpt_command, place):
    code, out, _ = relpt_command(*pretrain("joint"), "--objective", "cp:1,rc:0.5", "--set", "rc.source=relations")
    assert code == 0
    assert "relations" in out
    assert {"heads.safetensors", "model.safetensors"} <= {path.name for path in (place / "joint").iterdir()}
    card = json.loads((place / "joint" / "relpt.json").read_text())
    assert (card["objective"], len(card["relations"])) == ("CP+RC", 6)
    assert {"loss_cp", "loss_rc", "accuracy_rc"} < history(place / "joint")[0].keys()
    assert card["metrics"]["loss_rc_last"] == history(place / "joint")[-1]["loss_rc"]
    words = ("--objective", "prototypes", "--set", "prototypes.n_way=3", "--set", "prototypes.episodes=2")
    code, _, err = relpt_command(*pretrain("episodes"), *words)
    assert code == 2
    assert "leave out --pairs" in err
    given = pretrain("episodes")
    at = given.index("--pairs")
    assert relpt_command(*given[:at], *given[at + 2 :], *words)[0] == 0
    assert [record["sentences"] for record in history(place / "episodes")] == [12] * 6
    code, _, err = relpt_command(*pretrain("adapted"), "--objective", "cp,domain:0.5")
    assert code == 2
    assert "give files of it with --target" in err
    assert not (place / "adapted").exists()
    words = ("--objective", "span_mlm:1,sbo:0.5,rc", "--set", "sbo.position_size=8")
    assert relpt_command(*pretrain("spans"), *words)[0] == 0
    assert {"loss_span_mlm", "loss_sbo", "loss_rc", "accuracy_rc"} < history(place / "spans")[0].keys()
    code, _, err = relpt_command(*pretrain("matched"), "--objective", "mtb")
    assert code == 1
    assert "1 pair of entities stands in two different sentences" in err
    assert not (place / "matched").exists()
    code, _, err = relpt_command(*pretrain("unknown"), "--objective", "cq")
    assert code == 2


def test_pretrain_with_a_graph(relpt_command, place):
    sentences = [i for i in relpt.load(place / "data.jsonl") if i.relation != "r0"]
    triples = [(i.head_id or i.head_name, i.relation, i.tail_id or i.tail_name) for i in sentences]
    graph = relpt.GraphEmbeddings(dim=4, epochs=1, negatives=2).fit(triples).save(place / "graph")
    words = ("--objective", "alignment", "--set", f"alignment.graph={graph}")
    code, _, err = relpt_command(*pretrain("aligned"), *words)
    assert code == 0
    assert "loss_alignment" in history(place / "aligned")[0]
    assert "alignment: the graph knows 5 of data.jsonl's 6 relations; 12 of 72 sentences" in err
    code, _, err = relpt_command(*pretrain("no graph"), "--objective", "alignment")
    assert code == 1
    assert "graph of alignment is None" in err
    assert "(--set alignment.graph=DIR)" in err
    words = ("--objective", "rc", "--graph", graph, "--graph-dropout", "0.5")
    assert relpt_command(*pretrain("injected"), *words)[0] == 0
    assert relpt.Encoder.from_pretrained(place / "injected").injection.dropout == 0.5
    code, _, err = relpt_command(*pretrain("no rate"), "--graph-dropout", "0.5")
    assert code == 2
    assert "--graph-dropout needs --graph" in err


def test_presets_and_options_reach_the_trainer(relpt_command, place):
    words = ("--preset", "paper", "--lr", "1e-4", "--set", "p_blank=0.25", "--max-length", 32, "--seed", 7)
    assert relpt_command(*pretrain("preset", *words, steps=1), "--representation", "cls")[0] == 0
    card = json.loads((place / "preset" / "relpt.json").read_text())
    options = card["options"]
    given = {"preset": "paper", "learning_rate": 1e-4, "p_blank": 0.25, "max_length": 32, "seed": 7, "max_steps": 1}
    assert given.items() <= options.items()
    assert options["similarity"] == "dot"  # the preset's
    assert card["representation"] == "cls"


@pytest.mark.parametrize(
    ("words", "representation", "compared"),
    [
        ((), REPRESENTATION, LOSS_REPRESENTATION),
        (("--set", "loss_representation=mean"), REPRESENTATION, "mean"),
        (("--representation", "cls"), "cls", None),
        (("--representation", "mention_mean+cls"), "mention_mean+cls", None),
        (("--preset", "paper"), "entity_start", None),
    ],
)
def test_the_representation_where_nobody_names_one(relpt_command, place, words, representation, compared):
    run = f"represented-{representation}-{compared}"
    assert relpt_command(*pretrain(run, *words, steps=1))[0] == 0
    card = json.loads((place / run / "relpt.json").read_text())
    assert (card["representation"], card["options"]["loss_representation"]) == (representation, compared)


def test_a_finished_run_is_not_overwritten(relpt_command, finished):
    before = (finished / "model.safetensors").read_bytes(), (finished / "history.jsonl").read_text()
    code, out, err = relpt_command(*pretrain("finished"))
    assert (code, out) == (1, "")
    assert "--resume" in err
    assert ((finished / "model.safetensors").read_bytes(), (finished / "history.jsonl").read_text()) == before


def test_resume_goes_on_and_truncates_the_history(relpt_command, place, finished, monkeypatch):
    """Stopped after step 5 with a checkpoint at 4: the resumed run equals the uninterrupted one."""
    from relpt.loop import Loop

    save, step = Loop.save, Loop.step

    def killed(loop):
        if len(loop.history) == 5:
            raise SystemError("killed")
        return step(loop)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "step", killed)
        code, _, err = relpt_command(*pretrain("resumed", "--checkpoint-every", 4))
        assert code == 1
        assert "SystemError: killed" in err
    assert len(history(place / "resumed")) == 5
    assert not (place / "resumed" / "config.json").exists()
    code, _, err = relpt_command("encode", "--model", "resumed", "data.jsonl", "-o", "x.npy")
    assert code == 1
    assert "step-00000004" in err
    assert Loop.save is save
    code, _, err = relpt_command(*pretrain("resumed", "--checkpoint-every", 4, "--resume"))
    assert code == 0
    assert "step-00000004" in err
    assert same_records(history(place / "resumed"), history(finished))
    weights = [(run / "model.safetensors").read_bytes() for run in (place / "resumed", finished)]
    assert weights[0] == weights[1]


def test_resume_of_a_finished_run_changes_nothing(relpt_command, finished):
    before = (finished / "model.safetensors").read_bytes(), (finished / "history.jsonl").read_text()
    assert relpt_command(*pretrain("finished", "--resume"))[0] == 0
    assert ((finished / "model.safetensors").read_bytes(), (finished / "history.jsonl").read_text()) == before


def test_resume_with_other_options_is_refused(relpt_command, finished):
    code, _, err = relpt_command(*pretrain("finished", "--resume", steps=9), "--quiet")
    assert code == 1
    assert "max_steps is 9" in err
    assert len(history(finished)) == 6


def test_resume_without_a_checkpoint_starts_afresh(relpt_command, place):
    code, _, err = relpt_command(*pretrain("fresh", "--resume"))
    assert code == 0
    assert "no checkpoint yet" in err
    assert len(history(place / "fresh")) == 6


def test_ctrl_c_exits_130_with_a_usable_checkpoint(place):
    words = [str(word) for word in pretrain("stopped", steps=1_000_000)]
    run = place / "stopped"
    process = subprocess.Popen(
        [sys.executable, "-m", "relpt", *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background may ignore it
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "history.jsonl").exists() and len((run / "history.jsonl").read_text().splitlines()) >= 3:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert "--resume" in err.splitlines()[-1]
    records = history(run)
    checkpoint = run / "checkpoints" / f"step-{len(records):08d}"
    assert str(checkpoint.relative_to(place)) in err
    assert len(records) >= 3
    assert [record["step"] for record in records] == list(range(1, len(records) + 1))
    vectors = relpt.Encoder.from_pretrained(checkpoint, num_threads=1).encode(tiny_dataset(2, 2))
    assert np.isfinite(vectors).all()


# -- encode and fewshot -----------------------------------------------------------------------------------------------


def test_encode_writes_the_vectors(relpt_command, place):
    code, out, err = relpt_command("encode", "--model", "encoder", "data.jsonl", "--inputs", "OM", "-o", "v.npy")
    assert (code, err) == (0, "")
    assert "72 vectors of 64" in out
    encoder = relpt.Encoder.from_pretrained(place / "encoder")
    expected = encoder.encode(relpt.load(place / "data.jsonl"), inputs="OnlyM")
    assert np.array_equal(np.load(place / "v.npy"), expected)
    words = ("--normalize", "--representation", "cls+mean", "--max-length", 40, "--threads", 1, "--json")
    code, out, _ = relpt_command("encode", "--model", "encoder", "data.jsonl", "-o", "n.npy", *words)
    assert json.loads(out)["n"] == 72
    assert np.allclose(np.linalg.norm(np.load(place / "n.npy"), axis=1), 1, atol=1e-5)
    assert not list(place.glob(".*.new*"))
    code, _, _ = relpt_command("encode", "--model", "encoder", "data.jsonl", "-o", "i.npy", "--dtype", "int8")
    assert np.array_equal(np.load(place / "i.npy"), encoder.encode(relpt.load(place / "data.jsonl"), dtype="int8"))


def test_encode_counts_truncation_in_one_line(relpt_command):
    words = ("--max-length", 16, "-o", "short.npy")
    code, _, err = relpt_command("encode", "--model", "encoder", "data.jsonl", *words)
    assert code == 0
    assert err.startswith("relpt: warning: ")
    assert err.count("\n") == 1
    assert ".py:" not in err


def test_fewshot_rows(relpt_command, place):
    words = ("--way", "2,5", "--shot", "1,3", "--episodes", 200, "--inputs", "CM,OnlyC", "--threads", 1)
    code, out, _ = relpt_command("fewshot", "--model", "encoder", "--data", "data.jsonl", *words, "--json")
    rows = json.loads(out)["results"]
    assert code == 0
    assert [(row["inputs"], row["way"], row["shot"]) for row in rows] == [
        (inputs, way, shot) for inputs in ("C+M", "OnlyC") for way in (2, 5) for shot in (1, 3)
    ]
    assert set(rows[0]) == {"inputs", "way", "shot", "similarity", "episodes", "accuracy", "ci95"}
    data, encoder = relpt.load(place / "data.jsonl"), relpt.Encoder.from_pretrained(place / "encoder")
    task = relpt.FewShot(n_way=5, k_shot=3, episodes=200)
    assert rows[7] == task.evaluate(encoder, data, inputs="OnlyC").to_dict()


def test_fewshot_scores_the_vectors_of_its_dtype(relpt_command, place):
    words = ("--way", 2, "--episodes", 200, "--dtype", "int8", "--json")
    code, out, _ = relpt_command("fewshot", "--model", "encoder", "--data", "data.jsonl", *words)
    data, encoder = relpt.load(place / "data.jsonl"), relpt.Encoder.from_pretrained(place / "encoder")
    task = relpt.FewShot(n_way=2, episodes=200)
    narrow = task.score(encoder.encode(data, dtype="int8"), [instance.relation for instance in data])
    assert code == 0
    assert json.loads(out)["results"][0]["accuracy"] == narrow.accuracy
    assert narrow.accuracy != task.evaluate(encoder, data).accuracy


def test_hybrids_and_cnns_are_encoded_and_tested(relpt_command, place):
    data, encoder = relpt.load(place / "data.jsonl"), relpt.Encoder.from_pretrained(place / "encoder")
    table = relpt.EntityTable.from_corpus(encoder, data)
    cnn = relpt.CNNEncoder.from_data(data, hidden_size=8)
    models = {"cnn": cnn, "hybrid": relpt.HybridEncoder(encoder, cnn, table)}
    for name, model in models.items():
        model.save_pretrained(place / name)
        words = ("--model", name, "--inputs", "C+M", "--threads", 1, "--json", "-q")
        code, out, err = relpt_command("encode", "data.jsonl", "-o", f"{name}.npy", *words)
        assert (code, err) == (0, "")
        assert json.loads(out)["dim"] == model.dim
        assert np.array_equal(np.load(place / f"{name}.npy"), model.encode(data))
        words = ("fewshot", "--data", "data.jsonl", "--way", 2, "--episodes", 200, *words)
        code, out, err = relpt_command(*words)
        assert (code, err) == (0, "")
        assert json.loads(out)["results"] == [relpt.FewShot(n_way=2, episodes=200).evaluate(model, data).to_dict()]
        code, out, err = relpt_command(*words, "--nota", 0.5, "--nota-fit", "more.jsonl")
        assert err.startswith("relpt: warning: 6 of the 6 relations of --nota-fit")
        task = relpt.FewShot(n_way=2, episodes=200, nota_rate=0.5)
        task.fit_threshold(model, relpt.load(place / "more.jsonl"))
        assert code == 0
        assert json.loads(out)["results"] == [task.evaluate(model, data).to_dict()]
    code, _, err = relpt_command("fewshot", "--model", "hybrid", "--data", "data.jsonl", "--representation", "cls")
    assert code == 1
    assert "hybrid holds a HybridEncoder, which has no option 'representation'" in err


def test_fewshot_table(relpt_command):
    words = ("--episodes", 100, "--inputs", "C+M,OnlyM", "--per-relation", 5, "--quiet")
    code, out, err = relpt_command("fewshot", "--model", "encoder", "--data", "data.jsonl", *words)
    assert (code, err) == (0, "")
    assert "30 sentences, 6 relations" in out
    header, first, second = out.splitlines()[-3:]
    assert header.split()[:3] == ["inputs", "way", "shot"]
    assert first.index("±") == second.index("±")
    assert max(map(len, out.splitlines())) <= 80


def test_fewshot_of_one_episode(relpt_command, place):
    """Its interval is not known: no zero, and no NaN in JSON."""
    words = ("fewshot", "--model", "encoder", "--data", "data.jsonl", "--episodes", 1, "-q")
    assert re.search(r"\d\.\d{4} ± –$", relpt_command(*words)[1].strip())
    assert json.loads(relpt_command(*words, "--json")[1])["results"][0]["ci95"] is None
    (place / "said.json").write_text("[1]")
    words = ("fewshot", "--score", "said.json", "--answers", "said.json", "--way", 5)
    assert json.loads(relpt_command(*words, "--json")[1])["ci95"] is None
    assert "1.0000 ± –" in relpt_command(*words)[1]
    code, _, err = relpt_command("fewshot", "--model", "encoder", "--data", "data.jsonl", "--way", 1)
    assert code == 1
    assert "n_way is 1, so that every answer is right" in err


def test_fewshot_of_unlabelled_data(relpt_command, place):
    records = [{k: v for k, v in record.items() if k != "relation"} for record in tiny_dataset(2, 3)]
    write_jsonl(place / "unlabelled.jsonl", records)
    code, _, err = relpt_command("fewshot", "--model", "encoder", "--data", "unlabelled.jsonl")
    assert code == 1
    assert "names no relations" in err


# -- fewshot: none of the above, episodes in files ---------------------------------------------------------------------


def fewshot(*more):
    return ("fewshot", "--model", "encoder", "--data", "data.jsonl", "--episodes", 200, *more)


def test_fewshot_with_none_of_the_above(relpt_command, place):
    words = ("--way", 4, "--nota", "0.15,0.5", "--nota-fit", "more.jsonl", "--nota-score", "similarity+margin")
    code, out, _ = relpt_command(*fewshot(*words, "--json"))
    rows = json.loads(out)["results"]
    assert code == 0
    assert [row["nota_rate"] for row in rows] == [0.15, 0.5]
    data, others = relpt.load(place / "data.jsonl"), relpt.load(place / "more.jsonl")
    encoder = relpt.Encoder.from_pretrained(place / "encoder")
    for row in rows:
        few = relpt.FewShot(n_way=4, episodes=200, nota_rate=row["nota_rate"], nota_score="similarity+margin")
        assert few.fit_threshold(encoder, others).evaluate(encoder, data).to_dict() == row
    code, out, _ = relpt_command(*fewshot("--way", 4, "--nota", 0.3, "--nota-threshold", 0.9, "--json"))
    few = relpt.FewShot(n_way=4, episodes=200, nota_rate=0.3, nota_threshold=0.9)
    assert json.loads(out)["results"] == [few.evaluate(encoder, data).to_dict()]


def test_fewshot_warns_of_a_threshold_fitted_to_what_is_tested(relpt_command, place):
    others = [{**record, "relation": f"o{record['relation']}"} for record in tiny_dataset(5, 4, seed=3)]
    shared = [{**record, "relation": record["relation"].replace("o", "")} for record in others[:8]]
    write_jsonl(place / "others.jsonl", others)
    write_jsonl(place / "partly.jsonl", [*others[8:], *shared])
    words = ("--way", 2, "--nota", 0.5, "-q", "--json")
    assert relpt_command(*fewshot(*words, "--nota-fit", "others.jsonl"))[2] == ""
    code, out, err = relpt_command(*fewshot(*words, "--nota-fit", "partly.jsonl"))
    assert code == 0
    assert re.match(r"relpt: warning: 2 of the 5 relations of --nota-fit are also in --data, such as 'r[01]': ", err)
    assert json.loads(out)["results"][0]["nota_rate"] == 0.5


def test_fewshot_table_with_none_of_the_above(relpt_command):
    words = ("--way", 4, "--nota", "0,0.5", "--nota-threshold", 0.9, "--inputs", "C+M,OnlyC", "--quiet")
    code, out, err = relpt_command(*fewshot(*words))
    assert (code, err) == (0, "")
    header, *rows = out.splitlines()[-5:]
    assert header.split()[:5] == ["inputs", "way", "shot", "nota", "threshold"]
    assert [row.split()[3] for row in rows] == ["0.00", "0.50", "0.00", "0.50"]
    assert rows[0].endswith("–")  # no query is none of the above at rate 0
    assert rows[1].count("±") == 3
    assert max(map(len, out.splitlines())) <= 80


def test_episodes_are_written_predicted_and_scored(relpt_command, place):
    words = ("fewshot", "--data", "data.jsonl", "--way", 4, "--shot", 2, "--nota", 0.3, "--episodes", 40)
    code, out, _ = relpt_command(*words, "--write-episodes", "episodes.json", "--json")
    assert json.loads(out) == {"output": "episodes.json", "episodes": 160, "way": 4, "shot": 2}
    words = ("fewshot", "--model", "encoder", "--predict", "episodes.json", "--inputs", "OnlyC")
    fit = ("--nota", 0.3, "--nota-fit", "more.jsonl", "--episodes", 200, "--json")
    code, out, _ = relpt_command(*words, *fit, "-o", "pred.json", "--none-label", -1)
    said = json.loads(out)
    assert code == 0
    few = relpt.FewShot(n_way=4, k_shot=2, episodes=200, nota_rate=0.3)
    encoder = relpt.Encoder.from_pretrained(place / "encoder")
    few.fit_threshold(encoder, relpt.load(place / "more.jsonl"), inputs="OnlyC")
    few.episodes = 40
    result = few.evaluate(encoder, relpt.load(place / "data.jsonl"), inputs="OnlyC")
    assert said["nota_threshold"] == few.nota_threshold
    assert said["accuracy"] == pytest.approx(result.accuracy)
    written = json.loads((place / "pred.json").read_text())
    assert said["none"] == written.count(-1) > 0
    assert written == few.predict(encoder, place / "episodes.json", inputs="OnlyC", none_label=-1).tolist()
    code, out, _ = relpt_command("fewshot", "--score", "pred.json", "--answers", "episodes.json", "--json")
    scored = json.loads(out)
    assert {name: said[name] for name in scored} == scored
    code, out, _ = relpt_command("fewshot", "--score", "pred.json", "--answers", "episodes.json")
    assert f"{scored['none_accuracy']:.4f} ± {scored['none_ci95']:.4f}" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--data", "data.jsonl"), 2, "--model is missing"),
        (("--model", "encoder"), 2, "--data is missing"),
        (("--predict", "x.json"), 2, "--model is missing for --predict"),
        (("--score", "x.json"), 2, "--answers is missing for --score"),
        (("--score", "x.json", "--predict", "y.json"), 2, "--score and --predict are two things"),
        (("--model", "encoder", "--predict", "x.json", "--way", 5), 2, "--way does not go with --predict"),
        ((*fewshot()[1:], "-o", "pred.json"), 2, "--output goes with --predict"),
        ((*fewshot()[1:], "--nota", 0.5), 2, "--nota needs a threshold"),
        ((*fewshot()[1:], "--nota-fit", "more.jsonl"), 2, "--nota-fit needs --nota"),
        ((*fewshot()[1:], "--nota", 1), 2, "expected shares from 0 to below 1"),
        ((*fewshot()[1:], "--nota-threshold", "nan"), 2, "'nan': expected a number"),
        ((*fewshot()[1:], "--way", 6, "--nota", 0.5, "--nota-threshold", 0), 1, "n_way takes all 6 relations"),
        (("--model", "encoder", "--predict", "none.json", "-o", "p.json"), 1, "none.json: no such file"),
        (("--model", "encoder", "--predict", "data.jsonl", "-o", "p.json"), 1, "data.jsonl: malformed JSON"),
        (
            ("--model", "encoder", "--predict", "x.json", "-o", "no/p.json"),
            1,
            "there is no such folder to write p.json",
        ),
    ],
)
def test_fewshot_says_what_is_missing(relpt_command, words, code, message):
    found, out, err = relpt_command("fewshot", *words)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_predictions_need_a_file_where_there_are_no_answers(relpt_command, place):
    instance = {"tokens": ["a", "met", "b"], "h": ["a", "", [[0]]], "t": ["b", "", [[2]]]}
    (place / "blind.json").write_text(json.dumps([{"meta_train": [[instance]], "meta_test": instance}]))
    code, _, err = relpt_command("fewshot", "--model", "encoder", "--predict", "blind.json")
    assert (code, "name the file to write with -o" in err) == (2, True)
    words = ("--predict", "blind.json", "-o", "blind-pred.json", "--quiet")
    assert relpt_command("fewshot", "--model", "encoder", *words)[0] == 0
    assert json.loads((place / "blind-pred.json").read_text()) == [0]
