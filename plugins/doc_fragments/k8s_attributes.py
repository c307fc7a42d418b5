# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each module that changes the cluster says of itself."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/muster.coordination.k8s) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - muster.coordination.k8s
  check_mode:
    description: Can run in C(check_mode) and return the changes it would make, without making them.
    support: full
  diff_mode:
    description: Returns what it changed, or would change in C(check_mode), in diff mode.
    support: full
  idempotent:
    description: When run twice in a row outside of check mode, with the same arguments, the second run changes nothing.
    support: full
"""
