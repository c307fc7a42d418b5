# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Kubernetes for demo and tests: the user's own, kind, or one node embedded from source. See docs/cluster.md."""

from __future__ import annotations


class ClusterError(Exception):
    """What went wrong and, after it, what to do about it; the command line prints it as it is and exits 1."""
