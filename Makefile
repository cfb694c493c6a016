# The same commands for people and for CI. Each one sets up what it needs; `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCKS := requirements/build.txt requirements/dev.txt requirements/runtime.txt
BENCH_STAMP := $(VENV)/.bench-installed
# checkov pins what the services need at versions of its own, so it has an environment of its own.
K8S_VENV := .venv-k8s
K8S_STAMP := $(K8S_VENV)/.installed
# The site's tools are nobody else's, so they have an environment of their own.
DOCS_VENV := .venv-docs
DOCS_STAMP := $(DOCS_VENV)/.installed

# The first Python on the PATH that is new enough; `make PYTHON=/path/to/python3` names another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

# Type-checked: all of ours that is there.
SOURCES := relay worker tests $(if $(wildcard bench/*.py),bench) $(wildcard .ci/*.py)

# Passed on to the command: `make dev ARGS=--help`, `make test ARGS='-k policy'`.
ARGS ?=

# The whole suite mostly waits, so three of it run beside each other; tests/conftest.py says what does not.
SIDE_BY_SIDE := --numprocesses 3 --dist loadscope --no-loadscope-reorder

TEST_REDIS_URL ?= redis://127.0.0.1:6379/15

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo dev test screenshots test-redis soak image check docs k8s k8s-rules bench fmt lock clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## Relay a few prompts end to end, verify the callbacks, and stop
	@$(BIN)/scrapellm-relay demo $(ARGS)

dev: $(STAMP) ## Run everything in one command: store, relay, worker, emulated upstream, inbox
	@$(BIN)/scrapellm-relay dev $(ARGS)

test: $(STAMP) ## Run all tests, and see that they cover enough
	@.ci/chromium
	@$(BIN)/coverage erase
	$(BIN)/pytest $(or $(ARGS),$(SIDE_BY_SIDE)) --cov --cov-report=term --cov-report=json
	@$(if $(ARGS),echo 'coverage is judged only when all tests ran',$(BIN)/python .ci/coverage_gate.py .coverage.json)

screenshots: $(STAMP) ## Take pictures of every page of the dashboard, into screenshots/
	@.ci/chromium
	SCREENSHOTS=screenshots $(BIN)/pytest --quiet tests/browser/test_pictures.py

test-redis: $(STAMP) ## Run the store's tests against the Redis at TEST_REDIS_URL; empties that database
	@$(BIN)/python -c 'import redis, sys; redis.Redis.from_url(sys.argv[1]).ping()' '$(TEST_REDIS_URL)' 2>/dev/null \
		|| { echo 'make test-redis: no Redis answers at TEST_REDIS_URL ($(TEST_REDIS_URL))' >&2; exit 1; }
	TEST_REDIS_URL='$(TEST_REDIS_URL)' $(BIN)/pytest -m store $(ARGS)

soak: $(STAMP) ## Kill, scale, roll and drain at random for fifteen minutes, and see that the account adds up
	@$(BIN)/python -m tests.faults.soak --minutes 10 $(ARGS)
	@$(BIN)/python -m tests.cluster.soak --minutes 5 $(ARGS)

image: $(STAMP) ## Build the container image with Docker or podman, and prove it
	@$(BIN)/python -m tests.image $(ARGS)

check: $(STAMP) docs ## Check formatting, lint, types, imports, lock files, documentation and known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest --quiet tests/unit/test_lock_files.py
	$(BIN)/python .ci/audit.py

k8s: $(STAMP) $(K8S_STAMP) ## Render the manifests, check them against Kubernetes' schemas, and look for what is risky
	@$(BIN)/pytest --quiet -r sf tests/unit/test_k8s*.py
	@PYTHONPATH=. $(BIN)/python .ci/manifests.py $(K8S_VENV)/bin/checkov

k8s-rules: $(STAMP) ## Make the PrometheusRule anew from deploy/prometheus/rules.yaml
	@$(BIN)/python .ci/prometheus_rule.py > k8s/components/prometheus-operator/rules.yaml

docs: $(DOCS_STAMP) ## Build the documentation into site/; a link that leads nowhere is an error
	@PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --clean $(ARGS)

bench: $(BENCH_STAMP) ## Measure, in about ten minutes; `ARGS='cost --json FILE'` for one, and as JSON too
	@$(BIN)/python -m bench $(ARGS)

fmt: $(STAMP) ## Format, and mend what a linter can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# dev.txt holds everything that runs, tests and builds; build.txt and runtime.txt are parts of it, at the same versions,
# bench.txt is what `make bench` has beyond it, docs.txt builds the site; k8s.txt goes its own ways. Pins stay unless asked:
# `make lock ARGS=--upgrade`, or `ARGS='--upgrade-package aiohttp'`.
UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --annotation-style line
lock: $(STAMP) ## Write the lock files anew from pyproject.toml
	$(UV_COMPILE) $(ARGS) --extra dev --extra otel --group test pyproject.toml --output-file requirements/dev.txt
	$(UV_COMPILE) --constraints requirements/dev.txt --extra otel pyproject.toml --output-file requirements/runtime.txt
	$(UV_COMPILE) --constraints requirements/dev.txt --group build --output-file requirements/build.txt
	$(UV_COMPILE) --constraints requirements/dev.txt --group bench --output-file requirements/bench.txt
	$(UV_COMPILE) $(ARGS) --group k8s --output-file requirements/k8s.txt
	$(UV_COMPILE) --constraints requirements/dev.txt --group docs pyproject.toml --output-file requirements/docs.txt
	@sed -i.old -E 's/-c [^ ,]+, //; s/, -c [^ ,]+//' requirements/runtime.txt requirements/build.txt requirements/bench.txt \
		requirements/docs.txt
	@rm -f requirements/*.old

clean: ## Remove caches, reports and build results; not .venv, nor what `dev` keeps
	rm -rf .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache \
		.schemathesis dist htmlcov site *.egg-info
	find relay worker tests $(wildcard bench examples) -name __pycache__ -prune -exec rm -rf {} +

$(BENCH_STAMP): $(STAMP) requirements/bench.txt
	@echo 'Installing what the benchmarks compare with'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements/bench.txt
	@touch $@

$(K8S_STAMP): requirements/k8s.txt | $(STAMP)
	@echo 'Installing what looks at the manifests'
	@$(BIN)/python -m venv --clear $(K8S_VENV)
	@$(K8S_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements/k8s.txt
	@touch $@

$(DOCS_STAMP): requirements/docs.txt | $(STAMP)
	@echo 'Installing what builds the documentation'
	@$(BIN)/python -m venv --clear $(DOCS_VENV)
	@$(DOCS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements/docs.txt
	@touch $@

# Made once, and anew when a lock file or pyproject.toml changes.
$(STAMP): $(LOCKS) pyproject.toml
	@test -n '$(PYTHON)' || { echo 'make: this needs Python 3.11 or newer on the PATH, or make PYTHON=/path/to/python3' >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo 'make: there is no $(PYTHON)' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'make: $(PYTHON) is older than Python 3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo 'make: $(PYTHON) has no venv; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo 'Making $(VENV) with $(PYTHON), once' && $(PYTHON) -m venv --clear $(VENV); }
	@echo 'Installing from the lock files'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
