#!/usr/bin/env bash
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# scripts/installed.sh TREE: run the playbook by its full name, as a user does who has the collection from its tarball.
# TREE holds the installed collections; the checkout is out of sight. KUBECONFIG names a cluster that has the image.
set -euo pipefail

export ANSIBLE_COLLECTIONS_PATH=$1 ANSIBLE_COLLECTIONS_SCAN_SYS_PATH=false
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
cd "$elsewhere"

ansible-galaxy collection list
ansible-playbook muster.coordination.site
echo "once more: nothing may change"
ansible-playbook muster.coordination.site | tee second.log
grep -q 'changed=0 ' second.log || { echo "error: the second run changed something, see above" >&2; exit 1; }
