"""Builds relpt._core: csrc/ once, csrc/cpu/ once per instruction-set level.

Environment:
    RELPT_WERROR=1     warnings are errors (CI)
    RELPT_SANITIZE=1   AddressSanitizer and UndefinedBehaviorSanitizer
"""

import os
import platform
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
SANITIZE = os.environ.get("RELPT_SANITIZE") == "1"
COMMON = [
    "-std=c11",
    "-O3",
    "-g1",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
]
COMMON.append("-Wno-pass-failed")  # clang: a loop that was not vectorised is no fault
LEVELS = {"baseline": []}
if platform.machine() in ("x86_64", "AMD64"):
    LEVELS["avx2"] = ["-mavx2", "-mfma"]
    LEVELS["avx512"] = [*LEVELS["avx2"], "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
    LEVELS["avx512"].append("-mprefer-vector-width=512")
if os.environ.get("RELPT_WERROR") == "1":
    COMMON.append("-Werror")
if SANITIZE:
    COMMON += ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


class BuildCore(build_ext):
    """Compiles csrc/cpu/*.c once per level with the level's flags."""

    def build_extension(self, ext):
        per_level = [source for source in ext.sources if Path(source).parent.name == "cpu"]
        ext.sources = [source for source in ext.sources if source not in per_level]
        ext.depends = [*ext.depends, *per_level]  # or a change of these alone would not be linked
        for level, flags in LEVELS.items():
            ext.extra_objects += self.compiler.compile(
                per_level,
                output_dir=os.path.join(self.build_temp, level),
                include_dirs=ext.include_dirs,
                macros=[("RP_LEVEL", level)],
                extra_postargs=[*ext.extra_compile_args, "-ffp-contract=fast", *flags],
                depends=ext.depends,
            )
        super().build_extension(ext)


def sources():
    folders = ("csrc", "csrc/ref", "csrc/cpu", "csrc/python")
    return sorted(str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).glob("*.c"))


core = Extension(
    "relpt._core",
    sources(),
    depends=sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.h")),
    include_dirs=["csrc", numpy.get_include()],
    define_macros=[("Py_LIMITED_API", "0x030B0000")] + [(f"RP_HAVE_{level.upper()}", None) for level in LEVELS],
    extra_compile_args=COMMON,
    extra_link_args=["-fopenmp"] + (["-fsanitize=address,undefined"] if SANITIZE else []),
    libraries=["m", "pthread"],
    py_limited_api=True,
)

setup(
    ext_modules=[core],
    cmdclass={"build_ext": BuildCore},
    options={
        "bdist_wheel": {"py_limited_api": "cp311"},
        "build": {"build_base": "build/sanitize" if SANITIZE else "build"},  # objects of the two must not mix
    },
)
