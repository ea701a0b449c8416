# Everything runs in .venv, made from requirements/dev.txt. Another interpreter: make setup PYTHON=python3.13
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test test-slow lint lock benchmark clean

help:
	@echo "make demo       train on synthetic lesions and show the result"
	@echo "make test       run the tests"
	@echo "make test-slow  run the slow tests too"
	@echo "make lint       ruff and mypy"
	@echo "make benchmark  speed against plain baselines (needs MELANOMA_DATA)"
	@echo "make lock       write the lock files from pyproject.toml"

setup: .venv/.ready

.venv/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11 to 3.13 is needed; give one with PYTHON=python3.12. Received: $$($(PYTHON) --version)"; exit 2; }
	$(PYTHON) -m venv .venv
# Python compiles what is imported; to compile all of it here takes longer than it saves.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	$(BIN)/melanoma train

# In the order of the folders, so that the long files come first and the short ones fill the end.
test: setup
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: setup
	$(BIN)/python -m benchmarks

lock: setup
	$(BIN)/python tools/lock.py

clean:
	rm -rf .venv outputs
