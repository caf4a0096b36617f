# Targets set up what they need; `make` alone lists them.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format lint types contract bench score kills audit golden clean

help:  ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[dev]'
	@touch $@

setup: $(READY)  ## Install the project and its tools into .venv.

demo: $(READY)  ## Run the whole close against the embedded sandbox.
	$(BIN)/reconcile demo

test: $(READY)  ## Run the tests, on every core.
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

format: $(READY)  ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(READY)  ## Check format and lint.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)  ## Check the types (mypy, strict).
	$(BIN)/mypy

contract: $(READY)  ## Check that imports point down.
	$(BIN)/lint-imports

check: lint types contract test  ## Everything CI checks; the tests come last.

audit:  ## Ask for known vulnerabilities of the pinned packages; what is found stands in .venv/audit/found.json.
	$(PYTHON) -m venv $(VENV)/audit
	rm -f $(VENV)/audit/found.json
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/audit/bin/pip-audit --requirement .ci/constraints.txt --no-deps --disable-pip --progress-spinner off \
	    --format json --output $(VENV)/audit/found.json

golden: $(READY)  ## Write the golden files anew, for review.
	$(BIN)/python -m pytest --update-goldens

bench: $(READY)  ## Measure the heavy step against a plain gzip read.
	$(BIN)/python benchmarks/load.py

score: $(READY)  ## Explain many simulated organizations and compare with what was planted; renews docs/score.md.
	$(BIN)/python benchmarks/score.py --write docs/score.md

kills: $(READY)  ## Kill a close 200 times at random moments; each must be made good by the next.
	KILLS=50 $(BIN)/python -m pytest --numprocesses auto tests/test_crashes.py

clean:  ## Remove what was built or written.
	rm -rf $(VENV) var dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
