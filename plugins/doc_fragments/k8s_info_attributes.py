# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each module that only looks says of itself."""

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
    description: Can run in C(check_mode); it changes nothing in either mode.
    support: full
  diff_mode:
    description: Has no differences to show, for it changes nothing.
    support: N/A
  idempotent:
    description: Changes nothing, however often it runs.
    support: full
"""
