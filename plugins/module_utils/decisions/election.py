# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has a Lease, who may take it, and for how long its holder may act.

Rules
1. A Lease changes hands by compare-and-swap only, and each process run that has it gets a fence, greater than all
   before it: the resourceVersion that its acquisition replaced. So fences also grow when the Lease is deleted and made
   again, and those of one cluster can be compared with one another.
2. It may be taken when it is free; when its holder is proven dead; when it was seen unchanged for its whole time; or by
   the next process run of the same container. Who acts on what was seen must find exactly that in what it replaces.
   A Lease that was made and never had may have been deleted from under a holder: it counts as held by somebody.
3. No clock is compared with another: a term is seen unchanged on the observer's monotonic clock, and the holder counts,
   on its own, from before it sent its last renewal. It stops a third of the lease before others may begin.
4. Proof of death is the kubelet's word about this very container, by its id, or about the Pod's end. That a Pod has
   vanished is none: deletion by force leaves the process running for a while. Nor is a phase alone: the garbage
   collector of Pods calls one Failed whose node it has lost, and shows its containers running still.
5. A process that lost its Lease never has it again under the same identity: the next run is another one. So "this
   identity's term is over", once true, stays true, and may be believed from an old view.

Theory: leases (Gray and Cheriton, 1989); the fence is the sequencer of Chubby (Burrows, 2006). The fields of `spec` are
used as client-go's leaderelection does, so its tools can read them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

FENCE: Final = "muster.dev/fence"  # of the present or, where it is free, the last term
CONTAINER: Final = "muster.dev/container"  # of the holder: its container's name, and /id once that is known
LEAVING: Final = "muster.dev/leaving"  # its holder ends what it has begun, begins nothing more, and will free it
SECONDS: Final = range(1, 3601)  # how long a Lease may be
MAX_TRANSITIONS: Final = 2**31 - 1  # the field is an int32

Object = Mapping[str, Any]


