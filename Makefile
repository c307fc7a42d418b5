# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python

# The environment is made again when one of these changes: the stamp's name carries their checksum.
LOCKS := requirements/dev.lock requirements/collections.lock pyproject.toml galaxy.yml scripts/venv.py
VENV_STAMP := $(VENV)/.ready-$(firstword $(shell cat $(LOCKS) | cksum))

# The first Python that ansible-core 2.19 runs on; name another one with MUSTER_PYTHON=...
MUSTER_PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
    $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Set up

.PHONY: venv
venv: $(VENV_STAMP) ## the development environment in .venv, from the hashed lock files

$(VENV_STAMP):
	@test -n "$(MUSTER_PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 on PATH. Remedy: install one, or name it: make venv MUSTER_PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(MUSTER_PYTHON) scripts/venv.py $(VENV)
	@rm -f $(VENV)/.ready-* && touch $@
