# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster allocatord run` as real processes, at a real API server: started, killed, and given another template."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import EVENTS, Api, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import POOL, Caller, Wish
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import read_offer
from ansible_collections.muster.coordination.tests.integration.test_allocator_controller import forget
from ansible_collections.muster.coordination.tests.integration.test_vm_operator import Process
from ansible_collections.muster.coordination.tests.support.allocator_lab import ANN, PLAIN, ROOT, Nature, Site, offer
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until
from ansible_collections.muster.coordination.tests.support.vm_lab import install

pytestmark = pytest.mark.integration

PATIENCE = 180.0
BROKEN = PLAIN.replace("port: 80", "port: 80000")


@pytest.fixture(scope="module", autouse=True)
def definition(api: Api) -> None:
    install(api, ROOT / "charts/allocator/crds/instances.yaml")


class Place:
    """A namespace, a template's file, and processes."""

    def __init__(self, api: Api, namespace: str, kubeconfig: str, directory: Path) -> None:
        self.api, self.namespace, self._kubeconfig, self._directory = api, namespace, kubeconfig, directory
        self.site = Site(api, namespace, Nature(api, namespace), offer(max_instances=5))
        self.template = directory / "template.yaml"
        self.template.write_text(PLAIN)
        self.processes: list[Process] = []

    def start(self, *more: str) -> Process:
        arguments = ["--kubeconfig", self._kubeconfig, "--namespace", self.namespace, "--lease-seconds", "3"]
        arguments += ["--name", "kv", "--deployment-template", str(self.template), "--max-instances", "5"]
        arguments += ["--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0", "--lease-name", "kv"]
        log = self._directory / f"{len(self.processes)}.log"
        self.processes.append(Process(log, "allocatord", "run", *arguments, *more))
        return self.processes[-1]

    def until(self, true: Any, what: str) -> None:
        def look() -> bool:
            self.site.nature.turn()
            return bool(true())

        try:
            until(look, what, PATIENCE)
        except AssertionError as error:
            logs = "\n".join(path.read_text()[-3000:] for path in sorted(self._directory.glob("*.log")))
            raise AssertionError(f"{error}; {self.site.told()}; logs:\n{logs}") from None

    def digest(self) -> str:
        with suppress(NotFound):
            return read_offer(self.api, self.namespace, "kv").template.digest
        return ""


@pytest.fixture
def place(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Place]:
    made = Place(api, namespace, kubeconfig, tmp_path)
    yield made
    for process in made.processes:
        process.kill()
    forget(api, namespace)


def ask(port: int, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read()
    return answer.status, json.loads(content) if content[:1] == b"{" else content.decode()


def test_it_serves_and_looks_after_what_is_asked_for(place: Place) -> None:
    process = place.start()
    users = int(process.says(r'"users_port": (\d+)')[1])
    place.until(lambda: ask(users, "/readyz")[0] == 200, "it to be ready for users")
    place.until(lambda: ask(process.port, "/readyz")[0] == 200, "its Pod to be ready")
    assert ask(users, "/v1/offer")[0] == 401
    assert "muster_allocator" in ask(process.port, "/metrics")[1]

    made = place.site.process().allocator.create(ANN, "k", Wish(storage="retain")).instance
    name = made["metadata"]["name"]
    place.until(lambda: place.site.phases() == {name: "Ready"}, "it to be ready")
    place.site.note_disks()
    place.site.process().allocator.destroy(ANN, name)
    place.until(lambda: not place.site.phases(), "it to be gone")
    place.until(lambda: not place.site.made(), "all of it to be gone")
    assert place.site.judge() == [] and place.site.ledgers() == {}
    about = "involvedObject.kind=Instance"
    place.until(
        lambda: (
            "Ready" in {each["reason"] for each in place.api.list(EVENTS, place.namespace, field_selector=about).items}
        ),
        "an Event about it",
    )
    assert process.end() == 0


def test_who_leads_is_killed_and_another_goes_on(place: Place) -> None:
    first = place.start()
    first.says("leads, with fence")
    second = place.start()
    second.says('"watching"')
    allocator = place.site.process().allocator
    name = allocator.create(ANN, "k", Wish()).instance["metadata"]["name"]
    place.until(lambda: place.site.phases()[name] in ("Creating", "Ready"), "it to be looked after")
    first.kill()
    place.until(lambda: place.site.phases() == {name: "Ready"}, "it to be ready")
    allocator.reset(ANN, name, 0)
    place.until(lambda: place.site.phases() == {name: "Ready"} and done(place, name), "it to be reset")
    allocator.destroy(ANN, name)
    place.until(lambda: not place.site.phases() and not place.site.made(), "it to be gone")
    assert place.site.ledgers() == {}
    assert second.end() == 0


def done(place: Place, name: str) -> bool:
    there = place.site.instance(name)
    return bool(there and there["status"].get("resets") == 1)


def test_a_template_is_read_again_when_it_changes(place: Place) -> None:
    process = place.start()
    process.says('"watching"')
    before = place.digest()
    place.template.write_text(BROKEN)
    process.says("the template has changed, and is wrong")
    assert place.digest() == before
    place.template.write_text(PLAIN.replace("port: 80", "port: 81"))
    place.until(lambda: place.digest() not in ("", before), "another one to be offered")
    assert process.end() == 0


def test_what_the_cluster_would_not_take_is_not_offered(place: Place) -> None:
    place.template.write_text(BROKEN)
    process = place.start()
    assert process.popen.wait(PATIENCE) == 1
    said = (place._directory / "0.log").read_text()
    assert "spec.ports[0].port" in said and "template.yaml" in said
    assert place.digest() == ""


def test_the_pool_is_kept_warm_by_one_of_all_replicas(place: Place) -> None:
    pool = ("--warm", "2")
    first = place.start(*pool)
    place.start(*pool)
    place.until(lambda: sorted(place.site.phases().values()) == ["Ready", "Ready"], "two to be ready")
    assert {obj["spec"]["owner"] for obj in place.site.instances()} == {""}
    assert set(place.site.ledgers()) == {POOL}
    place.site.offer = offer(warm=2, max_instances=5)
    free = set(place.site.phases())
    name = place.site.process().allocator.create(ANN, "k", Wish()).instance["metadata"]["name"]
    assert name in free, "nothing had to be made"
    first.kill()
    place.until(lambda: sorted(place.site.phases().values()) == ["Ready"] * 3, "another one in its place")
    place.until(lambda: len(place.site.ledgers().get(POOL, {})) == 2, "the pool to hold what is in it")
    assert place.site.judge() == []


def test_each_replica_has_a_part_and_one_of_them_the_pool(place: Place) -> None:
    shards = ("--replicas-mode", "shard", "--shards", "8", "--warm", "1")
    first, second = (place.start(*shards, "--pod-num", str(number)) for number in range(2))
    place.until(lambda: list(place.site.phases().values()) == ["Ready"], "one to wait in the pool")
    for process in (first, second):
        place.until(lambda process=process: ask(process.port, "/authority")[1]["shards"], "each to have a part")
    allocator = place.site.process().allocator
    for number in range(4):
        allocator.create(Caller(f"user-{number}"), "k", Wish())
    place.until(lambda: sorted(place.site.phases().values()) == ["Ready"] * 5, "all to be ready")
    first.kill()
    for obj in place.site.instances():
        if obj["spec"]["owner"]:
            allocator.destroy(Caller(obj["spec"]["owner"]), obj["metadata"]["name"])
    place.until(lambda: list(place.site.phases().values()) == ["Ready"], "all to be gone but the pool's")
    assert set(place.site.ledgers()) == {POOL}
    assert second.end() == 0
