# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge of histories: known good and bad ones, and all small ones against a search that tries every order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from ansible_collections.muster.coordination.tests.support.linearizability import (
    DELETE,
    GET,
    PUT,
    Op,
    Value,
    check,
)


def put(value: str, called: int, returned: int | None) -> Op:
    return Op("k", PUT, value, called, returned)


def delete(called: int, returned: int | None) -> Op:
    return Op("k", DELETE, None, called, returned)


def get(value: Value, called: int, returned: int) -> Op:
    return Op("k", GET, value, called, returned)


GOOD = {
    "nothing": [],
    "one after the other": [put("a", 0, 1), get("a", 2, 3), delete(4, 5), get(None, 6, 7)],
    "nothing there": [get(None, 0, 1)],
    "the old value while it is written": [put("a", 0, 1), put("b", 2, 9), get("a", 3, 4), get("b", 5, 6)],
    "two writes at once, the first wins": [put("a", 0, 5), put("b", 1, 4), get("a", 6, 7)],
    "two writes at once, the second wins": [put("a", 0, 5), put("b", 1, 4), get("b", 6, 7)],
    "a chain of writes at once": [
        *(put("a", 0, 20), put("b", 0, 20), put("c", 0, 20)),
        *(get("b", 1, 2), get("a", 3, 4), get("c", 5, 6)),
    ],
    "a lost write was never made": [put("a", 0, 1), put("b", 2, None), get("a", 3, 4), get("a", 99, 100)],
    "a lost write was made at once": [put("a", 0, 1), put("b", 2, None), get("b", 3, 4)],
    "a lost write was made much later": [put("a", 0, 1), put("b", 2, None), get("a", 3, 4), get("b", 9, 10)],
    "a lost write came after another": [put("b", 0, None), put("a", 1, 2), get("a", 3, 4), get("b", 5, 6)],
    "a lost delete was made much later": [put("a", 0, 1), delete(2, None), get("a", 3, 4), get(None, 9, 10)],
    "two lost deletes, both made": [
        *(delete(0, None), delete(0, None), put("a", 1, 2), get(None, 3, 4)),
        *(put("b", 5, 6), get("b", 7, 8), get(None, 9, 10)),
    ],
    "a get during all": [get("b", 0, 100), put("a", 1, 2), put("b", 3, 4), put("c", 5, 6)],
    "at one moment": [put("a", 0, 1), get("a", 1, 1), put("b", 1, 2), get("b", 2, 3)],
}
BAD = {
    "a value that nobody wrote": [put("a", 0, 1), get("x", 2, 3)],
    "a lost acknowledged write": [put("a", 0, 1), get(None, 2, 3)],
    "an old value": [put("a", 0, 1), put("b", 2, 3), get("a", 4, 5)],
    "a deleted value": [put("a", 0, 1), delete(2, 3), get("a", 4, 5)],
    "back and forth": [put("a", 0, 1), put("b", 2, 9), get("b", 3, 4), get("a", 5, 6)],
    "two see two orders": [
        *(put("a", 0, 9), put("b", 0, 9), get("a", 10, 11), get("b", 12, 13)),
    ],
    "read before it was written": [get("a", 0, 1), put("a", 2, 3)],
    "read before it was sent": [get("a", 0, 1), put("a", 2, None)],
    "a lost write, undone": [put("a", 0, 1), put("b", 2, None), get("b", 3, 4), get("a", 5, 6)],
    "a lost write that comes twice": [
        *(put("b", 0, None), get("b", 1, 2), put("a", 3, 4), get("a", 5, 6), get("b", 7, 8)),
    ],
    "one lost delete, made twice": [
        *(delete(0, None), put("a", 1, 2), get(None, 3, 4), put("b", 5, 6), get("b", 7, 8), get(None, 9, 10)),
    ],
    "a lost delete from the future": [put("a", 0, 1), get(None, 2, 3), delete(4, None)],
    "all readers disagree": [
        *(put("a", 0, 20), put("b", 0, 20), get("a", 1, 2), get("b", 3, 4), get("a", 5, 6)),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_passes(name: str) -> None:
    assert check(GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_found(name: str) -> None:
    [violation] = check(BAD[name])
    assert violation.key == "k"
    assert str(violation.at) in str(violation)


def test_keys_are_judged_one_by_one() -> None:
    good = [Op("good", PUT, "a", 0, 1), Op("good", GET, "a", 2, 3)]
    bad = [Op("bad", PUT, "a", 0, 1), Op("bad", GET, None, 2, 3)]
    [violation] = check([*good, *bad])
    assert violation.key == "bad"
    assert violation.possible == ("a",)


def test_what_was_there_before_counts() -> None:
    assert check([get("old", 0, 1)], {"k": "old"}) == []
    assert check([get(None, 0, 1)], {"k": "old"})


@pytest.mark.parametrize(
    "ops", [[put("a", 0, 1), put("a", 2, 3)], [put("a", 5, 1)], [Op("k", GET, "a", 0, None)], [Op("k", "x", "a", 0, 1)]]
)
def test_what_is_no_history_is_refused(ops: list[Op]) -> None:
    with pytest.raises(ValueError, match="k: "):
        check(ops)


def every_order(ops: Sequence[Op]) -> bool:
    """The definition itself: some order of all that happened, with every choice of what did."""
    known = [op for op in ops if op.returned is not None]
    unknown = [op for op in ops if op.returned is None]
    return any(
        _fits(order)
        for count in range(len(unknown) + 1)
        for chosen in itertools.combinations(unknown, count)
        for order in itertools.permutations([*known, *chosen])
    )


def _fits(order: Sequence[Op]) -> bool:
    for at, op in enumerate(order):
        if any(later.returned is not None and later.returned < op.called for later in order[at + 1 :]):
            return False
    value: Value = None
    for op in order:
        if op.kind == GET and op.value != value:
            return False
        value = value if op.kind == GET else op.value
    return True


def small_history(dice: random.Random) -> list[Op]:
    """Up to six operations with few values and few moments, so that about half of them fit no order."""
    ops: list[Op] = []
    for number in range(dice.randint(2, 6)):
        called = dice.randint(0, 12)
        returned: int | None = called + dice.randint(1, 4)
        kind = dice.choice((PUT, GET, GET, DELETE))
        if kind != GET and dice.random() < 0.35:
            returned = None
        ops.append(Op("k", kind, f"v{number}" if kind == PUT else None, called, returned))
    values = [op.value for op in ops if op.kind == PUT] + [None]
    return [op._replace(value=dice.choice(values)) if op.kind == GET else op for op in ops]


def test_it_agrees_with_trying_every_order() -> None:
    dice, verdicts = random.Random(7), []
    for _round in range(3000):
        ops = small_history(dice)
        verdicts.append(every_order(ops))
        assert (check(ops) == []) == verdicts[-1], "\n".join(map(str, ops))
    assert 500 < sum(verdicts) < 2500  # both kinds were seen


def register_history(dice: random.Random, count: int, clients: int) -> list[Op]:
    """What a real register would do: every operation happens at a moment between its call and its return."""
    value: Value = None
    ops: list[Op] = []
    moments = sorted(dice.random() for _each in range(count))
    for number, moment in enumerate(moments):
        spread = clients / count
        called, returned = moment - dice.random() * spread, moment + dice.random() * spread
        kind = dice.choice((PUT, GET, GET, GET, DELETE))
        is_lost = kind != GET and dice.random() < 0.02
        if not (is_lost and dice.random() < 0.5):  # half of the lost ones never happen
            value = value if kind == GET else f"v{number}" if kind == PUT else None
        own = f"v{number}" if kind == PUT else value if kind == GET else None
        ops.append(Op("k", kind, own, int(called * 1e9), None if is_lost else int(returned * 1e9)))
    return ops


def test_long_histories_of_a_real_register_pass_and_one_wrong_read_is_found() -> None:
    dice = random.Random(11)
    for _round in range(3):
        ops = register_history(dice, 2000, 4)
        assert check(ops) == []
        read = next(at for at in range(1000, 2000) if ops[at].kind == GET and ops[at].value)
        old = next(op.value for op in ops if op.kind == PUT and op.returned is not None)
        assert check([*ops[:read], ops[read]._replace(value=old), *ops[read + 1 :]])
