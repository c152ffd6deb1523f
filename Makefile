# Each target makes what it needs in .venv: only Python 3.11 or newer has to be there.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test check

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

demo: .venv/.demo  ## a few minutes on two cores: plain cross-entropy against thresholding, table and report
	$(BIN)/decone compare --methods mle,threshold:margin=1+row-adamw --seeds 4 --steps 600 \
		--set model.layers=2 --set optimizer.lr=2e-3 --out runs/demo

test: .venv/.dev  ## all tests but the slow ones and those for a GPU, a process per core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal

check: .venv/.dev  ## style, types, direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The stamps: an environment, and what is installed in it.
.venv/.made:
	@command -v $(PYTHON) >/dev/null || { echo "decone needs Python 3.11 or newer, and there is no $(PYTHON): install it, or name one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "decone needs Python 3.11 or newer, and $(PYTHON) is older: name a newer one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module: install it (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.demo: .venv/.made pyproject.toml constraints.txt
	$(PIP) -e '.[report]'
	@touch $@

.venv/.dev: .venv/.made pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	@touch $@
