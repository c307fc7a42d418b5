# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replays tests/scenarios/semaphore/*.txt: stories of one semaphore, as inputs with what comes of them beneath.

A line is a command; the lines beneath it, indented, are what was seen. Re-record with MUSTER_RECORD=1, and review the
difference. Commands:

  capacity gpu=2 tpu=1     somebody edits the capacity with kubectl
  configure gpu=2          k8s_semaphore
  mode v2                  k8s_semaphore with this mode
  pod NAME | pod NAME ends | pod NAME dies | pod NAME is made again
  claim NAME [want=R] [priority=N] [nowait] [blind]     a sidecar's turn; blind: it sees no Pods die, and reaps nobody;
                           R is a resource, or several with their counts: gpu=2,tpu
  job NAME [want=R] [lease=S] [nowait]                  a holder that is not a Pod claims, or renews
  release NAME             it gives back what it has
  reap                     anybody looks after the dead
  expire NAME              an observer has seen its lease stand still for its time
  old NAME                 an old Distributor on that Pod runs once
  break ANNOTATION TEXT | mend                          by hand
  remove                   the ConfigMap is deleted, and made again with the same capacity

What is seen: the outcome or the error, then who holds (resource, fence, uid) and who waits, in order, if that changed.
Fences are numbered from 1 in the order in which they were first seen, for their size depends on the revision.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, PODS
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import ANY, Claimant
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import annotations as on_annotations
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.tests.support import legality, old_distributor
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

STORIES = sorted((Path(__file__).parents[1] / "scenarios/semaphore").glob("*.txt"))


