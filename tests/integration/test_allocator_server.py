# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The allocator's server at a real API server, with the tokens of real ServiceAccounts."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ansible_collections.muster.coordination.plugins.module_utils.api import PODS, Api, NotFound, Object, Resource
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Caller, Offer
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import INSTANCES, Allocator
from ansible_collections.muster.coordination.tests.integration.test_allocator_controller import forget
from ansible_collections.muster.coordination.tests.support.allocator_contract import contract
from ansible_collections.muster.coordination.tests.support.allocator_lab import ROOT
from ansible_collections.muster.coordination.tests.support.allocator_server import Client, offer, until
from ansible_collections.muster.coordination.tests.support.vm_lab import install
from muster.allocator.auth import NotReviewed, Reviewer
from muster.allocator.server import Server
from muster.frame.cache import Cache

pytestmark = pytest.mark.integration

AUDIENCE = "allocator.test"
SECONDS = 0.5  # for which a review holds here
ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
SECRETS = Resource("v1", "secrets", "Secret")


@pytest.fixture(scope="module", autouse=True)
def definition(api: Api) -> None:
    install(api, ROOT / "charts/allocator/crds/instances.yaml")


def token_of(kubeconfig: str, namespace: str, name: str, *more: str, audience: str = AUDIENCE) -> str:
    """Of a ServiceAccount, by the TokenRequest API."""
    command = ["kubectl", "--kubeconfig", kubeconfig, "--namespace", namespace, "create", "token", name]
    command += [f"--audience={audience}"] if audience else []
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Site:
    """An allocator in a namespace, served, and the ServiceAccounts alice, bob and root, of whom root administers."""

    def __init__(self, api: Api, namespace: str, kubeconfig: str) -> None:
        self.api, self.namespace, self._kubeconfig = api, namespace, kubeconfig
        for name in ("alice", "bob", "root"):
            api.create(ACCOUNTS, {"metadata": {"name": name, "namespace": namespace}})
        self.offer: Offer = offer(max_instances_per_user=3, administrators=(self.user("root"),))
        self.allocator = Allocator(api, namespace, self.offer)
        self.reviewer = Reviewer(api, AUDIENCE, SECONDS)
        self.cache = Cache(api, INSTANCES, namespace, on_change=self._changed)
        self.server = Server(
            "127.0.0.1:0",
            self.allocator,
            self.reviewer,
            lambda: list(self.cache.items()),
            registry=prometheus_client.CollectorRegistry(),
            is_ready=self.cache.synced.is_set,
            bookmark_seconds=SECONDS,
        )
        self.cache.start()
        self.cache.synced.wait(30)
        self.alice, self.bob, self.root = (
            Client(self.server.port, self.token(name)) for name in ("alice", "bob", "root")
        )

    def user(self, name: str) -> str:
        return f"system:serviceaccount:{self.namespace}:{name}"

    def token(self, name: str, *more: str, audience: str = AUDIENCE) -> str:
        return token_of(self._kubeconfig, self.namespace, name, *more, audience=audience)

    def status(self, token: str) -> int:
        return Client(self.server.port, token)("GET", "/v1/instances").status

    def close(self) -> None:
        self.server.close(2)
        self.cache.stop()
        forget(self.api, self.namespace)

    def _changed(self, key: str) -> None:
        self.server.changed(key, self.cache.by_key(key))


@pytest.fixture
def site(api: Api, namespace: str, kubeconfig: str) -> Iterator[Site]:
    made = Site(api, namespace, os.path.abspath(kubeconfig))
    yield made
    made.close()


def heard(lines: Iterator[Any], *kinds: str) -> list[tuple[str, str]]:
    """Type and name of the next events of these kinds."""
    found: list[tuple[str, str]] = []
    for kind in kinds:
        while (line := next(lines))["type"] != kind:
            assert line["type"] in ("ADDED", "BOOKMARK", "MODIFIED"), line
        found.append((kind, line["instance"]["name"] if line["instance"] else ""))
    return found


# ------------------------------------------------------------------------------------------ what it is for


def test_who_asks_is_who_the_api_server_says(site: Site) -> None:
    caller = site.alice("GET", "/v1/offer").json()["caller"]
    groups = {"system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{site.namespace}"}
    assert caller == {"name": site.user("alice"), "groups": sorted(groups), "is_administrator": False}
    assert site.root("GET", "/v1/offer").json()["caller"]["is_administrator"] is True


