# SPDX-License-Identifier: Apache-2.0
# Copyright The pictory_provider authors
#
# make demo              pictures from a simulated Pictory, made by a real Airflow
# make test              the tests
#
# make ui                the same Airflow in your browser, until Ctrl-C
# make test-pure         the pure rules alone, without Airflow
# make test-browser      what a user sees, in a headless Chromium
# make test-newcomer     the quickstart as written, in an empty environment
# make test-readers      a batch's folder, read by datasets, pandas and DuckDB
# make test-faults       the long runs: kills, lost replies, two triggerers
# make test-faults-lines, test-faults-batches, test-faults-others      its three parts
# make test-distributed  200 pictures on Celery, Redis and PostgreSQL
# make matrix            every supported Airflow
# make live              ask the real Pictory what its docs leave open; asks before it buys a picture
# make lint, format      ruff and mypy
# make docs, site        the website, and what its code does; docs-update quotes it anew
# make screenshots       the docs' pictures of Airflow
# make bench             the figures of docs/performance.md
# make clean             all of it away
#
# CONTRIBUTING.md tells more of each.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
BESIDE_EACH_OTHER = --numprocesses $(shell $(PYTHON) -c 'import os; print(1 + os.cpu_count())')

# With it each process of Airflow compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo ui test test-pure test-browser test-newcomer test-readers test-faults test-faults-lines test-faults-batches test-faults-others test-distributed matrix live lint format docs site docs-update screenshots bench clean

help:
	@sed -n '4,23s/^# \{0,1\}//p' Makefile

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 15) else "Python 3.11 to 3.14 is needed: make PYTHON=/path/to/python3.11 demo")'
	@echo "Installing Airflow and the provider into .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group dev --editable '.[simulator]'
	@touch $@

demo: .venv/.installed
	@$(BIN)/python -m demo pictures

ui: .venv/.installed
	@$(BIN)/python -m demo ui

# The tests of a real Airflow wait most of the time, so they have a process beside those that are busy.
test: .venv/.installed
	@$(BIN)/python -m pytest $(BESIDE_EACH_OTHER)

test-pure: .venv/.installed
	@PICTORY_WITHOUT_AIRFLOW=1 $(BIN)/python -m pytest --numprocesses auto tests/pure

test-newcomer: .venv/.installed
	@$(BIN)/python -m pytest tests/newcomer

test-readers: .venv/.installed
	@$(BIN)/python -m pytest tests/readers

test-browser: .venv/.installed site
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group screenshots
	@$(BIN)/python -m pytest tests/browser

# Three processes, as they wait most of the time. The first forks, so it may have one thread only. Each of the others
# has an Airflow of its own, and searches what it wrote for the key at the end.
FORKS := tests/faults/test_every_line.py tests/faults/test_a_long_bad_day.py
BATCHES := $(sort $(wildcard tests/faults/test_batches*.py tests/faults/test_kills*.py))
CANARY := tests/faults/test_the_key_is_a_canary.py
FAULTS = $(if $(QUICK),PICTORY_QUICK=1) $(BIN)/python -m pytest $(if $(QUICK),--deselect=tests/faults/test_batches_on_bad_days.py)

test-faults: .venv/.installed
	@$(MAKE) --no-print-directory --keep-going --jobs 3 $(if $(filter output-sync,$(.FEATURES)),--output-sync) test-faults-lines test-faults-batches test-faults-others

test-faults-lines: .venv/.installed
	@$(FAULTS) $(FORKS)

test-faults-batches: .venv/.installed
	@$(FAULTS) $(BATCHES) $(CANARY)

test-faults-others: .venv/.installed
	@$(FAULTS) tests/faults $(addprefix --ignore=,$(FORKS) $(BATCHES))

# PICTURES=40: so many in place of 200
test-distributed: .venv/.installed
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group distributed
	@$(if $(PICTURES),PICTORY_PICTURES=$(PICTURES)) $(BIN)/python -m pytest tests/distributed

# ALL=1: every Airflow with every Python
matrix: .venv/.installed
	@$(BIN)/python -m tests.versions $(if $(ALL),--all) $(if $(QUICK),--quick)

# It needs PICTORY_API_KEY, and says what else it takes: python -m tests.live help
live: .venv/.installed
	@$(BIN)/python -m tests.live

lint: .venv/.installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: .venv/.installed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs-update: .venv/.installed
	@$(BIN)/python -m tests.docs.snippets

docs: site
	@$(BIN)/python -m pytest tests/docs

site: .venv/.installed
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group docs
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs docs/_build/html
	@echo "The website is docs/_build/html/index.html"

screenshots: .venv/.installed
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group screenshots
	@$(BIN)/python docs/screenshots.py
	@PICTORY_SCREENSHOTS=1 $(BIN)/python -m pytest tests/browser

bench: .venv/.installed
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group bench
	@$(BIN)/python -m benchmarks

clean:
	rm -rf .venv .demo dist build docs/_build .mypy_cache .ruff_cache .hypothesis
