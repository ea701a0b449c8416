# Everything runs in .venv, made from requirements/dev.txt. Another interpreter: make setup PYTHON=python3.13
PYTHON ?= python3
BIN := .venv/bin
LOCKED := --no-deps --require-hashes -r requirements/dev.txt

.PHONY: help setup demo test test-fast test-slow coverage lint docs lock benchmark clean

help:
	@echo "make demo       train on synthetic lesions and show the result"
	@echo "make test       run the tests"
	@echo "make test-fast  only the tests that need no TensorFlow, MLflow, process or search for near duplicates: under a minute"
	@echo "make test-slow  run the slow tests too"
	@echo "make coverage   run the tests and show which lines they cover"
	@echo "make lint       ruff and mypy"
	@echo "make docs       the documentation site in build/site"
	@echo "make benchmark  speed against plain baselines (needs MELANOMA_DATA)"
	@echo "make lock       write the lock files from pyproject.toml"

setup: .venv/.ready

.venv/.ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11 to 3.13 is needed; give one with PYTHON=python3.12. Received: $$($(PYTHON) --version)"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
# uv needs a third of pip's time, but does not know an index that only pip is configured for.
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(LOCKED) || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(LOCKED)
# On all cores, and here, not at the first import: where PYTHONDONTWRITEBYTECODE is set each process would compile anew.
	$(BIN)/python -m compileall -q -j 0 -x /tests/ $(BIN)/../lib > /dev/null || true
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	$(BIN)/melanoma train

# One process of tests more than cores, because tests wait for the processes that they start; up to four: each needs 2 GB.
WORKERS := -n $$(( $$(nproc) + 1 )) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: setup
	$(BIN)/python -m pytest -m "not slow" $(WORKERS)

test-fast: setup
	$(BIN)/python -m pytest tests/config tests/unit --fast -q $(WORKERS)

coverage: setup
	$(BIN)/python -m pytest -m "not slow" $(WORKERS) --cov=melanoma --cov-report=term:skip-covered --cov-report=html
	@echo "Line by line: htmlcov/index.html"

test-slow: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: setup
	$(BIN)/python -m benchmarks

docs: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/docs.txt
	$(BIN)/python tools/pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Site: build/site/index.html"

lock: setup
	$(BIN)/python tools/lock.py

clean:
	rm -rf .venv outputs build
