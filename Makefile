# Two commands set everything up on a fresh machine: `make demo` and `make test`.
# PYTHON chooses the interpreter (3.11 or later), VENV the environment's folder.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST_ARGS ?=
BENCH_ARGS ?=

.PHONY: demo test check bench format clean

demo: $(VENV)/.demo
	cd examples/cookbook && $(abspath $(BIN))/headrace run main:app --stack

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.demo
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# Stamps: an environment is made once, and again when the dependencies change.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade "pip>=25.1"

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable ".[all]" --group cookbook
	touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.demo
	$(PIP) install --group check --group test
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
