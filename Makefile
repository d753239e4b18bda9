# The commands of the project: `make run` serves, `make test` runs every test, `make check` is the quick gate before a commit.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PY := .venv/bin/python
# Tests start hundreds of processes; without compiled files each would compile the gateway, which takes longer than its run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test check lint types imports fast soak bench bench-peers schema lock image-test venv venv-dev

help: ## show what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: ## make .venv from requirements.lock (hashes checked)
	@scripts/venv.sh requirements.lock

venv-dev: ## make .venv with the test and lint tools too
	@scripts/venv.sh requirements-dev.lock

run: venv ## serve on http://127.0.0.1:8080; with no upstream key set, the simulator answers
	@exec $(PY) -m gateway serve --demo

lint: venv-dev ## ruff
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: venv-dev ## pyrefly, strict
	.venv/bin/pyrefly check

imports: venv-dev ## import-linter contracts
	.venv/bin/lint-imports

fast: venv-dev ## the tests that need no server
	$(PY) -m pytest -q -m "not slow and not served" -n 2

test: venv-dev ## every test; makes all it needs, Node and its packages included
	@scripts/tools.sh
	$(PY) -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder

soak: venv-dev ## the long runs, each at most half an hour: make soak PART=ledger (or crashes, sdks, outcomes, grid, clients, redis, restarts, instance, fuzz, mutation); all of them without PART
	@scripts/soak.sh $(PART)

check: lint types imports fast ## lint, types, import contracts, fast tests

schema: venv-dev ## write the catalogue's JSON schema for editors
	$(PY) -c "from gateway.catalogue.schema import render_schema; print(render_schema(), end='')" > config/gateway.schema.json

lock: ## pin every dependency anew, with hashes
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra embedded --extra build \
	  --generate-hashes --no-header --no-annotate --quiet -o requirements.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra embedded --extra build --extra dev \
	  -c requirements.lock --generate-hashes --no-header --no-annotate --quiet -o requirements-dev.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra embedded --extra build --extra dev --extra fuzz \
	  -c requirements-dev.lock --generate-hashes --no-header --no-annotate --quiet -o requirements-fuzz.lock

image-test: ## build the container image and run it (root on Debian; minutes)
	scripts/image-test.sh

bench: venv-dev ## measure large pictures' memory and stalls, the ledger, open tasks, what a request costs, TLS, overload (a quarter of an hour); fails over a limit
	@failed=0; for one in ledger memory tasks "proxy --no-write" tls overload; do $(PY) -m bench $$one || failed=1; done; exit $$failed

bench-peers: venv-dev ## measure what a request costs beside nginx, LiteLLM and Portkey, installed for it (twenty minutes)
	scripts/peers.sh
	$(PY) -m bench proxy --against probe,nginx,litellm,portkey
