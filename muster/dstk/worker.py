# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference worker: it has copies of partitions, and serves those that its own reads of the API server give to it.

What it may do is decided in decisions/partition_copy.py; here is what surrounds that. Rules
1. All that is served is served under a grant: the epoch that an own read has given, in the session of the Lease in
   which the read was begun. It is looked at before, in the writer's thread, and again before the answer goes out. When
   the session was lost after a write is on the disk, nobody knows what becomes of that write, and the answer says so.
2. Each copy is looked at when there is reason to, and now and then anyway: what no operation wants any more is dropped.
3. A write is answered when all followers that were promised have it on their disks, a read when they have what it saw.
4. Who asks for a partition that nobody may serve for a moment waits, within bounds, until that is over.
All but the writer, the Lease and the reads of the API server runs in one thread, in asyncio's loop.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import aiohttp

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    LEASES,
    Api,
    NotFound,
    Object,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, partition_copy
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, Space
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import (
    FENCED,
    FOLLOWING,
    LOADING,
    PRIMARY,
    PROXY,
    Copies,
    Copy,
    Drop,
    NeedsHeirs,
    Outcome,
    Pass,
    Serve,
    Take,
    Verdict,
    Wait,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from muster.dstk.replication import Acks, Followers
from muster.dstk.store import Change, Operation, Put, Snapshot, Store, StoreFailed, unchanged
from muster.dstk.worker_lease import ADDRESS, WorkerLease, lease_name
from muster.process import say

LABEL: Final = "muster.dev/key-space"

READERS: Final = 8  # reads of the API server at a time
HELD: Final = 1024  # requests that wait for a partition to be served
ACK_SECONDS: Final = 5.0  # for followers to have a write
LOOK_SECONDS: Final = (0.05, 2.0)  # from one look to the next at a copy that waits for something
STEADY_SECONDS: Final = 30.0  # the same, of one that is served
STEADY_READS: Final = 20.0  # looks at copies that are served, per second, at most
CATCH_UP_SECONDS: Final = 0.5  # for an own read to reach what a client says it has seen
SPACE_SECONDS: Final = 30.0  # from one read of the KeySpace to the next
ADDRESS_SECONDS: Final = 30.0  # for which another worker's address is believed
TRIES: Final = 20  # of one request, which each found that the copy had just changed
SCAN_BYTES: Final = 4 * 1024 * 1024

DECIDES: Final[Mapping[str, Callable[[Copies, Mapping[str, Any]], Outcome]]] = {
    "follow": partition_copy.follow,
    "prepare": partition_copy.prepare,
    "fence": partition_copy.fence,
    "proxy": partition_copy.proxy,
    "drop": partition_copy.drop,
    "promise": partition_copy.promise,
}
HINTS: Final = ("promote", "resume")  # have it look: they decide nothing
VERBS: Final = (*DECIDES, *HINTS)

T = TypeVar("T")


class Refusal(MusterError):
    """What a client is told; `word` is of the contract."""

    def __init__(self, word: str, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.word, self.members = word, members


class Grant(NamedTuple):
    """By an own read, in this session, at this epoch."""

    session: int
    epoch: int


class Owned(NamedTuple):
    """A copy that may be served now."""

    copy: Copy
    grant: Grant


class Elsewhere(NamedTuple):
    """Another worker has it: pass the request on."""

    copy: Copy
    worker: str


@dataclass(frozen=True)
class Settings:
    """How one worker runs."""

    name: str
    space: str
    namespace: str
    incarnation: str
    token_file: Path | None = None
    steady_seconds: float = STEADY_SECONDS
    held: int = HELD


class Worker:
    """All but the pages. Made and used in the loop's thread."""

    def __init__(self, settings: Settings, api: Api, directory: Path, lease: Callable[[str], WorkerLease]) -> None:
        """`lease` makes its Lease, of the incarnation that had the directory before. Raises Malformed."""
        self.settings, self.name = settings, settings.name
        self._api = api
        self._loop = asyncio.get_running_loop()
        self.acks = Acks()
        self.store = Store(directory, floor=self.acks.floor, deliver=self._deliver, committed=self._committed)
        former = self.store.meta("incarnation")
        self.store.keep("incarnation", settings.incarnation)
        self.lease = lease(former)
        self.lease.changed = lambda: self._soon(self._session_changed)
        self.space: Space | None = None
        self.grants: dict[str, Grant] = {}
        self.passes: dict[str, str] = {}
        self.waits: dict[str, str] = {}  # why a copy is not served
        self.failed = asyncio.Event()  # the disk: nothing can be done here any more
        self.held = self.unknown = self.forwarded = self.looks = 0
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._wake = asyncio.Event()
        self._patience: dict[str, float] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._moved: dict[str, asyncio.Future[None]] = {}
        self._addresses: dict[str, tuple[str, float]] = {}
        self._token: tuple[float, str] = (-1.0, "")
        self._readers = ThreadPoolExecutor(READERS, "reader")
        self._tasks: set[asyncio.Task[None]] = set()
        self._trouble = ""

    async def start(self) -> None:
        """Begin to renew the Lease, and to look."""
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30))
        self.followers = Followers(self, self.session)
        self._run(self._keep_space())
        self._run(self._keep_looking())
        self.lease.start()
        self.followers.settle()

    async def stop(self) -> None:
        """Serve no more, release the Lease, and end."""
        await self._loop.run_in_executor(None, self.lease.close)
        self._tell_changed()
        await self.followers.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.session.close()
        self._readers.shutdown(wait=False, cancel_futures=True)
        await self._loop.run_in_executor(None, self.store.close)

    @property
    def is_ready(self) -> bool:
        """Whether it knows its KeySpace, has its Lease, and has looked at all that it has."""
        looked = all(name in self.grants or name in self.passes or name in self.waits for name in self.store.copies)
        return self.space is not None and self.lease.session > 0 and looked and not self.lease.is_leaving

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left here that somebody may still want from this worker."""
        return not any(copy.role in (PRIMARY, FENCED, PROXY) for copy in self.store.copies.values())

    # ------------------------------------------------------------------------------------------ threads and the loop

    def _soon(self, call: Callable[..., object], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # it has ended
            return

    def _deliver(self, call: Callable[[], None]) -> None:
        self._soon(call)

    def _run(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def do(self, operation: Operation) -> Any:
        """Have the store do it. Raises StoreFailed, and what deciding raised."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.store.submit(operation, lambda result: None if future.done() else future.set_result(result))
        result = await future
        if isinstance(result, StoreFailed) and self.store.failure:
            self.failed.set()
        if isinstance(result, Exception):
            raise result
        return result

    async def read(self, call: Callable[[], T]) -> T:
        """Have it called in another thread."""
        return await self._loop.run_in_executor(self._readers, call)

    def _committed(self, partitions: Iterable[str]) -> None:
        for name in partitions:
            self._tell_moved(name)

    def _tell_moved(self, name: str) -> None:
        future = self._moved.pop(name, None)
        if future is not None and not future.done():
            future.set_result(None)

    async def moved(self, name: str, seconds: float) -> None:
        """Wait until the position of a copy, or of one of its followers, has changed; not longer than so."""
        future = self._moved.setdefault(name, self._loop.create_future())
        await asyncio.wait((future,), timeout=seconds)

    def _tell_changed(self) -> None:
        """What is served here has changed."""
        before, self._changed = self._changed, self._loop.create_future()
        before.set_result(None)

    def acknowledge(self, partition: str, follower: str, position: int) -> None:
        """A follower says that it has this partition up to there."""
        self.acks.polled(partition, follower, position)
        self._tell_moved(partition)

    # ------------------------------------------------------------------------------------------ may it be served?

    def grant_of(self, copy: Copy) -> Grant | None:
        """The grant under which this copy may be served now."""
        grant = self.grants.get(copy.partition)
        if grant is None or copy.role != PRIMARY or copy.epoch != grant.epoch:
            return None
        return grant if self.lease.holds(grant.session) else None

    def _still(self, name: str, grant: Grant) -> bool:
        copy = self.store.copies.get(name)
        return copy is not None and self.grant_of(copy) == grant

    def _session_changed(self) -> None:
        if self.lease.session:
            for name in self.store.copies:
                self.look(name)
        self._tell_changed()

    def look(self, name: str, seconds: float = 0.0) -> None:
        """Have it looked at, in so many seconds at the latest."""
        at = self._loop.time() + seconds
        if at < self._due.get(name, float("inf")):
            self._due[name] = at
            heapq.heappush(self._heap, (at, name))
            self._wake.set()

    async def _keep_looking(self) -> None:
        room = asyncio.Semaphore(READERS)
        while True:
            self._wake.clear()
            now = self._loop.time()
            while self._heap and self._heap[0][0] <= now:
                at, name = heapq.heappop(self._heap)
                if self._due.get(name) == at:
                    del self._due[name]
                    await room.acquire()
                    self._run(self._look_in(name, room))
            pause = self._heap[0][0] - self._loop.time() if self._heap else None
            if pause is None or pause > 0:
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def _look_in(self, name: str, room: asyncio.Semaphore) -> None:
        try:
            await self.look_now(name)
        finally:
            room.release()

    async def look_now(self, name: str) -> None:
        """Read what the API server says of it, and do what follows."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            copies, session = dict(self.store.copies), self.lease.session
            copy = copies.get(name)
            if copy is None:
                self._forget(name)
                return
            if not session:
                return  # all are looked at when there is one
            self.looks += 1
            try:
                verdict = await self.read(lambda: self._ask(copies, copy))
                await self._act(verdict, copies, copy, session)
            except (MusterError, KeyError, TypeError, ValueError) as error:
                self._complain(error if isinstance(error, MusterError) else Malformed(name, repr(error), "look at it"))
                self.look(name, 1.0)

    def _ask(self, copies: Copies, copy: Copy) -> Verdict:
        """Read the Partition, then the Assignment, in a thread of its own."""
        partition = self._get(PARTITIONS, copy.partition)
        if partition is not None and keyspace.space_of(partition) != self.settings.space:
            return Wait(f"{copy.partition} is of KeySpace {keyspace.space_of(partition)}")
        name = partition_copy.assignment_to_read(copy, partition)
        assignment = self._get(ASSIGNMENTS, name) if name else None
        verdict = partition_copy.authority(copies, copy, partition, assignment, self.name)
        if isinstance(verdict, NeedsHeirs):
            selector = f"{LABEL}={self.settings.space}"
            listed = self._api.list(PARTITIONS, self.settings.namespace, label_selector=selector).items
            sourced = [each for each in listed if keyspace.space_of(each) == self.settings.space]
            heirs = [
                each
                for each in sourced
                if any(source.get("partition") == copy.partition for source in each["spec"].get("sources") or ())
            ]
            again = self._get(PARTITIONS, copy.partition)
            heirs += [again] if again is not None else []
            verdict = partition_copy.authority(copies, copy, partition, assignment, self.name, heirs=heirs)
        return verdict

    def _get(self, resource: Resource, name: str) -> Object | None:
        """The object; None where the server says of this very one that it is not there.

        That the kind is not served, or that something else answers 404, must not have data dropped.
        """
        try:
            return self._api.get(resource, name, self.settings.namespace)
        except NotFound as error:
            if error.details.get("name") != name:
                raise
            return None

    async def _act(self, verdict: Verdict, copies: Copies, copy: Copy, session: int) -> None:
        name, self._trouble = copy.partition, ""
        match verdict:
            case Serve():
                await self._serve(verdict.copy, copy, session)
            case Take():
                await self._take(verdict, copies, session)
            case Pass():
                self.grants.pop(name, None)
                self.waits.pop(name, None)
                is_news = self.passes.get(name) != verdict.worker
                self.passes[name] = verdict.worker
                self._look_later(name, is_news)
                if is_news:
                    self._tell_changed()
            case Drop():
                self.grants.pop(name, None)
                say(logging.INFO, "drops its copy", partition=name, role=copy.role, why=verdict.why)
                if session != self.lease.session:
                    self.look(name)  # what was read may be older than what was done without this worker
                    return
                gone = await self.do(Change(lambda now: Outcome(remove=(name,)) if unchanged(now, (copy,)) else None))
                self._shaped() if gone else self.look(name)
            case Wait():
                is_news = self.waits.get(name) != verdict.why or name in self.grants
                if is_news:
                    say(logging.INFO, "does not serve it now", partition=name, role=copy.role, why=verdict.why)
                self.grants.pop(name, None)
                self.passes.pop(name, None)
                self.waits[name] = verdict.why
                self._look_later(name, is_news)

    async def _serve(self, served: Copy, copy: Copy, session: int) -> None:
        name = copy.partition

        def decide(now: Copies) -> Outcome | None:
            return Outcome((served._replace(position=now[name].position),)) if unchanged(now, (copy,)) else None

        is_news = served._replace(position=0) != copy._replace(position=0)
        done = await self.do(Change(decide)) if is_news else Outcome()
        if done is None:
            self.look(name)
            return
        grant = Grant(session, served.epoch)
        is_granted = self.grants.get(name) == grant
        self.grants[name] = grant
        self.passes.pop(name, None)
        self.waits.pop(name, None)
        if is_news or not is_granted:
            say(logging.INFO, "serves", partition=name, epoch=served.epoch, session=session)
            self._shaped()
        self._look_steadily(name)

    async def _take(self, take: Take, copies: Copies, session: int) -> None:
        sources = [copies[name] for name in take.sources]
        outcome = Outcome(write=take.copies, remove=take.sources)
        done = await self.do(Change(lambda now: outcome if unchanged(now, sources) else None))
        if done is None:
            self.look(take.sources[0])
            return
        for made in take.copies:
            self.grants[made.partition] = Grant(session, made.epoch)
            say(logging.INFO, "serves", partition=made.partition, epoch=made.epoch, sources=",".join(take.sources))
            self._look_steadily(made.partition)
        self._shaped()

    def _look_later(self, name: str, is_news: bool) -> None:
        """At what waits for something: soon at first, then less and less often."""
        least, most = LOOK_SECONDS
        self._patience[name] = least if is_news else min(most, self._patience.get(name, least) * 1.5)
        self.look(name, self._patience[name] * random.uniform(0.8, 1.2))

    def _look_steadily(self, name: str) -> None:
        self._patience.pop(name, None)
        pause = max(self.settings.steady_seconds, len(self.store.copies) / STEADY_READS)
        self.look(name, pause * random.uniform(0.8, 1.2))

    def _shaped(self) -> None:
        """Copies have changed."""
        for name in [name for name in self._locks if name not in self.store.copies]:
            self._forget(name)
        self.followers.settle()
        self._tell_changed()

    def _forget(self, name: str) -> None:
        lock = self._locks.get(name)
        if lock is not None and not lock.locked():
            del self._locks[name]
        for known in (self.grants, self.passes, self.waits, self._patience):
            known.pop(name, None)
        self.acks.forget(name)
        self._tell_moved(name)

    def _complain(self, error: MusterError) -> None:
        if str(error) != self._trouble:
            self._trouble = str(error)
            say(logging.WARNING, "the API server can't be asked", error=self._trouble)

    async def _keep_space(self) -> None:
        """Know what the KeySpace says."""
        trouble = ""
        while True:
            try:
                obj = await self.read(lambda: self._api.get(KEY_SPACES, self.settings.space, self.settings.namespace))
                self.space, trouble = keyspace.parse_space(obj), ""
            except (MusterError, KeyError) as error:
                if str(error) != trouble:
                    trouble = str(error)
                    say(logging.WARNING, "the KeySpace is not known", space=self.settings.space, error=trouble)
            await asyncio.sleep(SPACE_SECONDS if self.space and not trouble else 0.5)

    # ------------------------------------------------------------------------------------------ calls

    async def control(self, verb: str, body: Any) -> Copy | None:
        """Do what a reconciler asks for. Raises Refusal, Malformed."""
        order = partition_copy.order_of(body)
        asked = body.get("keySpace")
        if asked not in (None, self.settings.space):
            raise Malformed("keySpace", asked, f"this worker is of {self.settings.space}")
        for field in ("from", "to"):
            self._note(body.get(field))
        name = order["partition"]
        if verb in HINTS:
            known = self.store.copies.get(name)
            if known and self.grant_of(known) and known.epoch >= order["epoch"]:
                return known  # it has looked by itself
            await self._look_around(name, order["range"] if body.get("range") else None)
            return self.store.copies.get(name)
        outcome = await self.do(Change(lambda copies: DECIDES[verb](copies, order)))
        if outcome.refusal:
            raise Refusal(outcome.refusal, outcome.why)
        if outcome.write or outcome.remove:
            say(logging.INFO, verb, partition=name, epoch=order["epoch"], assignment=order["assignment"])
            if verb == "fence":
                self.grants.pop(name, None)
            self._shaped()
            self._look_later(name, True)
        return self.store.copies.get(name)

    async def _look_around(self, name: str, whole: Range | None) -> None:
        """Look at this partition, and at what it may be made of."""
        near = {copy.partition for copy in self.store.copies.values() if whole and keyspace.overlaps(copy.range, whole)}
        for each in sorted({name, *near}):
            if each in self.store.copies:
                await self.look_now(each)

    def report(self, partition: str = "") -> dict[str, Any]:
        """What it has, or what it has of one partition."""
        copies = self.store.copies
        shown = [copies[partition]] if partition in copies else [] if partition else list(copies.values())
        return {
            "worker": self.name,
            "keySpace": self.settings.space,
            "incarnation": self.settings.incarnation,
            "session": self.lease.session,
            "leaseValid": self.lease.session > 0,
            "leaving": self.lease.is_leaving,
            "copies": [self.shown(copy) for copy in shown],
        }

    def shown(self, copy: Copy) -> dict[str, Any]:
        """A copy, as it is reported."""
        held = self.store.held.get(copy.partition)
        load = {name: getattr(held, name, 0) for name in ("keys", "bytes", "reads", "writes")}
        return {**partition_copy.to_json(copy), "load": load}

    # ------------------------------------------------------------------------------------------ other workers

    def _note(self, peer: Any) -> None:
        address = (peer or {}).get("address")
        if address:
            self._addresses[peer["worker"]] = _check_address(address), time.monotonic()

    async def address(self, worker: str, *, anew: bool = False) -> str:
        """Where another worker is, as its Lease says. Raises MusterError."""
        known = self._addresses.get(worker)
        if known and not anew and time.monotonic() - known[1] < ADDRESS_SECONDS:
            return known[0]
        name = lease_name(self.settings.space, worker)
        lease = await self.read(lambda: self._api.get(LEASES, name, self.settings.namespace))
        address = _check_address((lease["metadata"].get("annotations") or {}).get(ADDRESS))
        if len(self._addresses) > 4096:
            self._addresses.clear()
        self._addresses[worker] = address, time.monotonic()
        return address

    def token(self) -> str:
        """The token that all who speak to one another have; empty: none is needed. Raises MusterError."""
        path = self.settings.token_file
        if path is None:
            return ""
        try:
            changed = path.stat().st_mtime
            if changed != self._token[0]:
                self._token = changed, path.read_text().strip()
        except OSError as error:
            raise Malformed("token file", str(path), f"make it readable ({error.strerror})") from error
        if not self._token[1]:
            raise Malformed("token file", str(path), "put a token into it")
        return self._token[1]

    def headers(self) -> dict[str, str]:
        token = self.token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    # ------------------------------------------------------------------------------------------ keys

    def check(self, key: str) -> str:
        """The key. Raises Malformed; Refusal where the KeySpace is not known yet."""
        if self.space is None:
            raise Refusal("unserved", f"KeySpace {self.settings.space} is not known here yet")
        return keyspace.check_key(self.space, key)

    async def owner(self, key: str, seen: int | None) -> Owned | Elsewhere:
        """The copy that may be served, or who has it; waits where that is not decided. `seen`: the client's epoch.

        Raises Refusal.
        """
        now = self._loop.time()
        budget = self.space.fence_seconds if self.space else 1.0
        is_held = False
        try:
            while True:
                copy = self.store.find(key)
                if copy is None:
                    raise Refusal("not-mine", f"worker {self.name} has no copy of what {key!r} is in")
                if self.grant_of(copy) and (seen or 0) <= copy.epoch:
                    return Owned(copy, self.grants[copy.partition])
                target = copy.proxy if copy.role == PROXY else self.passes.get(copy.partition)
                if target:
                    return Elsewhere(copy, target)
                self._refuse_late(copy, seen, self._loop.time() - now, budget)
                if not is_held:
                    if self.held >= self.settings.held:
                        raise Refusal("unserved", "too many requests wait for their partition already")
                    self.held += 1
                    is_held = True
                self.look(copy.partition)
                await asyncio.wait((self._changed,), timeout=0.1)
        finally:
            if is_held:
                self.held -= 1

    def _refuse_late(self, copy: Copy, seen: int | None, waited: float, budget: float) -> None:
        """Raise Refusal where it is of no use to wait, or not any longer."""
        partition, here = copy.partition, f"the copy of {copy.partition} at worker {self.name}"
        if copy.role in (LOADING, FOLLOWING):
            is_early = not copy.uid or copy.role == LOADING or (seen is not None and seen <= copy.epoch)
            if is_early or (seen is None and waited > CATCH_UP_SECONDS):
                members = {"primary": copy.origin} if copy.origin else {}
                raise Refusal("not-mine", f"{here} is {copy.role}", **members)
        if self.grant_of(copy) and waited > min(CATCH_UP_SECONDS, budget):
            raise Refusal("stale", f"{here} has epoch {copy.epoch}, and {seen} was seen", partition=partition)
        if waited > budget:
            why = self.waits.get(partition) or ("it has no Lease" if not self.lease.session else "it was not read yet")
            raise Refusal("unserved", f"{here} may not be served: {why}", partition=partition)

    async def get(self, key: str, seen: int | None) -> tuple[Copy, bytes | None] | Elsewhere:
        """What a key has. Raises Refusal."""
        for _try in range(TRIES):
            owned = await self.owner(key, seen)
            if isinstance(owned, Elsewhere):
                return owned
            copy, grant = owned
            try:
                got = self.store.get(copy.partition, key)
            except KeyError:
                continue
            if await self._may_be_told(copy, got.position, grant):
                return copy, got.value
        raise Refusal("unserved", "it changes hands again and again", partition=copy.partition)

    async def put(self, key: str, value: bytes | None, seen: int | None) -> Copy | Elsewhere:
        """Write it; None: have it gone. Raises Refusal."""
        for _try in range(TRIES):
            owned = await self.owner(key, seen)
            if isinstance(owned, Elsewhere):
                return owned
            copy, grant = owned
            name = copy.partition

            def may(name: str = name, grant: Grant = grant) -> bool:
                return self.grants.get(name) == grant and self.lease.holds(grant.session)

            try:
                position = await self.do(Put(name, copy.epoch, key, value, may))
            except StoreFailed as error:
                if error.is_known:
                    raise Refusal("unserved", str(error), partition=name) from error
                raise self._unknown(copy, str(error)) from error
            if position is None:
                continue  # it was fenced, or is another's: nothing was written
            if not await self._is_replicated(name, position, grant):
                raise self._unknown(copy, "its followers do not have it (yet)")
            if not self._still(name, grant) and not self._goes_along(key, grant, position):
                raise self._unknown(copy, "the right to serve the partition ended when it was written")
            return copy
        raise Refusal("unserved", "it changes hands again and again", partition=copy.partition)

    async def scan(
        self, after: str, start: str, end: str, limit: int, seen: int | None
    ) -> tuple[Copy, Snapshot] | Elsewhere:
        """A page of keys of the partition in which it begins. Raises Refusal."""
        for _try in range(TRIES):
            owned = await self.owner(after or start, seen)
            if isinstance(owned, Elsewhere):
                return owned
            copy, grant = owned
            name = copy.partition
            try:
                page = await self.read(partial(self.store.scan, name, after, start, end, limit, SCAN_BYTES))
            except KeyError:
                continue
            if await self._may_be_told(copy, page.position, grant):
                return copy, page
        raise Refusal("unserved", "it changes hands again and again", partition=copy.partition)

    async def _may_be_told(self, copy: Copy, position: int, grant: Grant) -> bool:
        """Whether what was read counts; False: ask again who has it. Raises Refusal."""
        is_replicated = await self._is_replicated(copy.partition, position, grant)
        if not self._still(copy.partition, grant):
            return False
        if not is_replicated:  # it may be lost yet, with this worker
            raise Refusal("unserved", "its followers do not have what is here (yet)", partition=copy.partition)
        return True

    def _goes_along(self, key: str, grant: Grant, position: int) -> bool:
        """Whether a write that is on the disk will be had by whoever takes over, though its partition is fenced by now.

        In the same session nobody takes over without the position up to which this worker acknowledges the fence.
        """
        copy = self.store.find(key)
        is_kept = copy is not None and copy.role in (PRIMARY, FENCED, PROXY) and copy.position >= position
        return is_kept and self.lease.holds(grant.session)

    def _unknown(self, copy: Copy, why: str) -> Refusal:
        self.unknown += 1
        return Refusal("unknown", f"nobody knows what becomes of this write: {why}", partition=copy.partition)

    async def _is_replicated(self, name: str, position: int, grant: Grant) -> bool:
        """Wait until all followers have it; False where that takes too long, or the grant has ended."""
        began = self._loop.time()
        while True:
            copy = self.store.copies.get(name)
            if copy is None:
                return False
            reached = self.acks.acknowledged(name, copy.followers)
            if reached is None or reached >= position:
                return True
            if not self._still(name, grant) or self._loop.time() - began > ACK_SECONDS:
                return False
            if self._loop.time() - began > CATCH_UP_SECONDS:
                self.look(name)  # one of them may be out of it
            await self.moved(name, 0.25)


def _check_address(text: Any) -> str:
    """Raises Malformed."""
    parts = urlsplit(text if isinstance(text, str) else "")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/") or parts.query:
        raise Malformed("address", text, "give http://ADDRESS:PORT")
    return f"{parts.scheme}://{parts.netloc}"
