# All that a new machine needs is Python 3.11 and a package index that pip reaches. `make help` lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
AIRFLOW := .venv-airflow
INSTALLED := $(VENV)/.installed
# Say what failed, in one line, and stop.
FAIL = { echo "make $@: $(1)" >&2; exit 1; }

.PHONY: help run mnist test airflow test-airflow lint format constraints clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): constraints.txt setup.py
	@echo "Making $(VENV) from constraints.txt: a minute or two."
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || $(call FAIL,Python 3.11 is needed and $(PYTHON) is not: say where it is with PYTHON=/path/to/python3.11)
	@$(PYTHON) -m venv $(VENV) \
	  || $(call FAIL,$(PYTHON) could not make a virtual environment: see above; on Debian install python3.11-venv)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' \
	  || $(call FAIL,pip could not install what constraints.txt lists: see above)
	@touch $@

run: OUTPUT ?= output/digits
run: $(INSTALLED)  ## the whole way on 1,797 real handwritten digits, offline [OUTPUT=DIR]
	@$(BIN)/beam-retrain run --data digits --trunk bundled --output $(OUTPUT) $(ARGS)

mnist: OUTPUT ?= output/mnist
mnist: DATA ?= mnist
mnist: $(INSTALLED)  ## the same on all 70,000 MNIST images, downloaded unless DATA=DIR has them [OUTPUT=DIR]
	@$(BIN)/beam-retrain run --data $(DATA) --trunk bundled --output $(OUTPUT) $(ARGS)

# Two processes, a file's tests in one of them: most tests keep one core busy.
test: $(INSTALLED)  ## all tests [ARGS='-k name']
	@$(BIN)/pytest -q -n 2 --dist loadfile --durations 15 $(ARGS)

# Its own environment: what Airflow needs and what TensorFlow needs do not go together.
$(AIRFLOW)/.installed: deploy/airflow/requirements.txt deploy/airflow/constraints.txt
	@echo "Making $(AIRFLOW) from deploy/airflow/constraints.txt: two minutes, 2 GB."
	@$(PYTHON) -m venv $(AIRFLOW) || $(call FAIL,$(PYTHON) could not make a virtual environment: see above)
	@$(AIRFLOW)/bin/pip install --quiet --disable-pip-version-check --constraint deploy/airflow/constraints.txt \
	  --requirement deploy/airflow/requirements.txt \
	  || $(call FAIL,pip could not install what deploy/airflow/constraints.txt lists: see above)
	@touch $@

airflow: $(AIRFLOW)/.installed  ## an environment with Apache Airflow, for test-airflow

test-airflow: $(INSTALLED) $(AIRFLOW)/.installed  ## the DAG of deploy/airflow, run by Airflow itself: green, and red
	@BEAM_RETRAIN_AIRFLOW=$(abspath $(AIRFLOW)) $(BIN)/pytest -q tests/test_airflow.py

lint: $(INSTALLED)  ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(INSTALLED)  ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# A new environment without constraints, so that each version is the newest that setup.py allows.
constraints:  ## make constraints.txt anew from setup.py
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT \
	  && $(PYTHON) -m venv "$$folder" \
	  && "$$folder/bin/pip" install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager \
	       setuptools --editable '.[dev]' \
	  && { echo '# The exact set that the tests ran with (pip --constraint). Made by `make constraints`; not edited by hand.'; \
	       "$$folder/bin/pip" freeze --all --exclude-editable --exclude pip; } > constraints.new \
	  && mv constraints.new constraints.txt \
	  || $(call FAIL,pip could not resolve setup.py: see above; constraints.txt is as it was)

clean:  ## remove what make made: environments, output, caches
	rm -rf $(VENV) $(AIRFLOW) output build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache constraints.new
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