def test_an_instance_from_its_creation_to_its_end(site: Site) -> None:
    with site.alice.watching() as lines:
        heard(lines, "BOOKMARK")
        made = site.alice("POST", "/v1/instances", {"parameters": {"Size": 2}}, key="k")
        assert made.status == 201 and made.json()["owner"] == site.user("alice")
        name = made.json()["name"]
        assert heard(lines, "ADDED") == [("ADDED", name)]
        assert site.alice("POST", "/v1/instances", {"parameters": {"Size": 2.0}}, key="k").json()["name"] == name
        assert site.alice("POST", f"/v1/instances/{name}:suspend").json()["suspended"] is True
        assert heard(lines, "MODIFIED") == [("MODIFIED", name)]
        assert site.alice("GET", f"/v1/instances/{name}/events").json() == {"items": []}
        assert site.alice("DELETE", f"/v1/instances/{name}").status == 202
        forget(site.api, site.namespace)
        assert heard(lines, "DELETED") == [("DELETED", name)]
    assert site.alice("DELETE", f"/v1/instances/{name}").status == 404


def test_what_is_shared_with_a_group_of_the_api_server_is_seen_until_it_is_taken_back(site: Site) -> None:
    group = f"system:serviceaccounts:{site.namespace}"
    name = site.alice("POST", "/v1/instances", {"access": {"groups": [group]}}, key="k").json()["name"]
    until("bob sees it", lambda: len(site.bob("GET", "/v1/instances").json()["items"]) == 1)
    with site.bob.watching() as lines:
        heard(lines, "BOOKMARK")
        there = site.api.get(INSTANCES, name, site.namespace)
        site.api.replace(INSTANCES, {**there, "spec": {**there["spec"], "access": {"users": [], "groups": []}}})
        heard(lines, "DELETED")
    assert site.bob("GET", f"/v1/instances/{name}").status == 404


def test_of_many_creations_at_one_moment_as_many_succeed_as_there_are_places(site: Site) -> None:
    with ThreadPoolExecutor(48) as pool:
        asked = [pool.submit(site.alice, "POST", "/v1/instances", {}, key=f"k{n}") for n in range(48)]
        statuses = sorted(each.result().status for each in asked)
    assert statuses == [201] * 3 + [403] * 45
    assert len(site.alice("GET", "/v1/instances").json()["items"]) == 3


def test_a_page_that_the_api_server_does_not_know_is_told_to_be_malformed(site: Site) -> None:
    site.alice("POST", "/v1/instances", {}, key="k")
    site.bob("POST", "/v1/instances", {}, key="k")
    first = site.root("GET", "/v1/instances?all=true&limit=1").json()
    second = site.root("GET", f"/v1/instances?all=true&limit=1&continue={first['continue']}").json()
    assert len(first["items"]) == len(second["items"]) == 1 and first != second
    assert site.root("GET", "/v1/instances?all=true&continue=nonsense").word == "malformed"


def test_the_server_keeps_to_its_document_at_a_real_api_server(site: Site, tmp_path: Path) -> None:
    done = contract(site.alice, tmp_path, "--exclude-path", "/metrics", examples=6)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]


# ------------------------------------------------------------------------------------------ tokens


def test_a_token_for_another_audience_is_refused(site: Site) -> None:
    assert site.status(site.token("alice", audience="other.test")) == 401
    assert site.status(site.token("alice", audience="")) == 401  # the API server's own
    assert site.status(site.token("alice")) == 200
    assert site.status(site.token("alice", "--audience=other.test")) == 200  # for both


def test_without_an_audience_of_its_own_it_is_the_api_servers(site: Site) -> None:
    reviewer = Reviewer(site.api)
    assert reviewer.review(site.token("alice", audience="")).name == site.user("alice")
    with pytest.raises(Exception, match="another audience"):
        reviewer.review(site.token("alice"))


def _parts(token: str) -> list[Any]:
    return [json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in token.split(".")[:2]]


