# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any workload, any settings: attached and taken out again it is what it was, whatever its user did meanwhile."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
from hypothesis import event, given

from ansible_collections.muster.coordination.plugins.module_utils.decisions.sidecar import (
    CLAIM,
    CLAIM_FILE,
    CONTAINER,
    RECORD,
    TOKEN,
    Sidecar,
    attached,
    container,
    detached,
    parts,
    volumes,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

Object = dict[str, Any]

FOREIGN = st.sampled_from([None, 0, "", [], {}, {"key": [1, {"deep": None}]}])
Strings = Sequence[str]


def some(items: st.SearchStrategy[Object], key: str = "name") -> st.SearchStrategy[list[Object]]:
    return st.lists(items, min_size=1, max_size=3, unique_by=lambda item: item[key])


def optional(needed: dict[str, Any], **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    """Keys that may be there or not; no empty list or mapping where the API server gives none."""
    return st.fixed_dictionaries(needed, optional={**more, "foreign": FOREIGN})


def containers(names: Strings, volumes: Strings, paths: Strings, variables: Strings, ports: Sequence[int]) -> Any:
    return optional(
        {"name": st.sampled_from(names), "image": st.just("example.org/app")},
        volumeMounts=some(
            optional({"name": st.sampled_from(volumes), "mountPath": st.sampled_from(paths)}), "mountPath"
        ),
        env=some(optional({"name": st.sampled_from(variables)}, value=st.sampled_from(["1", "$(A)"]))),
        ports=some(
            optional(
                {"containerPort": st.sampled_from(ports)}, name=st.sampled_from(["web", "muster"][: len(ports) - 1])
            ),
            "containerPort",
        ),
    )


@st.composite
def workloads(draw: st.DrawFn, dirty: bool = False) -> Object:
    """A workload as the API server gives it; `dirty`: it may use what the sidecar needs."""
    volumes = ["data", "conf", "more"] + [CLAIM, TOKEN] * dirty
    paths = ["/data", "/run", "/run/mustered", "/etc/app"] + ["/run/muster/", "/claims/deeper"] * dirty
    more = (volumes, paths, ["A", "B", "C"] + [CLAIM_FILE] * dirty, [80, 443] + [8377, 9000] * dirty)
    pod = {"containers": draw(some(containers(["app", "web", "log"] + [CONTAINER] * dirty, *more)))}
    if draw(st.booleans()):
        pod["initContainers"] = draw(some(containers(["prepare", "fetch"], *more)))
    if draw(st.booleans()):
        pod["volumes"] = draw(some(optional({"name": st.sampled_from(volumes)}, emptyDir=st.just({}))))
    metadata: Object = {"name": "w", "namespace": "ns"}
    if draw(st.booleans()):
        metadata["annotations"] = {"own": "note", "muster.dev/other": "kept"}
    outer: Object = {"replicas": 1, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}}
    if draw(st.booleans()):
        outer["volumeClaimTemplates"] = [{"metadata": {"name": draw(st.sampled_from(volumes))}}]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata,
        "spec": outer,
        "foreign": draw(FOREIGN),
    }


SIDECARS = st.builds(
    Sidecar,
    image=st.sampled_from(["muster:1", "muster:2"]),
    semaphores=st.dictionaries(
        st.sampled_from(["sem", "two"]),
        st.just({"*": 1}) | st.dictionaries(st.sampled_from(["gpu", "a=b"]), st.integers(1, 3), min_size=1),
        min_size=1,
    ),
    gate=st.booleans(),
    claim_file=st.sampled_from(["/run/muster/claim.json", "/claims/x.env"]),
    port=st.sampled_from([8377, 9000]),
    containers=st.sampled_from([(), (), ("app",), ("prepare", "web")]),
)


def put_in(workload: Object, sidecar: Sidecar) -> Object:
    """`attached`; where it names containers that this workload has not, to all of them."""
    names = {one["name"] for one in (*pod_of(workload).get("initContainers", ()), *pod_of(workload)["containers"])}
    return attached(workload, sidecar if {*sidecar.containers} <= names else replace(sidecar, containers=()))


def pod_of(workload: Object) -> Object:
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


@given(workloads(), SIDECARS)
def test_attached_and_taken_out_it_is_byte_for_byte_what_it_was(workload: Object, sidecar: Sidecar) -> None:
    before = copy.deepcopy(workload)
    there = put_in(workload, sidecar)
    assert there != workload
    assert json.dumps(detached(there)) == json.dumps(before)
    assert workload == before, "what was given in was changed"


