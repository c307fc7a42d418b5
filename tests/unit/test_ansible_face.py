# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verb as an Ansible module: what goes in, what comes out, and what is kept secret on the way."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args

from ansible_collections.kubernetes.core.plugins.module_utils import args_common
from ansible_collections.muster.coordination.plugins.doc_fragments.k8s_auth_options import ModuleDocFragment
from ansible_collections.muster.coordination.plugins.module_utils import ansible_face
from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Api
from ansible_collections.muster.coordination.plugins.module_utils.credentials import OPTIONS
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, TimedOut
from ansible_collections.muster.coordination.tests.support.scripted_server import ScriptedServer, say, status

SPEC = {"name": {"type": "str", "required": True}, "namespace": {"type": "str"}, "data": {"type": "dict"}}

Run = Callable[..., dict[str, Any]]


def read(api: Api, *, name: str, namespace: str, data: dict[str, str] | None, check_mode: bool) -> dict[str, Any]:
    """A verb: reads a ConfigMap."""
    before = api.get(CONFIGMAPS, name, namespace).get("data") or {}
    return {"changed": before != data, "before": before, "after": data, "mode": check_mode, "warnings": ["mind this"]}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a verb as a module with these arguments; returns what it printed."""
    monkeypatch.delenv("KUBECONFIG", raising=False)

    def run(verb: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:
        given = {"name": "x", "api_key": "very-secret", **arguments}
        with patch_module_args(given), pytest.raises(SystemExit) as ended:
            ansible_face.run(SPEC, verb)
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert bool(ended.value.code) == bool(result.get("failed"))
        return result

    return run


def test_a_verb_gets_its_own_options_and_the_result_comes_out(run: Run) -> None:
    with ScriptedServer(say(200, {"data": {"a": "1"}})) as server:
        result = run(read, host=server.url, namespace="team", data={"a": "2"})
    assert server.requests[0].path == "/api/v1/namespaces/team/configmaps/x"
    assert (result["changed"], result["mode"]) == (True, False)
    assert "diff" not in result
    assert "mind this" in json.dumps(result["warnings"])


def test_check_mode_and_diff(run: Run) -> None:
    with ScriptedServer(say(200, {"data": {"a": "1"}})) as server:
        result = run(read, host=server.url, data={"a": "2"}, _ansible_check_mode=True, _ansible_diff=True)
    assert result["mode"] is True
    assert result["diff"] == {"before": {"a": "1"}, "after": {"a": "2"}}


def test_the_namespace_is_the_contexts(run: Run) -> None:
    with ScriptedServer(say(200, {}), say(200, {})) as server:
        context = {"cluster": "c", "user": "c", "namespace": "of-context"}
        kubeconfig = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": context}],
            "clusters": [{"name": "c", "cluster": {"server": server.url}}],
            "users": [{"name": "c", "user": {"token": "kubeconfig-secret"}}],
        }
        run(read, kubeconfig=kubeconfig, api_key=None)
        run(read, host=server.url)
    assert [request.path.split("/")[4] for request in server.requests] == ["of-context", "default"]


def test_an_error_of_the_api_says_what_where_and_what_to_do(run: Run) -> None:
    with ScriptedServer(say(403, status("Forbidden", "no"))) as server:
        result = run(read, host=server.url, namespace="team")
    assert result["msg"].startswith("get configmaps team/x: 403 Forbidden: no. Allow the verb get on configmaps")
    assert (result["failed"], result["status"], result["reason"]) == (True, 403, "Forbidden")


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (
            Malformed("capacity", "{", "write JSON"),
            {"reason": "Malformed", "field": "capacity"},
        ),
        (TimedOut("no permit", "held by a"), {"reason": "TimedOut", "last_seen": "held by a"}),
    ],
)
def test_an_error_of_ours_is_told(run: Run, error: Exception, facts: dict[str, str]) -> None:
    def fail(api: Api, **options: Any) -> dict[str, Any]:
        raise error

    result = run(fail, host="http://127.0.0.1:1")
    assert result["msg"] == str(error)
    assert {name: result[name] for name in facts} == facts


def test_a_bug_keeps_its_traceback() -> None:
    def bug(api: Api, **options: Any) -> dict[str, Any]:
        raise ZeroDivisionError

    given = {"name": "x", "host": "http://127.0.0.1:1", "api_key": "t"}
    with patch_module_args(given), pytest.raises(ZeroDivisionError):
        ansible_face.run(SPEC, bug)


@pytest.mark.parametrize("library", ["urllib3", "yaml"])
def test_a_missing_library_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, library: str) -> None:
    (tmp_path / "config").write_text(yaml.safe_dump({"clusters": []}))
    monkeypatch.setitem(sys.modules, library, None)
    options = {"kubeconfig": str(tmp_path / "config"), "api_key": None} if library == "yaml" else {"host": "http://x"}
    result = run(read, **options)
    assert result["reason"] == "MissingLibrary"
    assert "Failed to import the required Python library" in result["msg"]


KUBECONFIG = {
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
    "users": [{"name": "c", "user": {"token": "top-secret", "as": "ann", "as-groups": ["dev"]}}],
}


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "top-secret"},
        {"username": "ann", "password": "top-secret"},
        {"kubeconfig": KUBECONFIG},
        {"proxy": "http://ann:top-secret@proxy:1"},
        {"proxy_headers": {"proxy_basic_auth": "top-secret"}},
        {"proxy_headers": {"basic_auth": "top-secret"}},
    ],
)
def test_no_secret_is_printed(run: Run, options: dict[str, Any]) -> None:
    def tell(api: Api, **options: Any) -> dict[str, Any]:
        return {"changed": False, "leak": "it is top-secret, of cluster c"}

    result = run(tell, **{"host": "http://127.0.0.1:1", **options})
    assert "top-secret" not in json.dumps(result)
    assert "of cluster c" in result["leak"]  # what is no secret can still be read


def test_the_path_of_a_kubeconfig_is_no_secret(run: Run) -> None:
    result = run(read, kubeconfig="/nonexistent/config", api_key=None)
    assert result["msg"].startswith("kubeconfig '/nonexistent/config' does not exist")


# -- the same options as kubernetes.core ------------------------------------------------------------------------------


def test_the_options_are_those_of_kubernetes_core() -> None:
    def comparable(spec: dict[str, Any]) -> dict[str, Any]:
        return {
            name: {"type": "str", **option, "options": comparable(option.get("options", {}))}
            for name, option in spec.items()
        }

    assert comparable(ansible_face.AUTH_SPEC) == comparable(args_common.AUTH_ARG_SPEC)
    ours = {name: variables for name, variables in OPTIONS.items() if not name.startswith("impersonate")}
    theirs = {ours: (ours.upper(), theirs.upper()) for theirs, ours in args_common.AUTH_ARG_MAP.items()}
    del theirs["proxy_headers"]
    assert {name: tuple(dict.fromkeys(variables)) for name, variables in theirs.items()} == ours


def test_every_option_is_documented() -> None:
    documented = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    assert documented.keys() == ansible_face.AUTH_SPEC.keys()
    for name, option in ansible_face.AUTH_SPEC.items():
        for fact in ("type", "aliases", "elements"):
            assert documented[name].get(fact) == option.get(fact), name
        for variable in OPTIONS.get(name, ()):
            assert f"E(K8S_AUTH_{variable})" in str(documented[name]["description"]), variable
    headers = documented["proxy_headers"]["suboptions"]
    assert headers.keys() == ansible_face.AUTH_SPEC["proxy_headers"]["options"].keys()
