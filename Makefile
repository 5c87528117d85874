# Commands for every chore; CI and the README use the same ones.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOWEST ?= .venv-lowest
OUT ?= out/demo
REFERENCE ?=
PEERS ?=
# Tests run in this many processes, one file at a time each, with one thread of torch and BLAS unless told otherwise.
WORKERS ?= 2
test test-all slow docs: export OMP_NUM_THREADS ?= 1
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all slow test-cpus test-lowest test-cuda lint docs bench clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## Create .venv with everything pinned (about 3 GB to download, once)

# The first interpreter that runs and is new enough; PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

$(READY): pyproject.toml constraints.txt assets.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; install one, or say make PYTHON=/path/to/python3"; exit 1; }
	@start=$$SECONDS; echo "setting up $(VENV) with $$($(PYTHON) --version) …"; \
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || exit 1; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' 2> >(grep -v '^WARNING: Location' >&2) || exit 1; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r assets.txt 2> >(grep -v '^WARNING: Location' >&2) || exit 1; \
	touch $(READY); echo "set up in $$((SECONDS - start)) s"

demo: $(READY) ## Run the main commands on sample data and write HTML pages into out/demo (about 4 minutes on 2 idle cores)
	$(BIN)/xinc demo --out $(OUT)
	@echo "and what a class and an objective of Lucent's see in a cup of coffee (examples/accentuate_a_photo.py) …"
	@cd $(OUT) && $(abspath $(BIN))/python $(CURDIR)/examples/accentuate_a_photo.py && echo "  $(OUT)/accentuated.png"

test: $(READY) ## Run the tests but for the slow ones, in WORKERS=2 processes (about three minutes)
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile -m "not slow"

test-all: $(READY) ## Run every test, and print slow ones that tests/slow.txt does not name (about ten minutes)
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --check-slow

slow: $(READY) ## Measure every test, and write the slow ones into tests/slow.txt
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --write-slow

test-cpus: $(READY) ## Run the tests that compare numbers with other kernels and threads (9 settings, about 30 minutes)
	$(BIN)/python tests/cpus.py --workers $(WORKERS)

# Every range of pyproject.toml at its lower end, on Python 3.11 or 3.12: captum 0.8 wants numpy below 2. The date holds
# still what no range of ours names.
$(LOWEST)/.ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; install one, or say make PYTHON=/path/to/python3"; exit 1; }
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
		--exclude-newer 2026-11-20 -e '.[test]'
	touch $@

test-lowest: $(LOWEST)/.ready ## Run the contract and the attributions' tests on captum 0.8 and torch 2.6 (about 6 GB on disk)
	$(LOWEST)/bin/python -m pytest -q tests/contract tests/attributions tests/hooks tests/test_compat.py

test-cuda: $(READY) ## Run the tests that need an NVIDIA GPU
	$(BIN)/pytest -q -m cuda

lint: $(READY) ## Format check, style, strict types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(READY) ## Run every python block of README and docs/, check links, pictures and quoted messages
	$(BIN)/pytest -q tests/test_readme.py tests/docs

bench: $(READY) ## Measure; REFERENCE=folder adds the recorded originals, PEERS=folder the peers' libraries (6 GB)
	$(BIN)/python benchmarks/captum_cost.py
	$(BIN)/python benchmarks/leak.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/method_comparison.py
	$(BIN)/python benchmarks/step_cost.py
	$(BIN)/python benchmarks/cost_to_result.py
	$(BIN)/python benchmarks/accentuation_ablation.py
	$(BIN)/python benchmarks/doses.py
	$(BIN)/python benchmarks/trust.py
	$(BIN)/python benchmarks/canvas_trust.py
	$(if $(PEERS),benchmarks/peers/run.sh "$(PEERS)" $(BIN)/python)
	$(BIN)/python benchmarks/cost.py --reference "$(REFERENCE)"
	$(BIN)/python benchmarks/fit_quality.py
	$(BIN)/python benchmarks/video_fit.py
	$(BIN)/python benchmarks/decoder_cost.py
	$(BIN)/python benchmarks/faithfulness_video.py
	$(BIN)/python benchmarks/large_image.py
	$(BIN)/python benchmarks/canvas_store.py
	$(BIN)/python benchmarks/nern.py digits
	$(BIN)/python benchmarks/nern.py mnist
	$(BIN)/python benchmarks/nern_curves.py
	$(BIN)/python benchmarks/nern_modes.py
	$(BIN)/python benchmarks/trans_inr.py
	$(if $(REFERENCE),$(BIN)/python benchmarks/parity.py "$(REFERENCE)")
	$(if $(REFERENCE),$(BIN)/python benchmarks/faithfulness.py "$(REFERENCE)")
	$(if $(REFERENCE),$(BIN)/python benchmarks/analyses.py "$(REFERENCE)")

clean: ## Remove .venv and everything that was made
	rm -rf $(VENV) $(LOWEST) out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
