# `make run` and `make test` do all the set-up they need. `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
# Two processes of tests, each with servers and a Ray of its own: most tests wait. A file's tests stay together.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help setup setup-dev run quick test check docs site sbom bench watch services services-stop chaos kube-test model lock

help:            ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/: [^#]*## /\t/' | expand -t 18

setup:           ## make .venv for running
	@scripts/setup.sh run

setup-dev:       ## make .venv for running, testing and measuring
	@scripts/setup.sh dev

run: setup       ## run a fleet: make run ARGS="--vehicles 5000 --duration 6h"
	@$(BIN)/twin run $(ARGS)

quick: setup-dev check ## checks, and the tests that need no server and no Ray; under 4 minutes
	@$(PYTEST) -m "not services and not cluster" --ignore tests/faults $(ARGS)

test: setup-dev check  ## every check and every test, with the real services: make test ARGS="-k kafka"
	@$(BIN)/python -m tests.services install
	@$(PYTEST) $(ARGS)

check: setup-dev ## formatting, lint, types, import directions
	@$(BIN)/ruff format --check --quiet --exclude "*.md" .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

docs: setup-dev  ## write settings, tables of columns and dashboards from their definitions
	@$(BIN)/python scripts/documents.py

site: setup-dev  ## the documentation as a site: open site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict && echo "site/index.html"

sbom: setup      ## what the project is made of, as a CycloneDX file: sbom.json
	@.venv/bin/uv --version >/dev/null 2>&1 && uvx=".venv/bin/uv tool run" || uvx="uv tool run"; \
	$$uvx --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements.lock --output-file sbom.json && echo sbom.json

bench: setup-dev ## run every benchmark; JSON goes to benchmarks/results/
	@set -e; for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

watch: setup-dev ## a fleet in real time, its live page at http://127.0.0.1:8050 and a Prometheus: ARGS="--vehicles 5000"
	@$(BIN)/python -m tests.services start mosquitto prometheus
	@set -a; source .services/env; exec $(BIN)/twin run --pace 1 --duration 1d --page-port 8050 $(ARGS)

kube-test: setup-dev      ## Kubernetes on this machine, with real pods: needs root; the first time, half an hour to compile
	@$(BIN)/pytest tests/kubernetes/on_a_node.py $(ARGS)

chaos: setup-dev ## faults at random in a live run on three nodes, half an hour: ARGS="--seed 7 --minutes 10"
	@$(BIN)/python -m tests.services install
	@$(BIN)/pytest tests/faults/the_head.py
	@$(BIN)/python -m tests.chaos $(ARGS)

services: setup-dev       ## start Kafka, Mosquitto, PostgreSQL on free loopback ports; then source .services/env
	@$(BIN)/python -m tests.services start

services-stop:   ## stop them
	@$(BIN)/python -m tests.services stop

model: setup-dev ## train the bundled model anew (an hour): lives, then models/bundled
	@$(BIN)/twin generate --vehicles 2000 --years eol --seed 20261127 --out histories/bundled
	@rm -rf histories/bundle && $(BIN)/twin train --data histories/bundled --workers 0 --out histories/bundle
	@scripts/take_bundle.sh histories/bundle models/bundled

lock: setup-dev  ## resolve the lock files anew
	@uv=$$(uv --version >/dev/null 2>&1 && echo uv || echo $(BIN)/uv); \
	compile="$$uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-header pyproject.toml"; \
	$$compile -o requirements.lock && $$compile --extra dev -c requirements.lock -o requirements-dev.lock
