# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API client against a real kube-apiserver, directly and over a network that fails."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    NAMESPACES,
    PODS,
    AlreadyExists,
    Api,
    ApiError,
    Change,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    Listing,
    LostAnswer,
    NotFound,
    Put,
    Recovered,
    Removed,
    Resource,
    ServerError,
    Snapshot,
    Throttled,
    Trouble,
    Unauthorized,
    Unreachable,
)
from ansible_collections.muster.coordination.plugins.module_utils.client import wire
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.tests.support.fault_proxy import (
    CutAnswer,
    DropAnswer,
    DropRequest,
    FaultProxy,
    Stall,
)

pytestmark = pytest.mark.integration


def configmap(namespace: str, name: str = "x", **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}}


@pytest.fixture
def proxy(kubeconfig: str) -> Iterator[FaultProxy]:
    with FaultProxy(Credentials.load({"kubeconfig": str(kubeconfig)})) as proxy:
        yield proxy


# -- what the server really says --------------------------------------------------------------------------------------


def test_an_object_lives_and_dies(api: Api, namespace: str) -> None:
    made = api.create(CONFIGMAPS, configmap(namespace))
    with pytest.raises(AlreadyExists):
        api.create(CONFIGMAPS, configmap(namespace))
    changed = api.replace(CONFIGMAPS, {**made, "data": {"a": "1"}})
    assert api.get(CONFIGMAPS, "x", namespace) == changed
    with pytest.raises(Conflict):
        api.replace(CONFIGMAPS, {**made, "data": {"a": "2"}})  # decided on what was before
    with pytest.raises(Conflict):
        api.delete(CONFIGMAPS, "x", namespace, uid="another")
    with pytest.raises(Conflict):
        api.delete(CONFIGMAPS, "x", namespace, resource_version=made["metadata"]["resourceVersion"])
    api.delete(CONFIGMAPS, "x", namespace, uid=made["metadata"]["uid"])
    with pytest.raises(NotFound):
        api.get(CONFIGMAPS, "x", namespace)
    with pytest.raises(NotFound):
        api.replace(CONFIGMAPS, changed)


