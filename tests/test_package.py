"""The package as a whole: what its import says where the core is not there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import relpt

FOLDER = Path(relpt.__file__).parent
# -S: without site-packages, where an editable install would find the core for any copy


def test_a_source_folder_without_the_core_says_what_to_do(tmp_path: Path) -> None:
    """As after an install that is not editable, in the clone's folder."""
    shutil.copytree(FOLDER, tmp_path / "relpt", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    run = subprocess.run([sys.executable, "-S", "-c", "import relpt"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert f"ModuleNotFoundError: {tmp_path / 'relpt'} has no compiled core" in last
    assert "Start Python in another folder, or compile the core in this one: pip install -e ." in last


def test_a_fault_inside_the_core_is_not_called_a_missing_core(tmp_path: Path) -> None:
    """Where it is there and cannot be loaded, the error is its own."""
    shutil.copytree(FOLDER, tmp_path / "relpt", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (tmp_path / "relpt" / "_core.py").write_text("import not_there\n")
    run = subprocess.run([sys.executable, "-S", "-c", "import relpt"], cwd=tmp_path, capture_output=True, text=True)
    assert run.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'not_there'"
