# Everything runs in .venv/ of this checkout, made on first use.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: test lint
.DEFAULT_GOAL := test

.venv/python:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e .
	@touch $@

.venv/dev: .venv/python pyproject.toml constraints.txt
	$(BIN)/pip install -q -c constraints.txt -e ".[dev,docs,bench]"
	@touch $@

test: .venv/dev  ## run the tests
	$(BIN)/python -m pytest

lint: .venv/dev  ## style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
