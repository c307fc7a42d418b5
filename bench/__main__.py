# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m bench`: all figures in one run; see bench/semaphore.py for the parts and options."""

from __future__ import annotations

import sys

from bench.semaphore import main

if __name__ == "__main__":
    sys.exit(main())
