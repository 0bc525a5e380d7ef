.DEFAULT_GOAL := help
PYTHON ?= python

help: ## Show what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: ## Install for work on the code, in the tested versions, with the pre-commit hooks
	$(PYTHON) -m pip install -c constraints.txt -e '.[test,dev]'
	pre-commit install

test: ## Run the tests (CPU, offline)
	$(PYTHON) -m pytest -q

test-all: ## Run the slow and the GPU tests too
	$(PYTHON) -m pytest -q -m ''

lint: ## Check style, format and types
	ruff check
	ruff format --check
	mypy mm

format: ## Format and sort the imports
	ruff check --fix
	ruff format

lines: ## Count lines of code per folder and on the way from picture to caption
	$(PYTHON) scripts/count_lines.py

ci: ## Do what a change has to pass, in a fresh virtual environment
	bash .ci/run

constraints: ## Write constraints.txt from the installed environment
	{ sed '/^[^#]/,$$d' constraints.txt; \
	  $(PYTHON) -m pip freeze --exclude-editable | grep -viE '^(nvidia|cuda|triton|mm)([-_ =@]|$$)'; } > constraints.new
	mv constraints.new constraints.txt

.PHONY: help install test test-all lint format lines ci constraints
