# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m bench`: all figures; each of semaphore, failover, cache, placement, allocator, module_time has options."""

from __future__ import annotations

import sys

from bench import allocator, cache, failover, module_time, placement, semaphore
from bench.machine import Cluster

if __name__ == "__main__":
    cluster = Cluster("bench")
    module_time.main(["--kubeconfig", cluster.kubeconfig])  # first: it asks for a machine that is quiet
    status = semaphore.main([]) | failover.main([]) | cache.main([]) | placement.main([])
    status |= allocator.main([])
    cluster.down()
    sys.exit(status)
