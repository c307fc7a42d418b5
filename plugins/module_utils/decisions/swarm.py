# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Swarm asks for: its jobs, which workers are theirs, and how they get there.

Jobs come from the spec and from ConfigMaps; a name stands for one job. A double one is refused, with both places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import convergence
from ansible_collections.muster.coordination.plugins.module_utils.decisions.convergence import Policy
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import (
    check_job_name,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

SELECTOR: Final = "swarm-worker=true"
CONFIGMAP: Final = "swarm-worker-config"
JOBS_KEY: Final = "jobs.yml"
ZONE: Final = "topology.kubernetes.io/zone"
WEIGHTS: Final = range(1, 1_000_001)
MAX_JOBS: Final = 1_000_000
EQUALS: Final = "="

_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_LABEL = re.compile(r"(?:[a-z0-9.-]{1,253}/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


class Source(NamedTuple):
    """A ConfigMap with jobs."""

    configmap: str
    key: str = JOBS_KEY
    optional: bool = False


class Class(NamedTuple):
    """Jobs of this class run on workers whose Pod template has these labels; if `exclusive`, no others run there."""

    name: str
    selector: Mapping[str, Any]
    exclusive: bool = False


class Scaling(NamedTuple):
    jobs_per_worker: int
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Spec:
    """What is asked for. Seconds are whole; `selector` is in the API's own form."""

    jobs: tuple[Job, ...] = ()
    sources: tuple[Source, ...] = ()
    selector: str = SELECTOR
    configmap: str = CONFIGMAP
    classes: tuple[Class, ...] = ()
    capacity: int | None = None
    zone_label: str = ZONE
    policy: Policy = field(default_factory=Policy)
    confirm_seconds: int = 60
    grace_seconds: int = 30
    replicas: int | None = None
    scaling: Scaling | None = None
    is_paused: bool = False


# ---------------------------------------------------------------------------------------------------------------------
# The spec


def parse_spec(spec: Any) -> Spec:
    """The spec of a Swarm. Raises Malformed; a schema refuses the same earlier, where it is in force."""
    if not isinstance(spec, Mapping):
        raise Malformed("spec", spec, "give jobs or jobsFrom, and workers")
    replicas, scaling = _number(spec, "replicas", 0), _scaling(spec.get("scaling"))
    if replicas is not None and scaling is not None:
        raise Malformed("spec.scaling", spec["scaling"], "give replicas or scaling, not both")
    confirm, grace = _number(spec, "confirmSeconds", 0), _number(spec, "graceSeconds", 0)
    return Spec(
        jobs=tuple(parse_jobs(spec.get("jobs", []), "spec.jobs")),
        sources=tuple(_source(each, f"spec.jobsFrom[{number}]") for number, each in _listed(spec, "jobsFrom")),
        selector=_pool_selector(spec.get("workers")),
        configmap=_text(spec, "configMap", CONFIGMAP),
        classes=tuple(_class(each, f"spec.classes[{number}]") for number, each in _listed(spec, "classes")),
        capacity=_number(spec, "capacity", 1),
        zone_label=_text(spec, "zoneLabel", ZONE),
        policy=Policy(
            _choice(spec, "handover", convergence.HANDOVERS),
            _choice(spec, "refresh", convergence.REFRESHES),
            _number(spec, "maxUnavailable", 1) or 1,
            _number(spec, "churn", 0),
        ),
        confirm_seconds=60 if confirm is None else confirm,
        grace_seconds=30 if grace is None else grace,
        replicas=replicas,
        scaling=scaling,
        is_paused=_flag(spec, "paused", "spec"),
    )


def parse_jobs(document: Any, where: str) -> list[Job]:
    """Jobs of a list, or of a mapping with the key jobs; each a name, or a mapping. None: there are none.

    Raises Malformed.
    """
    if isinstance(document, Mapping):
        document = document.get("jobs")
    if document is None:
        return []
    if not isinstance(document, list):
        raise Malformed(where, document, "give a list of jobs, or a mapping with the key jobs")
    if len(document) > MAX_JOBS:
        raise Malformed(where, f"a list of {len(document)}", f"give at most {MAX_JOBS:,} jobs")
    return [_job(each, f"{where}[{number}]") for number, each in enumerate(document)]


def _job(value: Any, where: str) -> Job:
    if isinstance(value, str):
        return Job(check_job_name(value, where))
    if not isinstance(value, Mapping):
        raise Malformed(
            where, value, "give a name (quoted, where it could be a number), or a mapping with the key name"
        )
    weight = value.get("weight", 1)
    if not isinstance(weight, int) or isinstance(weight, bool) or weight not in WEIGHTS:
        raise Malformed(f"{where}.weight", weight, f"give a whole number from {WEIGHTS.start} to {WEIGHTS.stop - 1}")
    unknown = value.keys() - {"name", "weight", "class", "dedicated", "spread"}
    if unknown:
        raise Malformed(where, min(map(str, unknown)), "a job has name, weight, class, dedicated and spread")
    texts = [value.get(key, "") for key in ("class", "spread")]
    for key, text in zip(("class", "spread"), texts, strict=True):
        if not isinstance(text, str):
            raise Malformed(f"{where}.{key}", text, "give a name")
    name, dedicated = check_job_name(value.get("name"), f"{where}.name"), _flag(value, "dedicated", where)
    return Job(name, weight, texts[0], dedicated, texts[1])


def collect(lists: Iterable[tuple[str, Iterable[Job]]]) -> list[Job]:
    """The jobs of several places, each with its name for errors. Raises Malformed where a job is named twice."""
    places: dict[str, str] = {}
    jobs = []
    for where, found in lists:
        for job in found:
            if job.name in places:
                also = "twice there" if places[job.name] == where else f"also named in {places[job.name]}"
                raise Malformed(where, job.name, f"name each job once: it is {also}")
            places[job.name] = where
            jobs.append(job)
    return jobs


def _source(value: Any, where: str) -> Source:
    if not isinstance(value, Mapping) or not isinstance(value.get("configMap"), str) or not value["configMap"]:
        raise Malformed(where, value, "give configMap, the name of a ConfigMap of this namespace")
    return Source(value["configMap"], str(value.get("key") or JOBS_KEY), _flag(value, "optional", where))


def _class(value: Any, where: str) -> Class:
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str) or not value["name"]:
        raise Malformed(where, value, "give name and workers")
    selector = value.get("workers")
    if not isinstance(selector, Mapping) or not (selector.get("matchLabels") or selector.get("matchExpressions")):
        raise Malformed(f"{where}.workers", selector, "give matchLabels or matchExpressions")
    selects(selector, {}, f"{where}.workers")
    return Class(value["name"], selector, _flag(value, "exclusive", where))


def _scaling(value: Any) -> Scaling | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise Malformed("spec.scaling", value, "give jobsPerWorker, min and max")
    each, least, most = (_number(value, key, floor, "spec.scaling") for key, floor in
                         (("jobsPerWorker", 1), ("min", 0), ("max", 1)))  # fmt: skip
    if each is None or least is None or most is None or least > most:
        raise Malformed("spec.scaling", dict(value), "give jobsPerWorker, and min and max with min <= max")
    return Scaling(each, least, most)


def _listed(spec: Mapping[str, Any], key: str) -> Iterable[tuple[int, Any]]:
    value = spec.get(key) or []
    if not isinstance(value, list):
        raise Malformed(f"spec.{key}", value, "give a list")
    return enumerate(value)


def _number(spec: Mapping[str, Any], key: str, least: int, where: str = "spec") -> int | None:
    value = spec.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise Malformed(f"{where}.{key}", value, f"give a whole number from {least}")
    return value


def _flag(given: Mapping[str, Any], key: str, where: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise Malformed(f"{where}.{key}", value, "give true or false")
    return value


def _text(spec: Mapping[str, Any], key: str, default: str) -> str:
    value = spec.get(key, default)
    if not isinstance(value, str) or not value:
        raise Malformed(f"spec.{key}", value, "give a name")
    return value


def _choice(spec: Mapping[str, Any], key: str, choices: Sequence[str]) -> str:
    value = spec.get(key, choices[0])
    if value not in choices:
        raise Malformed(f"spec.{key}", value, f"give one of {', '.join(choices)}")
    return str(value)


# ---------------------------------------------------------------------------------------------------------------------
# Label selectors


def _pool_selector(workers: Any) -> str:
    if workers is None:
        return SELECTOR
    selector = workers.get("selector") if isinstance(workers, Mapping) else None
    if not isinstance(selector, Mapping) or not (selector.get("matchLabels") or selector.get("matchExpressions")):
        raise Malformed("spec.workers.selector", selector, "give matchLabels or matchExpressions")
    return selector_text(selector, "spec.workers.selector")


def selector_text(selector: Mapping[str, Any], where: str) -> str:
    """A label selector of an object's spec, as the API's lists take it. Raises Malformed."""
    return ",".join(
        {
            EQUALS: f"{key}={','.join(values)}",
            "In": f"{key} in ({','.join(values)})",
            "NotIn": f"{key} notin ({','.join(values)})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }[operator]
        for key, operator, values in _requirements(selector, where)
    )


def selects(selector: Mapping[str, Any], labels: Mapping[str, str], where: str) -> bool:
    """Whether a label selector selects these labels. Raises Malformed."""
    fits = True
    for key, operator, values in _requirements(selector, where):
        is_there = key in labels
        fits &= {
            EQUALS: is_there and labels.get(key) in values,
            "In": is_there and labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": is_there,
            "DoesNotExist": not is_there,
        }[operator]
    return fits


def _requirements(selector: Mapping[str, Any], where: str) -> Iterator[tuple[str, str, list[str]]]:
    """Label, operator, values; all of them have to be met."""
    labels, terms = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    if not isinstance(labels, Mapping):
        raise Malformed(f"{where}.matchLabels", labels, "give a mapping from labels to values")
    if not isinstance(terms, list):
        raise Malformed(f"{where}.matchExpressions", terms, "give a list")
    for key, value in sorted(labels.items(), key=lambda item: str(item[0])):
        yield _requirement(key, EQUALS, [value], f"{where}.matchLabels")
    for number, term in enumerate(terms):
        place = f"{where}.matchExpressions[{number}]"
        match term:
            case {"key": key, "operator": "In" | "NotIn" as operator, "values": [*values]} if values:
                yield _requirement(key, operator, values, place)
            case {"key": key, "operator": "Exists" | "DoesNotExist" as operator}:
                yield _requirement(key, operator, [], place)
            case _:
                remedy = "give key, operator (In, NotIn, Exists, DoesNotExist), and values for the first two"
                raise Malformed(place, term, remedy)


def _requirement(key: Any, operator: str, values: list[Any], where: str) -> tuple[str, str, list[str]]:
    for text, pattern in ((key, _LABEL), *((value, _LABEL_VALUE) for value in values)):
        if not isinstance(text, str) or not pattern.fullmatch(text):
            raise Malformed(where, text, "give a label, and values that a label can have; quote them")
    return key, operator, values
