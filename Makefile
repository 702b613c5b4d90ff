# Every target sets up what it needs. PYTHON=… picks the interpreter that .venv is made with.
BIN := .venv/bin
MINUTES := 10
TESTED := pyproject.toml requirements/dev.lock $(shell find src tests -type f -not -name '*.pyc')

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test machine check lint format bench soak lock clean

help: ## this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: .venv/setup.stamp ## .venv with kluis and bao, from hashed locks; compiles nothing

demo: setup ## a stock OpenBao that always comes back, played before your eyes
	@$(BIN)/kluis demo

dev: .venv/dev.stamp ## .venv with every anchor's libraries and the tools as well

test: machine dev ## every test, against real servers
	@scripts/test.sh

machine:
	@scripts/needs.sh build counterparts

check: lint .coverage ## lint and coverage; runs the tests unless the last run still counts
	$(BIN)/coverage report --include='src/kluis/keyring/*' --fail-under=100
	$(BIN)/coverage report --include='src/kluis/engine/*' --fail-under=100
	$(BIN)/coverage report --fail-under=80

lint: dev ## ruff, mypy, the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: dev ## repair what ruff can repair
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: machine .venv/bench.stamp ## kluis beside a stock OpenBao; results in bench/results
	@scripts/needs.sh bench
	@$(BIN)/python -m bench

soak: machine dev ## MINUTES=10 of lost and hung anchors, while a server restarts; SEED=…
	@$(BIN)/python -m tests.scenario.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

lock: ## write the lock files anew; UPGRADE=1 moves to the newest versions
	@scripts/lock.sh

clean: ## remove everything that was made here, .venv too
	rm -rf .venv .venv-tools .coverage .coverage.* .hypothesis .*_cache build dist

.venv/setup.stamp: requirements/build.lock requirements/demo.lock pyproject.toml
	@scripts/setup.sh
	@touch $@

.venv/dev.stamp: requirements/dev.lock .venv/setup.stamp
	@scripts/needs.sh build
	@scripts/install.sh -r requirements/dev.lock
	@touch $@

.venv/bench.stamp: requirements/bench.lock .venv/dev.stamp
	@scripts/install.sh -r requirements/bench.lock
	@touch $@

# Written when every test passed, and dated to the start of that run.
.coverage: $(TESTED) | machine dev
	@scripts/test.sh
