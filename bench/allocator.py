# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The allocator's figures: creates a second, how long a claim takes, its writes, and whether limits are exact.

    python -m bench.allocator                the whole, about 15 minutes; writes docs/bench/allocator.{json,md,png}
    python -m bench.allocator --quick        a minute, the same code, small numbers; writes build/bench/
    python -m bench.allocator --part limit --rounds 1000        only that; writes build/bench/
    python -m bench.allocator --resume       measures what the JSON does not have yet

`muster allocatord` is one process on a real kube-apiserver, its users have real tokens of ServiceAccounts, and are all
of one process, as asyncio tasks. There is no kubelet: an instance is of one ConfigMap, so that it is ready when it is
made, and what is measured is the allocator. What is measured and how is told on the page (docs/bench/allocator.md).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    Api,
    ApiError,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import MEMBER, OWNER, owner_hash
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import INSTANCES
from ansible_collections.muster.coordination.tests.support.allocator_site import AllocatorSite
from bench.contend import percentiles
from bench.holders import api_of, make_namespace
from bench.machine import CHECKOUT, Cluster, facts, say, wait_until_quiet
from bench.semaphore import Store

OUT, BUILD = CHECKOUT / "docs" / "bench", CHECKOUT / "build" / "bench"
PACKAGES = ("aiohttp", "urllib3")
TEMPLATE = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{.Name}}'}\ndata: {hello: world}\n"
QUOTAS = Resource("v1", "resourcequotas", "ResourceQuota")
MANY = ("--max-instances", "5000", "--max-instances-per-user", "5000")
WRITES = ("POST", "PUT", "PATCH", "DELETE")
LONG_SECONDS = 300.0
EXPOSED = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>[0-9.e+]+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    creates: int = 1500
    users: int = 20  # who create side by side, each on so many connections
    connections: int = 2
    burst: int = 300  # of claims at one moment, each by another user
    bursts: int = 5
    rounds: int = 1000
    crowd: int = 256  # creates at one moment by one user whose limit is 1
    peer_rounds: int = 20


QUICK = Scale(200, 10, 2, 60, 1, 3, 256, 1)


class Answer(NamedTuple):
    status: int
    seconds: float
    name: str