def test_an_object_of_the_same_name_is_another_object(api: Api, namespace: str) -> None:
    first = api.create(LEASES, {"metadata": {"name": "x", "namespace": namespace}})
    api.delete(LEASES, "x", namespace)
    second = api.create(LEASES, {"metadata": {"name": "x", "namespace": namespace}})
    version = second["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        api.replace(LEASES, {**first, "metadata": {**first["metadata"], "resourceVersion": version}})


def test_what_the_server_refuses_is_named_with_its_remedy(api: Api, namespace: str, kubeconfig: str) -> None:
    with pytest.raises(Invalid, match="RFC 1123"):
        api.create(CONFIGMAPS, configmap(namespace, "Not_A_Name"))
    with pytest.raises(NotFound, match="kubectl create namespace no-such-namespace"):
        api.create(CONFIGMAPS, configmap("no-such-namespace"))
    with pytest.raises(NotFound, match=r"does not serve Thing in example\.com/v1"):
        api.list(Resource("example.com/v1", "things", "Thing"), namespace)
    with pytest.raises(ApiError, match="400 BadRequest: unable to parse requirement"):
        next(api.follow(CONFIGMAPS, namespace, label_selector="!!"))
    nobody = Api(Credentials.load({"kubeconfig": str(kubeconfig), "impersonate_user": "nobody"}))
    words = rf'update configmaps {namespace}/x: 403 .*"nobody" cannot update.*Allow the verb update on configmaps'
    with pytest.raises(Forbidden, match=words):
        nobody.replace(
            CONFIGMAPS, {"metadata": {**configmap(namespace)["metadata"], "uid": "u", "resourceVersion": "1"}}
        )
    with pytest.raises(Forbidden, match="Allow the verb list on configmaps"):
        next(nobody.follow(CONFIGMAPS, namespace))
    stranger = Api(Credentials.load({"host": api.credentials.server, "api_key": "wrong", "validate_certs": False}))
    with pytest.raises(Unauthorized, match="renew them"):
        stranger.get(NAMESPACES, "default")


def test_a_server_that_cannot_be_trusted_is_not_spoken_to(api: Api) -> None:
    with pytest.raises(Unreachable, match=r"certificate verify failed.*Name the cluster's CA by ca_cert"):
        Api(Credentials.load({"host": api.credentials.server, "api_key": "t"})).get(NAMESPACES, "default")


def test_a_list_in_pages_is_the_list(api: Api, namespace: str) -> None:
    for index in range(7):
        api.create(CONFIGMAPS, configmap(namespace, f"x-{index}", parity="odd" if index % 2 else "even"))
    whole = api.list(CONFIGMAPS, namespace, label_selector="parity")
    paged = api.list(CONFIGMAPS, namespace, label_selector="parity", limit=2)
    assert paged.items == whole.items
    assert len(whole.items) == 7
    odd = api.list(CONFIGMAPS, namespace, label_selector="parity=odd")
    assert [item["metadata"]["name"] for item in odd.items] == ["x-1", "x-3", "x-5"]
    (one,) = api.list(CONFIGMAPS, namespace, field_selector="metadata.name=x-3", metadata_only=True).items
    assert one["metadata"]["uid"] == whole.items[3]["metadata"]["uid"]
    assert "data" not in one
    assert len(api.list(CONFIGMAPS).items) >= 7  # of all namespaces


@pytest.fixture
def young(api: Api, namespace: str) -> Iterator[Resource]:
    """A kind that the server has only just learned: it knows no version from before."""
    definitions = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", False)
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    names = {"plural": "youngs", "singular": "young", "kind": "Young"}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": schema}]
    group = f"{namespace}.test.muster.dev"
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": versions}
    made = api.create(definitions, {"metadata": {"name": f"youngs.{group}"}, "spec": spec})
    resource = Resource(f"{group}/v1", "youngs", "Young")
    _until(lambda: _is_served(api, resource))
    yield resource
    api.delete(definitions, f"youngs.{group}", uid=made["metadata"]["uid"])
    _until(lambda: not _is_served(api, resource))


def _is_served(api: Api, resource: Resource) -> bool:
    try:
        version = api.list(resource).resource_version
        list(api.watch(resource, resource_version=version, timeout=1))  # it may be listed and not be watched yet
    except (NotFound, ServerError, Throttled):
        return False
    return True


def test_a_version_that_the_server_does_not_know_any_more_is_gone(api: Api, namespace: str, young: Resource) -> None:
    with pytest.raises(Gone):
        list(api.watch(young, namespace, resource_version="1", timeout=5))


def test_follow_lists_again_when_its_version_is_gone(
    api: Api, namespace: str, young: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that was cut off for longer than the server remembers gets a Snapshot, not a gap."""
    follower, versions = Api(api.credentials), iter(["1"])
    honest = follower._list

    def first_one_of_long_ago(*asked: Any, **how: Any) -> Listing:
        listing = honest(*asked, **how)
        return listing._replace(resource_version=next(versions, listing.resource_version))

    monkeypatch.setattr(follower, "_list", first_one_of_long_ago)
    api.create(
        young, {"apiVersion": young.api_version, "kind": "Young", "metadata": {"name": "a", "namespace": namespace}}
    )
    changes = follower.follow(young, namespace)
    for version in ("1", None):
        snapshot = next(changes)
        assert isinstance(snapshot, Snapshot)
        assert [item["metadata"]["name"] for item in snapshot.items] == ["a"]
        assert (snapshot.resource_version == "1") == (version == "1")
    changes.close()


# -- following over a network that fails ------------------------------------------------------------------------------


class Follower:
    """A follow in a thread of its own, and the object as its consumer believes it to be."""

    def __init__(self, api: Api, namespace: str, **options: Any) -> None:
        self.stop = threading.Event()
        self.changes: queue.Queue[Change] = queue.Queue()
        self.believed: dict[str, str] = {}
        self.snapshots = self.troubles = self.recoveries = 0
        self._thread = threading.Thread(target=self._run, args=(api, namespace, options))
        self._thread.start()

    def _run(self, api: Api, namespace: str, options: dict[str, Any]) -> None:
        for change in api.follow(CONFIGMAPS, namespace, stop=self.stop, label_selector="follow=me", **options):
            self.changes.put(change)

    def until(self, condition: Callable[[Follower], bool], what: str) -> None:
        """Take in changes until the condition holds; fails after 60 s without a change."""
        while not condition(self):
            try:
                self._take(self.changes.get(timeout=60))
            except queue.Empty:
                raise AssertionError(f"never {what}; believed: {self.believed}") from None

    def _take(self, change: Change) -> None:
        match change:
            case Snapshot(items, _):
                self.snapshots += 1
                self.believed = {item["metadata"]["name"]: item["data"]["n"] for item in items}
            case Put(obj):
                self.believed[obj["metadata"]["name"]] = obj["data"]["n"]
            case Removed(obj):
                self.believed.pop(obj["metadata"]["name"], None)
            case Trouble():
                self.troubles += 1
            case Recovered():
                self.recoveries += 1

    def end(self) -> None:
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def following(api: Api, namespace: str, **options: Any) -> Iterator[Follower]:
    follower = Follower(api, namespace, **options)
    try:
        yield follower
    finally:
        follower.end()


def put(api: Api, namespace: str, name: str, number: int) -> None:
    """Write {"n": number} to a ConfigMap, whatever was there."""
    wanted = {**configmap(namespace, name, follow="me"), "data": {"n": str(number)}}
    try:
        there = api.get(CONFIGMAPS, name, namespace)
    except NotFound:
        api.create(CONFIGMAPS, wanted)
    else:
        api.replace(CONFIGMAPS, {**there, "data": wanted["data"]})


def test_follow_misses_nothing_while_the_network_fails(api: Api, namespace: str, proxy: FaultProxy) -> None:
    with following(Api(proxy.credentials()), namespace) as follower:
        follower.until(lambda f: f.snapshots == 1, "saw what is there")

        put(api, namespace, "a", 1)
        follower.until(lambda f: f.believed == {"a": "1"}, "saw a creation")

        proxy.cut()
        put(api, namespace, "a", 2)
        follower.until(lambda f: f.believed == {"a": "2"} and f.recoveries == 1, "saw what changed during a reset")

        proxy.down()  # the API server restarts
        put(api, namespace, "b", 1)
        follower.until(lambda f: f.troubles >= 3, "noticed that the server is gone")
        api.delete(CONFIGMAPS, "a", namespace)
        proxy.up()
        follower.until(lambda f: f.believed == {"b": "1"} and f.recoveries == 2, "saw what changed during a restart")

        for fault in (CutAnswer(20), DropAnswer(), DropRequest()):
            proxy.plan(fault, path="watch=true")
            proxy.cut()
            put(api, namespace, "b", 2)
            follower.until(lambda f: not proxy.pending, f"met {fault}")
        put(api, namespace, "b", 3)
        follower.until(lambda f: f.believed == {"b": "3"}, "saw what changed after three faults")
        assert follower.snapshots == 1  # no version was lost: nothing had to be listed again


def test_follow_notices_a_network_that_swallows_everything(
    api: Api, namespace: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with following(Api(proxy.credentials()), namespace, watch_timeout=1.0) as follower:
        follower.until(lambda f: f.snapshots == 1, "saw what is there")
        proxy.freeze()
        put(api, namespace, "a", 1)
        follower.until(lambda f: f.troubles == 1, "noticed the silence")
        proxy.thaw()
        follower.until(lambda f: f.believed == {"a": "1"}, "saw what changed in the silence")


def test_stop_ends_a_watch_over_tls(api: Api, namespace: str) -> None:
    with following(api, namespace) as follower:
        follower.until(lambda f: f.snapshots == 1, "saw what is there")
    # leaving joined the thread, whose watch would have been silent for 55 s


def test_two_follows_and_a_writer_share_one_client(kubeconfig: str, namespace: str) -> None:
    shared = Api(Credentials.load({"kubeconfig": str(kubeconfig)}))
    with following(shared, namespace) as one, following(shared, namespace, metadata_only=False) as two:
        for number in range(30):
            put(shared, namespace, "a", number)
        for follower in (one, two):
            follower.until(lambda f: f.believed == {"a": "29"}, "saw the last write")
    shared.close()


# -- ambiguous writes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "applied"), [(DropAnswer(), True), (CutAnswer(10), True), (Stall(30), True), (DropRequest(), False)]
)
def test_a_lost_answer_may_or_may_not_have_been_applied(
    api: Api, namespace: str, proxy: FaultProxy, fault: Any, applied: bool
) -> None:
    proxy.plan(fault, method="POST")
    with pytest.raises(LostAnswer):
        Api(proxy.credentials(), timeout=2.0).create(CONFIGMAPS, configmap(namespace))
    found = api.list(CONFIGMAPS, namespace, field_selector="metadata.name=x").items
    assert len(found) == (1 if applied else 0)
    assert proxy.count("POST") == 1  # it was never sent twice


def test_what_was_not_sent_is_told_apart(namespace: str, proxy: FaultProxy) -> None:
    proxy.down()
    with pytest.raises(Unreachable):
        Api(proxy.credentials()).create(CONFIGMAPS, configmap(namespace))
    assert proxy.count() == 0


def test_a_vanished_peer_is_noticed_by_keep_alive(api: Api) -> None:
    """The kernel asks an idle peer; what it needs for that is switched on in the socket that a watch uses."""
    import socket

    api.list(PODS, "default")
    (key,) = api._wire._pools.pools.keys()
    open_ones = [entry for entry in api._wire._pools.pools[key].pool.queue if entry and entry.sock]
    assert open_ones, "one at least: other tests have used this client, too"
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    for connection in open_ones:
        assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert tuple(connection.sock.getsockopt(socket.IPPROTO_TCP, option) for option in options) == wire.KEEPALIVE


def _until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(1800):
        if condition():
            return
        waiting.wait(0.1)
    raise AssertionError("it did not happen within 3 minutes")
