# All that a new machine needs is Python 3.11, 3.12 or 3.13 and a package index that pip reaches. `make help` lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Of each version the one on PATH, else pyenv's.
PYTHONS := $(foreach each,3.11 3.12 3.13,$(shell for python in python$(each) ~/.pyenv/versions/$(each).*/bin/python$(each); do \
  $$python -c 0 2> /dev/null && echo $$python && break; done))
PYTHON ?= $(firstword $(PYTHONS) python3)
VENV := .venv
BIN := $(VENV)/bin
AIRFLOW := .venv-airflow
ENGINES := .engines
INSTALLED := $(VENV)/.installed
comma := ,
# Say what failed, in one line, and stop.
FAIL = { echo "make $@: $(1)" >&2; exit 1; }

.PHONY: help run mnist test airflow test-airflow engines test-engines test-faults test-hosts pythons test-pythons chaos fuzz bench docs lint format constraints clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): constraints.txt setup.py
	@echo "Making $(VENV) with $(PYTHON) from constraints.txt: two or three minutes, 4 GB."
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || $(call FAIL,Python 3.11 to 3.13 is needed and $(PYTHON) is not: say where it is with PYTHON=/path/to/python3.11)
	@$(PYTHON) -m venv $(VENV) \
	  || $(call FAIL,$(PYTHON) could not make a virtual environment: see above; on Debian install python3-venv)
	@$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 --constraint constraints.txt --editable '.[dev]' \
	  || $(call FAIL,pip could not install what constraints.txt lists: see above)
	@touch $@

run: OUTPUT ?= output/digits
run: $(INSTALLED)  ## the whole way on 1,797 real handwritten digits, offline [OUTPUT=DIR]
	@$(BIN)/beam-retrain run --data digits --trunk bundled --output $(OUTPUT) $(ARGS)

mnist: OUTPUT ?= output/mnist
mnist: DATA ?= mnist
mnist: $(INSTALLED)  ## the same on all 70,000 MNIST images, downloaded unless DATA=DIR has them [OUTPUT=DIR]
	@$(BIN)/beam-retrain run --data $(DATA) --trunk bundled --output $(OUTPUT) $(ARGS)

# Two processes, a file's tests in one of them: most tests keep one core busy. In the order of tests/conftest.py, long
# ones first: else one process would end minutes before the other.
test: $(INSTALLED)  ## all tests [ARGS='-k name']
	@$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations 15 $(ARGS)

pythons:  ## list the Pythons that are here
	@echo $(PYTHONS)

# An environment for each Python that is there, one after the other, without [fast]: the quick start as users have it.
test-pythons:  ## the quick start on each Python, without [fast]; with TESTS=1 all tests that need no engine too
	@for python in $(PYTHONS); do \
	  version=$$(basename $$python) && folder=.pythons/$$version && echo "$$version: an environment without [fast], the quick start"; \
	  rm -rf $$folder && $$python -m venv $$folder \
	    && $$folder/bin/pip install --quiet --disable-pip-version-check --use-pep517 --constraint constraints.txt . \
	    && $$folder/bin/beam-retrain run --data digits --trunk bundled --output $$folder/digits < /dev/null \
	    || $(call FAIL,the quick start failed on $$version: see above); \
	  [ -z "$(TESTS)" ] || { $$folder/bin/pip install --quiet --disable-pip-version-check --use-pep517 --constraint constraints.txt --editable '.[dev]' \
	    && $$folder/bin/pytest -q -n 2 --dist loadfile --no-loadscope-reorder; } || exit 1; \
	  rm -rf $$folder; \
	done

# Its own environment: what Airflow needs and what TensorFlow needs do not go together.
$(AIRFLOW)/.installed: deploy/airflow/requirements.txt deploy/airflow/constraints.txt
	@echo "Making $(AIRFLOW) from deploy/airflow/constraints.txt: two minutes, 2 GB."
	@$(PYTHON) -m venv $(AIRFLOW) || $(call FAIL,$(PYTHON) could not make a virtual environment: see above)
	@$(AIRFLOW)/bin/pip install --quiet --disable-pip-version-check --use-pep517 --constraint deploy/airflow/constraints.txt \
	  --requirement deploy/airflow/requirements.txt \
	  || $(call FAIL,pip could not install what deploy/airflow/constraints.txt lists: see above)
	@touch $@

