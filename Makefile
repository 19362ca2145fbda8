# Every target makes what it needs by itself; `make test` is what CI runs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := test
.PHONY: env lint test bench demo fault-matrix exit-test kill-test soak short-lived model-test chains-test leak-test docs constraints clean

BIN := .venv/bin

env: .venv/.made

.venv/.made: .ci/env.sh .ci/requirements.txt .ci/constraints.txt pyproject.toml $(wildcard plugins/*/pyproject.toml)
	.ci/env.sh
	touch $@

.venv/.bench: .venv/.made
	$(BIN)/python -m pip install -qq --no-build-isolation --constraint .ci/constraints.txt -e '.[bench]'
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
	$(BIN)/python tests/bench/run.py $(ARGS)

demo: env
	$(BIN)/python tests/demo/run.py

# Every fault of the fault-injecting server, with a program that is killed and one that ends.
fault-matrix: env
	FAULT_MATRIX=1 $(BIN)/pytest -q -n 2 tests/faults/test_fault_matrix.py

# What the end of a process takes in every state of a server; each twenty times, in turn with no telemetry.
exit-test: env
	EXIT_ROUNDS=20 $(BIN)/pytest -q -s tests/faults/test_exit.py

# 1,000 processes killed at random moments, 400 right after a capture, and one of two containers again and again.
kill-test: env
	$(BIN)/python tests/long/kill.py $(ARGS)
	$(BIN)/python tests/long/containers.py

# A million events over eight processes, with random kills and a flapping server. For fewer: ARGS="--events 100000".
soak: env
	$(BIN)/python tests/long/soak.py $(ARGS)

# 100,000 steps of the state machine against its reference; then a process killed at each of its system calls in turn.
# For more: ARGS="--steps 1000000 --seconds 20000"; a round that failed: ARGS="--seed N".
model-test: env
	$(BIN)/python tests/model/run.py $(ARGS)
	MODEL_EVERY_CALL=1 $(BIN)/pytest -q -s tests/model/test_killed.py
	MODEL_EVERY_CALL=1 $(BIN)/pytest -q -k killed tests/cli/test_cli_optout.py tests/cli/test_cli_resetid.py

# Random graphs of commands that trigger each other, in real runs, against a reference; also shut down at any moment.
chains-test: env
	CHAINS_EXAMPLES=1000 $(BIN)/pytest -q --timeout 900 tests/test_chains_model.py

# How long events wait where no process lives longer than a second.
short-lived: env
	$(BIN)/python tests/long/short_lived.py $(ARGS)

# 10,000 runs at least with canaries in whatever a person would not want to share; all that leaves is searched for them.
# For more: ARGS="--runs 100000"; a run that found something: ARGS="--seed N".
leak-test: env
	$(BIN)/python tests/leak/run.py $(ARGS)

# The pages that are made of the spec. A test fails where one of them differs.
docs: env
	$(BIN)/cmdorc-telemetry spec export cmdorc_telemetry/spec/core.telemetry.toml --format markdown > docs/what-we-collect.md

constraints: env
	.ci/constraints.sh

clean:
	rm -rf .venv build dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