class Bench:
    """One run of everything on one control plane."""

    def __init__(self, cluster: Cluster, scale: Scale) -> None:
        self.kubeconfig, self.scale = cluster.kubeconfig, scale
        self.api = api_of(cluster.kubeconfig)
        self._made = 0

    @contextmanager
    def site(self, *options: str) -> Iterator[AllocatorSite]:
        """An allocator in a namespace of its own."""
        with tempfile.TemporaryDirectory() as directory:
            made = AllocatorSite(self.api, self.kubeconfig, self.namespace("site"), TEMPLATE, Path(directory), *options)
            try:
                yield made
            finally:
                made.close()

    def namespace(self, what: str) -> str:
        self._made += 1
        name = f"bench-{what}-{time.time_ns() % 10**9}-{self._made}"
        make_namespace(self.api, name)
        return name

    def users(self, site: AllocatorSite, number: int, what: str = "user") -> list[str]:
        """Tokens of so many new users."""
        names = [f"{what}-{which}" for which in range(number)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(site.account, names))
            return list(pool.map(site.token, names))

    # ------------------------------------------------------------------------------------------ what is measured

    def creates(self) -> dict[str, Any]:
        """Several users create as fast as they are answered."""
        scale = self.scale
        with self.site(*MANY) as site:
            tokens = self.users(site, scale.users)
            asyncio.run(_warm_up(site.url, tokens))
            keys = iter(range(scale.creates))

            async def user(session: aiohttp.ClientSession, token: str) -> list[Answer]:
                return [await _create(session, site.url, token, f"key-{key}") for key in keys]

            async def all_users() -> list[list[Answer]]:
                async with _session() as session:
                    return await asyncio.gather(
                        *(user(session, token) for token in tokens for _connection in range(scale.connections))
                    )

            before, begun = self.writes(), time.monotonic()
            answers = [answer for each in asyncio.run(all_users()) for answer in each]
            seconds = time.monotonic() - begun
            self._settle(site, len(answers))
            return {**_figures(answers, seconds), "writes": self._each(before, len(answers))}

    def claims(self, warm: bool) -> dict[str, Any]:
        """So many users who want one at one moment; with a pool that has one for each, or without."""
        number, answers, seconds = self.scale.burst, [], 0.0
        written = Counter[str]()
        for _burst in range(self.scale.bursts):
            with self.site(*MANY, *(("--warm", str(number)) if warm else ())) as site:
                tokens = self.users(site, number)
                asyncio.run(_warm_up(site.url, tokens))
                if warm:
                    self._settle(site, number)
                before, begun = self.writes(), time.monotonic()
                found = asyncio.run(_at_once(site.url, [(token, "key") for token in tokens]))
                seconds += time.monotonic() - begun
                written += self.writes() - before
                answers += found
        figures = _figures(answers, seconds)
        return {**figures, "writes": {name: round(count / len(answers), 2) for name, count in sorted(written.items())}}

    def limit(self) -> dict[str, Any]:
        """So many creates at one moment by one user, each with a key of its own, where one is allowed."""
        scale, counts, seconds = self.scale, Counter[int](), 0.0
        statuses = Counter[int]()
        with self.site("--max-instances", "5000", "--max-instances-per-user", "1") as site:
            for begin in range(0, scale.rounds, 50):
                tokens = self.users(site, min(50, scale.rounds - begin), f"user-{begin}")
                asyncio.run(_warm_up(site.url, tokens))
                for token in tokens:
                    begun = time.monotonic()
                    answers = asyncio.run(_at_once(site.url, [(token, f"key-{n}") for n in range(scale.crowd)]))
                    seconds += time.monotonic() - begun
                    counts[sum(answer.status == 201 for answer in answers)] += 1
                    statuses.update(answer.status for answer in answers)
                say(f"limit: {begin + len(tokens)} of {scale.rounds} rounds; made in a round: {dict(counts)}")
            there = len(self.api.list(INSTANCES, site.namespace).items)
        return _limits(counts, scale, scale.rounds, seconds) | {"instances": there, "statuses": dict(statuses)}

    def limit_of_the_original(self) -> dict[str, Any]:
        """The check of the original: list what the user has, and create if that is less than the limit."""
        namespace, counts, seconds = self.namespace("list"), Counter[int](), 0.0
        for number in range(self.scale.peer_rounds):
            labels = {MEMBER: "bench", OWNER: owner_hash(f"user-{number}")}
            selector = ",".join(f"{key}={value}" for key, value in labels.items())

            def ask(which: int, labels: dict[str, str] = labels, selector: str = selector) -> bool:
                if self.api.list(CONFIGMAPS, namespace, label_selector=selector, metadata_only=True).items:
                    return False
                name = f"{labels[OWNER]}-{which}"
                self.api.create(CONFIGMAPS, {"metadata": {"name": name, "namespace": namespace, "labels": labels}})
                return True

            made, took = _crowd(self.scale.crowd, ask)
            counts[made] += 1
            seconds += took
        return _limits(counts, self.scale, self.scale.peer_rounds, seconds)

    def limit_of_a_quota(self) -> dict[str, Any]:
        """A ResourceQuota of Kubernetes, in a namespace for each user: what one can have without an allocator."""
        counts, seconds = Counter[int](), 0.0
        for _round in range(self.scale.peer_rounds):
            namespace = self.namespace("quota")
            spec = {"hard": {"count/leases.coordination.k8s.io": "1"}}
            self.api.create(QUOTAS, {"metadata": {"name": "one", "namespace": namespace}, "spec": spec})
            for _change in self.api.follow(QUOTAS, namespace, name="one", watch_timeout=5):
                if (self.api.get(QUOTAS, "one", namespace).get("status") or {}).get("used"):
                    break

            def ask(which: int, namespace: str = namespace) -> bool:
                try:
                    self.api.create(LEASES, {"metadata": {"name": f"place-{which}", "namespace": namespace}})
                except ApiError:
                    return False
                return True

            made, took = _crowd(self.scale.crowd, ask)
            counts[made] += 1
            seconds += took
        return _limits(counts, self.scale, self.scale.peer_rounds, seconds)

    # ------------------------------------------------------------------------------------------ tools

    def writes(self) -> Counter[str]:
        """Writes that the API server has answered so far, by what was written."""
        found = Counter[str]()
        for match in EXPOSED.finditer(exposed_by(self.api)):
            labels = dict(LABEL.findall(match["labels"]))
            what = "/".join(filter(None, (labels.get("resource"), labels.get("subresource"))))
            if labels.get("verb") in WRITES and labels.get("dry_run") != "All" and what in COUNTED:
                found[what] += int(float(match["count"]))
        return found

    def _each(self, before: Counter[str], number: int) -> dict[str, float]:
        return {name: round(count / number, 2) for name, count in sorted((self.writes() - before).items())}

    def _settle(self, site: AllocatorSite, number: int) -> None:
        """Until so many instances are ready."""
        deadline = time.monotonic() + LONG_SECONDS
        while True:
            items = self.api.list(INSTANCES, site.namespace).items
            ready = sum((each.get("status") or {}).get("phase") == "Ready" for each in items)
            if ready >= number:
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"error: {ready} of {number} instances are ready after {LONG_SECONDS:.0f} s")
            time.sleep(0.5)