class Identity(NamedTuple):
    """One run of one process. `pod` is the host's name, and `uid` a random word, where there is no Pod."""

    pod: str
    uid: str
    run: str
    container: str = ""  # its container's name; empty where there is no Pod

    def __str__(self) -> str:
        return f"{self.pod}_{self.uid}_{self.run}"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a Lease lasts, and what follows from that; in seconds."""

    lease: int = 6

    def __post_init__(self) -> None:
        if self.lease not in SECONDS:
            raise Malformed(
                "lease seconds", self.lease, f"give a whole number from {SECONDS.start} to {SECONDS.stop - 1}"
            )

    @property
    def renewal(self) -> float:
        """From one renewal to the next."""
        return self.lease / 3

    @property
    def usable(self) -> float:
        """How long the holder may act after it sent its last successful renewal."""
        return self.lease * 2 / 3


@dataclass(frozen=True, slots=True)
class Term:
    """What a Lease says. `holder` is empty where it is free; `fence` is 0 where nobody of ours ever had it."""

    lease_uid: str
    holder: str
    seconds: int
    fence: int = 0
    container: str = ""
    container_id: str = ""
    since: str = ""
    renewed: str = ""  # opaque: it counts only that it changes
    transitions: int = 0
    is_leaving: bool = False
    is_doubtful: bool = False  # nobody has it, and nobody of ours is known to have given it back

    @property
    def pod(self) -> str:
        return self.holder.partition("_")[0]

    @property
    def uid(self) -> str:
        return self.holder.partition("_")[2].partition("_")[0]

    @property
    def beat(self) -> tuple[str, str, int, str]:
        """Changes with each renewal and each change of hands, and with nothing else."""
        return (self.lease_uid, self.holder, self.transitions, self.renewed)


class Seen(NamedTuple):
    """A term, and since when (monotonic seconds) the observer sees it unchanged."""

    term: Term
    since: float

    def unchanged(self, now: float) -> float:
        return now - self.since


def parse(lease: Object) -> Term:
    """What a Lease says. Raises Malformed, which names the field."""
    metadata, spec = lease["metadata"], lease.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    seconds = spec.get("leaseDurationSeconds")
    fence = annotations.get(FENCE, "0")
    if not (fence.isascii() and fence.isdecimal() and len(fence) <= 20):
        raise Malformed(f"metadata.annotations[{FENCE}]", fence, "give a whole number; larger than all before it")
    name, _slash, container_id = annotations.get(CONTAINER, "").partition("/")
    return Term(
        lease_uid=metadata.get("uid", ""),
        holder=spec.get("holderIdentity") or "",
        seconds=seconds if seconds else Timing().lease,
        fence=int(fence),
        container=name,
        container_id=container_id,
        since=spec.get("acquireTime") or "",
        renewed=spec.get("renewTime") or "",
        transitions=spec.get("leaseTransitions") or 0,
        is_leaving=LEAVING in annotations,
        is_doubtful=not spec.get("holderIdentity") and FENCE not in annotations,
    )


def missing(timing: Timing) -> Term:
    """What stands where no Lease is. `timing` should be that of whoever may have had it."""
    return Term(lease_uid="", holder="", seconds=timing.lease, is_doubtful=True)


def see(before: Seen | None, term: Term, now: float) -> Seen:
    """The term as it is seen at `now` (monotonic seconds), after it was seen as `before`."""
    return Seen(term, before.since if before and before.term.beat == term.beat else now)


# ---------------------------------------------------------------------------------------------------------------------
# May it be taken?


def why_take(seen: Seen, me: Identity, now: float, *, is_dead: bool) -> str:
    """Why `me` may take the Lease, for people; empty while it may not. `is_dead`: see `has_ended`."""
    term = seen.term
    if not term.holder and not term.is_doubtful:
        return "it is free"
    if is_mine(term, me):
        return ""
    if is_predecessor(term, me):
        return "its holder was the former run of this container"
    if is_dead:
        return f"{term.pod} has ended"
    if seen.unchanged(now) >= term.seconds:
        return f"{term.pod} has not renewed it for {term.seconds} s" if term.holder else "it is still free"
    return ""


def is_mine(term: Term, me: Identity) -> bool:
    return term.holder == str(me)


def is_predecessor(term: Term, me: Identity) -> bool:
    """Whether the holder ran in the container in which `me` runs now: the kubelet runs one at a time.

    So a container has one process that takes Leases, and where that begins a new run, all work of the former has ended.
    """
    same = (term.pod, term.uid, term.container) == (me.pod, me.uid, me.container)
    return bool(me.container) and same and not is_mine(term, me)


def expires_in(seen: Seen, now: float) -> float:
    """Seconds until it may be taken for its silence, at most."""
    return max(0.0, seen.term.seconds - seen.unchanged(now))


def is_over(seen: Seen, identity: str, now: float) -> bool:
    """Whether this identity's term is over for good (rule 5), by its Lease, or by what is `missing`.

    The Lease must have been read after the identity was heard of: an older view shows whoever had it before.
    Silence alone does not end a term: its Lease has to be evicted first. One that is missing, or was made anew, may
    have been deleted from under its holder, who acts on until it hears of that.
    """
    term = seen.term
    return seen.unchanged(now) >= term.seconds if term.is_doubtful else term.holder != identity


def has_ended(term: Term, pod: Object | None) -> bool:
    """Whether the kubelet says that the holder's process has ended; `pod` is that Pod as it was last seen."""
    if pod is None or not term.uid or pod["metadata"].get("uid") != term.uid:
        return False
    status = pod.get("status") or {}
    own = [one for one in _containers(status) if term.container in ("", one.get("name"))]
    if status.get("phase") in ("Succeeded", "Failed"):
        return bool(own) and all((one.get("state") or {}).get("terminated") for one in own)
    return bool(term.container_id) and any(_has_ended(one, term) for one in own)


def own_container_id(pod: Object, container: str, started: float) -> str:
    """The id of the running container in which a process runs; empty while the kubelet has not said it.

    `started`: when the kernel started the process, in seconds since 1970 on its node's clock. A status that still shows
    the container before this one shows a start before that; where both began within one second it can't be told, and
    `has_ended` does not take the end of that one for ours.
    """
    for one in _containers(pod.get("status") or {}):
        running = (one.get("state") or {}).get("running")
        if one.get("name") != container or not running:
            continue
        if _epoch(running.get("startedAt"), otherwise=-math.inf) >= math.floor(started):
            return str(one.get("containerID") or "")
    return ""


