# Two commands matter: `make demo` shows the product, `make test` proves it. Both install what they need into .venv.
PYTHON ?= python3
BIN := .venv/bin
CONSTRAINTS := .ci/constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench clean

help:  ## Show this list.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: .venv/engine  ## Watch completions crystallise in a real file, over LSP, from the shipped model.
	$(BIN)/dg-lsp demo

test: .venv/dev  ## Run the whole test suite.
	$(BIN)/python -m pytest

lint: .venv/dev  ## Check format, style and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/dev  ## Rewrite the sources in the project's format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/engine  ## Measure the shipped model here.
	$(BIN)/dg-engine bench

clean:  ## Remove the virtual environment and the caches.
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dg-lsp needs Python 3.11 or newer, not " + sys.version.split()[0] + ": try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/engine: .venv/pip pyproject.toml $(CONSTRAINTS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[engine]'
	@touch $@

.venv/dev: .venv/pip pyproject.toml $(CONSTRAINTS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@ .venv/engine
