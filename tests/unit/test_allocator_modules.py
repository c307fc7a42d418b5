# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What allocator_instance and allocator_instance_info do and tell, straight on an API server in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.muster.coordination.plugins.module_utils.api import NotFound
from ansible_collections.muster.coordination.plugins.module_utils.credentials import CredentialsError
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import (
    Busy,
    Caller,
    KeyBusy,
    NotOwner,
    QuotaSpent,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import FINALIZER
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs import allocator_modules
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import INSTANCES
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator_modules import (
    ClusterDoor,
    open_door,
    typed,
)
from ansible_collections.muster.coordination.plugins.modules import allocator_instance, allocator_instance_info
from ansible_collections.muster.coordination.tests.support.allocator_memory import PARAMETERS, Site
from ansible_collections.muster.coordination.tests.support.scripted_server import ScriptedServer, say

LONG = 60.0  # seconds: a deadline for what takes a moment


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


# ------------------------------------------------------------------------------------------ present


def test_one_is_made_and_the_second_run_changes_nothing(site: Site) -> None:
    first = site.settle(key="ci", parameters={"colour": "blue", "size": "3"})
    assert first["changed"] and first["before"] == {}
    assert first["instance"]["parameters"] == {"colour": "blue", "size": 3, "loud": False}
    assert first["instance"]["endpoints"] == [{"service": first["instance"]["name"], "port": 80, "name": "http"}]
    assert first["after"]["parameters"]["size"] == 3
    again = site.settle(key="ci", parameters={"colour": "blue", "size": "3"})
    assert not again["changed"] and again["before"] == again["after"] == first["after"]
    assert not site.settle(key="ci")["changed"]
    assert site.names() == [first["instance"]["name"]]


def test_keys_are_of_their_owner(site: Site) -> None:
    one, two = (site.settle(key="ci", owner=owner)["instance"] for owner in ("alice", "bob"))
    assert one["name"] != two["name"] and (one["owner"], two["owner"]) == ("alice", "bob")
    shared = site.settle(key="other", owner="bob", access={"users": ["alice"]})["instance"]
    assert site.settle(key="other")["instance"]["name"] != shared["name"]


def test_check_mode_makes_nothing_and_says_what_it_would(site: Site) -> None:
    planned = site.settle(key="ci", parameters={"size": 2}, check_mode=True)
    assert planned["changed"] and planned["after"]["parameters"]["size"] == 2
    assert site.names() == []
    made = site.settle(key="ci", parameters={"size": 2})
    assert made["after"] == planned["after"]
    assert not site.settle(key="ci", check_mode=True)["changed"]
    assert site.settle("suspended", key="ci", check_mode=True)["after"]["suspended"]
    assert site.settle("absent", key="ci", check_mode=True)["changed"]
    assert site.settle(key="ci")["before"] == made["after"]


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"parameters": {"size": 3}}, "parameters.size"),
        ({"parameters": {"colour": "blue"}}, "parameters.colour"),
        ({"access": {"users": ["carol"], "groups": None}}, "access.users"),
        ({"access": {"users": None, "groups": []}}, "access.groups"),
        ({"storage": "retain"}, "storage"),
        ({"attach": "disk"}, "attach"),
    ],
)
def test_what_is_there_is_not_made_another(site: Site, wanted: dict[str, Any], field: str) -> None:
    made = site.settle(key="ci", parameters={"size": 2}, access={"users": ["bob"], "groups": ["g"]})
    with pytest.raises(Malformed, match=f"^{field} is .* keeps it: give that") as raised:
        site.settle(key="ci", **wanted)
    assert raised.value.field == field
    assert not site.settle(key="ci", access={"users": ["bob", "bob"], "groups": ["g"]})["changed"]
    assert site.names() == [made["instance"]["name"]]


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"taste": 1}, "parameters is 'taste'.*colour, loud, size"),
        ({"size": "many"}, "parameters.size is 'many': give a whole number"),
        ({"size": 10}, "parameters.size is 10: give at most 9"),
        ({"colour": "green"}, "parameters.colour is 'green': give one of red, blue"),
        ({"loud": "maybe"}, "parameters.loud is 'maybe'"),
    ],
)
def test_a_parameter_that_does_not_fit_is_named(site: Site, parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(Malformed, match=says):
        site.settle(key="ci", parameters=parameters)
    assert site.names() == []


def test_text_stands_for_numbers_and_booleans_only_where_they_are_meant() -> None:
    offered = {"parameters": PARAMETERS}
    given = {"colour": "blue", "size": "7", "loud": "true"}
    assert typed(offered, given) == {"colour": "blue", "size": 7, "loud": True}
    assert typed(offered, {"size": 7, "loud": False}) == {"size": 7, "loud": False}
    of_tomorrow = {"parameters": {"size": {"type": "integer", "multipleOf": 2}}}
    assert typed(of_tomorrow, {"size": "7"}) == {"size": "7"}


def test_a_quota_is_a_quota(site: Site) -> None:
    for key in ("one", "two"):
        site.settle(key=key)
    for check_mode in (True, False):
        with pytest.raises(QuotaSpent, match="2 of at most 2"):
            site.settle(key="three", check_mode=check_mode)
    assert len(site.names()) == 2


def test_by_name_none_is_made(site: Site) -> None:
    with pytest.raises(Malformed, match=r"name is 'kv-1'.*give a key"):
        site.settle(name="kv-1")
    name = site.settle(key="ci")["instance"]["name"]
    assert site.settle(name=name)["instance"]["name"] == name
    assert site.settle("suspended", name=name)["changed"]


@pytest.mark.parametrize("fault", ["create lost-applied", "create lost", "replace 500-applied", "create unreachable"])
def test_a_lost_answer_makes_no_second_one(site: Site, fault: str) -> None:
    site.api.faults.append(fault)
    assert site.settle(key="ci")["changed"]
    assert len(site.names()) == 1 and not site.settle(key="ci")["changed"]


# ------------------------------------------------------------------------------------------ suspended, absent


def test_suspended_and_back(site: Site) -> None:
    site.control()
    made = site.settle("suspended", key="ci", seconds=LONG)
    assert made["changed"] and made["instance"]["phase"] == "Suspended"
    assert not site.settle("suspended", key="ci", seconds=LONG)["changed"]
    back = site.settle(key="ci", seconds=LONG)
    assert back["changed"] and back["instance"]["phase"] == "Ready"
    assert (back["before"]["suspended"], back["after"]["suspended"]) == (True, False)


def test_absent(site: Site) -> None:
    site.control()
    assert not site.settle("absent", key="ci")["changed"]
    assert not site.settle("absent", name="kv-1")["changed"]
    site.settle(key="ci", seconds=LONG)
    gone = site.settle("absent", key="ci", seconds=LONG)
    assert gone["changed"] and gone["instance"] == {} and gone["after"] == {} and gone["before"]["name"]
    assert site.names() == []
    assert not site.settle("absent", key="ci", seconds=LONG)["changed"]


def finalized(site: Site, key: str = "ci") -> str:
    """An instance that nobody looks after, so that it stays when it is destroyed."""
    name: str = site.settle(key=key)["instance"]["name"]
    obj = site.api.get(INSTANCES, name, "ns")
    site.api.replace(INSTANCES, {**obj, "metadata": {**obj["metadata"], "finalizers": [FINALIZER]}})
    return name


def test_what_is_being_destroyed_is_not_destroyed_again_but_what_becomes_of_its_disks_can_be_said(site: Site) -> None:
    finalized(site)
    assert site.settle("absent", key="ci")["instance"]["phase"] == "Destroying"
    assert not site.settle("absent", key="ci")["changed"]
    assert site.settle("absent", key="ci", storage="retain")["changed"]
    assert site.settle("absent", key="ci", storage="retain")["instance"]["storage"] == "retain"
    assert not site.settle("absent", key="ci", storage="retain")["changed"]


def test_a_key_whose_instance_is_being_destroyed_is_waited_for(site: Site) -> None:
    finalized(site)
    site.settle("absent", key="ci")
    with pytest.raises(KeyBusy):
        site.settle(key="ci")
    assert site.settle(key="ci", seconds=LONG, check_mode=True)["changed"]
    with pytest.raises(Busy, match="is being destroyed: give a key"):
        site.settle(name=site.names()[0])
    site.control()
    assert site.settle(key="ci", seconds=LONG)["instance"]["phase"] == "Ready"


def test_only_its_owner_and_administrators_destroy_it(site: Site) -> None:
    name = site.settle(key="ci", access={"users": ["bob"]})["instance"]["name"]
    with pytest.raises(NotOwner):
        site.settle("absent", owner="bob", name=name)
    assert site.settle("suspended", owner="bob", name=name)["changed"]
    assert not site.settle("absent", owner="carol", name=name)["changed"]
    assert site.settle("absent", owner="root", name=name)["changed"]
    assert site.names() == []


# ------------------------------------------------------------------------------------------ waiting


def test_a_wait_in_vain_says_what_it_saw_last(site: Site) -> None:
    site.control(lambda _obj: "Creating")
    with pytest.raises(TimedOut, match="to be Ready in vain; last seen: Creating: so it is said"):
        site.settle(key="ci", seconds=2.0)
    assert len(site.names()) == 1


def test_who_waits_is_told_of_a_failure(site: Site) -> None:
    site.control(lambda _obj: "Failed")
    with pytest.raises(MusterError, match="has failed: so it is said"):
        site.settle(key="ci", seconds=LONG)


def test_who_waits_is_told_of_a_destruction(site: Site) -> None:
    name, door, deadline = finalized(site), site.door(), time.monotonic() + LONG
    with pytest.raises(MusterError, match="is gone"):
        allocator_modules.await_phase(door, "kv-none", "Ready", deadline)
    door.destroy(name)
    with pytest.raises(MusterError, match="is being destroyed"):
        allocator_modules.await_phase(door, name, "Ready", deadline)


def test_what_is_heard_of_before_a_reset_is_not_its_end() -> None:
    """The goal is what it was before, too: only the count of resets tells them apart."""
    heard = [{"phase": "Ready", "message": "", "resets": resets} for resets in (0, 0, 1)]
    door: Any = SimpleNamespace(follow=lambda _name, _deadline: iter(heard))
    assert allocator_modules.await_phase(door, "kv", "Ready", 0.0, resets=1) is heard[2]
    with pytest.raises(TimedOut, match="last seen: Ready"):
        allocator_modules.await_phase(door, "kv", "Ready", 0.0, resets=2)


# ------------------------------------------------------------------------------------------ doors


def test_an_allocator_that_is_not_there_is_named(site: Site) -> None:
    with pytest.raises(Malformed, match=r"allocator is 'other'.*namespace ns"):
        ClusterDoor(site.api, "ns", "other", "alice")


def test_who_we_are_is_what_the_api_server_says() -> None:
    told = {"status": {"userInfo": {"username": "alice", "groups": ["g"], "uid": "1"}}}
    with ScriptedServer(say(201, told)) as server:
        api = allocator_modules.Api(server.credentials())
        assert allocator_modules.whoami(api) == Caller("alice", ("g",))
    assert server.requests[0].path == "/apis/authentication.k8s.io/v1/selfsubjectreviews"


WHERE = {"token": None, "allocator": None, "namespace": None, "owner": None}


def test_the_token_of_the_options_of_authentication_is_taken_where_no_other_is_given() -> None:
    answer = say(200, {"items": []})
    with ScriptedServer(answer, answer) as server:
        login = {"host": "https://10.0.0.1", "api_key": "of-kubernetes"}
        open_door(login, **{**WHERE, "allocator_url": server.url}).listed()
        open_door({}, **{**WHERE, "allocator_url": server.url, "token": "my-own"}).listed()
    told = [request.headers["Authorization"] for request in server.requests]
    assert told == ["Bearer of-kubernetes", "Bearer my-own"]


def test_a_ca_that_is_not_there_is_said() -> None:
    with pytest.raises(CredentialsError, match=r"/nowhere/ca.crt can't be read"):
        open_door({"ca_cert": "/nowhere/ca.crt"}, **{**WHERE, "allocator_url": "https://a", "token": "t"})


# ------------------------------------------------------------------------------------------ as modules


def run(module: Any, capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_the_module_over_http_needs_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    made = {"name": "kv-1", "owner": "alice", "phase": "Pending", "suspended": False, "message": "", "attach": ""}
    made |= {"parameters": {"size": 3}, "access": {"users": [], "groups": []}, "storage": "delete", "key": "x"}
    told = {"caller": {"name": "alice"}, "parameters": {"size": {"type": "integer"}}}
    script = [say(200, told), say(200, {"items": []}), say(200, told), say(201, made)]
    with ScriptedServer(*script) as server:
        result = run(
            allocator_instance,
            capsys,
            allocator_url=server.url,
            token="very-secret",
            key="ci",
            parameters={"size": "3"},
            access={"groups": ["g"]},
            _ansible_diff=True,
        )
    assert result["changed"] and result["instance"]["name"] == "kv-1"
    assert result["diff"]["before"] == {} and result["diff"]["after"]["parameters"] == {"size": 3}
    assert server.requests[3].json() == {"parameters": {"size": 3}, "access": {"groups": ["g"]}}
    assert server.requests[3].headers["Idempotency-Key"] == "ci"
    assert result["invocation"]["module_args"]["token"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    assert result["invocation"]["module_args"]["key"] == "ci"


def test_the_info_module(capsys: pytest.CaptureFixture[str]) -> None:
    one = {"name": "kv-1", "owner": "alice"}
    script = [say(200, {"items": [one]}), say(200, {"limit": 2, "used": 1}), say(200, {"items": [{"name": "d"}]})]
    with ScriptedServer(*script) as server:
        result = run(allocator_instance_info, capsys, allocator_url=server.url, token="t-t-t", everything=True)
    assert result["instances"] == [one] and result["offer"]["limit"] == 2 and result["disks"] == [{"name": "d"}]
    assert server.requests[0].path.endswith("&all=true")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"allocator": "a"}, "one of the following is required: key, name"),
        ({"key": "k"}, "one of the following is required: allocator_url, allocator"),
        ({"key": "k", "name": "n", "allocator": "a"}, "mutually exclusive: key|name"),
        ({"key": "k", "allocator_url": "u", "allocator": "a"}, "mutually exclusive: allocator_url|allocator"),
        ({"key": "k", "allocator_url": "u", "owner": "o"}, "mutually exclusive: allocator_url|owner"),
        ({"key": "k", "allocator_url": "u", "token": "t-t-t"}, "the allocator's URL is 'u': give a URL"),
        ({"key": " k", "allocator_url": "http://127.0.0.1:1", "token": "t-t-t"}, "give 1 to 128 printable ASCII"),
    ],
)
def test_senseless_options_are_refused(
    arguments: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(allocator_instance, capsys, **arguments)
    assert result["failed"] and says in result["msg"]


def test_info_of_what_is_not_there(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator_modules, "open_door", lambda _login, **_where: site.door())
    monkeypatch.setattr(site.api, "close", lambda: None, raising=False)
    assert allocator_modules.info({}, key="ci")["instances"] == []
    made = site.settle(key="ci")["instance"]
    told = allocator_modules.info({}, key="ci")
    assert told["instances"] == [made] and told["offer"]["used"] == 1 and told["disks"] == []
    assert [each["name"] for each in allocator_modules.info({})["instances"]] == [made["name"]]
    with pytest.raises(NotFound):
        site.api.get(INSTANCES, "kv-none", "ns")
