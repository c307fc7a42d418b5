#!/usr/bin/env bash
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# scripts/sanity.sh DIRECTORY: ansible-test sanity on the collection that is installed in DIRECTORY, a real
# .../ansible_collections/muster/coordination. Needs the development environment on PATH; `make sanity` calls it.
set -euo pipefail

collection=$1
home=${MUSTER_CACHE:-$HOME/.cache/muster}/ansible-test # it keeps virtual environments there that take 40 s to make
log=$PWD/build/sanity.log

# ansible-test puts pip 24.2 into them by a script that it downloads; this stand-in asks Python's own ensurepip.
mkdir -p "$home/.ansible/test/cache"
cat >"$home/.ansible/test/cache/get_pip_24_2.py" <<'PYTHON'
import subprocess
import sys

wanted = [argument for argument in sys.argv[1:] if not argument.startswith("--no-")]
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted], check=True)
PYTHON

# It tests what git lists. Under build/, which this repository ignores, that would be nothing.
cd "$collection"
git init --quiet
git add --all

PIP_CACHE_DIR=$(python -m pip cache dir)
export PIP_CACHE_DIR HOME=$home
python_version=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ansible-test sanity --local --python "$python_version" --color no 2>&1 | tee "$log"

# It also ends with success when it found nothing to test, or left a test out.
if grep -E 'All targets skipped|Skipping sanity test' "$log"; then
    echo "error: ansible-test left out what is named above" >&2
    exit 1
fi