def _signed(header: Object, claims: Object) -> str:
    """By the key of another cluster."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    signature = key.sign(".".join(encoded).encode(), padding.PKCS1v15(), hashes.SHA256())
    return ".".join([*encoded, base64.urlsafe_b64encode(signature).rstrip(b"=").decode()])


def test_a_token_that_this_cluster_has_not_signed_is_refused(site: Site) -> None:
    good = site.token("alice")
    header, claims = _parts(good)
    first, second, signature = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    _other_header, others = _parts(site.token("root"))
    forged = [
        _signed(header, claims),
        _signed({**header, "alg": "RS256"}, {**claims, "aud": [AUDIENCE, "https://kubernetes.default.svc"]}),
        f"{none}.{second}.",
        f"{none}.{second}.{signature}",
        f"{first}.{second}.",
        f"{first}.{second}",
        f"{first}.{second}.{signature[:-8]}AAAAAAAA",
        f"{first}.{base64.urlsafe_b64encode(json.dumps(others).encode()).rstrip(b'=').decode()}.{signature}",
        good + "A",
        good[1:],
        "x",
        "." * 100,
        "A" * 8000,
    ]
    assert [site.status(token) for token in forged] == [401] * len(forged)
    assert site.status(good) == 200


@pytest.mark.parametrize("bound", ["account", "secret", "pod"])
def test_a_token_that_is_revoked_is_refused_within_the_seconds(site: Site, bound: str) -> None:
    """It expires in an hour: what it is bound to is deleted before."""
    at = {"name": "bound", "namespace": site.namespace}
    more: tuple[str, ...] = ()
    if bound == "secret":
        site.api.create(SECRETS, {"metadata": at})
        more = ("--bound-object-kind=Secret", "--bound-object-name=bound")
    if bound == "pod":
        spec = {"serviceAccountName": "alice", "containers": [{"name": "c", "image": "example.org/none"}]}
        site.api.create(PODS, {"metadata": at, "spec": spec})
        more = ("--bound-object-kind=Pod", "--bound-object-name=bound")
    token = site.token("alice", *more)
    assert site.status(token) == 200
    with Client(site.server.port, token).watching() as lines:
        heard(lines, "BOOKMARK")
        resource = {"account": ACCOUNTS, "secret": SECRETS, "pod": PODS}[bound]
        with suppress(NotFound):
            site.api.delete(resource, "alice" if bound == "account" else "bound", site.namespace)
        until("it is refused", lambda: site.status(token) == 401)
        last = [line["type"] for line in lines if line["type"] != "BOOKMARK"]
        assert last == ["urn:muster:allocator:unauthenticated"]


def test_a_review_is_remembered_no_longer_than_it_may_be(site: Site) -> None:
    token = site.token("alice")
    began = time.monotonic()
    assert site.status(token) == 200
    site.api.delete(ACCOUNTS, "alice", site.namespace)
    while site.status(token) == 200:
        assert time.monotonic() - began < 20
    accepted = site.reviewer.results["accepted"]
    with pytest.raises(Exception, match="not accept"):
        site.reviewer.review(token)
    assert site.reviewer.results["accepted"] == accepted


def test_while_the_api_server_is_away_nobody_is_let_in(site: Site) -> None:
    away = Api(Credentials.load({"host": "http://127.0.0.1:9"}), timeout=2)
    with pytest.raises(NotReviewed):
        Reviewer(away, AUDIENCE).review(site.token("alice"))
    site.server._reviewer = Reviewer(away, AUDIENCE)
    refused = site.alice("GET", "/v1/instances")
    assert (refused.status, refused.word) == (503, "unavailable") and refused.headers["retry-after"]


def test_an_account_that_may_not_review_lets_nobody_in(site: Site) -> None:
    document = json.loads(
        subprocess.run(
            ["kubectl", "--kubeconfig", site._kubeconfig, "config", "view", "--raw", "-o", "json"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    for user in document["users"]:
        user["user"] = {"token": site.token("bob", audience="")}
    poor = Api(Credentials.load({"kubeconfig": document}))
    with pytest.raises(NotReviewed):
        Reviewer(poor, AUDIENCE).review(site.token("alice"))


def test_a_caller_is_a_name_and_groups(site: Site) -> None:
    found = site.reviewer.review(site.token("alice"))
    assert isinstance(found, Caller) and found.name == site.user("alice") and "system:authenticated" in found.groups
