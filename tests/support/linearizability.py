# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what clients saw of a register fits some order in which each of its operations happened at one moment.

A register is one key: put, delete, get. An operation has to happen between its call and its return. A write of which
nobody knows what became may happen at any time after its call, or never. Every put has a value of its own, so a get
says which put it saw. That is used to know more of unknown puts, before anything is searched:
- one whose value nobody has read need not have happened: if it had, right before another write, nobody can tell;
- one whose value was read has happened before the first such get returned.
What is left open are unknown deletes. They do all the same, so the oldest is taken first, and of two ways to the same
state the one that needed fewer of them is as good. Of deletes with an outcome the one that returns first goes first.

The search goes through calls and returns in order of time, and keeps every state in which the register may be,
together with which of the pending operations have happened by then. A get happens as soon as it fits, for it changes
nothing; a write only when a return makes it necessary. When there is no such state left at a return, there is no such
order.

Source: Wing and Gong, Testing and verifying concurrent objects, 1993; just-in-time, with states seen once, as in Lowe,
Testing for linearizability, 2017. Keys can be judged one by one (Herlihy and Wing, 1990: linearizability is local).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

PUT, DELETE, GET = "put", "delete", "get"
KINDS: Final = (PUT, DELETE, GET)
SHOWN: Final = 12  # operations around what is wrong
FOREVER: Final = 2**63

Value = str | None  # None: there is nothing under the key


class Op(NamedTuple):
    """`value`: what was put, or read; None of a delete. Times are of one monotonic clock.

    `returned` None: the outcome is not known.

    A get without an outcome says nothing, and so does a write that certainly did not happen: leave both out.
    """

    key: str
    kind: str
    value: Value
    called: int
    returned: int | None
    client: str = ""

    def __str__(self) -> str:
        end = "?" if self.returned is None else str(self.returned)
        shown = "" if self.kind == DELETE else f" {self.value!r}"
        return f"[{self.called}, {end}] {self.client} {self.kind}{shown}"


class Violation(NamedTuple):
    """No order fits. `at`: the first operation whose return does not; `around`: what went on at that time."""

    key: str
    at: Op
    possible: tuple[Value, ...]
    around: tuple[Op, ...]

    def __str__(self) -> str:
        values = ", ".join(map(repr, self.possible)) or "nothing"
        listed = "\n    ".join(map(str, self.around))
        return f"{self.key}: {self.at} fits no order; right before it, {values} was possible:\n    {listed}"


class _State(NamedTuple):
    """Where the register may be: its value, and which of the pending operations, by number, have happened."""

    value: Value
    happened: frozenset[int]


_States = dict[_State, int]  # how many unknown deletes it took at least


def check(ops: Iterable[Op], initial: Mapping[str, Value] | None = None) -> list[Violation]:
    """What is wrong, by key; nothing where all fits. `initial`: what keys had in the beginning (default: nothing).

    Raises ValueError for a value that was put twice, a return before its call, or a get without an outcome.
    """
    by_key: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        by_key[op.key].append(op)
    found = (_check_key(key, by_key[key], (initial or {}).get(key)) for key in sorted(by_key))
    return [violation for violation in found if violation]


def _check_key(key: str, ops: Sequence[Op], initial: Value) -> Violation | None:
    ordered = sorted(_settled(key, ops), key=lambda op: op.called)
    written = {op.value for op in ops if op.kind == PUT} | {initial, None}
    for op in ordered:
        if op.kind == GET and op.value not in written:
            return Violation(key, op, (), _around(ordered, op))
    states, pending, lost = {_State(initial, frozenset()): 0}, set[int](), 0
    for _time, is_return, number in _events(ordered):
        op = ordered[number]
        if not is_return and op.returned is None:
            lost += 1
        elif not is_return:
            pending.add(number)
            if op.kind == GET:
                states = {_with_gets(state, ordered, (number,)): used for state, used in states.items()}
        else:
            before, states = states, _after(states, number, ordered, pending, lost)
            pending.discard(number)
            if not states:
                possible = sorted({state.value for state in before}, key=str)
                return Violation(key, op, tuple(possible), _around(ordered, op))
    return None


def _settled(key: str, ops: Sequence[Op]) -> list[Op]:
    """Without unknown puts: each has happened, or need not have. Raises ValueError."""
    puts: set[Value] = set()
    first_read: dict[Value, int] = {}
    for op in ops:
        if op.kind not in KINDS or (op.returned is not None and op.returned < op.called):
            raise ValueError(f"{key}: {op} is no operation")
        if op.kind == PUT and (op.value in puts or op.value is None):
            raise ValueError(f"{key}: {op.value!r} was put twice, or is no value")
        if op.kind == GET and op.returned is None:
            raise ValueError(f"{key}: {op} is a get without an outcome")
        if op.kind == PUT:
            puts.add(op.value)
        elif op.kind == GET and op.returned is not None:
            first_read[op.value] = min(op.returned, first_read.get(op.value, FOREVER))
    settled = []
    for op in ops:
        if op.kind != PUT or op.returned is not None:
            settled.append(op)
        elif op.value in first_read:
            # a get that returned before the put was called stays: no order will fit it
            settled.append(op._replace(returned=max(op.called, first_read[op.value])))
    return settled


def _events(ops: Sequence[Op]) -> list[tuple[int, bool, int]]:
    """(time, whether it is a return, number of the operation). At one moment calls come first: who can tell?"""
    calls = [(op.called, False, number) for number, op in enumerate(ops)]
    returns = [(op.returned, True, number) for number, op in enumerate(ops) if op.returned is not None]
    return sorted([*calls, *returns])


def _after(states: _States, number: int, ops: Sequence[Op], pending: set[int], lost: int) -> _States:
    """All states in which this operation has happened, reached by letting pending ones happen."""
    reached: _States = {}
    least, stack = dict(states), list(states)
    puts = [each for each in pending if ops[each].kind == PUT]
    gets = [each for each in pending if ops[each].kind == GET]
    deletes = sorted((each for each in pending if ops[each].kind == DELETE), key=lambda each: _end(ops[each]))
    while stack:
        state = stack.pop()
        used = least[state]
        if number in state.happened:
            over = _State(state.value, state.happened - {number})
            reached[over] = min(used, reached.get(over, used))
            continue
        known = [each for each in puts if each not in state.happened]
        known += [each for each in deletes if each not in state.happened][:1]
        made = [(_State(ops[each].value, state.happened | {each}), used) for each in known]
        if used < lost and state.value is not None:
            made.append((_State(None, state.happened), used + 1))
        for raw, needed in made:
            following = _with_gets(raw, ops, gets)
            if needed < least.get(following, FOREVER):
                least[following] = needed
                stack.append(following)
    return reached


def _with_gets(state: _State, ops: Sequence[Op], gets: Iterable[int]) -> _State:
    """The same when all pending gets that fit it have happened."""
    fitting = {each for each in gets if ops[each].value == state.value}
    return _State(state.value, state.happened | fitting) if fitting - state.happened else state


def _around(ordered: Sequence[Op], op: Op) -> tuple[Op, ...]:
    """Those that were going on, or were the last to be over, when it returned."""
    begun = [each for each in ordered if each.called <= (FOREVER if op.returned is None else op.returned)]
    begun.sort(key=_end)
    over = [each for each in begun if _end(each) < op.called]
    meanwhile = [each for each in begun if _end(each) >= op.called]
    return tuple(sorted([*over[-SHOWN:], *meanwhile[: 2 * SHOWN]], key=lambda each: each.called))


def _end(op: Op) -> int:
    return FOREVER if op.returned is None else op.returned
