PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

.PHONY: install test fast lint bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench,dev]'
	touch $(STAMP)

test: install lint        ## everything that CI runs
	$(BIN)/pytest

fast: install             ## what takes seconds
	$(BIN)/pytest -m "not slow and not real"

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: install            ## the tables of the README; needs REGRAFT_DATA
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/wikineural.py --out out/wikineural

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
