# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bad network of a soak: between each process of holders and the API server stands a proxy that fails at random."""

from __future__ import annotations

import http.client
import random
import signal
import time
from collections import Counter
from multiprocessing.connection import Connection
from typing import NamedTuple
from urllib.parse import urlsplit

from ansible_collections.muster.coordination.plugins.module_utils.client.tls import ssl_context
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from bench.contend import allow_many_files
from cluster.kernel import die_with_parent
from tests.support import fault_proxy
from tests.support.fault_proxy import FaultProxy

# mean number of requests between two events of a kind (so that a slow machine has no more of them to a grant); the
# numbers between are exponential, as of independent causes
FAULT_EVERY, CUT_EVERY, SILENCE_EVERY = 20.0, 600.0, 2000.0
WRITES = {"annotations": ("PUT",), "tickets": ("POST", "DELETE")}  # of the holders: what else is planned meets nothing
UNMET = 20  # so many planned faults that found no request to meet are enough: no more pile up
WATCH = "watch="  # in the path of a watch


class Planned(NamedTuple):
    """A fault for the next `times` requests of this method, with `path` in their path and query."""

    fault: fault_proxy.Fault
    method: str = ""
    times: int = 1
    path: str = ""


def some_fault(dice: random.Random, engine: str) -> Planned:
    """One of all kinds, those that are hardest on whoever writes more often."""
    write = dice.choice(WRITES[engine])
    faults: list[tuple[float, Planned]] = [
        (3, Planned(fault_proxy.Answer(409, "Conflict"), write, dice.randint(1, 12))),
        (1, Planned(fault_proxy.Answer(429, "TooManyRequests", 1))),
        (2, Planned(fault_proxy.Answer(500), "", dice.randint(1, 3))),
        (3, Planned(fault_proxy.AppliedButFailed(), write)),
        (4, Planned(fault_proxy.DropAnswer(), write, dice.randint(1, 2))),
        (2, Planned(fault_proxy.DropRequest(), write)),
        (2, Planned(fault_proxy.CutAnswer(dice.randint(0, 400)))),
        (0.3, Planned(fault_proxy.Stall(0.5), write)),
        (2, Planned(fault_proxy.Delay(dice.uniform(0.01, 0.3)), write)),
        (1, Planned(fault_proxy.Answer(410, "Expired"), "GET", dice.randint(1, 2), WATCH)),
        (1, Planned(fault_proxy.Expired(), "GET", 1, WATCH)),
        (1, Planned(fault_proxy.Stall(dice.uniform(0.5, 3.0)), "GET", 1, WATCH)),
    ]
    return dice.choices([planned for _weight, planned in faults], weights=[weight for weight, _planned in faults])[0]


def fail_at_random(pipe: Connection, kubeconfig: str, engine: str, seed: int) -> None:
    """A process: a proxy that fails until it is told `calm`, and ends with `stop`; says how often what was met."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the soak, which then ends this one
    allow_many_files()
    dice = random.Random(seed)
    counts: Counter[str] = Counter()
    with KeptProxy(Credentials.load({"kubeconfig": kubeconfig})) as proxy:
        pipe.send(proxy.kubeconfig_content())
        kinds = {"fault": FAULT_EVERY, "cut": CUT_EVERY, "silence": SILENCE_EVERY}
        due = {kind: dice.expovariate(1 / every) for kind, every in kinds.items()}
        came, calm = 0, False
        while True:
            if pipe.poll(0.02):
                if pipe.recv() == "stop":
                    break
                calm = True
                proxy.clear()
                proxy.thaw()
            for kind, every in kinds.items():
                if not calm and came >= due[kind]:
                    due[kind] = came + dice.expovariate(1 / every)
                    _break(proxy, kind, dice, engine, counts)
            with proxy._lock:
                came += len(proxy.seen)
                counts.update(_told(seen) for seen in proxy.seen)
                proxy.seen.clear()
        pipe.send(counts)


def _break(proxy: FaultProxy, kind: str, dice: random.Random, engine: str, counts: Counter[str]) -> None:
    if kind == "fault":
        if proxy.pending < UNMET:
            planned = some_fault(dice, engine)
            proxy.plan(planned.fault, method=planned.method, path=planned.path, times=planned.times)
        return
    counts["every connection cut" if kind == "cut" else "every connection silent"] += 1
    if kind == "cut":
        proxy.cut()
    else:
        proxy.freeze()
        time.sleep(dice.uniform(0.2, 2.0))
        proxy.thaw()


def _told(seen: fault_proxy.Seen) -> str:
    """What befell a request, in words."""
    if seen.fault is None:
        return "requests that passed"
    on_watch = " (watch)" if WATCH in seen.path else ""
    if isinstance(seen.fault, fault_proxy.Answer):
        return f"{seen.fault.status} instead of carrying out{on_watch}"
    names = {
        fault_proxy.AppliedButFailed: "500 after it was applied",
        fault_proxy.DropAnswer: "answer lost",
        fault_proxy.DropRequest: "request lost",
        fault_proxy.CutAnswer: "answer cut short",
        fault_proxy.Stall: "stalled, then reset",
        fault_proxy.Delay: "delayed",
        fault_proxy.Expired: "410 as an event",
    }
    return names[type(seen.fault)] + on_watch


class KeptProxy(FaultProxy):
    """A FaultProxy that keeps its connections to the API server, since a new one for each request costs most."""

    def up(self) -> None:
        super().up()
        assert self._server is not None
        self._server.RequestHandlerClass = _KeptHandler


class _KeptHandler(fault_proxy._Handler):
    _kept: _Kept | None = None

    def _connect(self) -> http.client.HTTPConnection:
        if self._kept is None:
            credentials = self.server.proxy._upstream
            parts = urlsplit(credentials.server)
            self._kept = _Kept(parts.hostname or "", parts.port, context=ssl_context(credentials.tls()))
        return self._kept


class _Kept(http.client.HTTPSConnection):
    """Stays open after an answer that was read to its end."""

    answer: http.client.HTTPResponse | None = None

    def getresponse(self) -> http.client.HTTPResponse:
        self.answer = super().getresponse()
        return self.answer

    def close(self) -> None:
        if self.answer is None or not self.answer.isclosed() or self.answer.will_close:
            super().close()