def _containers(status: Object) -> list[Object]:
    return [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]


def _has_ended(status: Object, term: Term) -> bool:
    """By its id: that another one is shown may come from before it began.

    And in a later second than it took the Lease (both are times of one node): a container that ended before is not the
    holder's, whatever the holder believed. The end of one who dies in the very second of its take is not proven by it.
    """
    taken = _epoch(term.since, otherwise=math.inf)
    ends = ((status.get(field) or {}).get("terminated") or {} for field in ("state", "lastState"))
    return any(
        end.get("containerID") == term.container_id and _epoch(end.get("finishedAt"), otherwise=-math.inf) > taken
        for end in ends
    )


def _epoch(timestamp: str | None, *, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(timestamp or "").timestamp()
    except ValueError:
        return otherwise


# ---------------------------------------------------------------------------------------------------------------------
# What is written


def free(name: str, namespace: str, timing: Timing, *, is_doubtful: bool = True) -> dict[str, Any]:
    """A new Lease that nobody has yet: only once it is there, its first holder has a resourceVersion to replace.

    `is_doubtful`: somebody may still believe to have one of this name.
    """
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace, "annotations": {} if is_doubtful else {FENCE: "0"}},
        "spec": {"holderIdentity": "", "leaseDurationSeconds": timing.lease, "leaseTransitions": 0},
    }


def take(lease: Object, me: Identity, timing: Timing, now: str, *, over: Term | None) -> dict[str, Any] | None:
    """The Lease as `me` has it from `now` on, the same object where it had it already; None where it is not to be had.

    `over` is the term that was seen to be over, if one was: it may be replaced while its beat is still the same.
    """
    term = parse(lease)
    if is_mine(term, me):
        return dict(lease)
    is_known = over is not None and over.beat == term.beat
    if (term.holder or term.is_doubtful) and not is_predecessor(term, me) and not is_known:
        return None
    fence = max(term.fence + 1, int(lease["metadata"]["resourceVersion"]))
    spec = {
        "holderIdentity": str(me),
        "leaseDurationSeconds": timing.lease,
        "acquireTime": now,
        "renewTime": now,
        "leaseTransitions": min(term.transitions + 1, MAX_TRANSITIONS),
    }
    return _with(lease, spec, {FENCE: str(fence), CONTAINER: me.container or None, LEAVING: None})


def renew(
    lease: Object, me: Identity, now: str, container_id: str = "", *, is_leaving: bool = False
) -> dict[str, Any] | None:
    """The Lease renewed; None where `me` does not have it any more. Who is leaving does not come back."""
    if not is_mine(parse(lease), me):
        return None
    notes = {LEAVING: "true"} if is_leaving else {}
    if me.container and container_id:
        notes[CONTAINER] = f"{me.container}/{container_id}"
    return _with(lease, {"renewTime": now}, notes)


def release(lease: Object, me: Identity) -> dict[str, Any] | None:
    """The Lease free again; None where `me` does not have it."""
    return _freed(lease) if is_mine(parse(lease), me) else None


def evict(lease: Object, over: Term) -> dict[str, Any] | None:
    """The Lease taken from a holder whose term was seen to be over; None where it is not that term any more."""
    term = parse(lease)
    return _freed(lease) if term.holder and term.beat == over.beat else None


def _freed(lease: Object) -> dict[str, Any]:
    kept = (lease["metadata"].get("annotations") or {}).get(FENCE, "0")
    return _with(lease, {"holderIdentity": ""}, {FENCE: kept, CONTAINER: None, LEAVING: None})


def _with(lease: Object, spec: Object, annotations: Mapping[str, str | None]) -> dict[str, Any]:
    metadata = lease["metadata"]
    merged = {**(metadata.get("annotations") or {}), **annotations}
    kept = {key: value for key, value in merged.items() if value is not None}
    return {**lease, "metadata": {**metadata, "annotations": kept}, "spec": {**(lease.get("spec") or {}), **spec}}
