# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods of workers without a node: their kubelet, and the workers themselves, as threads that keep journals.

The Pods are made by the real controllers, and stand in no node's way: nobody schedules them. A finalizer keeps each one
until the kubelet here has seen its worker end, and has said so in its status. A worker shares no code with `muster
swarm-worker`: it reads the ConfigMaps, runs what stands in its list, and writes down when.
"""

from __future__ import annotations

import itertools
import json
import queue
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple, Protocol

import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, PODS, Api, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.commit import commit
from ansible_collections.muster.coordination.tests.support.nursery import insist
from ansible_collections.muster.coordination.tests.support.swarm_journal import Line

PORT: Final = 8390  # of each worker's page, at an address of its own
FINALIZER: Final = "muster.dev/lab"
PART_OF: Final = "muster.dev/worker-config"  # label of the ConfigMaps of a configuration: the name of the first
DEAF: Final = "lab.muster.dev/deaf"  # annotation of a Pod: its worker answers, and never takes another list
REPORTS: Final = "muster.dev/config-port"  # annotation of a Pod: its worker tells its version, and reloads
REMEMBERED: Final = 100  # revisions of ConfigMaps
Object = dict[str, Any]


class Entry(NamedTuple):
    """What a ConfigMap says to one worker."""

    version: int
    jobs: frozenset[str]


class Document(NamedTuple):
    """One ConfigMap at one revision; `entries` None: nobody can read what stands in it.

    `barriers`: by worker, the version that all its Pods have read which were made after this revision.
    """

    revision: int
    entries: Mapping[str, Entry] | None
    barriers: Mapping[str, int] = {}


class Temper(NamedTuple):
    """How slow things are, in seconds at most: a Pod's begin, noticing another list, ending jobs that were let go, and
    all of them as the Pod ends."""

    begin: float = 0.05
    notice: float = 0.05
    end: float = 0.1
    leave: float = 0.1


BRISK: Final = Temper()


_documents: OrderedDict[tuple[str, str], Document] = OrderedDict()  # those that were read last


def read(obj: Object) -> Document:
    """What stands in a ConfigMap, as a worker reads it."""
    key = (obj["metadata"]["uid"], obj["metadata"]["resourceVersion"])
    if key not in _documents:
        _documents[key] = _read(obj)
        while len(_documents) > REMEMBERED:
            with suppress(KeyError):  # another thread was faster
                _documents.popitem(last=False)
    return _documents.get(key) or _read(obj)


def _read(obj: Object) -> Document:
    text = (obj.get("data") or {}).get("config.yml", "")
    entries: dict[str, Entry] | None = None
    barriers: dict[str, int] = {}
    with suppress(yaml.YAMLError, TypeError, KeyError, AttributeError):
        workloads = (yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}).get("workloads") or {}
        entries = {name: Entry(each["version"], frozenset(each["jobs"])) for name, each in workloads.items()}
        kept = json.loads((obj.get("data") or {}).get("handover.json", "{}")).get("workers", {})
        barriers = {name: each["barrier"][1] for name, each in kept.items() if "barrier" in each}
    return Document(int(obj["metadata"]["resourceVersion"]), entries, barriers)


def newest(documents: Mapping[str, Document], worker: str) -> Entry | None:
    """A worker's entry; of several, that with the greatest version."""
    found = [document.entries[worker] for document in documents.values() if worker in (document.entries or {})]
    return max(found, default=None, key=lambda entry: entry.version)


