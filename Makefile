# Turnout: `make run` and `make test` do everything from a fresh clone. `make help` lists the rest.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# make run PORT=9000 WORKERS=4; left out, the TURNOUT_ variables and their defaults count. HOST only from make's own command line:
# some shells export a variable of that name.
WHERE = $(if $(filter command line,$(origin HOST)),--host $(HOST)) $(if $(PORT),--port $(PORT)) $(if $(WORKERS),--workers $(WORKERS))
# Empty is as good as unset: compiled modules are kept, so that a second start is fast.
export PYTHONDONTWRITEBYTECODE :=

##@ Set-up
help: ## show this help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.run ## make the virtual environment with what the service needs
$(VENV)/.run: requirements/run.lock pyproject.toml tools/bootstrap.py
	@$(PYTHON) tools/bootstrap.py $(VENV) requirements/run.lock $@
install-dev: $(VENV)/.dev ## ... and what tests, linters and types need
$(VENV)/.dev: requirements/dev.lock pyproject.toml tools/bootstrap.py
	@$(PYTHON) tools/bootstrap.py $(VENV) requirements/dev.lock $@ $(VENV)/.run

##@ Run
run: $(VENV)/.run ## everything from a fresh clone to a service with demo tenants on http://127.0.0.1:8000 (PORT=9000 moves it)
	@exec $(BIN)/turnout serve --stop-with-parent --demo $(WHERE)
serve: $(VENV)/.run ## the service without the demo tenants
	@exec $(BIN)/turnout serve --stop-with-parent $(WHERE)
demo: $(VENV)/.run ## seed the demo tenants into a running service (idempotent)
	@exec $(BIN)/turnout demo $(if $(PORT),--url http://127.0.0.1:$(PORT))

unleash: $(VENV)/.dev ## a real Unleash server on http://127.0.0.1:4242 (PORT=4300 moves it); prints how Turnout finds it
	@exec $(BIN)/python -m tools.unleash $(if $(PORT),--port $(PORT))

##@ Test
test: $(VENV)/.dev ## the test suite: unit, contract, integration and isolation, real PostgreSQL included
	@$(BIN)/pytest -m "not slow" -n 2 --dist loadgroup
test-unit: $(VENV)/.dev ## pure tests: no socket, no process, seconds
	@$(BIN)/pytest -m unit
test-integration: $(VENV)/.dev ## tests against real PostgreSQL and real processes
	@$(BIN)/pytest -m integration -n 2 --dist loadgroup
test-all: $(VENV)/.dev ## everything, the slow ones too
	@$(BIN)/pytest -n 2 --dist loadgroup
test-e2e: $(VENV)/.dev ## real processes from outside: make run's own path, signals, crashes
	@$(BIN)/pytest -m e2e
coverage: $(VENV)/.dev ## lines and branches that make test reaches
	@$(BIN)/coverage run -m pytest -m "not slow" && $(BIN)/coverage combine -q; $(BIN)/coverage report

chaos: $(VENV)/.dev ## everything broken on purpose: kills, full disks, databases away (ONLY=2,5 KILLS=50 OUTAGE=60 SECONDS=5); docs/reliability.md
	@$(BIN)/python -m tools.chaos --write $(if $(ONLY),--only '$(ONLY)') $(if $(KILLS),--kills $(KILLS)) $(if $(OUTAGE),--outage $(OUTAGE)) $(if $(SECONDS),--seconds $(SECONDS))

##@ Code
lint: $(VENV)/.dev ## ruff: rules and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
fmt: $(VENV)/.dev ## ruff: fix and format
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .
types: $(VENV)/.dev ## mypy, strict
	@$(BIN)/mypy
arch: $(VENV)/.dev ## the arrows between rooms (import-linter)
	@$(BIN)/lint-imports
schema: $(VENV)/.dev ## write app/graphql/schema.graphql from the code
	@$(BIN)/python -m app.graphql.export app/graphql/schema.graphql
migrate: $(VENV)/.run ## bring the database to the newest migration
	@$(BIN)/turnout migrate
revision: $(VENV)/.dev ## a new migration: make revision M="what it does"
	@$(BIN)/alembic revision -m "$(M)"
lock: $(VENV)/.dev ## write the lock files anew from pyproject.toml
	@$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -q -o requirements/run.lock
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -q -o requirements/dev.lock
bench: bench-peers ## our service beside a bare echo, Starlette and four model servers: docs/performance.md (about 14 minutes)
	@$(BIN)/python -m tools.bench $(if $(ONLY),--only $(ONLY))
	@if [ -f tools/bench_parts.py ]; then $(BIN)/python -m tools.bench_parts --guard; fi
bench-quick: $(VENV)/.dev ## the same with the echo and Starlette alone, printed (about a minute)
	@$(BIN)/python -m tools.bench --quick
bench-peers: $(VENV)/.dev ## the model servers that it measures, each in an environment of its own below .bench
	@$(BIN)/python -m tools.bench.install
bench-promotion: $(VENV)/.dev ## from a promotion's commit to every process
	@$(BIN)/python -m tools.bench_promotion
bench-scale: $(VENV)/.dev ## what many tenants cost, beside two (TENANTS=10000), and whether time tells what others have
	@$(BIN)/python -m tools.bench_scale $(if $(TENANTS),--tenants $(TENANTS))
	@$(BIN)/python -m tools.bench_isolation
check: lint types arch test ## what CI runs, before make test-e2e

##@ Clean
clean: ## remove caches and the virtual environment (never .turnout, your data)
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage* .bench build *.egg-info node_modules
.PHONY: help install install-dev run serve demo unleash test test-unit test-integration test-all test-e2e coverage chaos lint fmt types arch schema migrate revision lock bench bench-quick bench-peers bench-promotion bench-scale check clean
