# `make` or `make help` lists what there is. Needs make and a Python 3.11 to 3.13, nothing else.

VENV     ?= .venv
BIN      := $(VENV)/bin
CUSTOMERS ?= 20000
SEED      ?= 7
ARGS      ?=

# the first Python that will do; without one tools/bootstrap.py says what is missing
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$python && exit; \
	done; echo python3)

unexport PYTHONDONTWRITEBYTECODE  # without .pyc files, Airflow takes three times as long to start
.DEFAULT_GOAL := help
.PHONY: help demo up down logs status test test-all lint format screenshots gallery lock clean

help: ## list these targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

# ---- running

demo: $(VENV)/.core ## all of it once, from nothing to a report (CUSTOMERS=20000 SEED=7)
	@$(BIN)/python -m postlude.stack demo --customers $(CUSTOMERS) --seed $(SEED) $(ARGS)

up: $(VENV)/.core ## start PostgreSQL, Airflow, public pages and mail catcher
	@$(BIN)/python -m postlude.stack up $(ARGS)

down: $(VENV)/.core ## stop what `make up` started
	@$(BIN)/python -m postlude.stack down

logs: $(VENV)/.core ## what the components said (ARGS="-f scheduler")
	@$(BIN)/python -m postlude.stack logs $(ARGS)

status: $(VENV)/.core ## what runs, and where
	@$(BIN)/python -m postlude.stack status

# ---- checking

test: $(VENV)/.dev ## the tests but the slow ones: own PostgreSQL, no network
	@$(BIN)/pytest -n 2 -m "not slow" $(ARGS)

test-all: $(VENV)/.dev ## every test, also those that start Airflow
	@$(BIN)/pytest -n 2 $(ARGS)

lint: $(VENV)/.dev ## style, types, import rules, SQL, nothing private in the repository
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/check_sql.py
	@$(BIN)/python tools/check_repo.py

format: $(VENV)/.dev ## bring the code into shape
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

screenshots: $(VENV)/.dev ## pictures for the docs, from a running stack (needs Chromium)
	@$(BIN)/python tools/screenshots.py

gallery: $(VENV)/.dev ## pictures of every mail in docs/gallery (needs Chromium; ARGS="win_back/coupon")
	@$(BIN)/python tools/gallery.py $(ARGS)

# ---- packages

lock: $(VENV)/.core ## requirements/*.in to *.txt, with hashes, without an index address
	@for name in bootstrap core celery dev; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
			--no-emit-find-links --no-header $(ARGS) --output-file requirements/$$name.txt requirements/$$name.in || exit 1; done

$(VENV)/.core: requirements/bootstrap.txt requirements/core.txt pyproject.toml tools/bootstrap.py
	@$(PYTHON) tools/bootstrap.py $(VENV) core
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.core
	@$(PYTHON) tools/bootstrap.py $(VENV) dev
	@touch $@

clean: ## remove caches (.venv and the data in .postlude stay)
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist plugins/*.egg-info
	@find plugins dags tests tools include -name __pycache__ -type d -prune -exec rm -rf {} +