airflow: $(AIRFLOW)/.installed  ## an environment with Apache Airflow, for test-airflow

test-airflow: $(INSTALLED) $(AIRFLOW)/.installed  ## the DAG of deploy/airflow, run by Airflow itself: green, and red
	@BEAM_RETRAIN_AIRFLOW=$(abspath $(AIRFLOW)) $(BIN)/pytest -q tests/deploy/test_airflow.py

# Pinned by name in the poms. Goals one by one: there is nothing to compile or to test.
MAVEN_SHADE := org.apache.maven.plugins:maven-jar-plugin:3.4.1:jar org.apache.maven.plugins:maven-shade-plugin:3.6.0:shade
$(ENGINES)/%/job-server.jar: deploy/engines/%-pom.xml
	@command -v java > /dev/null || $(call FAIL,java is missing: install Java 17 (on Debian openjdk-17-jre-headless))
	@command -v mvn > /dev/null || $(call FAIL,mvn is missing: install Maven (on Debian maven))
	@echo "Making the job server of $* from Maven Central: two or three minutes."
	@rm -rf $(@D)
	@mvn --batch-mode --quiet --file $< -Dfolder=$(abspath $(@D)) $(MAVEN_SHADE) \
	  || $(call FAIL,Maven could not bring what $< lists: see above)
	@mv $(@D)/shaded.jar $@ && rm -r $(@D)/original-shaded.jar $(@D)/maven-archiver

