PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup demo test lint docs lock bench clean

help: ## Say what each target does
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(VENV)/ready ## Create .venv with exactly what requirements.lock says

$(VENV)/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

demo: setup ## Run the whole job on the embedded data and print its leaderboard
	$(BIN)/xmore demo

test: setup ## Run all tests
	$(BIN)/pytest -q -n 2 --dist loadfile

lint: setup ## Check style, imports, types and that docs/reference is current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/reference.py --check

docs: setup ## Write docs/reference/ anew from the code
	$(BIN)/python docs/reference.py

bench: setup ## Measure memory and speed, as ratios
	$(BIN)/python benchmarks/memory_growth.py
	$(BIN)/python benchmarks/embedding.py
	$(BIN)/python benchmarks/index.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/report.py

lock: ## Resolve pyproject.toml anew into requirements.lock
	$(PYTHON) -m venv --clear $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet ".[dev,dask,ray]"
	$(VENV)-lock/bin/pip install --quiet --no-deps clip-benchmark==1.6.2
	$(VENV)-lock/bin/pip freeze --exclude xmore --exclude dataclasses > requirements.lock

clean: ## Remove what runs have made; keeps .venv
	-test ! -x $(BIN)/xmore || $(BIN)/xmore down
	rm -rf data/models data/memory results/store results/runs results/cache results/prefect
