# Every target makes what it needs: .venv from the first Python 3.11+ found, then the packages that the target uses.
# A stamp in .venv records each set of packages; nothing is fetched while pyproject.toml and constraints.txt are older.

VENV := .venv
BIN := $(VENV)/bin
# python3.11 first: constraints.txt was run with it.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# Whatever the shell says: hundreds of processes start in the tests, and each would compile everything anew.
export PYTHONDONTWRITEBYTECODE :=

# What `make soak` runs larger: some directories, and all properties.
BATTERIES := tests/simulation tests/faults tests/soak tests/fuzz tests/properties tests/regressions \
	$(shell grep -rl --include='test_*.py' '^from hypothesis' tests)

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench soak mutants coverage proto docs dev clean

help: ## show the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(VENV)/.runtime ## a provider and two modules that call each other, a cancel by signal, a clean stop
	@$(BIN)/dk-trio demo

test: $(VENV)/.test ## run the tests, in two processes; ARGS="-k name" narrows them, ARGS="-n0" makes it one
	$(BIN)/pytest -n 2 --dist loadfile $(ARGS)

check: $(VENV)/.dev docs ## lint, formatting, types, and the documentation in strict mode
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.dev ## apply the formatter and the safe fixes
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

bench: $(VENV)/.bench ## compare with grpc.aio and print a table
	$(BIN)/python -m bench $(ARGS)

soak: $(VENV)/.test ## run the batteries at night size, an hour or two, and note what they did for docs/reliability.md
	DK_TRIO_SOAK=1 DK_TRIO_FIGURES=docs/figures $(BIN)/pytest -n 2 --dist loadfile $(or $(ARGS),$(BATTERIES))

mutants: $(VENV)/.test ## plant deliberate bugs, one at a time: each must be caught by the batteries
	DK_TRIO_FIGURES=docs/figures $(BIN)/python -m tests.mutants $(ARGS)

# The figures of the documentation are those of all tests, so ARGS="-k name" notes none.
coverage: $(VENV)/.test ## run the tests, and print the branches of src/ that none of them takes
	rm -f .coverage .coverage.*
	-$(BIN)/coverage run -m pytest -n 2 --dist loadfile -q $(ARGS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report
	$(if $(ARGS),,DK_TRIO_FIGURES=docs/figures $(BIN)/python -m tests.coverage_figures)

proto: $(VENV)/.proto ## generate src/dk_trio/pb from proto/
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python proto/generate.py

docs: $(VENV)/.docs $(VENV)/.test ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

dev: $(VENV)/.dev $(VENV)/.test $(VENV)/.bench $(VENV)/.docs ## install everything

clean: ## remove the environment and everything generated that is not committed
	rm -rf $(VENV) site docs/generated build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with the venv module found; try: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

PIP = $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	@touch $@

$(VENV)/.test $(VENV)/.dev $(VENV)/.bench $(VENV)/.docs $(VENV)/.proto: $(VENV)/.%: $(VENV)/.runtime
	$(PIP) --editable '.[$*]'
	@touch $@