# The schema of the operator's resources, against which deploy/kubernetes/flink.yaml is checked.
OPERATOR := $(ENGINES)/flink-operator-1.10.0/flink-kubernetes-operator-api.jar
$(OPERATOR):
	@command -v mvn > /dev/null || $(call FAIL,mvn is missing: install Maven (on Debian maven))
	@mvn --batch-mode --quiet org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy -Dmdep.stripVersion=true \
	  -Dartifact=org.apache.flink:flink-kubernetes-operator-api:1.10.0 -DoutputDirectory=$(abspath $(@D)) \
	  || $(call FAIL,Maven could not bring the operator's schema: see above)

# Named by their versions, which `go install` takes from there.
BOOT := $(ENGINES)/beam-boot-v2.77.0/container
PRISM := $(ENGINES)/prism-v2.77.0/prism
S3_SERVER := $(ENGINES)/versitygw-v1.8.0/versitygw
GS_SERVER := $(ENGINES)/fake-gcs-server-v1.56.1/fake-gcs-server
$(BOOT): MODULE := github.com/apache/beam/sdks/v2/python/container
$(PRISM): MODULE := github.com/apache/beam/sdks/v2/go/cmd/prism
$(S3_SERVER): MODULE := github.com/versity/versitygw/cmd/versitygw
$(GS_SERVER): MODULE := github.com/fsouza/fake-gcs-server
$(PRISM) $(BOOT) $(S3_SERVER) $(GS_SERVER): VERSION = $(lastword $(subst -, ,$(notdir $(@D))))
$(PRISM) $(BOOT) $(S3_SERVER) $(GS_SERVER):
	@command -v go > /dev/null || $(call FAIL,go is missing: install Go 1.25 or newer from https://go.dev/dl)
	@echo "Building $(@F) $(VERSION) from its Go module: a minute or two."
	@mkdir -p $(@D)
	@GOBIN=$(abspath $(@D)) go install $(MODULE)@$(VERSION) 2> $(@D)/log \
	  || { cat $(@D)/log >&2; $(call FAIL,go could not install $(MODULE)@$(VERSION): see above); }

engines: $(ENGINES)/flink/job-server.jar $(ENGINES)/spark/job-server.jar $(PRISM) $(BOOT) $(S3_SERVER) $(GS_SERVER) $(OPERATOR)  ## Flink, Spark, Prism; servers of s3:// and gs://

# The clusters, of which each keeps both cores busy, alone; then two engines at a time, as starting one keeps one core busy.
RUN_ENGINES = BEAM_RETRAIN_ENGINES=$(abspath $(ENGINES)) $(BIN)/pytest -q --durations 0
test-engines: $(INSTALLED) engines  ## whole jobs on FnApiRunner, Prism, Flink and Spark, on clusters of both, on s3:// and gs://
	@$(RUN_ENGINES) tests/system/test_clusters.py $(ARGS)
	@$(RUN_ENGINES) -n 2 --dist loadscope tests/system/test_engines.py tests/system/test_staged_package.py tests/transforms/io/object_stores/test_object_files.py tests/transforms/io/test_lease.py tests/system/test_object_store.py tests/system/test_object_names.py tests/system/test_bucket_history.py tests/deploy/test_flink_operator.py $(ARGS)

test-faults: $(INSTALLED) engines  ## jobs on clusters of Flink and Spark whose processes are killed
	@$(RUN_ENGINES) tests/system/test_faults.py $(ARGS)

# On hosts of their own, which Linux namespaces make of this machine: without root it says so. The rest of the trials:
# ARGS='-k on_request'.
test-hosts: $(INSTALLED) engines  ## jobs on hosts that have only a bucket in common, one of which goes silent
	@$(RUN_ENGINES) -rs tests/system/test_hosts*.py -k 'not on_request' $(ARGS)

# Power cuts, full disks and read-only inputs need root, a clock set back Debian's faketime: without them it says so.
chaos: $(INSTALLED)  ## faults on purpose: kills, damage, power cuts, rivals; half an hour, writes docs/chaos.md [ARGS=--short]
	@$(BIN)/python -m tools.chaos $(ARGS)

# Every image is made from a seed and its number; the pages' table of what is decoded is `python -m tools.zoo`.
fuzz: $(INSTALLED)  ## 50,000 damaged images through every decoder of the product: an hour [ARGS='--count 1000 --seconds 60']
	@$(BIN)/python -m tools.zoo.fuzz $(ARGS)

# Peers get environments of their own in .bench: 15 GB, ten minutes, the first time.
bench: DATA ?= mnist
bench: $(INSTALLED)  ## speed beside its peers, a table of ratios: half an hour on two cores [DATA=DIR ARGS=--full]
	@$(BIN)/python -m benchmarks.bench --data $(DATA) $(ARGS)

# The repository's Markdown files as they lie, so that a link holds here and on a code host.
docs: $(INSTALLED)  ## the documentation as a site, in build/site
	@rm -rf build/pages build/site && mkdir -p build/pages
	@git ls-files -z '*.md' docs deploy 'benchmarks/*.py' ':!tools' ':!tests' | xargs -0 cp --parents --target-directory build/pages
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "build/site/index.html"

lint: $(INSTALLED)  ## ruff, mypy, who may import whom, and the English
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tools.prose

format: $(INSTALLED)  ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# New environments without constraints, so that each version is the newest that setup.py allows.
constraints:  ## make constraints.txt anew from setup.py, for each Python that is there
	@[ $(words $(PYTHONS)) -eq 3 ] || $(call FAIL,Python 3.11$(comma) 3.12 and 3.13 are needed and only $(PYTHONS) are here)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT \
	  && for python in $(PYTHONS); do \
	    version=$$(basename $$python) && $$python -m venv "$$folder/$$version" \
	    && "$$folder/$$version/bin/pip" install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager \
	         setuptools --editable '.[dev]' \
	    && "$$folder/$$version/bin/pip" freeze --all --exclude-editable --exclude pip > "$$folder/$$version.txt" || exit 1; \
	  done \
	  && $(PYTHON) tools/constraints.py $(foreach each,$(notdir $(PYTHONS)),$(each:python%=%)="$$folder/$(each).txt") \
	       > constraints.new \
	  && mv constraints.new constraints.txt \
	  || $(call FAIL,pip could not resolve setup.py: see above; constraints.txt is as it was)

clean:  ## remove what make made: environments, output, caches
	rm -rf $(VENV) $(AIRFLOW) $(ENGINES) .bench .pythons output build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache constraints.new
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
