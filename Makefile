# make leaderboard · make test · make check · make torture
# Each works alone on a machine with python3, venv and make; what is installed already is not installed again.
.DELETE_ON_ERROR:
.PHONY: leaderboard test torture check format clean

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
TESTS ?= tests

# Data that lies beside the checkout is found by itself; tests that need it are skipped, and counted, without it.
export OOD_HARNESS_DATA ?= $(wildcard $(abspath ../shared/data))

leaderboard: $(INSTALLED)
	$(BIN)/ood-harness run digits

test: $(INSTALLED)
	$(BIN)/pytest -n auto --dist worksteal $(TESTS)

# Every trial of what docs/reliability.md promises, of which `make test` takes a sample: about half an hour on two cores.
torture: $(INSTALLED)
	OOD_HARNESS_TORTURE=1 $(BIN)/pytest -n auto --dist worksteal --figures results/reliability.txt \
		tests/reliability tests/cli/test_newcomers.py

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) test

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Compiled here, once: where Python may not write bytecode, every start would compile torch anew, for 20 s.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraints constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv
