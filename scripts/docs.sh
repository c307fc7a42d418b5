#!/usr/bin/env bash
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# scripts/docs.sh DIRECTORY: check the documentation of the collection that is installed in DIRECTORY, and build the
# site of its modules into build/docs. Works offline. Needs the development environment on PATH; `make docs` calls it.
set -euo pipefail

collection=$1
site=$PWD/build/docs

antsibull-docs lint-collection-docs --plugin-docs --disallow-unknown-collection-refs "$collection"

rm -rf "$site"
mkdir -p "$site"
chmod 700 "$site" # antsibull-docs writes only where nobody else can
antsibull-docs sphinx-init --use-current --squash-hierarchy --sphinx-theme alabaster \
    --project muster.coordination --title muster.coordination --copyright 'Muster contributors' \
    --dest-dir "$site" muster.coordination >"$site/init.log"
cat >>"$site/conf.py" <<'PYTHON'

# Offline: labels of Ansible's own documentation cannot be looked up.
intersphinx_mapping = {}
nitpicky = False
suppress_warnings = ['ref.ref']
PYTHON
"$site/build.sh"
echo "the site: $site/build/html/index.html"
