# Everything runs in .venv/ of this checkout, made on first use. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install -q -c constraints.txt
# One more than there are cores: the tests that start engines wait most of their time.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
AREA ?= linear
JSON ?=
# Kept bytecode, also where a machine forbids it: each of the many processes would compile the package anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run test lint docs bench
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/'

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e ".[studies]"
	@touch $@

.venv/.developing: .venv/.installed
	$(PIP) -e ".[dev,docs,bench]"
	@touch $@

run: .venv/.installed  ## rerun the papers' claims and open the report
	$(BIN)/thalweg reproduce --scale quick --open

test: .venv/.developing  ## run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --durations=25 --durations-min=5

lint: .venv/.developing  ## style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: .venv/.developing  ## build the site into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: .venv/.developing  ## time AREA against its peers; JSON=file keeps the rows
	$(BIN)/python -m benchmarks $(AREA) $(if $(JSON),--json $(JSON))
