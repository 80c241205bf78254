# Each target sets itself up in .venv the first time; nothing outside this folder is changed.
#   make demo SEED=7              another seed
#   make demo PYTHON=python3.12   another interpreter (3.11 or newer)
#   make test WORKERS=4           more tests side by side

PYTHON ?= python3
VENV ?= .venv
SEED ?= 0
WORKERS ?= 2
OUT ?= runs/demo$(if $(filter-out 0,$(SEED)),-$(SEED))

PY := $(VENV)/bin/python
# Not compiled: of the large libraries hardly a tenth is ever imported.
INSTALL := $(PY) -m pip install --no-compile -c constraints.txt -e

.DEFAULT_GOAL := help
.PHONY: help demo test test-all gpu evidence evidence-report check fix

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## */\1: /p' Makefile

demo: $(VENV)/demo.stamp  ## train, evaluate and write the report to runs/demo
	$(VENV)/bin/aipo demo --seed $(SEED) --out $(OUT)

test: $(VENV)/dev.stamp  ## run the tests that every change must pass
	$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not gpu and not slow and not integrations and not network"

test-all: $(VENV)/dev.stamp  ## run every test that needs no GPU; other libraries are installed under .venv the first time
	$(PY) -m pytest -m "not gpu"

gpu:  ## measure a GPU: tests, packing, updates, a step, the toy recipe; writes gpu.json
	$(if $(wildcard $(PY)),$(PY),$(PYTHON)) benchmarks/gpu.py --out gpu.json

evidence: $(VENV)/dev.stamp  ## run the arms of experiments/ that have no row yet, one per core: hours
	$(PY) -m experiments.runner

evidence-report: $(VENV)/dev.stamp  ## write docs/evidence.md from the rows in experiments/results
	$(PY) -m experiments.report

check: $(VENV)/dev.stamp  ## lint, formatting, types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

fix: $(VENV)/dev.stamp  ## mend what can be mended mechanically
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# pip is the last file that venv writes, so an interrupted set-up starts again.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %d.%d. Name another: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(INSTALL) ".[learner,report]"
	touch $@

# The second stamp: whoever can run the tests can run the demo.
$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(INSTALL) ".[learner,openai,docker,tokenizers,report,data,lora,dev]"
	touch $@ $(VENV)/demo.stamp
