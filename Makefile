# The few commands we live by. `make help` reads the comments behind the targets.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON := .venv/bin/python

.PHONY: help setup demo test test-slow check format serve lock clean

help:  ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: .venv/.ready  ## make .venv with everything pinned (set-up also happens by itself)

.venv/.ready: requirements.lock pyproject.toml scripts/setup_venv.sh
	bash scripts/setup_venv.sh

demo: setup  ## the whole product in minutes: simulate, write pairs, fine-tune nano, evaluate, inspect, report
	bash scripts/run_full_pipeline.sh --profile demo

test: setup  ## all tests but the slow ones, a process for each core up to four
	$(PYTHON) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-slow: setup  ## the tests that take minutes each
	$(PYTHON) -m pytest -m slow

check: setup  ## lint and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

format: setup  ## let ruff format and mend what it can
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

serve: setup  ## start the inspection API on http://localhost:8080
	bash scripts/deploy_inference.sh

lock: setup  ## renew requirements.lock from what pyproject.toml allows today
	$(PYTHON) scripts/lock.py

clean:  ## remove what the demo and the tests made; keeps .venv and your data
	rm -rf outputs/demo .pytest_cache .ruff_cache build dist