class Record:
    """The journals of all workers; for several threads."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._running: set[tuple[str, str, str, str]] = set()
        self._lock = threading.Lock()

    def begin(self, who: tuple[str, str, str], jobs: Collection[str]) -> None:
        """`who`: worker, uid of its Pod, run of its process."""
        with self._lock:
            self._note(who, jobs, "begin")
            self._running.update((*who, job) for job in jobs)

    def end(self, who: tuple[str, str, str], jobs: Collection[str]) -> None:
        with self._lock:
            self._note(who, jobs, "end")
            self._running.difference_update((*who, job) for job in jobs)

    def lines(self) -> list[Line]:
        """All until now; what runs has a beat of now."""
        with self._lock:
            now = time.monotonic_ns()
            return [*self._lines, *(Line(now, *each, "beat") for each in sorted(self._running))]

    def running(self) -> dict[str, set[str]]:
        """The jobs that each worker runs now, by worker."""
        found: dict[str, set[str]] = {}
        with self._lock:
            for worker, _uid, _run, job in self._running:
                found.setdefault(worker, set()).add(job)
        return found

    def runners(self) -> dict[str, list[str]]:
        """The workers that run each job now, by job; one that two processes of a worker run, has it twice."""
        found: dict[str, list[str]] = {}
        with self._lock:
            for worker, _uid, _run, job in sorted(self._running):
                found.setdefault(job, []).append(worker)
        return found

    def _note(self, who: tuple[str, str, str], jobs: Collection[str], event: str) -> None:
        now = time.monotonic_ns()
        self._lines += [Line(now, *who, job, event) for job in sorted(jobs)]


class Worker:
    """One process of a worker. What it has to run is told to it by `take`; not for several threads but for `kill`."""

    _runs = itertools.count(1)

    def __init__(self, name: str, uid: str, record: Record, slow: Callable[[float], float], temper: Temper) -> None:
        """`slow` makes of the most seconds that something may take those that it takes."""
        self.who = (name, uid, f"run-{next(self._runs)}")
        self.entry: Entry | None = None  # what it was told last
        self.version: int | None = None  # what it tells
        self.killed = threading.Event()
        self._record, self._slow, self._temper = record, slow, temper
        self._jobs: set[str] = set()
        self._lock = threading.Lock()

    def take(self, entry: Entry | None) -> None:
        """Begin what is new, end what is gone, and then tell the version. An older version is never taken."""
        if entry == self.entry or (entry and self.entry and entry.version < self.entry.version):
            return
        self.entry = entry
        wanted = entry.jobs if entry else frozenset()
        with self._lock:
            if self.killed.is_set():
                return
            new, gone = wanted - self._jobs, self._jobs - wanted
            self._record.begin(self.who, new)
            self._jobs |= new
        if gone:
            self.killed.wait(self._slow(self._temper.end))
            self._end(gone)
        self.version = entry.version if entry else None

    def end(self) -> None:
        """As by SIGTERM."""
        if self._jobs:
            self.killed.wait(self._slow(self._temper.leave))
        self.kill()

    def kill(self) -> None:
        """As by SIGKILL; from any thread."""
        self.killed.set()
        self._end(set(self._jobs))

    def _end(self, jobs: set[str]) -> None:
        with self._lock:
            self._record.end(self.who, jobs & self._jobs)
            self._jobs -= jobs


class Page:
    """`GET /config` of a worker, at an address of its own on this host."""

    def __init__(self, tell: Callable[[], Object]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(tell()).encode()
                self.send_response(200 if self.path == "/config" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # an operator that was killed while it was told

        while True:
            self.address = some_address()
            with suppress(OSError):
                self._server = Server((self.address, PORT), Handler)
                break
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def some_address() -> str:
    """One of this host's own, of which there are many."""
    return f"127.{random.randint(64, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"


class Programs(Protocol):
    """Real processes in place of the workers here; the journals are theirs, too."""

    def begin(self, name: str, uid: str, address: str) -> None:
        """Start that of a Pod, which serves its page at this address."""

    def is_ready(self, uid: str) -> bool: ...

    def end(self, uid: str) -> None:
        """End it, and return when it has ended."""


CONFIG, END, RESTART, LOSE = "config", "end", "restart", "lose"


