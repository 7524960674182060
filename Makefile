# Everything happens in .venv; a stamp in it remembers what is installed, so that a repeat does no pip at all.

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --quiet --no-input --disable-pip-version-check
SOURCES := $(wildcard chimera jobs bench)

# The first Python 3.11 on this machine; PYTHON=/path/to/python3.11 names another.
PYTHON ?= $(firstword $(foreach name,python3.11 python3 /usr/bin/python3.11,\
	$(shell $(name) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $(name))))

# What `make run` needs: the base packages, or every extra where those are installed already.
INSTALLED := $(if $(wildcard .venv/.all),.venv/.all,.venv/.base)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run install test soak chaos overload coverage check lint fresh lock bench dist clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(INSTALLED) ## install what is missing and run the example mission
	$(BIN)/chimera run --mission examples/missions/datasets.yaml

install: .venv/.all ## install Chimera with every extra

test: .venv/.all ## install and run the whole test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

soak: .venv/.all ## the long tests, which `make test` leaves out
	$(BIN)/python -m pytest -m soak

chaos: .venv/.all ## a hundred times kill -9 of a cell, a manager, the coordinator or a node (20 minutes)
	$(BIN)/python -m bench.chaos

overload: .venv/.all ## five times the load that a swarm can carry (3 minutes)
	$(BIN)/python -m bench.overload

coverage: .venv/.all ## the test suite with branch coverage
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage report

check: fresh .venv/.all ## style, types, floors and the pins
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict $(SOURCES)
	$(BIN)/lint-imports

fresh: $(BIN)/python
	@$(BIN)/python .ci/constraints.py check

lock: $(BIN)/pip-compile ## pin the versions anew; UPGRADE=--upgrade takes the newest
	$(BIN)/python .ci/constraints.py write $(UPGRADE)

bench: .venv/.all ## measure question answering and the journal
	$(BIN)/python bench/qa_consensus.py tests/data/qa
	$(BIN)/python bench/journal.py

dist: $(BIN)/python ## the wheel and its pins, for ray_cluster.yaml
	rm -rf build dist
	$(PIP) wheel --no-deps --wheel-dir dist .
	cp constraints.txt dist/

clean: ## remove what make made
	rm -rf .venv build dist chimera.egg-info .coverage htmlcov
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

.venv/.base: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Chimera into .venv (the first time takes a minute)"
	@$(PIP) install -c constraints.txt -e .
	@touch $@

# What Chimera itself runs is compiled at once, in .base; the rest when it is first imported.
.venv/.all: .venv/.base .ci/no-deps.txt
	@echo "Installing Chimera with every extra into .venv (the first time takes a few minutes)"
	@$(PIP) install --no-compile -c constraints.txt -e '.[all]'
	@$(PIP) install --no-compile --no-deps -r .ci/no-deps.txt
	@touch $@ .venv/.base

$(BIN)/pip-compile: | $(BIN)/python
	@$(PIP) install -c constraints.txt pip-tools

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Chimera needs Python 3.11: install it, or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make a virtual environment: on Debian and Ubuntu, apt-get install python3.11-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv
