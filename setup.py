"""Builds relpt._core: csrc/ once, csrc/cpu/ once per instruction-set level; and relpt._cuda, csrc/cuda/, by nvcc.

Environment:
    RELPT_WERROR=1         warnings are errors (CI)
    RELPT_SANITIZE=1       AddressSanitizer and UndefinedBehaviorSanitizer
    RELPT_CUDA=auto|0|1    whether relpt._cuda is built: where there is nvcc (default), never, or always (an error
                           without nvcc). It is looked for below CUDA_HOME and CUDA_PATH, then on the PATH.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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
    LEVELS["amx"] = [*LEVELS["avx512"], "-mavx512bf16", "-mavx512vnni", "-mamx-tile", "-mamx-bf16", "-mamx-int8"]
if os.environ.get("RELPT_WERROR") == "1":
    COMMON.append("-Werror")
if SANITIZE:
    COMMON += ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


# Machine code for the A100's generation, which later ones up to 8.9 run too, and for the H100 and H200; and code that
# the driver translates for what comes after them.
TARGETS = ["arch=compute_80,code=[sm_80,compute_80]", "arch=compute_90a,code=sm_90a"]
NVCC_FLAGS = ["-std=c++20", "-O3", "-lineinfo", *(f"-gencode={target}" for target in TARGETS)]
NVCC_HOST = "-fPIC,-fvisibility=hidden,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics,-Wall,-Wextra"
NVCC_HOST += ",-Wno-missing-field-initializers"
if os.environ.get("RELPT_WERROR") == "1":
    NVCC_FLAGS += ["-Werror", "all-warnings"]
    NVCC_HOST += ",-Werror"


def find_nvcc():
    """nvcc's path; None where relpt._cuda is not to be built."""
    wanted = os.environ.get("RELPT_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"RELPT_CUDA is {wanted!r}; expected auto, 0 or 1")
    if wanted == "0" or (SANITIZE and wanted == "auto"):
        return None
    roots = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    tried = [*(f"{root}/bin/nvcc" for root in roots), "nvcc", "/usr/local/cuda/bin/nvcc"]
    found = next(filter(None, map(shutil.which, tried)), None)
    if found is None and wanted == "1":
        raise SystemExit(
            f"RELPT_CUDA=1, and there is no nvcc; tried {', '.join(tried)}. Install CUDA 13's, or set CUDA_HOME"
        )
    if found is None:
        print(
            "relpt: no nvcc was found, so relpt._cuda is not built and device='cuda' will not be there", file=sys.stderr
        )
    return found


def cuda_runtime(nvcc):
    """The static CUDA runtime of nvcc's toolkit."""
    plan = subprocess.run([nvcc, "-dryrun", "-c", "-x", "cu", "/dev/null"], capture_output=True, text=True, check=True)
    top = Path(re.search(r"^#\$ TOP=(.*)$", plan.stderr, re.MULTILINE)[1].strip())
    folders = [top / "lib64", top / "lib", top / "targets" / f"{platform.machine()}-linux" / "lib"]
    found = [folder / "libcudart_static.a" for folder in folders if (folder / "libcudart_static.a").is_file()]
    if not found:
        raise SystemExit(f"nvcc's toolkit in {top} has no libcudart_static.a; install CUDA's development files")
    return str(found[0])


class BuildExtensions(build_ext):
    """Compiles csrc/cpu/*.c once per level with the level's flags, and csrc/cuda/*.cu with nvcc."""

    def build_extension(self, ext):
        if ext.name == "relpt._cuda":
            self.compile_cuda(ext)
        else:
            self.compile_levels(ext)
        super().build_extension(ext)

    def compile_cuda(self, ext):
        folder = Path(self.build_temp, "cuda")
        folder.mkdir(parents=True, exist_ok=True)
        kernels = [source for source in ext.sources if source.endswith(".cu")]
        ext.sources = [source for source in ext.sources if source not in kernels]
        ext.depends = [*ext.depends, *kernels]
        newest = max(os.path.getmtime(path) for path in ext.depends if not path.endswith(".cu"))

        def compile_one(source):
            out = folder / f"{Path(source).stem}.o"
            if not out.is_file() or out.stat().st_mtime < max(newest, os.path.getmtime(source)) or self.force:
                command = [NVCC, *NVCC_FLAGS, f"-Xcompiler={NVCC_HOST}", "-Icsrc", "-c", source, "-o", str(out)]
                print(" ".join(command))
                subprocess.run(command, check=True)
            return str(out)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ext.extra_objects += [*pool.map(compile_one, kernels), cuda_runtime(NVCC)]

    def compile_levels(self, ext):
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


def files(folder, pattern):
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob(pattern))


CUDA_MODULE = "csrc/python/cuda_module.c"
core = Extension(
    "relpt._core",
    [
        path
        for folder in ("csrc", "csrc/ref", "csrc/cpu", "csrc/python")
        for path in files(folder, "*.c")
        if path != CUDA_MODULE
    ],
    depends=files("csrc", "**/*.h"),
    include_dirs=["csrc", numpy.get_include()],
    define_macros=[("Py_LIMITED_API", "0x030B0000")] + [(f"RP_HAVE_{level.upper()}", None) for level in LEVELS],
    extra_compile_args=COMMON,
    extra_link_args=["-fopenmp"] + (["-fsanitize=address,undefined"] if SANITIZE else []),
    libraries=["m", "pthread"],
    py_limited_api=True,
)

NVCC = find_nvcc()
extensions = [core]
if NVCC is not None:
    cuda = Extension(
        "relpt._cuda",
        [CUDA_MODULE, "csrc/status.c", "csrc/arena.c", "csrc/composed.c", *files("csrc/cuda", "*.cu")],
        depends=files("csrc", "**/*.h") + files("csrc", "**/*.cuh"),
        include_dirs=["csrc"],
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        extra_compile_args=[*COMMON, "-fvisibility=hidden"],
        libraries=["dl", "rt", "pthread"],
        py_limited_api=True,
    )
    extensions.append(cuda)

setup(
    ext_modules=extensions,
    cmdclass={"build_ext": BuildExtensions},
    options={
        "bdist_wheel": {"py_limited_api": "cp311"},
        "build": {"build_base": "build/sanitize" if SANITIZE else "build"},  # objects of the two must not mix
    },
)
