# Two commands matter: `make demo` shows the product, `make test` proves it. Both install what they need into .venv.
# `make test` drives the editors that it finds; `make editors` installs them all.
PYTHON ?= python3
BIN := .venv/bin
CONSTRAINTS := .ci/constraints.txt

.DEFAULT_GOAL := help
VSCODE := editors/vscode
VSIX := $(VSCODE)/dg-lsp-$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml).vsix

.PHONY: help demo test lint format bench editors vsix pictures clean

help:  ## Show this list.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: .venv/engine  ## Watch completions crystallise in a real file, over LSP, from the shipped model.
	$(BIN)/dg-lsp demo

test: .venv/dev  ## Run the whole test suite.
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

lint: .venv/dev  ## Check format, style and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/dev  ## Rewrite the sources in the project's format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/engine  ## Measure the shipped model here.
	$(BIN)/dg-engine bench

editors: .venv/dev  ## Install the editors that the tests drive: system packages, npm, and the VS Code extension.
	.ci/editors
	$(MAKE) vsix
	$(BIN)/python tests/editors/registry.py

vsix: $(VSIX)  ## Build the VS Code extension, to be installed with "Install from VSIX".

$(VSIX): $(VSCODE)/package.json $(VSCODE)/package-lock.json $(wildcard $(VSCODE)/src/*.ts) LICENSE
	cd $(VSCODE) && npm ci --no-audit --no-fund && npm run check && npm test && npm run package

pictures: .venv/dev $(VSIX)  ## Make the README's pictures anew, in the real editor.
	$(BIN)/python tests/editors/pictures.py

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