@given(workloads(), SIDECARS)
def test_once_is_enough(workload: Object, sidecar: Sidecar) -> None:
    there = put_in(workload, sidecar)
    assert json.dumps(put_in(there, sidecar)) == json.dumps(there)
    assert detached(workload) is workload


@given(workloads(), SIDECARS, SIDECARS)
def test_other_settings_make_what_they_would_have_made_at_first(workload: Object, one: Sidecar, other: Sidecar) -> None:
    assert put_in(put_in(workload, one), other) == put_in(workload, other)


@given(workloads(), SIDECARS)
def test_what_is_there_is_what_was_asked_for_and_nothing_else_changed(workload: Object, sidecar: Sidecar) -> None:
    """Said a second time, by other means: by looking for each thing where it has to be."""
    there = pod_of(put_in(workload, sidecar))
    theirs = pod_of(workload)
    assert there["initContainers"][-1] == container(sidecar)
    assert len(there["initContainers"]) == len(theirs.get("initContainers", ())) + 1
    assert there["volumes"] == [*theirs.get("volumes", ()), *volumes()]
    names = [one["name"] for one in (*theirs.get("initContainers", ()), *theirs["containers"])]
    chosen = {*sidecar.containers} & {*names} == {*sidecar.containers} and sidecar.containers
    chosen = chosen or [one["name"] for one in theirs["containers"]]
    for kind in ("initContainers", "containers"):
        for was, now in zip(theirs.get(kind, ()), there[kind], strict=False):
            told = was["name"] in chosen
            mount = {"name": CLAIM, "mountPath": sidecar.claim_file.rpartition("/")[0], "readOnly": True}
            variable = {"name": CLAIM_FILE, "value": sidecar.claim_file}
            assert now.get("volumeMounts", []) == was.get("volumeMounts", []) + [mount] * told
            assert now.get("env", []) == was.get("env", []) + [variable] * told
            rest = ("volumeMounts", "env")
            assert {k: v for k, v in now.items() if k not in rest} == {k: v for k, v in was.items() if k not in rest}


@given(workloads(dirty=True), SIDECARS)
def test_a_name_a_path_or_a_port_of_the_users_is_never_taken_over(workload: Object, sidecar: Sidecar) -> None:
    spec = pod_of(workload)
    everyone = [*spec.get("initContainers", ()), *spec["containers"]]
    claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())]
    chosen = sidecar.containers or [one["name"] for one in spec["containers"]]
    path = sidecar.claim_file.rpartition("/")[0]
    told = [one for one in everyone if one["name"] in chosen]
    taken = [
        CONTAINER in [one["name"] for one in everyone],
        {CLAIM, TOKEN} & {*[volume["name"] for volume in spec.get("volumes", ())], *claims},
        [
            p
            for one in everyone
            for p in one.get("ports", ())
            if sidecar.port == p["containerPort"] or p.get("name") == "muster"
        ],
        [m for one in told for m in one.get("volumeMounts", ()) if f"{m['mountPath']}/".startswith(f"{path}/")],
        [v for one in told for v in one.get("env", ()) if v["name"] == CLAIM_FILE],
        [m for one in everyone for m in one.get("volumeMounts", ()) if m["name"] in (CLAIM, TOKEN)],
        set(chosen) - {one["name"] for one in everyone},
    ]
    try:
        attached(workload, sidecar)
    except Malformed as error:
        event(error.field.split("[")[0])
        assert any(taken), error
        assert error.remedy
    else:
        assert not any(taken)


# ---------------------------------------------------------------------------------------------- the user goes on


def renames(workload: Object, number: int) -> None:
    spec = pod_of(workload)
    spec["containers"][number % len(spec["containers"])]["name"] = f"renamed-{number}"


def adds_a_container(workload: Object, number: int) -> None:
    spec = pod_of(workload)
    spec["containers"].insert(
        number % (len(spec["containers"]) + 1), {"name": f"new-{number}", "image": "example.org/new"}
    )


def adds_an_init_container(workload: Object, number: int) -> None:
    theirs = pod_of(workload).setdefault("initContainers", [])
    theirs.append({"name": f"prepare-{number}", "image": "example.org/new"})


def adds_a_volume(workload: Object, number: int) -> None:
    pod_of(workload).setdefault("volumes", []).append({"name": f"more-{number}", "emptyDir": {}})
    one = pod_of(workload)["containers"][0]
    one.setdefault("volumeMounts", []).append({"name": f"more-{number}", "mountPath": f"/more-{number}"})


def adds_a_variable(workload: Object, number: int) -> None:
    pod_of(workload)["containers"][0].setdefault("env", []).insert(0, {"name": f"V{number}", "value": "1"})


