"""The protocol of fine-tuning and its commands: rows, what resumes, predictions, the best model."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_dataset, tiny_encoder_folder, write_jsonl

import relpt
from relpt import cli, metrics
from relpt.devices import cuda_facts
from relpt.finetuning import kept_run

FAST: dict[str, Any] = {"epochs": 2, "batch_size": 8, "max_length": 40, "learning_rate": 3e-3}
FLAGS = ("--epochs", 2, "--batch-size", 8, "--max-length", 40, "--lr", 3e-3, "--threads", 1, "-q")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetuning")
    tiny_encoder_folder(folder / "encoder")
    for name, size, seed in (("train", 20, 0), ("dev", 5, 1), ("test", 6, 2)):
        write_jsonl(folder / f"{name}.jsonl", tiny_dataset(3, size, seed=seed))
    write_jsonl(folder / "more.jsonl", tiny_dataset(4, 3, seed=2))
    return folder


@pytest.fixture
def command(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line in that folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(place)

    def run(*words: Any) -> tuple[int, str, str]:
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capfd.readouterr()

    return run


@pytest.fixture(scope="module")
def encoder(place: Path) -> relpt.Encoder:
    return relpt.Encoder.from_pretrained(place / "encoder", num_threads=1)


def runs(encoder: relpt.Encoder, place: Path, **options: Any) -> relpt.FineTuning:
    data = {name: str(place / f"{name}.jsonl") for name in ("dev", "test")}
    train = str(place / "train.jsonl")
    given = {**data, "fractions": (0.2, 1.0), "seeds": (1, 2), "show_progress_bar": False, **FAST, **options}
    return relpt.finetune(encoder, train, **given)


def test_a_row_for_every_setting_fraction_and_seed(encoder: relpt.Encoder, place: Path) -> None:
    """Each is what a classifier of its own gives on that fraction."""
    result = runs(encoder, place, inputs=["C+M", "OnlyC"])
    found = [(row["inputs"], row["fraction"], row["seed"]) for row in result.rows]
    assert found == [(i, f, s) for i in ("C+M", "OnlyC") for f in (0.2, 1.0) for s in (1, 2)]
    assert [row["sentences"] for row in result.rows[:4]] == [12, 12, 60, 60]
    train, test = relpt.load(place / "train.jsonl"), relpt.load(place / "test.jsonl")
    own = relpt.Classifier(encoder, seed=2, **FAST).fit(train.fraction(0.2, seed=2), inputs="OnlyC")
    row = result.rows[5]
    assert (row["metric"], row["test"]) == ("accuracy", float(own.score(test)))
    summary = result.summary()
    assert [summary[0][name] for name in ("inputs", "fraction", "seeds")] == ["C+M", 0.2, 2]
    for item, rows in zip(summary, (result.rows[i : i + 2] for i in range(0, 8, 2)), strict=True):
        scores = [row["test"] for row in rows]
        assert (item["test"], item["test_low"], item["test_high"]) == (np.median(scores), min(scores), max(scores))
    assert len(result.to_pandas()) == 8
    assert str(result).splitlines()[0].split() == ["inputs", "fraction", "sentences", "seeds", "metric", "dev", "test"]
    assert len(str(result).splitlines()) == 5
    assert "<td>OnlyC</td>" in result._repr_html_()


def test_rows_in_the_folder_are_not_computed_again(
    encoder: relpt.Encoder, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = runs(encoder, place, output=tmp_path)
    assert first.computed == 4
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 4
    fits: list[int] = []
    plain = relpt.Classifier.fit
    monkeypatch.setattr(relpt.Classifier, "fit", lambda self, *a, **k: (fits.append(1), plain(self, *a, **k))[1])
    again = runs(encoder, place, output=tmp_path)
    assert (again.rows, again.computed, fits) == (first.rows, 0, [])
    more = runs(encoder, place, output=tmp_path, seeds=(1, 2, 3))
    assert (more.computed, len(fits)) == (2, 2)
    assert [row for row in more.rows if row["seed"] != 3] == first.rows
    for change in ({"epochs": 1}, {"metric": "macro_f1"}, {"dev": None}, {"label_smoothing": 0.1}):
        assert runs(encoder, place, output=tmp_path, fractions=0.2, seeds=1, **change).computed == 1, change
    other = encoder.copy()
    name = "embeddings.word_embeddings.weight"
    other._model.set(name, other._model.get(name) * np.float32(1.01))
    assert runs(other, place, output=tmp_path, fractions=0.2, seeds=1).computed == 1
    assert runs(encoder, place, output=tmp_path, fractions=0.2, seeds=1).computed == 0


def test_predictions_and_the_best_model_are_kept(encoder: relpt.Encoder, place: Path, tmp_path: Path) -> None:
    result = runs(encoder, place, output=tmp_path, seeds=(1, 2, 3))
    test = relpt.load(place / "test.jsonl")
    for row in result.rows:
        (file,) = (tmp_path / "predictions").glob(f"*-{row['fraction']:g}-{row['seed']}-{row['key'][:8]}.jsonl")
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [line["gold"] for line in lines] == [i.relation for i in test]
        accuracy = metrics.accuracy([line["gold"] for line in lines], [line["predicted"] for line in lines])
        assert accuracy == row["test"]
        assert all(1 / 3 <= line["probability"] <= 1 for line in lines)
    best = max(result.rows, key=lambda row: row["dev"])
    model = relpt.Classifier.from_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "relpt.json").read_text())["classifier"]["row"] == best
    assert float(model.score(test)) == best["test"]


def test_a_model_of_other_data_is_replaced_whatever_its_score(
    encoder: relpt.Encoder, place: Path, tmp_path: Path
) -> None:
    """Its score on another dev, or with other classes, says nothing about the new one."""
    card = tmp_path / "model" / "relpt.json"

    def kept(**options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        given = {"fractions": 1.0, "seeds": 1, "output": tmp_path, **options}
        rows = runs(encoder, place, **given).rows
        own = json.loads(card.read_text())["classifier"]
        own["row"]["dev"] = 1.0  # no later run is better
        card.write_text(json.dumps({**json.loads(card.read_text()), "classifier": own}))
        return kept_run(tmp_path), rows

    row, rows = kept()
    assert row["key"] == rows[0]["key"]
    first = row["key"]
    assert kept(seeds=(1, 2))[0]["key"] == first  # the same data: the best stays
    assert kept(seeds=3, max_length=30)[0]["key"] == first  # cut elsewhere, the sentences are the same
    row, rows = kept(dev=str(place / "test.jsonl"))
    assert row["key"] == rows[0]["key"] != first
    second = row["key"]
    row, rows = kept(dev=str(place / "test.jsonl"), metric="macro_f1")
    assert row["key"] == rows[0]["key"] != second
    more = relpt.load(place / "more.jsonl")
    finer = relpt.finetune(encoder, more, dev=more, seeds=1, output=tmp_path, show_progress_bar=False, **FAST)
    assert kept_run(tmp_path)["key"] == finer.rows[0]["key"]
    assert relpt.Classifier.from_pretrained(tmp_path / "model").labels == ["r0", "r1", "r2", "r3"]


def test_ctrl_c_keeps_the_rows_so_far(encoder: relpt.Encoder, place: Path, tmp_path: Path) -> None:
    def interrupt(row: dict[str, Any], seconds: float | None) -> None:
        assert seconds is not None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs(encoder, place, output=tmp_path, on_row=interrupt)
    assert runs(encoder, place, output=tmp_path).computed == 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dev": None, "test": None}, ValueError, "finetune has nothing to score; give dev="),
        ({"dev": None, "early_stopping": 1}, ValueError, "early_stopping needs a dev set"),
        ({"seed": 3}, TypeError, "finetune takes no option 'seed': it sets that itself"),
        ({"fractions": (0.1, 2)}, ValueError, "the fraction is 2; expected a number above 0, at most 1"),
        ({"metric": "semeval"}, ValueError, "metric 'semeval' needs relations with a direction"),
        ({"epochs": 0}, ValueError, "epochs is 0"),
        ({"inputs": "OnlyX"}, ValueError, "inputs is 'OnlyX'"),
    ],
)
def test_what_would_fail_fails_before_any_run(
    encoder: relpt.Encoder, place: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    def never(row: dict[str, Any], seconds: float | None) -> None:
        raise AssertionError("a run was made")

    with pytest.raises(error, match=message):
        runs(encoder, place, on_row=never, **options)


def test_a_file_that_holds_no_rows(encoder: relpt.Encoder, place: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(relpt.FormatError, match=r"rows\.jsonl, line 1: is no row of relpt finetune"):
        runs(encoder, place, output=tmp_path)


@pytest.mark.parametrize("name", ["config.json", "checkpoints", "history.jsonl", "hybrid.json"])
def test_a_folder_of_a_model_or_a_run_gets_no_rows(
    encoder: relpt.Encoder, place: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir() if name == "checkpoints" else (tmp_path / name).write_text("{}")
    with pytest.raises(FileExistsError, match=f"holds a model or a pre-training run .{name}.; give the runs another"):
        runs(encoder, place, output=tmp_path)
    with pytest.raises(FileExistsError, match="holds a model or a pre-training run"):
        relpt.ablate(encoder, str(place / "test.jsonl"), seeds=1, output=tmp_path, show_progress_bar=False,
                     few_shot=relpt.FewShot(n_way=2, episodes=10))  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == [name]


# -- the commands -----------------------------------------------------------------------------------------------------


def tune(*more: Any) -> tuple[Any, ...]:
    return ("finetune", "--model", "encoder", "--train", "train.jsonl", "--dev", "dev.jsonl", *FLAGS, *more)


def test_finetune_prints_rows_and_resumes(command: Any, place: Path) -> None:
    words = tune("--test", "test.jsonl", "--inputs", "C+M,OM", "--fraction", "0.2", "--seeds", "1-2", "-o", "runs")
    code, out, err = command(*words, "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)["results"]
    assert [(row["inputs"], row["fraction"], row["seed"]) for row in rows] == [
        ("C+M", 0.2, 1),
        ("C+M", 0.2, 2),
        ("OnlyM", 0.2, 1),
        ("OnlyM", 0.2, 2),
    ]
    assert {"inputs", "fraction", "seed", "metric", "dev", "test"} <= rows[0].keys()
    modified = (place / "runs" / "rows.jsonl").stat().st_mtime_ns
    code, out, err = command(*words)
    assert code == 0
    assert "accuracy; median (lowest – highest) over seeds" in out
    assert f"{np.median([row['test'] for row in rows[:2]]):.4f} (" in out
    assert "4 runs, 0 of them new" in err
    assert (place / "runs" / "rows.jsonl").stat().st_mtime_ns == modified


def test_finetune_says_what_is_in_its_folder(command: Any, place: Path) -> None:
    """A model only where there is one, and of which run."""
    base = ("finetune", "--model", "encoder", "--train", "train.jsonl", *FLAGS, "-o", "told")
    code, out, err = command(*base, "--test", "test.jsonl", "--seeds", 1)
    assert code == 0
    assert "relpt: 1 run, 1 of them new" in err
    assert "rows and predictions are in told; no model: one is kept where there is --dev to choose it by" in err
    assert not (place / "told" / "model").exists()
    assert all(line == line.rstrip() for line in out.splitlines())
    words = (*base, "--dev", "dev.jsonl", "--seeds", "1-2", "--inputs", "C+M,OnlyC")
    code, _, err = command(*words)
    best = kept_run(place / "told")
    run = f"{best['inputs']}, fraction 1, seed {best['seed']}: accuracy {best['dev']:.4f}"
    assert f"the model best on dev, of {run}, is {Path('told', 'model')}" in err
    code, _, err = command(*base, "--dev", "test.jsonl", "--seeds", 1)
    code, _, err = command(*words)  # found done: the folder's model is the other data's
    assert "0 of them new" in err
    assert f"the model in {Path('told', 'model')} is of an earlier command's run" in err


def test_finetune_and_relations_that_training_lacks(command: Any) -> None:
    words = tune("--test", "more.jsonl", "--seeds", "1")
    code, out, err = command(*words)
    assert (code, out) == (1, "")
    assert "3 of 12 sentences of 'more.jsonl' have a relation that is not among the 3 trained ones: 'r3' (3)" in err
    code, out, err = command(*words, "--unknown-labels", "wrong", "--json")
    assert code == 0
    assert json.loads(out)["results"][0]["unknown"] == 3
    assert (
        "3 sentences of dev and test with relations that were not trained: counted as wrong"
        in command(*words, "--unknown-labels", "wrong")[1]
    )


def test_finetune_by_bags(command: Any, place: Path) -> None:
    records = tiny_dataset(3, 20)
    for i, record in enumerate(records):  # two sentences of each pair of entities
        record["h"]["id"], record["t"]["id"] = f"H{i // 2}", f"T{i // 2}"
    write_jsonl(place / "bags.jsonl", records)
    words = ("finetune", "--model", "encoder", "--train", "bags.jsonl", "--test", "test.jsonl", *FLAGS)
    words = (*words, "--seeds", "1-2", "--bags", "attention", "--bag-size", 2)
    code, out, err = command(*words, "--json")
    assert code == 0, err
    rows = json.loads(out)["results"]
    assert {row["metric"] for row in rows} == {"bag_auc"}
    code, out, _ = command(*words)
    assert code == 0
    assert "encoder, entity_start: bag_auc; median (lowest – highest) over seeds" in out
    figures = rows[0]["bags"]
    assert f"test: {figures['facts']:,} facts of {figures['bags']:,} bags" in out
    assert f"seed 1:  AUC {rows[0]['test']:.4f}  max F1 {figures['max_f1']:.4f}" in out
    code, out, err = command(*tune("--test", "test.jsonl", "--seeds", "1", "--metric", "bag_auc", "--json"))
    assert code == 0, err
    assert json.loads(out)["results"][0]["bags"]["facts"] == figures["facts"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--fraction", "0.1,2"), "expected numbers above 0, at most 1, such as 0.01,0.1"),
        (("--seeds", "46-42"), "expected numbers or ranges such as 42-46 or 1,2,5"),
        (("--seeds", "a"), "expected numbers or ranges"),
        (("--metric", "f1"), "invalid choice: 'f1'"),
        (("--inputs", "OnlyX"), "expected one of C+M"),
    ],
)
def test_finetune_with_bad_options(command: Any, more: tuple[str, ...], message: str) -> None:
    code, out, err = command(*tune("--test", "test.jsonl", *more))
    assert (code, out) == (2, "")
    assert message in err


def test_ctrl_c_exits_130_and_the_same_command_goes_on(command: Any, place: Path) -> None:
    words = [str(word) for word in tune("--seeds", "1-100000", "-o", "stopped")]
    process = subprocess.Popen(
        [sys.executable, "-m", "relpt", *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(Path(relpt.__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background may ignore it
    )
    rows, deadline = place / "stopped" / "rows.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None and not rows.exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "the runs so far are kept in stopped; the same command goes on" in err
    before = rows.read_text()
    code, _, _ = command(*tune("--seeds", "1", "-o", "stopped"))
    assert code == 0
    assert rows.read_text() == before


@pytest.fixture(scope="module")
def model(encoder: relpt.Encoder, place: Path) -> relpt.Classifier:
    made = relpt.Classifier(encoder, **FAST).fit(relpt.load(place / "train.jsonl"), show_progress_bar=False)
    made.save_pretrained(place / "model")
    return made


def test_predict_names_relations_a_line_each(command: Any, place: Path, model: relpt.Classifier) -> None:
    code, out, err = command("predict", "--model", "model", "test.jsonl", "--top-k", 2, "--threads", 1)
    assert code == 0
    assert "18 sentences, C+M" in err
    data = relpt.load(place / "test.jsonl")
    for line, instance, top in zip(out.splitlines(), data, model.predict_top(data, k=2), strict=True):
        found = json.loads(line)
        assert found["text"] == instance.text
        assert found["label"] == found["top"][0]["label"]
        assert [(item["label"], item["probability"]) for item in found["top"]] == [(n, round(p, 6)) for n, p in top]
        assert found["probability"] == found["top"][0]["probability"]
    code, _, _ = command("predict", "--model", "model", "test.jsonl", "--top-k", 2, "-q", "-o", "out.jsonl")
    assert code == 0
    assert (place / "out.jsonl").read_text() == out
    code, out, err = command("predict", "--model", "model", "test.jsonl", "--json", "-q")
    assert (code, err, len(json.loads(out)["results"])) == (0, "", 18)


def test_predict_reads_stdin(
    command: Any, place: Path, model: relpt.Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.loads(line) for line in (place / "test.jsonl").read_text().splitlines()[:3]]
    bare = [{key: value for key, value in line.items() if key != "relation"} for line in lines]

    def with_stdin(text: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return command("predict", "--model", "model", "-", "-q")

    code, out, _ = with_stdin("".join(json.dumps(line) + "\n" for line in bare))
    assert code == 0
    assert [json.loads(line)["label"] for line in out.splitlines()] == model.predict(bare)
    code, out, err = with_stdin(json.dumps(bare[0]) + "\n{broken\n")
    assert (code, out) == (1, "")
    assert "stdin, line 2: is no valid JSON" in err
    bare[1]["h"]["pos"] = [5, 900]
    code, out, err = with_stdin("".join(json.dumps(line) + "\n" for line in bare))
    assert (code, out) == (1, "")
    assert "stdin: record 1: h.pos" in err


@pytest.mark.skipif(cuda_facts()["problem"] is None, reason="this machine has a GPU")
def test_predict_says_why_there_is_no_gpu(command: Any, model: relpt.Classifier) -> None:
    code, out, err = command("predict", "--model", "model", "test.jsonl", "--device", "cuda")
    assert (code, out) == (1, "")
    assert "device 'cuda' cannot be used" in err


def test_predict_without_a_classifier(command: Any) -> None:
    code, out, err = command("predict", "--model", "encoder", "test.jsonl")
    assert (code, out) == (1, "")
    assert "encoder holds no classifier; make one by relpt finetune" in err
