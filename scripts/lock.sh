#!/usr/bin/env bash
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# scripts/lock.sh: resolve requirements/*.in into *.lock, with hashes, for every system and Python from 3.11 on.
# The newest fitting versions are taken. Needs the development environment on PATH; `make lock` calls it.
set -euo pipefail

python -m venv build/lock
build/lock/bin/pip install --quiet --disable-pip-version-check uv
uv=$PWD/build/lock/bin/uv
options=(--quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-header --no-emit-index-url)

cd requirements
"$uv" pip compile "${options[@]}" image.in --output-file image.lock
"$uv" pip compile "${options[@]}" --constraint image.lock dev.in --output-file dev.lock
"$uv" pip compile "${options[@]}" bench.in --output-file bench.lock
"$uv" pip compile "${options[@]}" --no-deps collections.in --output-file collections.lock
git --no-pager diff --stat -- .
