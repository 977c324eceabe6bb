# From a bare clone: `make demo` and `make test` create .venv, install what they need, build, and run.

VENV ?= .venv
PYTHON ?= python3
OUT ?= out
PY := $(VENV)/bin/python
NATIVE := setup.py pyproject.toml $(shell find csrc -type f)
CPP = $(shell find csrc tests/cpp examples -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' 2>/dev/null)
MAPPED := MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296

.DEFAULT_GOAL := help
.PHONY: help setup demo claims test gpu bench lint docs

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

$(VENV)/.requirements: requirements-dev.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/.build: $(VENV)/.requirements $(NATIVE)
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

docs: setup ## the docs site, in build/site
	$(PY) docs/pages.py
	$(PY) -m mkdocs build --strict

setup: $(VENV)/.build ## .venv with the dependencies and the built package

demo: setup ## train, compare with torch.nn, validate, benchmark; plots in out/
	$(PY) examples/resnet_block.py
	$(PY) examples/swap_norms.py
	$(PY) examples/blog_autoencoder.py --seeds 0 --out $(OUT)
	$(PY) examples/stream.py --images 400 --seeds 0 --out $(OUT)
	$(PY) examples/batch_norm_gains.py --seeds 0 --out $(OUT)
	$(PY) examples/nin.py --quick --out $(OUT)
	$(PY) -m normkernels info
	$(PY) -m normkernels validate --quick
	$(MAPPED) $(PY) -m bench --quick --csv $(OUT)/bench.csv --plot $(OUT)
	@echo "Done. Plots and bench.csv are in $(abspath $(OUT)):" && ls $(OUT)

claims: setup ## every command of docs/claims.md, in its quick form
	$(PY) examples/claims.py --quick --out $(OUT)

test: setup ## the whole test suite
	$(PY) -m pytest -n 2 --dist worksteal tests

gpu: ## on a machine with an NVIDIA GPU: build with CUDA, test, benchmark; uses python3's own torch, no network
	PYTHON=$(PYTHON) bench/gpu.sh

bench: setup ## the benchmark: ARGS="layer_norm --dtype bfloat16"
	$(MAPPED) $(PY) -m bench $(ARGS)

lint: $(VENV)/.requirements ## ruff, pyright, clang-format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(PY)
	$(VENV)/bin/clang-format --dry-run -Werror $(CPP)
