# make setup   the environment alone (VENV, default .venv)
# make demo    set-up, then ToyDrive, S3PT pre-training and its report in work_dirs/demo/
# make test    set-up, then the whole test suite; PYTEST_ARGS adds options
# make lint    set-up, then style (ruff) and types (mypy, folders in pyproject.toml)
# make docs    set-up, then the documentation's site in work_dirs/site; a broken link or docstring fails
# make lock    resolve requirements/*.txt anew into requirements/lock.txt (needs uv)
SHELL := /bin/sh
VENV ?= .venv
PYTEST_ARGS ?=
python := $(VENV)/bin/python
# Several checkouts may share one environment: the one that runs comes first.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.PHONY: help setup demo docs test test-fast lint lock

help:
	@sed -n 's/^# //p' Makefile

setup:
	@./tools/setup_env.sh "$(VENV)"

demo: setup
	"$(python)" tools/dev/make_demo.py

docs: setup
	"$(python)" -m mkdocs build --strict

test: setup
	"$(python)" -m pytest $(PYTEST_ARGS)

test-fast: setup
	"$(python)" -m pytest -m "not slow" $(PYTEST_ARGS)

lint: setup
	"$(python)" -m ruff check .
	"$(python)" -m ruff format --check .
	"$(python)" -m mypy

# Pins that still fit stay; `make lock LOCK_ARGS=--upgrade` moves them.
lock:
	uv pip compile -q --universal --python-version 3.10 --no-header --no-annotate $(LOCK_ARGS) \
	    $(filter-out requirements/lock.txt,$(wildcard requirements/*.txt)) -o requirements/lock.txt