class Story:
    """Carries out commands on an API server in memory, through the verbs."""

    def __init__(self) -> None:
        self.api = MemoryApi()
        self.api.uids = -1  # the ConfigMap takes the first
        self.api.configmap(**{engine.CAPACITY: "{}"})
        self.fences: list[int] = []
        self.uids: dict[str, str] = {}
        self.shown: list[str] = []
        self.broken: dict[str, str] = {}
        self.judge = legality.History()
        self.judge.step(self.api.annotations())

    def run(self, command: str) -> list[str]:
        verb, *words = command.split()
        options = dict(word.split("=", 1) for word in words if "=" in word)
        flags = [word for word in words if "=" not in word]
        told = getattr(self, f"do_{verb}")(flags, options)
        shown = self.show()
        now = shown if shown != self.shown else []
        self.shown = shown
        return [told] * bool(told) + now

    def write(self, transition, *, reap: bool = True, expired=frozenset()) -> str:
        def dead(semaphore: engine.Semaphore) -> set[engine.Identity]:
            return (on_annotations.dead_pods(self.api, "ns")(semaphore) if reap else set()) | set(expired)

        version = self.api.version
        try:
            done = on_annotations.write(self.api, "sem", "ns", transition, dead=dead)
        except MusterError as error:
            return f"error: {error}"
        return done.verdict.outcome + ("" if self.api.version > version else ", nothing written")

    # ------------------------------------------------------------------------------------------ commands

    def do_capacity(self, flags: list[str], options: dict[str, str]) -> str:
        self.api.configmap(**{engine.CAPACITY: json.dumps({name: int(count) for name, count in options.items()})})
        return ""

    def do_configure(self, flags: list[str], options: dict[str, str]) -> str:
        result = verbs.configure(self.api, name="sem", namespace="ns", capacity=options)
        return "; ".join(["changed" if result["changed"] else "not changed", *result["reasons"]])

    def do_mode(self, flags: list[str], options: dict[str, str]) -> str:
        try:
            result = verbs.configure(self.api, name="sem", namespace="ns", mode=flags[0])
        except MusterError as error:
            return f"error: {error}"
        return "changed" if result["changed"] else "not changed"

    def do_pod(self, flags: list[str], options: dict[str, str]) -> str:
        name, *what = flags
        if what in (["dies"], ["is", "made", "again"]):
            self.api.kill(name)
        if what != ["dies"]:
            self.uids[name] = self.api.pod(name, phase="Succeeded" if what == ["ends"] else "Running")
        return ""

    def do_claim(self, flags: list[str], options: dict[str, str]) -> str:
        name = flags[0]
        want = engine.parse_want(options.get("want", ANY).split(","))
        me = Claimant(name, self.uids[name], want, int(options.get("priority", 0)))
        return self.write(
            lambda seen: engine.claim(seen, me, now="", enqueue="nowait" not in flags), reap="blind" not in flags
        )

    def do_job(self, flags: list[str], options: dict[str, str]) -> str:
        me = Claimant(flags[0], "", {options.get("want", ANY): 1}, 0, int(options.get("lease", 60)))
        return self.write(
            lambda seen: engine.claim(engine.renew(seen, me.holder, ""), me, now="", enqueue="nowait" not in flags)
        )

    def do_release(self, flags: list[str], options: dict[str, str]) -> str:
        name = flags[0]
        return self.write(lambda seen: engine.release(seen, name, self.uids.get(name, ""), now=""), reap=False)

    def do_reap(self, flags: list[str], options: dict[str, str]) -> str:
        return self.write(lambda seen: engine.Decision(seen, "looked"))

    def do_expire(self, flags: list[str], options: dict[str, str]) -> str:
        return self.write(lambda seen: engine.Decision(seen, "looked"), expired={(flags[0], "")})

    def do_old(self, flags: list[str], options: dict[str, str]) -> str:
        try:
            wrote = old_distributor.run_once(self.api, CONFIGMAPS, PODS, "sem", "ns", flags[0])
        except old_distributor.GoError as error:
            return f"error: {error}"
        return "written" if wrote else "nothing written"

    def do_break(self, flags: list[str], options: dict[str, str]) -> str:
        self.broken = {flags[0]: self.api.annotations()[flags[0]]}
        self.api.configmap(**{flags[0]: " ".join(flags[1:])})
        return ""

    def do_mend(self, flags: list[str], options: dict[str, str]) -> str:
        self.api.configmap(**self.broken)
        return ""

    def do_remove(self, flags: list[str], options: dict[str, str]) -> str:
        capacity = self.api.annotations()[engine.CAPACITY]
        self.api.delete(CONFIGMAPS, "sem", "ns")
        self.api.configmap(**{engine.CAPACITY: capacity})
        self.judge.last = None  # another object; numbers go on growing all the same
        return ""

    # ------------------------------------------------------------------------------------------ what is seen

    def show(self) -> list[str]:
        annotations = self.api.annotations()
        living = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self.api.list(PODS, "ns").items}
        try:
            self.judge.dead = {
                (name, uid)
                for name, uid in legality.read(self.judge.last or annotations).identities()
                if uid == "" or name not in living or uid not in (None, living[name]) or self._ended(name)
            }
            semaphore = engine.parse(annotations, self.api.version)
        except (MusterError, legality.Unreadable):
            assert self.judge.step(annotations) == []
            return ["malformed"]
        illegal = self.judge.step(annotations)
        assert illegal == [], illegal
        held = [
            f"{name} has {self._what(grant.resources)}, {self._fence(grant.fence)}{self._who(grant.uid)}"
            for name, grant in sorted(semaphore.grants.items(), key=lambda item: (item[1].fence, item[0]))
        ]
        waits = [
            f"{waiter.holder} waits for {self._what(waiter.want)}{self._who(waiter.uid)}"
            for waiter in semaphore.order()
        ]
        return held + waits or ["nobody has anything"]

    def _ended(self, name: str) -> bool:
        return self.api.get(PODS, name, "ns").get("status", {}).get("phase") == "Succeeded"

    def _fence(self, fence: int) -> str:
        if not fence:
            return "no fence"
        if fence not in self.fences:
            self.fences.append(fence)
        return f"fence {self.fences.index(fence) + 1}"

    @staticmethod
    def _what(resources: engine.Resources) -> str:
        return " and ".join(name if count == 1 else f"{count} {name}" for name, count in resources.items())

    @staticmethod
    def _who(uid: str | None) -> str:
        return " (uid unknown)" if uid is None else f" ({uid})" if uid else ""


def replay(text: str) -> str:
    """The story as it goes now: comments and commands as they are, what is seen anew."""
    story, lines = Story(), []
    for line in text.splitlines():
        if line.startswith("  "):
            continue
        lines.append(line)
        if line and not line.startswith("#"):
            lines += [f"  {seen}" for seen in story.run(line)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_story_goes_as_it_is_told(path: Path) -> None:
    told = path.read_text()
    now = replay(told)
    if os.environ.get("MUSTER_RECORD"):
        path.write_text(now)
    assert now == told, f"{path.name} goes otherwise now; if that is meant: MUSTER_RECORD=1, and review the difference"


def test_there_are_stories() -> None:
    assert len(STORIES) >= 8