class Container:
    """A Pod with its worker, and the kubelet that looks after it, in a thread of its own."""

    def __init__(
        self,
        api: Api,
        pod: Object,
        head: str,
        record: Record,
        documents: Callable[[str], Mapping[str, Document]],
        *,
        temper: Temper = BRISK,
        room: threading.Event | None = None,
        seed: int = 0,
        programs: Programs | None = None,
        news: Callable[[], None] = lambda: None,
        ending: Callable[[Container], None] = lambda container: None,
    ) -> None:
        """`documents` are what a watch has brought by now, of the configuration with this `head`.

        `room`: while it is not set, there is no node for the Pod. `news` is told of all that becomes of the worker,
        `ending` before it is ended.
        """
        self.name, self.namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        self.uid, self.revision = pod["metadata"]["uid"], int(pod["metadata"]["resourceVersion"])
        annotations = pod["metadata"].get("annotations") or {}
        self.reports, self._is_deaf = REPORTS in annotations, DEAF in annotations
        self.is_ready = self.is_ending = self.is_lost = False
        self._api, self.head = api, head
        self._record, self._documents, self._temper = record, documents, temper
        self._room, self._dice, self._news, self._at_end = room, random.Random(f"{seed} {self.name}"), news, ending
        self._read: dict[str, Document] = {}
        self._inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._deleted = threading.Event()
        self._restarts = 0
        self.worker = self._new_worker()
        self._programs = programs
        self.page = Page(self._told) if self.reports and not programs else None
        self.address = self.page.address if self.page else some_address()
        self.thread = threading.Thread(target=self._run, name=f"pod {self.name}", daemon=True)
        self.thread.start()

    def tell(self, what: str) -> None:
        """CONFIG: look at the ConfigMaps. END: the Pod is deleted. RESTART: the worker crashes."""
        if what == END:
            self.is_ending = True
            self._deleted.set()
        self._inbox.put(what)

    def free(self) -> None:
        """Let the Pod go, if it is deleted."""
        insist(self._free)

    def kill(self) -> None:
        """The worker is no more, and nobody is told."""
        self.worker.kill()
        self._inbox.put(LOSE)

    @property
    def loaded(self) -> int | None:
        """The version that its worker was told last."""
        return self.worker.entry.version if self.worker.entry else None

    # ------------------------------------------------------------------------------------------ its life

    def _run(self) -> None:
        try:
            if self._begin():
                while self._turn(self._inbox.get()):
                    pass
            self._finish()
        finally:
            if self.page:
                self.page.close()

    def _begin(self) -> bool:
        """Start the worker, which reads what a quorum knows; False: the Pod is deleted before that."""
        while self._room and not self._room.wait(0.05):
            if self._deleted.is_set():
                return False
        if self._deleted.wait(self._dice.uniform(0, self._temper.begin)):
            return False
        if self._programs:
            self._programs.begin(self.name, self.uid, f"{self.address}:{PORT}")
            while not self._programs.is_ready(self.uid) and not self._deleted.wait(0.05):
                pass
        else:
            self._read_anew()
        insist(lambda: self._say(is_running=True))
        self.is_ready = True
        self._news()
        return True

    def _turn(self, what: str) -> bool:
        listens = self.reports and not self._programs and not (self._is_deaf and self.worker.entry)
        if what == CONFIG and listens:
            if not self._deleted.wait(self._dice.uniform(0, self._temper.notice)):
                self._update(self._documents(self.head))
        elif what == RESTART:
            self.worker.kill()
            self._restarts += 1
            self.worker = self._new_worker()
            self._read_anew()
            insist(lambda: self._say(is_running=True))
        self._news()
        return what not in (END, LOSE)

    def _finish(self) -> None:
        if self.is_lost:
            return
        self.is_ready = False
        self._at_end(self)
        self.worker.end()
        if self._programs:
            self._programs.end(self.uid)
        insist(lambda: self._say(is_running=False))
        self.free()
        self._news()

    def _read_anew(self) -> None:
        listed = insist(
            lambda: self._api.list(CONFIGMAPS, self.namespace, label_selector=f"{PART_OF}={self.head}").items
        )
        self._update({obj["metadata"]["name"]: read(obj) for obj in listed})

    def _update(self, seen: Mapping[str, Document]) -> None:
        """Of each ConfigMap the newest revision counts; one that is gone, or that nobody can read, changes nothing."""
        for name, document in seen.items():
            before = self._read.get(name)
            if document.entries is not None and (before is None or before.revision < document.revision):
                self._read[name] = document
        if self._read:
            self.worker.take(newest(self._read, self.name))

    def _new_worker(self) -> Worker:
        return Worker(self.name, self.uid, self._record, lambda most: self._dice.uniform(0, most), self._temper)

    def _told(self) -> Object:
        worker = self.worker
        jobs = sorted(worker.entry.jobs) if worker.entry else []
        return {"worker": self.name, "uid": self.uid, "version": worker.version, "jobs": jobs}

    # ------------------------------------------------------------------------------------------ its kubelet

    def _say(self, *, is_running: bool) -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        state: Object = {"running": {"startedAt": at}} if is_running else {
            "terminated": {"exitCode": 0, "startedAt": at, "finishedAt": at}
        }  # fmt: skip
        container = {"name": "worker", "image": "none", "imageID": "", "state": state, "ready": is_running}
        ready = {"type": "Ready", "status": str(is_running), "lastTransitionTime": at}
        said: Object = {"phase": "Running"} if is_running else {}
        said["containerStatuses"] = [{**container, "restartCount": self._restarts}]
        if self.reports:
            said |= {"podIP": self.address, "podIPs": [{"ip": self.address}]}

        def decide(there: Object | None) -> tuple[Object | None, None]:
            if there is None or there["metadata"]["uid"] != self.uid:
                return there, None
            status = there.get("status") or {}
            others = [each for each in status.get("conditions") or [] if each["type"] != "Ready"]
            return {**there, "status": {**status, **said, "conditions": [*others, ready]}}, None

        commit(self._api, PODS, self.name, self.namespace, decide, subresource="status", timeout=30)

    def _free(self) -> None:
        """Let the Pod go that is deleted."""

        def decide(there: Object | None) -> tuple[Object | None, None]:
            if there is None or there["metadata"]["uid"] != self.uid:
                return there, None
            left = [each for each in there["metadata"].get("finalizers") or [] if each != FINALIZER]
            return {**there, "metadata": {**there["metadata"], "finalizers": left}}, None

        with suppress(NotFound):
            commit(self._api, PODS, self.name, self.namespace, decide, timeout=30)
