# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any use of a queue of keys: nothing is lost, nothing comes early, no key is worked on twice at once."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from muster.frame.workqueue import Agenda

KEYS = st.sampled_from("abcd")
SECONDS = st.integers(0, 20)


class AnyUse(RuleBasedStateMachine):
    """`due` is the oracle: for each key that is to be worked on again, from when on that may begin."""

    def __init__(self) -> None:
        super().__init__()
        self.agenda, self.now = Agenda(), 0.0
        self.due: dict[str, float] = {}
        self.working: set[str] = set()

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.agenda.add(key)
        self.due[key] = min(self.now, self.due.get(key, self.now))

    @rule(key=KEYS, seconds=SECONDS)
    def add_later(self, key: str, seconds: int) -> None:
        self.agenda.add_at(key, self.now + seconds)
        self.due[key] = min(self.now + seconds, self.due.get(key, self.now + seconds))

    @rule(key=KEYS, dice=st.floats(0, 1, exclude_max=True))
    def fail(self, key: str, dice: float) -> None:
        delay = self.agenda.retry(key, self.now, dice)
        assert 0 <= delay <= 60
        self.due[key] = min(self.now + delay, self.due.get(key, self.now + delay))

    @rule(key=KEYS)
    def succeed(self, key: str) -> None:
        self.agenda.forget(key)
        assert self.agenda.failures(key) == 0

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        key = self.agenda.take(self.now)
        if key is None:
            assert all(at > self.now or key in self.working for key, at in self.due.items())
            return
        assert key not in self.working and self.due[key] <= self.now
        self.working.add(key)
        del self.due[key]

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.working.discard(key)
        self.agenda.done(key)

    @invariant()
    def all_is_counted(self) -> None:
        assert len(self.agenda) == len(self.due) and self.agenda.working == len(self.working)

    @invariant()
    def who_sleeps_until_the_next_misses_nothing(self) -> None:
        following = self.agenda.next_at()
        later = [at for key, at in self.due.items() if at > self.now]
        assert not later or (following is not None and following <= min(later))


TestAnyUse = AnyUse.TestCase
