# robcomp: bare `make` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SCALE ?= cpu
ARGS ?=
JOBS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-fast test-combinations test-oracle lint docs results clean

help:  ## this list
	@grep -hE '^[a-zA-Z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-zA-Z%-]+):.*## (.*)/  make \1\t\2/' | expand -t 26

install: $(VENV)/ready  ## create .venv with robcomp, its tests and figures

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[test,figures]'
	@touch $@

quickstart: $(VENV)/ready  ## install, then train, pack, attack and report ATMC on the embedded digits
	$(BIN)/robcomp train

test: $(VENV)/ready lint  ## the tests, two at a time (real data where ROBCOMP_DATA_DIR points to some)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/ready lint  ## without the tests marked slow: under three minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-combinations: $(VENV)/ready  ## every data set with every model and method, and all recipes with all methods (10 minutes)
	ROBCOMP_COMBINATIONS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal \
	  tests/contracts/test_pairs.py tests/settings/test_compose.py

test-oracle: $(VENV)/ready  ## attacks beside pyautoattack and torchattacks on MNIST and CIFAR-10 (installs both; an hour)
	$(BIN)/pip install --quiet --no-deps pyautoattack==0.2 torchattacks==3.5.1
	ROBCOMP_ORACLE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s tests/attacks/test_oracle.py

lint: $(VENV)/ready  ## style of sources, tests and scripts, types of the sources
	$(BIN)/ruff check src tests scripts
	$(BIN)/ruff format --check --quiet src tests scripts
	$(BIN)/mypy

table-%: $(VENV)/ready  ## rebuild a table, e.g. make table-atmc-mnist SCALE=smoke|cpu|gpu|paper JOBS=2 ARGS="seed=1"
	$(BIN)/robcomp table $* --scale $(SCALE) jobs=$(JOBS) $(ARGS)

docs: $(VENV)/ready  ## write the lists in docs/report.md and docs/published-settings.md
	$(BIN)/python scripts/render_docs.py

results: $(VENV)/ready  ## render the pages under results/ from the reports beside them
	$(BIN)/python scripts/render_results.py

clean:  ## remove .venv and caches; outputs/ and results/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build dist
