# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attends one or several semaphores for one claimant; in which order is decided in `decisions/chain.py`.

Each semaphore has a thread which attends it, or gives back what is held there. What the threads find out goes into one
inbox, and one thread, the owner of the Chain, takes it from there and says what follows.
"""

from __future__ import annotations

import functools
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.decisions import chain
from ansible_collections.muster.coordination.plugins.module_utils.decisions.chain import Stand
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import Claimant, Grant
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.attendance import RETRY, Attendant, Sight
from muster.process import say

LEAVE_SECONDS = 5.0  # how long one try to give something back may take
NOT_READ = Sight(trouble="the semaphore has not been read yet")


class News(NamedTuple):
    """What the thread of one semaphore found out. `task` tells for which of its tasks: of a former one it is old."""

    at: int  # index of the semaphore
    task: int
    sight: Sight | None = None  # None: nothing is held there any more
    had: bool = False  # whether there was something to give back
    is_known: bool = False  # whether the sight says what is held
    error: Exception | None = None  # a try to give it back failed, or (`fatal`) the thread ended
    fatal: bool = False


class Post:
    """The thread of one semaphore."""

    def __init__(self, index: int, name: str, hire: Callable[[], Attendant], leave: Callable[[], bool], tell: Any):
        self.index, self.name = index, name
        self._hire, self._leave, self._tell = hire, leave, tell
        self._tasks: queue.SimpleQueue[tuple[int, Attendant | None]] = queue.SimpleQueue()
        self._attendant: Attendant | None = None
        self._task = 0
        threading.Thread(target=self._run, name=f"post-{index}", daemon=True).start()

    @property
    def attendant(self) -> Attendant | None:
        """Who attends; None: what is held is given back, or nothing is to be done."""
        return self._attendant

    def attend(self) -> None:
        self._begin(self._hire())

    def give_back(self) -> None:
        """The attendant has to be gone before: it would claim again at once."""
        self._begin(None)

    def is_current(self, news: News) -> bool:
        return news.task == self._task

    def _begin(self, attendant: Attendant | None) -> None:
        if self._attendant:
            self._attendant.stop()
        self._attendant = attendant
        self._task += 1
        self._tasks.put((self._task, attendant))

    def _run(self) -> None:
        task, last = 0, None
        try:
            task, attendant = self._tasks.get()
            while True:
                if attendant:
                    for sight in attendant.sights():
                        self._tell(News(self.index, task, sight, is_known=attendant.is_known))
                    last = attendant
                    task, attendant = self._tasks.get()
                else:
                    task, attendant = self._release(task, last)
        except Exception as error:
            self._tell(News(self.index, task, error=error, fatal=True))

    def _release(self, task: int, last: Attendant | None) -> tuple[int, Attendant | None]:
        """Try until it is given back, or there is another task; returns that. Who attended last knows best how."""
        leave = functools.partial(last.leave, LEAVE_SECONDS) if last else self._leave
        while True:
            try:
                self._tell(News(self.index, task, had=leave()))
                return self._tasks.get()
            except MusterError as error:
                self._tell(News(self.index, task, error=error))
                leave = self._leave
            try:
                return self._tasks.get(timeout=random.uniform(*RETRY))
            except queue.Empty:
                pass


class Chain:
    """All semaphores of one claimant. `tell` takes News from any thread; all methods belong to the owner's thread."""

    def __init__(
        self,
        api: Api,
        *,
        namespace: str,
        claimants: Mapping[str, Claimant],
        engine: str,
        tell: Callable[[News], None],
        **settings: Any,
    ) -> None:
        """`claimants` by the names of the semaphores; `settings` as an Attendant takes them."""
        self.names = chain.in_order(claimants)
        self.where = [f"{namespace}/{name}" for name in self.names]
        self.stands = [Stand.UNKNOWN] * len(self.names)
        self.sights = [NOT_READ, *(Sight() for _name in self.names[1:])]
        self.is_wanted = True
        self._giving_back: set[int] = set()
        self._failed: set[int] = set()

        def post(index: int, name: str) -> Post:
            at: dict[str, Any] = {"name": name, "namespace": namespace, "engine": engine, "claimant": claimants[name]}
            return Post(
                index,
                name,
                lambda: verbs.attendant(api, **at, **settings),
                lambda: verbs.leave(api, **at, timeout=LEAVE_SECONDS),
                tell,
            )

        self._posts = [post(index, name) for index, name in enumerate(self.names)]

    @property
    def grants(self) -> tuple[tuple[str, Grant], ...] | None:
        """What is held of each semaphore, if of each is; None otherwise, and when all is to be given back."""
        found = tuple((where, sight.grant) for where, sight in zip(self.where, self.sights, strict=True) if sight.grant)
        return found if self.is_wanted and len(found) == len(self.names) else None

    @property
    def is_free(self) -> bool:
        """Nothing is held, waited for or asked for."""
        return all(stand is Stand.NOTHING for stand in self.stands)

    @property
    def is_known(self) -> bool:
        """Whether it is known if all is held: not so when the sidecar was started again, until it has looked."""
        return not self.is_wanted or self.stands[self.first_missing] is not Stand.UNKNOWN

    @property
    def first_missing(self) -> int:
        """Which semaphore is waited for, or the last."""
        return min(chain.held_in_front(self.stands), len(self.stands) - 1)

    def silent(self) -> float:
        """Seconds since the most silent of those who attend went round its loop."""
        turned = [post.attendant.turned for post in self._posts if post.attendant]
        return time.monotonic() - min(turned, default=time.monotonic())

    def take(self, news: News) -> None:
        """Learn what a thread found out; what follows is done by `act`. Raises what ended a thread."""
        index = news.at
        if not self._posts[index].is_current(news):
            return
        if news.error is not None:
            if news.fatal:
                raise news.error
            self._failed.add(index)
            self.sights[index] = Sight(trouble=f"{self.names[index]} could not be given back yet: {news.error}")
        elif news.sight is None:
            if news.had:
                say(logging.INFO, "given back", semaphore=self.where[index])
            self.stands[index], self.sights[index] = Stand.NOTHING, Sight()
            self._giving_back.discard(index)
            self._failed.discard(index)
        else:
            self.sights[index] = news.sight
            if news.sight.grant is not None:
                self.stands[index] = Stand.HELD
            elif news.is_known or self.stands[index] is not Stand.UNKNOWN:
                self.stands[index] = Stand.WAITING

    def act(self) -> None:
        """Attend, and give back, what follows from how it stands. Never blocks."""
        attend, give_back = chain.plan(self.stands, wanted=self.is_wanted)
        for index in range(attend):
            if self._posts[index].attendant is None:
                self._giving_back.discard(index)
                self._failed.discard(index)
                if self.stands[index] is not Stand.UNKNOWN:
                    self.stands[index] = Stand.WAITING
                self._posts[index].attend()
        for index in give_back:
            if index not in self._giving_back:
                self._giving_back.add(index)
                self._posts[index].give_back()
            if index not in self._failed:
                return  # the next when this one is done; but not even what is malformed holds up the others