COUNTED = ("configmaps", "instances", "instances/status", "events", "leases")


def exposed_by(api: Api) -> str:
    """The API server's own."""
    from ansible_collections.muster.coordination.plugins.module_utils.client.answers import Asked

    asked = Asked("get", Resource("v1", "metrics", "Metrics", namespaced=False), None)
    response, _sock = api._wire.open("GET", asked, "/metrics", 30.0)
    return api._wire.content(response, asked, time.monotonic() + 30.0).decode()


@contextmanager
def _timed() -> Iterator[list[float]]:
    taken: list[float] = []
    begun = time.monotonic()
    yield taken
    taken.append(time.monotonic() - begun)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=LONG_SECONDS)
    )


async def _create(session: aiohttp.ClientSession, url: str, token: str, key: str) -> Answer:
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    with _timed() as taken:
        async with session.post(f"{url}/v1/instances", json={}, headers=headers) as response:
            body = await response.json(content_type=None)
    return Answer(response.status, taken[0], body.get("name", ""))


async def _at_once(url: str, asked: Sequence[tuple[str, str]]) -> list[Answer]:
    """All of these (token, key), begun at one moment on connections of their own that are open already."""
    async with _session() as session:
        tasks: list[Coroutine[Any, Any, Answer]] = [_create(session, url, token, key) for token, key in asked]
        return list(await asyncio.gather(*tasks))


async def _warm_up(url: str, tokens: Sequence[str]) -> None:
    """Have the API server know the users, as it does of people who have looked at their list before."""
    async with _session() as session:
        for begin in range(0, len(tokens), 20):
            await asyncio.gather(*(_offer(session, url, token) for token in tokens[begin : begin + 20]))


async def _offer(session: aiohttp.ClientSession, url: str, token: str) -> None:
    async with session.get(f"{url}/v1/offer", headers={"Authorization": f"Bearer {token}"}) as response:
        response.raise_for_status()
        await response.read()


