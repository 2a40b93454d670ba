"""The rules of the house that a script can check: who includes whom, sizes, a whole table of operations."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
FILES = sorted(path for path in CSRC.rglob("*") if path.suffix in (".c", ".h", ".cu", ".cuh"))

SOURCES = {"source", "source_relations", "source_entities", "source_instances", "source_episodes", "source_bags"}
LOSSES = {"loss_contrastive", "loss_mlm", "loss_match", "loss_classify", "loss_prototypes", "loss_alignment"}
LOSSES |= {"loss_bags", "loss_domain", "loss_boundary"}
LEVELS = {
    0: {"status", "arena", "lanes", "rng", "threads"},
    1: {
        "ops",
        "composed",
        "host",
        "kept",
        "cpu",
        "corpus",
        "sampler",
        "batch",
        "masking",
        "episodes",
        "graph",
        *SOURCES,
    },
    2: {"inputs", "params", "model", "encoder", "injection", "cnn", "represent", "network", "join", "kge"}
    | {"loss", *LOSSES, "objective", "adamw", "sgd", "schedule"},
    3: {"encode", "projection", "trainer", "fewshot", "kge_trainer", "link", "relpt"},
}
LEVEL = {noun: level for level, nouns in LEVELS.items() for noun in nouns}
DATA = {"corpus", "sampler", "masking", "episodes", "graph", *SOURCES}  # data and models meet in batch.h alone
MODELS = LEVELS[2] - {"loss"}


def includes(path):
    return re.findall(r'^#include "([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)


def system_includes(path):
    return re.findall(r"^#include <([^>]+)>", path.read_text(encoding="utf-8"), re.MULTILINE)


def noun(include):
    return Path(include).stem


def test_every_file_has_a_level():
    unknown = {path.stem for path in CSRC.glob("*.[ch]")} - set(LEVEL)
    assert not unknown


@pytest.mark.parametrize("path", [p for p in FILES if p.parent == CSRC], ids=lambda p: p.name)
def test_a_file_includes_no_higher_level(path):
    for include in includes(path):
        if include.startswith(("ref/", "cpu/")):
            assert path.name in ("ops.c", "cpu.c", "host.c"), f"{path.name} includes {include}"
        elif noun(include) != "fewshot":  # its header names the similarities, which the loss shares
            assert LEVEL[noun(include)] <= LEVEL[path.stem], f"{path.name} includes {include}"


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name in ("ref", "cpu", "cuda")], ids=lambda p: p.name)
def test_back_ends_know_operations_and_level_0_alone(path):
    known = LEVELS[0] | {"ops", "host", "kept", "ref", "cpu"}
    if path.parent.name == "cuda":  # which hands calls on
        known = known | {"composed"}
    for include in includes(path):
        own = include.startswith(f"{path.parent.name}/")
        assert own or noun(include) in known, f"{path.name} includes {include}"


def test_data_files_know_no_operation():
    for path in FILES:
        if path.parent == CSRC and path.stem in DATA | {"batch"}:
            known = {noun(include) for include in includes(path)}
            assert not known & (MODELS | {"ops"}), path.name


def test_models_meet_data_in_batch_alone():
    for path in FILES:
        if path.parent == CSRC and path.stem in MODELS:
            assert not {noun(include) for include in includes(path)} & DATA, path.name


def test_the_binding_sees_the_public_header_alone():
    own = {path.stem for path in (CSRC / "python").glob("*.h")}
    for path in FILES:
        if path.parent.name == "python":
            outside = {"cuda"} if path.name == "cuda_module.c" else set()  # the binding of the other extension
            assert {noun(include) for include in includes(path)} <= own | {"relpt"} | outside, path.name


def test_python_and_numpy_stay_in_their_place():
    for path in FILES:
        system = system_includes(path)
        assert path.parent.name == "python" or "Python.h" not in system, path
        assert path.name == "array.c" or not any(name.startswith("numpy/") for name in system), path


def functions(text):
    """(name line, number of lines) of definitions that end with a brace in the first column."""
    lines = text.splitlines()
    start = None
    for number, line in enumerate(lines):
        if re.match(r"[A-Za-z_].*\(", line) and not line.rstrip().endswith(";"):
            start = number
        if line.startswith("}") and start is not None:
            yield lines[start], number - start + 1
            start = None


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_sizes(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 1000
    for name, length in functions(text):
        assert length <= 120, (name, length)


def test_no_forbidden_calls_in_the_core():
    forbidden = re.compile(r"\b(printf|fprintf|puts|exit|abort|omp_set_num_threads|rand|srand|sprintf|strcpy)\s*\(")
    for path in FILES:
        found = forbidden.findall(path.read_text(encoding="utf-8"))
        assert not found, (path.name, found)


def slots():
    return re.findall(r"^    X\((\w+),", (CSRC / "ops.h").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_table_is_found_whole():
    assert len(slots()) >= 30
    assert len(set(slots())) == len(slots())


@pytest.mark.parametrize("slot", slots())
def test_every_operation_has_a_case(slot):
    memory = {"open", "close", "scratch", "alloc", "release", "reserve", "upload", "download", "zero"}
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "ops").glob("*.py"))
    assert slot in memory or f'"{slot}"' in tests, f"tests/ops names no case of {slot}"


@pytest.mark.parametrize("word", ["-ffast-math", "-march=native", "-Ofast"])
def test_no_flag_that_breaks_wheels_or_nan_checks(word):
    assert word not in (ROOT / "setup.py").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_clean_leaves_the_reports_of_benchmarks(tmp_path):
    """They are kept with the code, with their rows; what make bench writes beside them is not."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    results = tmp_path / "benchmarks" / "results"
    (results / "models" / "one").mkdir(parents=True)
    for name in ("finetuning.md", "finetuning.jsonl", "latest.md", "latest.png", "memory.json"):
        (results / name).touch()
    subprocess.run(["make", "-s", "clean"], cwd=tmp_path, check=True)
    assert sorted(path.name for path in results.iterdir()) == ["finetuning.jsonl", "finetuning.md"]
