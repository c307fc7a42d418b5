# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

VERSION := $(shell sed -n 's/^version: //p' galaxy.yml)
TARBALL := dist/muster-coordination-$(VERSION).tar.gz
WHEEL := dist/muster_coordination-$(VERSION)-py3-none-any.whl

# The environment is made again when one of these changes: the stamp's name carries their checksum.
VENV := .venv
VENV_INPUTS := requirements/dev.lock requirements/collections.lock pyproject.toml galaxy.yml scripts/venv.py
VENV_STAMP := $(VENV)/.ready-$(firstword $(shell cat $(VENV_INPUTS) | cksum))
PYTHON := $(CURDIR)/$(VENV)/bin/python
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# The Python to make it with: the first that ansible-core 2.19 runs on. Name another with MUSTER_PYTHON=...
MUSTER_PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
    $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)

CLUSTER := $(PYTHON) -m cluster
LEVEL ?= node
# Recipes that begin with one of these two talk to that cluster.
ON_NODE := scripts/on.sh node
ON_CONTROL_PLANE := scripts/on.sh control-plane

# What the gates look at: the built tarball, installed beside kubernetes.core.
INSTALLED := $(CURDIR)/build/collections
COLLECTION := $(INSTALLED)/ansible_collections/muster/coordination

PYTEST = $(PYTHON) -m pytest --junitxml=build/junit/$@.xml
# Planted bugs that take minutes to be caught, one by one: only for make soak.
LONG_MUTANTS = $(patsubst %,tests/mutants/test_%_mutants.py,controllers template allocator_clients allocator_server)
# Tests with a short form, which is in make test, and a long one, in make soak (MUSTER_FORM=long).
LONG_TESTS = $(patsubst %,tests/integration/test_%.py,exactly_once swarm_storm allocator_controller)
# That of the distributor kills the API server, so it is run alone; the others two at a time, the longest first.
OTHER_SCENARIOS := $(filter-out molecule-distributor,$(patsubst molecule/%/molecule.yml,molecule-%,$(wildcard molecule/*/molecule.yml)))
SHELL_SCRIPTS = $(shell git ls-files '*.sh' .ci/run)

export MOLECULE_GLOB := molecule/*/molecule.yml
export ANSIBLE_LOCALHOST_WARNING := false
export ANSIBLE_INVENTORY_UNPARSED_WARNING := false

##@ Start here

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z_-]+:.*## / {printf "  make %-19s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: image ## real Pods on a real Kubernetes claim and hand on resources, and lose a leader: watch them
	$(ON_NODE) ansible-playbook playbooks/site.yml -e vm_operator_watch_namespace=vm-operator \
	    -e swarm_operator_watch_namespace=swarm-operator -e partitions_storage=
	$(ON_NODE) $(PYTHON) -m demo

.PHONY: test
test: $(VENV_STAMP) ## everything that proves it, with a summary (the first run builds a Kubernetes: 20 minutes more than the later ones, which take about 50)
	$(PYTHON) scripts/test.py

##@ Tests, one by one

.PHONY: test-unit
test-unit: $(VENV_STAMP) ## the code, without a cluster, in less than a minute
	$(PYTEST) --numprocesses 2 -m 'not cluster and not peers' tests/unit tests/cluster

.PHONY: test-model
test-model: $(VENV_STAMP) ## the decisions: random histories, and every state of small worlds
	$(PYTEST) --numprocesses 2 tests/property tests/model

.PHONY: test-cluster
test-cluster: cluster-install ## the embedded cluster: start, stop, crash, two side by side
	$(PYTEST) -m cluster tests/cluster

.PHONY: test-packaging
test-packaging: build ## what is in the tarball, and that the wheel works alone
	$(PYTEST) tests/packaging

.PHONY: test-integration
test-integration: $(VENV_STAMP) ## client, modules and sidecar on a real kube-apiserver
	$(CLUSTER) up --level control-plane
	$(ON_CONTROL_PLANE) $(PYTEST) --numprocesses 2 --dist loadgroup tests/integration
	$(PYTHON) -m bench.soak --grants 1000 --minutes 0.7
	$(PYTHON) -m bench.allocator --quick --part limit --name muster-cp

.PHONY: test-mutants
test-mutants: $(VENV_STAMP) ## planted bugs, some for each property: a suite that is said to catch them does (make soak: all bugs, all suites)
	$(CLUSTER) up --level control-plane
	MUSTER_MUTANTS=sample $(ON_CONTROL_PLANE) $(PYTEST) --numprocesses 2 $(patsubst %,--ignore %,$(LONG_MUTANTS)) tests/mutants
	$(PYTHON) -m bench.soak --grants 200 --minutes 0.3 --plant old-fence

.PHONY: test-browser
test-browser: $(VENV_STAMP) ## the allocator's page in a real Chromium, on a stand-in and on a real allocator
	scripts/browser.sh
	$(CLUSTER) up --level control-plane
	$(ON_CONTROL_PLANE) $(PYTEST) tests/browser

.PHONY: test-molecule
test-molecule: image ## roles, charts and processes on real Pods
	$(ON_NODE) molecule test --scenario-name distributor
	$(ON_NODE) $(MAKE) --jobs 2 --output-sync=target molecule-vm_operator molecule-partitions $(OTHER_SCENARIOS)

# One scenario, of an image that is loaded: make molecule-partitions.
.PHONY: $(OTHER_SCENARIOS)
$(OTHER_SCENARIOS): molecule-%:
	molecule test --scenario-name $*

.PHONY: test-installed
test-installed: image ## the playbook out of the installed tarball, from a terminal and as AWX does; what the chart promises
	$(ON_NODE) $(PYTEST) --numprocesses 2 --dist loadfile tests/e2e

##@ Quality gates

.PHONY: lint
lint: ruff mypy yamllint ansible-lint shellcheck reuse changelog ## style, types, YAML, Ansible, shell, licences, changelog

.PHONY: ruff mypy yamllint ansible-lint shellcheck reuse changelog
ruff: $(VENV_STAMP)
	ruff check
	ruff format --check

mypy: $(VENV_STAMP)
	mkdir -p build/typing/ansible_collections/muster
	ln -sfn ../../../.. build/typing/ansible_collections/muster/coordination
	mypy
	mypy $(wildcard scripts images demo bench)

yamllint: $(VENV_STAMP)
	yamllint --strict .

ansible-lint: $(VENV_STAMP)
	ansible-lint --offline --strict

shellcheck: $(VENV_STAMP)
	shellcheck $(SHELL_SCRIPTS)

reuse: $(VENV_STAMP)
	reuse lint --lines

changelog: $(VENV_STAMP)
	antsibull-changelog lint

.PHONY: lint-charts
lint-charts: $(VENV_STAMP) ## the Helm charts
	"$$($(CLUSTER) tool helm)" lint --strict charts/*

.PHONY: sanity
sanity: install-tarball ## ansible-test sanity on what the tarball holds
	scripts/sanity.sh $(COLLECTION)

.PHONY: docs
docs: install-tarball ## check the modules' documentation and build its site, build/docs
	ANSIBLE_COLLECTIONS_PATH=$(INSTALLED) scripts/docs.sh $(COLLECTION)

.PHONY: galaxy
galaxy: install-tarball ## what Galaxy checks at import, and what an execution environment reads
	cd build && ANSIBLE_COLLECTIONS_PATH=$(INSTALLED) $(PYTHON) -m galaxy_importer.main $(CURDIR)/$(TARBALL)
	ansible-builder introspect --sanitize $(INSTALLED)

##@ Build

.PHONY: build
build: $(VENV_STAMP) ## the collection's tarball and the wheel, in dist/
	ansible-galaxy collection build --force --output-path dist
	$(PYTHON) -m build --no-isolation --wheel --outdir dist

.PHONY: install-tarball
install-tarball: build
	rm -rf build/collections
	ANSIBLE_COLLECTIONS_PATH=$(INSTALLED) ansible-galaxy collection install \
	    --force --no-deps --offline --collections-path $(INSTALLED) $(TARBALL)
	cp -R $(VENV)/lib/python3*/site-packages/ansible_collections/kubernetes $(INSTALLED)/ansible_collections/

.PHONY: image
image: build ## the container image, loaded into the node cluster
	$(CLUSTER) up
	$(PYTHON) images/build.py --load

##@ Clusters

.PHONY: cluster-install
cluster-install: $(VENV_STAMP) ## install and build what the embedded cluster needs (16 minutes, once)
	$(CLUSTER) install --level $(LEVEL)

.PHONY: cluster-up
cluster-up: $(VENV_STAMP) ## start a cluster (LEVEL=node or control-plane)
	$(CLUSTER) up --level $(LEVEL)

.PHONY: cluster-down
cluster-down: $(VENV_STAMP) ## remove it and all that it has (LEVEL=node or control-plane)
	$(CLUSTER) down --level $(LEVEL)

##@ Distributor by hand (three namespaces: default, an ephemeral one, distributor)

.PHONY: distributor_run
distributor_run: cluster-up ## apply templates/configmap.yaml to namespace default, and claim once from here
	$(ON_NODE) kubectl --namespace default apply -f templates/configmap.yaml
	$(ON_NODE) muster distributor once --namespace default --holder "$$(hostname)" --lease 70

.PHONY: distributor_test
distributor_test: $(VENV_STAMP) ## Distributor's tests, each in an ephemeral namespace
	$(CLUSTER) up --level control-plane
	$(ON_CONTROL_PLANE) $(PYTEST) tests/integration -k 'distributor or semaphore'

.PHONY: distributor_apply
distributor_apply: image ## install the chart into namespace distributor
	$(ON_NODE) helm upgrade --install distributor charts/distributor \
	    --namespace distributor --create-namespace --take-ownership --wait

.PHONY: distributor_delete
distributor_delete: $(VENV_STAMP) ## remove the chart and namespace distributor
	$(ON_NODE) helm uninstall distributor --namespace distributor --ignore-not-found --wait
	$(ON_NODE) kubectl delete namespace distributor --ignore-not-found

##@ Measure

.PHONY: bench
bench: $(VENV_STAMP) ## claims a second beside other locks, time without a leader beside other elections, jobs moved beside hash rings, … (80 minutes)
	$(PYTHON) -m pip install --quiet --require-hashes --requirement requirements/bench.lock
	$(PYTEST) -m peers tests/unit
	$(PYTHON) -m bench

.PHONY: soak
soak: $(VENV_STAMP) ## claims under faults, and operators' replicas killed 1,000 times, for SOAK_MINUTES (60) each at most
	$(CLUSTER) up --level control-plane
	MUSTER_MIXED_OPERATIONS=10000 $(ON_CONTROL_PLANE) $(PYTEST) tests/integration/test_faults_mixed.py
	MUSTER_FORM=long $(ON_CONTROL_PLANE) $(PYTEST) --numprocesses 2 --dist loadgroup $(LONG_TESTS)
	$(ON_CONTROL_PLANE) $(PYTEST) --numprocesses 2 tests/mutants
	$(PYTHON) -m bench.soak --grants 200 --minutes 0.3 \
	    --plant no-capacity-check --plant old-fence --plant works-after-release
	$(PYTHON) -m bench.soak --append --minutes $${SOAK_MINUTES:-60}
	$(PYTHON) -m bench.exactly_once --append --minutes $${SOAK_MINUTES:-60}
	$(PYTHON) -m bench.swarm_storm --append --minutes $${SOAK_MINUTES:-60}
	$(PYTHON) -m bench.partition_storm --append --minutes $${SOAK_MINUTES:-60}
	for bug in position acknowledged epoch gap; do $(PYTHON) -m bench.partition_storm --quick --plant "$$bug"; done
	HYPOTHESIS_PROFILE=long MUSTER_SEARCH=deep $(PYTEST) --numprocesses 2 -m 'not peers' tests/unit tests/property tests/model

##@ Set up

.PHONY: venv
venv: $(VENV_STAMP) ## the development environment in .venv, from the hashed lock files

$(VENV_STAMP):
	@test -n "$(MUSTER_PYTHON)" || { \
	    echo "error: no Python 3.11, 3.12 or 3.13 on PATH." >&2; \
	    echo "  Remedy: install one, or name it: make venv MUSTER_PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(MUSTER_PYTHON) scripts/venv.py $(VENV)
	@rm -f $(VENV)/.ready-* && touch $@

.PHONY: lock
lock: $(VENV_STAMP) ## resolve the lock files anew, to the newest versions that requirements/*.in allow
	scripts/lock.sh

.PHONY: clean
clean: ## remove what was built here; .venv, clusters and caches stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .ansible tests/output
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
