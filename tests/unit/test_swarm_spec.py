# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Swarm asks for, as it is read; and what is refused, by its name and with a remedy."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import swarm
from ansible_collections.muster.coordination.plugins.module_utils.decisions.convergence import Policy
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm import Class, Scaling, Source, Spec
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed


def test_an_empty_spec_has_the_defaults() -> None:
    assert swarm.parse_spec({}) == Spec()
    spec = Spec()
    assert (spec.selector, spec.configmap, spec.zone_label) == (
        "swarm-worker=true", "swarm-worker-config", "topology.kubernetes.io/zone",
    )  # fmt: skip
    assert spec.policy == Policy("safe", "auto", 1, None)
    assert (spec.confirm_seconds, spec.grace_seconds, spec.is_paused) == (60, 30, False)


def test_all_of_a_spec_is_read() -> None:
    read = swarm.parse_spec({
        "jobs": ["a", {"name": "b", "weight": 3, "class": "gpu", "dedicated": True, "spread": "s"}],
        "jobsFrom": [{"configMap": "streams"}, {"configMap": "more", "key": "list.yml", "optional": True}],
        "workers": {"selector": {"matchLabels": {"app": "w"}}},
        "configMap": "lists",
        "classes": [{"name": "gpu", "workers": {"matchLabels": {"gpu": "yes"}}, "exclusive": True}],
        "capacity": 7,
        "zoneLabel": "rack",
        "handover": "fast",
        "refresh": "evict",
        "maxUnavailable": 2,
        "confirmSeconds": 0,
        "graceSeconds": 0,
        "churn": 0,
        "scaling": {"jobsPerWorker": 4, "min": 0, "max": 9},
        "paused": True,
    })  # fmt: skip
    assert read == Spec(
        jobs=(Job("a"), Job("b", 3, "gpu", True, "s")),
        sources=(Source("streams"), Source("more", "list.yml", True)),
        selector="app=w",
        configmap="lists",
        classes=(Class("gpu", {"matchLabels": {"gpu": "yes"}}, True),),
        capacity=7,
        zone_label="rack",
        policy=Policy("fast", "evict", 2, 0),
        confirm_seconds=0,
        grace_seconds=0,
        scaling=Scaling(4, 0, 9),
        is_paused=True,
    )


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (None, "spec"),
        ([], "spec"),
        ({"jobs": "a"}, "spec.jobs"),
        ({"jobs": [3]}, "spec.jobs[0]"),
        ({"jobs": ["a", ""]}, "spec.jobs[1]"),
        ({"jobs": ["*"]}, "spec.jobs[0]"),
        ({"jobs": ["a\n"]}, "spec.jobs[0]"),
        ({"jobs": ["x" * 254]}, "spec.jobs[0]"),
        ({"jobs": [{}]}, "spec.jobs[0].name"),
        ({"jobs": [{"name": "a", "weight": 0}]}, "spec.jobs[0].weight"),
        ({"jobs": [{"name": "a", "weight": True}]}, "spec.jobs[0].weight"),
        ({"jobs": [{"name": "a", "weight": 1.0}]}, "spec.jobs[0].weight"),
        ({"jobs": [{"name": "a", "weight": 1_000_001}]}, "spec.jobs[0].weight"),
        ({"jobs": [{"name": "a", "dedicated": "yes"}]}, "spec.jobs[0].dedicated"),
        ({"jobs": [{"name": "a", "class": 3}]}, "spec.jobs[0].class"),
        ({"jobs": [{"name": "a", "spread": None}]}, "spec.jobs[0].spread"),
        ({"jobs": [{"name": "a", "wieght": 3}]}, "spec.jobs[0]"),
        ({"jobsFrom": {}, "jobs": 3}, "spec.jobs"),
        ({"jobsFrom": "x"}, "spec.jobsFrom"),
        ({"jobsFrom": [{"key": "x"}]}, "spec.jobsFrom[0]"),
        ({"workers": {}}, "spec.workers.selector"),
        ({"workers": {"selector": {}}}, "spec.workers.selector"),
        ({"workers": {"selector": {"matchExpressions": [{"key": "a", "operator": "Gt"}]}}},
         "spec.workers.selector.matchExpressions[0]"),
        ({"workers": {"selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}}},
         "spec.workers.selector.matchExpressions[0]"),
        ({"configMap": ""}, "spec.configMap"),
        ({"classes": [{"name": "a"}]}, "spec.classes[0].workers"),
        ({"classes": [{"workers": {}}]}, "spec.classes[0]"),
        ({"capacity": 0}, "spec.capacity"),
        ({"capacity": "3"}, "spec.capacity"),
        ({"handover": "brave"}, "spec.handover"),
        ({"refresh": ""}, "spec.refresh"),
        ({"maxUnavailable": 0}, "spec.maxUnavailable"),
        ({"maxUnavailable": "25%"}, "spec.maxUnavailable"),
        ({"confirmSeconds": -1}, "spec.confirmSeconds"),
        ({"churn": -1}, "spec.churn"),
        ({"replicas": -1}, "spec.replicas"),
        ({"replicas": 1, "scaling": {"jobsPerWorker": 1, "min": 1, "max": 1}}, "spec.scaling"),
        ({"scaling": {"jobsPerWorker": 1, "min": 3, "max": 2}}, "spec.scaling"),
        ({"scaling": {"jobsPerWorker": 1, "min": 1}}, "spec.scaling"),
        ({"scaling": {"jobsPerWorker": 0, "min": 1, "max": 1}}, "spec.scaling.jobsPerWorker"),
        ({"scaling": 3}, "spec.scaling"),
        ({"paused": "no"}, "spec.paused"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused_by_its_name(spec: Any, field: str) -> None:
    with pytest.raises(Malformed) as caught:
        swarm.parse_spec(spec)
    assert caught.value.field == field
    assert "give" in caught.value.remedy or "a job has" in caught.value.remedy


# ------------------------------------------------------------------------------------------ jobs


def test_jobs_of_a_file_are_a_list_or_stand_under_jobs() -> None:
    for document in (["a", "b"], {"jobs": ["a", {"name": "b"}]}):
        assert swarm.parse_jobs(document, "file") == [Job("a"), Job("b")]
    for document in (None, {}, {"jobs": None}, {"others": 3}, []):
        assert swarm.parse_jobs(document, "file") == []


def test_a_name_that_yaml_took_for_a_number_is_refused_with_the_remedy() -> None:
    with pytest.raises(Malformed, match=r"file\[0\] is 404: give a name \(quoted"):
        swarm.parse_jobs([404], "file")


def test_a_job_that_is_named_in_two_places_is_refused_with_both() -> None:
    with pytest.raises(Malformed, match="two is 'b': name each job once: it is also named in one"):
        swarm.collect([("one", [Job("a"), Job("b")]), ("two", [Job("b")])])
    with pytest.raises(Malformed, match="one is 'a': name each job once: it is twice there"):
        swarm.collect([("one", [Job("a"), Job("a")])])


def test_too_many_jobs_are_refused_without_showing_them_all() -> None:
    with pytest.raises(Malformed) as caught:
        swarm.parse_jobs(["a"] * (swarm.MAX_JOBS + 1), "file")
    assert len(str(caught.value)) < 200


# ------------------------------------------------------------------------------------------ label selectors

LABELS = {"app": "w", "tier": "gold", "empty": ""}


@pytest.mark.parametrize(
    ("selector", "text", "fits"),
    [
        ({}, "", True),
        ({"matchLabels": {"app": "w"}}, "app=w", True),
        ({"matchLabels": {"tier": "tin", "app": "w"}}, "app=w,tier=tin", False),
        ({"matchLabels": {"none": ""}}, "none=", False),
        (
            {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["tin", "gold"]}]},
            "tier in (tin,gold)",
            True,
        ),
        ({"matchExpressions": [{"key": "none", "operator": "In", "values": [""]}]}, "none in ()", False),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["gold"]}]}, "tier notin (gold)", False),
        ({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["x"]}]}, "none notin (x)", True),
        ({"matchExpressions": [{"key": "empty", "operator": "Exists"}]}, "empty", True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, "!app", False),
        (
            {"matchLabels": {"app": "w"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]},
            "app=w,tier",
            True,
        ),
    ],
)
def test_a_label_selector_is_read_as_the_api_server_reads_it(selector: Any, text: str, fits: bool) -> None:
    assert swarm.selector_text(selector, "here") == text
    assert swarm.selects(selector, LABELS, "here") is fits


@pytest.mark.parametrize(
    ("selector", "field"),
    [
        ({"matchLabels": ["app"]}, "here.matchLabels"),
        ({"matchLabels": {"app": True}}, "here.matchLabels"),
        ({"matchLabels": {"app": "a,b"}}, "here.matchLabels"),
        ({"matchLabels": {"app,b": "a"}}, "here.matchLabels"),
        ({"matchExpressions": {"key": "app"}}, "here.matchExpressions"),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": [3]}]}, "here.matchExpressions[0]"),
    ],
)
def test_a_selector_that_would_select_something_else_is_refused(selector: Any, field: str) -> None:
    with pytest.raises(Malformed) as caught:
        swarm.selector_text(selector, "here")
    assert caught.value.field == field


@pytest.mark.parametrize("term", [None, {}, {"key": "a"}, {"key": "a", "operator": "In"}, {"operator": "Exists"}, "a"])
def test_a_term_that_is_none_is_refused(term: Any) -> None:
    for read in (swarm.selector_text, lambda selector, where: swarm.selects(selector, {}, where)):
        with pytest.raises(Malformed, match=r"here\.matchExpressions\[0\]"):
            read({"matchExpressions": [term]}, "here")