def _crowd(size: int, ask: Callable[[int], bool]) -> tuple[int, float]:
    """How many of so many who ask at one moment got one, and how long that took."""
    start = threading.Barrier(size)

    def one(which: int) -> bool:
        start.wait()
        return ask(which)

    with ThreadPoolExecutor(size) as pool:
        begun = time.monotonic()
        made = sum(pool.map(one, range(size)))
        return made, time.monotonic() - begun


def _figures(answers: Sequence[Answer], seconds: float) -> dict[str, Any]:
    times = sorted(answer.seconds for answer in answers)
    return {
        "answers": len(answers),
        "statuses": dict(Counter(answer.status for answer in answers)),
        "names": len({answer.name for answer in answers if answer.name}),
        "seconds": round(seconds, 2),
        "a_second": round(len(answers) / seconds, 1),
        "latency_ms": percentiles(times, 1000),
        "latencies_ms": [round(each * 1000, 1) for each in times],
    }


def _limits(counts: Counter[int], scale: Scale, rounds: int, seconds: float) -> dict[str, Any]:
    return {
        "rounds": rounds,
        "crowd": scale.crowd,
        "made_in_a_round": {str(made): count for made, count in sorted(counts.items())},
        "over": sum(count for made, count in counts.items() if made > 1),
        "under": counts[0],
        "answers_a_second": round(rounds * scale.crowd / seconds, 1),
    }


PARTS: dict[str, dict[str, Callable[[Bench], dict[str, Any]]]] = {
    "create": {"muster": Bench.creates},
    "claim": {"cold": partial(Bench.claims, warm=False), "warm": partial(Bench.claims, warm=True)},
    "limit": {
        "muster": Bench.limit,
        "original": Bench.limit_of_the_original,
        "quota": Bench.limit_of_a_quota,
    },
}


def told(found: dict[str, Any]) -> str:
    """Figures in one line, without the single answers."""
    return json.dumps({key: value for key, value in found.items() if key != "latencies_ms"})


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.allocator", description=__doc__, formatter_class=form)
    parser.add_argument("--name", default="bench", help="the control-plane cluster to measure on (default: bench)")
    parser.add_argument("--quick", action="store_true", help="small numbers, for trying it out; written to build/bench")
    parser.add_argument("--part", action="append", default=[], choices=PARTS, help="only this part; repeatable")
    parser.add_argument("--rounds", type=int, help="rounds of the limit (default: 1000)")
    parser.add_argument("--resume", action="store_true", help="measure only what the JSON does not have yet")
    parser.add_argument("--out", type=Path, metavar="DIRECTORY", help="where to write (docs/bench or build/bench)")
    parser.add_argument("--wait", type=float, default=0, metavar="MINUTES", help="wait so long for a quiet machine")
    args = parser.parse_args(argv)
    out: Path = args.out or (BUILD if args.quick or args.part else OUT)
    out.mkdir(parents=True, exist_ok=True)
    scale = QUICK if args.quick else Scale()
    scale = replace(scale, rounds=args.rounds or scale.rounds)
    quiet = wait_until_quiet(minutes=args.wait) if args.wait else None
    cluster = Cluster(args.name)
    found: dict[str, Any] = {"machine": {**facts(PACKAGES), "was_quiet": quiet}, "kubernetes": cluster.version()}
    path = out / "allocator.json"
    if args.resume and path.exists():
        found = json.loads(path.read_text())
    store = Store(path, {**found, "scale": vars(scale)}, told)
    bench = Bench(cluster, scale)
    for part, systems in PARTS.items():
        for name, measure in systems.items():
            if not args.part or part in args.part:
                store.measured(part, name, by=partial(measure, bench))
    store.found["machine"]["load_1_min_after"] = facts()["load_1_min"]
    store.save()
    bench.api.close()
    from bench import allocator_report  # matplotlib takes a second and 100 MB: after the measuring

    allocator_report.write(out)
    return 1 if allocator_report.faults(store.found) else 0


if __name__ == "__main__":
    sys.exit(main())
