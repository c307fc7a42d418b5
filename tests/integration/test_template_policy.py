# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates on a real API server: Pod Security as its admission has it, and values as it stores them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    NAMESPACES,
    PODS,
    AlreadyExists,
    Api,
    Asked,
    Forbidden,
    Invalid,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_policy import (
    LEVELS,
    pod_security,
)
from ansible_collections.muster.coordination.tests.support import pod_specs
from ansible_collections.muster.coordination.tests.support.injections import CORPUS, is_refused

pytestmark = pytest.mark.integration

SERVICE_ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
PAIRS = 300  # Pods with several changes at once
BATCH = 150  # values in one object


@pytest.fixture(scope="module", params=LEVELS)
def enforced(api: Api, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A namespace in which a level is enforced, and the level."""
    level: str = request.param
    metadata = {"generateName": "muster-test-", "labels": {"pod-security.kubernetes.io/enforce": level}}
    name = api.create(NAMESPACES, {"metadata": metadata})["metadata"]["name"]
    try:
        with contextlib.suppress(AlreadyExists):  # a controller was faster
            api.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": name}})
        yield name, level
    finally:
        api.delete(NAMESPACES, name)


def admitted(api: Api, namespace: str, pod: dict[str, Any]) -> str:
    """What the API server says to this Pod; empty where it would make it."""
    metadata = {**pod["metadata"], "name": "pod", "namespace": namespace}
    asked = Asked("create", PODS, namespace, "pod")
    try:
        api._write("POST", asked, {**pod, "metadata": metadata}, f"{asked.collection()}?dryRun=All")
    except Forbidden as error:
        assert "violates PodSecurity" in str(error), f"refused for something else: {error}"
        return str(error)
    return ""


@pytest.mark.parametrize("change", pod_specs.CHANGES, ids=str)
def test_each_change_is_judged_as_by_the_api_server(
    change: pod_specs.Change, api: Api, enforced: tuple[str, str]
) -> None:
    namespace, level = enforced
    pod = pod_specs.changed(change)
    said = admitted(api, namespace, pod)
    assert bool(pod_security(pod, level)) == bool(said), said


def test_changes_together_are_judged_as_by_the_api_server(api: Api, enforced: tuple[str, str]) -> None:
    namespace, level = enforced
    dice = random.Random(8)
    verdicts = {True: 0, False: 0}
    for _ in range(PAIRS):
        changes = dice.sample(pod_specs.CHANGES[:-1], dice.randrange(2, 5))
        pod = pod_specs.changed(*changes)
        try:
            said = admitted(api, namespace, pod)
        except Invalid:
            continue  # they don't go together
        assert bool(pod_security(pod, level)) == bool(said), f"{[str(change) for change in changes]}: {said}"
        verdicts[bool(said)] += 1
    assert min(verdicts.values()) > 20, verdicts


def test_every_value_is_stored_as_it_was_given(api: Api, namespace: str) -> None:
    values = [value for value in CORPUS.values() if not is_refused(value)]
    assert len(values) >= 500
    for begin in range(0, len(values), BATCH):
        data = {str(number): value for number, value in enumerate(values[begin : begin + BATCH])}
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "values", "namespace": namespace}}
        asked = Asked("create", CONFIGMAPS, namespace, "values")
        made = api._write("POST", asked, {**document, "data": data}, f"{asked.collection()}?dryRun=All")
        assert made["data"] == data
