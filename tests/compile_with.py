"""Compiles every C file for every level with the compiler in the environment variable CLANG; any warning fails."""

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy

ROOT = Path(__file__).parents[1]
FLAGS = "-std=c11 -O2 -fopenmp -fno-math-errno -fno-trapping-math -ffp-contract=fast"
FLAGS += " -Wall -Wextra -Wpedantic -Werror -Wno-pass-failed"
AVX512 = ["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
LEVELS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": AVX512,
    "amx": [*AVX512, "-mavx512bf16", "-mavx512vnni", "-mamx-tile", "-mamx-bf16", "-mamx-int8"],
}


def main() -> int:
    compiler = os.environ.get("CLANG", "clang")
    include = [f"-I{path}" for path in (ROOT / "csrc", numpy.get_include(), sysconfig.get_paths()["include"])]
    failed = count = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((ROOT / "csrc").rglob("*.c")):
            levels = LEVELS if path.parent.name == "cpu" else {"baseline": []}
            for level, flags in levels.items():
                define = [f"-DRP_LEVEL={level}", *(f"-DRP_HAVE_{name.upper()}" for name in LEVELS)]
                command = [compiler, *FLAGS.split(), *flags, *define, *include, "-c", path, "-o", f"{folder}/out.o"]
                failed += subprocess.run(command, check=False).returncode != 0
                count += 1
    print(f"{compiler}: {count - failed} of {count} compilations without a warning")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
