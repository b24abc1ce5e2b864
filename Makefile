# `make train` and `make test` do their own set-up: they need a Python 3.11–3.13 and nothing else.
#
#   make train ARGS="train.steps=200 seed=1"     passes ARGS to experiments/train.py
#   make test ARGS="-k conv"                     passes ARGS to pytest
#   make … PYTHON=/path/to/python3.12            chooses the interpreter of .venv

PYTHON ?= python3
VENV ?= .venv
NEWER_VENV ?= .venv-newer
# Two worker processes: small tests leave cores idle. Tests of one file share a worker, and with it
# what their fixtures compiled. A worker that dies ends the run: with a new one in its place the
# scheduler may wait for ever.
PYTEST_OPTIONS ?= -q -n 2 --dist loadfile --max-worker-restart 0 --durations 30
ARGS ?=

PIP_INSTALL = -m pip --disable-pip-version-check install -qq
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help train test test-default test-newer soak lint clean
.DELETE_ON_ERROR:

help:
	@echo "make train   set up .venv and train a CNN on handwritten digits"
	@echo "make test    set up .venv and run the tests (and a smoke subset on a newer Python)"
	@echo "make soak    the long forms of the tests"
	@echo "make lint    ruff, ruff format --check, pyright"
	@echo "make clean   remove environments, caches and build artefacts; runs/ stays"

train: $(VENV)/.experiments
	@$(VENV)/bin/python experiments/train.py $(ARGS)

test: test-default test-newer

test-default: $(VENV)/.test
	@$(VENV)/bin/python -m pytest $(PYTEST_OPTIONS) $(ARGS)

# The newest JAX needs a newer Python than the oldest that is supported, so where the default
# interpreter is 3.11, a second one runs the smoke subset.
test-newer: test-default
	@set -e; \
	default=`$(VENV)/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'`; \
	if [ "$$default" != 3.11 ]; then \
	  echo "smoke tests skipped: the default interpreter is a newer one itself ($$default)"; \
	elif [ -n "$(strip $(ARGS))" ]; then \
	  echo "smoke tests skipped: ARGS chose the tests"; \
	else \
	  newer=`sh .ci/newer-python`; \
	  if [ -z "$$newer" ]; then \
	    echo "smoke tests skipped: no Python 3.12 or 3.13 found (NEWER_PYTHON=/path/to/python names one)"; \
	  else \
	    echo "smoke tests on `$$newer --version`"; \
	    $(MAKE) $(NEWER_VENV)/.test PYTHON="$$newer" VENV=$(NEWER_VENV); \
	    $(NEWER_VENV)/bin/python -m pytest $(PYTEST_OPTIONS) -m "smoke and not soak"; \
	  fi; \
	fi

soak: $(VENV)/.test
	@$(VENV)/bin/python -m pytest -q -m soak --timeout 0 $(ARGS) || [ $$? -eq 5 ] # 5: there are none

lint: $(VENV)/.test $(VENV)/.dev
	@$(VENV)/bin/python -m ruff check .
	@$(VENV)/bin/python -m ruff format --check .
	@$(VENV)/bin/python -m pyright --pythonpath $(VENV)/bin/python

clean:
	rm -rf .venv .venv-newer .venv-ci .venv-ci-newer .cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is made once. If its interpreter has vanished, the link in it dangles, make sees
# no file, and the environment is made anew.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null || { \
	  echo "functorch_kit needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' is `$(PYTHON) --version 2>/dev/null || echo not a Python that runs`: name one with 'make … PYTHON=/path/to/python3.12'" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make environments (no ensurepip): install its venv package (on Debian and Ubuntu: apt-get install python3-venv), or name another with 'make … PYTHON=/path/to/python3.12'" >&2; \
	  exit 1; }
	@echo "setting up $(VENV) with `$(PYTHON) --version`: this takes a minute or two, once"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# A stamp per extra: installed again only when pyproject.toml changed.
$(VENV)/.experiments: $(VENV)/bin/python pyproject.toml
	@$(VENV)/bin/python $(PIP_INSTALL) -e '.[experiments]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	@$(VENV)/bin/python $(PIP_INSTALL) -e '.[data,experiments,interop,test]'
	@touch $@ $(VENV)/.experiments

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	@$(VENV)/bin/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@
