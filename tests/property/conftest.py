# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decisions, by whatever hypothesis comes up with."""

from ansible_collections.muster.coordination.tests.support import profiles  # noqa: F401
