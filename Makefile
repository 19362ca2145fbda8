# Every target makes what it needs by itself; `make test` is what CI runs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := test
.PHONY: env lint test bench demo constraints clean

BIN := .venv/bin

env: .venv/.made

.venv/.made: .ci/env.sh .ci/requirements.txt .ci/constraints.txt pyproject.toml $(wildcard plugins/*/pyproject.toml)
	.ci/env.sh
	touch $@

.venv/.bench: .venv/.made .ci/requirements-bench.txt
	$(BIN)/python -m pip install -qq --constraint .ci/constraints.txt --requirement .ci/requirements-bench.txt
	touch $@

lint: env
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# pytest's own closing line is printed again at the end, below the coverage of the core.
test: lint
	mkdir -p build
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 | tee build/pytest.log
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	tail -n 1 build/pytest.log

bench: .venv/.bench
	mkdir -p build
	$(BIN)/python tests/bench/run.py

demo: env
	$(BIN)/python tests/demo/run.py

constraints: env
	.ci/constraints.sh

clean:
	rm -rf .venv build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
