PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes
UV = $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --compile-bytecode

.PHONY: help setup demo test test-slow lint docs lock bench clean

help: ## Say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(VENV)/ready ## Create .venv with exactly what requirements.lock says, hashes checked

# Of all packages fire alone has no wheel: the lock's setuptools builds it, not PyPI's newest.
# uv installs in seconds what takes pip minutes, but reads none of pip's settings: behind a mirror
# that only those name, pip does it.
# By a path, not by a hook: which comes after a folder `xmore` that Python is started beside.
# Bytecode is compiled now: where the disk is full later, Python would leave half a file of it.
$(VENV)/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	sed -n '/^setuptools==/,/# via/p; /^uv==/,/# via/p' requirements.lock | $(PIP) -r /dev/stdin
	$(UV) --require-hashes -r requirements.lock || $(PIP) --no-build-isolation -r requirements.lock
	$(UV) --config-settings editable_mode=compat -e .
	$(BIN)/python -m compileall -q flows tasks index_build xmore
	touch $@

demo: setup ## Run the whole job on the embedded data and print its leaderboard
	$(BIN)/xmore demo

# Three workers on two cores: many tests wait for servers.
test: setup ## Run the tests, with one kill of each kind
	$(BIN)/pytest -q -n 3 --dist worksteal -m "not slow"

test-slow: setup ## Run all tests, with ten kills of each kind
	XMORE_KILLS=10 $(BIN)/pytest -q -n 3 --dist worksteal

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
	$(BIN)/python benchmarks/peer_on_cpu.py
	$(BIN)/python benchmarks/index.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/retrieval.py pairs 1000000
	$(BIN)/python benchmarks/retrieval.py scan
	$(BIN)/python benchmarks/publishing.py changes
	$(BIN)/python benchmarks/publishing.py source
	$(BIN)/python benchmarks/publishing.py hashing
	$(BIN)/python benchmarks/publishing.py tasks

# uv resolves for both Pythons on Linux x86_64 and says so on every line; sed leaves the markers of
# the few packages that only one Python needs. Pins that still fit stay as they are.
lock: ## Resolve pyproject.toml into requirements.lock, with hashes
	$(PYTHON) -m venv --clear $(VENV)-lock
	sed -n '/^uv==/,/# via/p' requirements.lock | $(VENV)-lock/bin/pip install --quiet --require-hashes -r /dev/stdin
	$(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--fork-strategy fewest --extra dev --extra dask --extra ray --extra clip-benchmark \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	sed -i "s/ ; python_full_version < '3.13' and .* \\\\$$/ \\\\/; \
		s/ and platform_machine == 'x86_64' and sys_platform == 'linux'//" requirements.lock

clean: ## Remove what runs have made; keeps .venv
	-test ! -x $(BIN)/xmore || $(BIN)/xmore down
	rm -rf data/models data/memory results/store results/runs results/cache results/prefect
