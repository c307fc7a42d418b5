#!/usr/bin/env bash
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# scripts/on.sh LEVEL COMMAND...: run a command that talks to the cluster of that level (node or control-plane).
# KUBECONFIG names the cluster; helm and kubectl are on PATH. Needs the development environment on PATH.
set -euo pipefail

eval "$(python -m cluster env --level "$1")"
for tool in helm kubectl; do
    PATH=$(dirname "$(python -m cluster tool "$tool")"):$PATH
done
shift
exec "$@"