def takes_a_variable_out(workload: Object, number: int) -> None:
    one = pod_of(workload)["containers"][0]
    kept = [variable for variable in one.get("env", ()) if variable["name"] == CLAIM_FILE]
    one.pop("env", None)
    if kept:
        one["env"] = kept


def annotates(workload: Object, number: int) -> None:
    workload["metadata"].setdefault("annotations", {})[f"note-{number}"] = "kept"


def scales_and_changes_the_image(workload: Object, number: int) -> None:
    workload["spec"]["replicas"] = number
    pod_of(workload)["containers"][0]["image"] = "example.org/app:next"


EDITS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                renames,
                adds_a_container,
                adds_an_init_container,
                adds_a_volume,
                adds_a_variable,
                takes_a_variable_out,
                annotates,
                scales_and_changes_the_image,
            ]
        ),
        st.integers(0, 5),
    ),
    max_size=4,
    unique=True,
)
Edits = list[tuple[Callable[[Object, int], None], int]]


def after(workload: Object, edits: Edits) -> Object:
    """The workload after its user has changed it; nothing of it is shared."""
    workload = copy.deepcopy(workload)
    for edit, number in edits:
        edit(workload, number)
    return workload


@given(workloads(), SIDECARS, EDITS)
def test_what_the_user_does_meanwhile_stays(workload: Object, sidecar: Sidecar, edits: Edits) -> None:
    there = after(put_in(workload, sidecar), edits)
    assert detached(there) == after(workload, edits)
    if not sidecar.containers:  # else one that was named may be gone
        again = attached(there, sidecar)
        assert detached(again) == after(workload, edits)
        assert attached(again, sidecar) == again


def drops_the_container(workload: Object) -> None:
    kept = [one for one in pod_of(workload).pop("initContainers") if one["name"] != CONTAINER]
    if kept:
        pod_of(workload)["initContainers"] = kept


def adds_a_command(workload: Object) -> None:
    next(one for one in pod_of(workload)["initContainers"] if one["name"] == CONTAINER)["command"] = ["sleep"]


def adds_to_its_environment(workload: Object) -> None:
    mine = next(one for one in pod_of(workload)["initContainers"] if one["name"] == CONTAINER)
    mine["env"].insert(1, {"name": "MUSTER_LEASE", "value": "3"})


def opens_the_mount(workload: Object) -> None:
    for one in pod_of(workload)["containers"]:
        for mount in one.get("volumeMounts", ()):
            if mount["name"] == CLAIM:
                mount["readOnly"] = False


def says_another_file(workload: Object) -> None:
    for one in pod_of(workload)["containers"]:
        for variable in one.get("env", ()):
            if variable["name"] == CLAIM_FILE:
                variable["value"] = "/else/where"


def drops_the_mounts(workload: Object) -> None:
    for one in pod_of(workload)["containers"]:
        kept = [mount for mount in one.pop("volumeMounts", ()) if mount["name"] != CLAIM]
        if kept:
            one["volumeMounts"] = kept


def puts_the_claim_on_disk(workload: Object) -> None:
    next(volume for volume in pod_of(workload)["volumes"] if volume["name"] == CLAIM)["emptyDir"] = {}


@given(
    workloads(),
    SIDECARS,
    st.sampled_from(
        [
            drops_the_container,
            adds_a_command,
            adds_to_its_environment,
            opens_the_mount,
            says_another_file,
            drops_the_mounts,
            puts_the_claim_on_disk,
        ]
    ),
)
def test_a_change_of_what_is_ours_is_seen_and_put_right(
    workload: Object, sidecar: Sidecar, drift: Callable[[Object], None]
) -> None:
    there = put_in(workload, sidecar)
    changed = copy.deepcopy(there)
    drift(changed)
    mended = put_in(changed, sidecar)
    assert mended == there
    assert (parts(mended) != parts(changed)) == (changed != there)
    assert detached(changed) == workload


RECORDS = st.fixed_dictionaries(
    {"version": st.sampled_from([0, 2, "1", None])},
    optional={"containers": FOREIGN | st.just(["app", 1]), "digest": FOREIGN},
)


@given(workloads(), st.text(max_size=20) | RECORDS.map(json.dumps))
def test_a_record_that_can_not_be_read_is_refused(workload: Object, text: str) -> None:
    workload["metadata"]["annotations"] = {RECORD: text}
    for decide in (detached, lambda seen: attached(seen, Sidecar("muster:1", {"sem": {"gpu": 1}}))):
        try:
            decide(workload)
        except Malformed as error:
            assert error.field == f"annotation {RECORD}"
        else:
            raise AssertionError("it was taken for a record")
