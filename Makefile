# make demo    set up, write a small dataset, train on it, show the result
# make test    set up, run the tests
# make lint    style checks          make format    bring files into that style
MAKEFLAGS += --no-print-directory
SHELL := bash
VENV := .venv/bin
# By the shell: make's own functions cut paths at spaces.
ROOT := $(shell dirname "$(abspath $(lastword $(MAKEFILE_LIST)))")

.PHONY: demo test lint format setup

demo: setup
	@cd "$(ROOT)" && $(VENV)/python prepare_data.py sample --dst datasets/quickstart --set-aside
	@cd "$(ROOT)" && $(VENV)/python train.py -c config/quickstart.yaml load=auto
	@cd "$(ROOT)" && $(VENV)/python inference.py -c config/quickstart.yaml

# One thread a worker: two workers with two threads each get in each other's way.
test: setup
	@cd "$(ROOT)" && OMP_NUM_THREADS=1 $(VENV)/python -m pytest -q -n auto --dist worksteal

lint: setup
	@cd "$(ROOT)" && $(VENV)/ruff check . && $(VENV)/ruff format --check .

format: setup
	@cd "$(ROOT)" && $(VENV)/ruff check --fix . && $(VENV)/ruff format .

setup:
	@PYTHON="$(PYTHON)" "$(ROOT)/.ci/setup"
