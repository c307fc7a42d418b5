# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients of an allocator at random: watches that break off anywhere, whatever a server may refuse, values as text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.client import allocator as clients
from ansible_collections.muster.coordination.plugins.module_utils.client.allocator import (
    AllocatorClient,
    Later,
    NoAnswer,
    refusal_of,
    token_of,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import REFUSALS, Refused
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_parameters import spell_value
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator_modules import typed
from muster.allocator.client_cli import apply

NAMES = st.sampled_from(["a", "b", "c", "d"])
# what happens at a server: a name has a new state, or is gone
HAPPENINGS = st.lists(st.tuples(NAMES, st.integers(0, 9) | st.none()), max_size=12)
CUTS = st.integers(0, 400)  # bytes after which a connection breaks
CONNECTIONS = st.lists(st.tuples(HAPPENINGS, CUTS), max_size=5)

State = dict[str, Any]


class Answer:
    """As much of an answer of urllib3 as a watch uses: `content` in pieces, then its end, or a break."""

    chunked = True

    def __init__(self, content: bytes, sizes: list[int], *, breaks: bool) -> None:
        self._content, self._sizes, self._breaks = content, sizes, breaks

    def stream(self, _amount: int) -> Iterator[bytes]:
        place = 0
        for size in self._sizes:
            yield self._content[place : place + size]
            place += size
        yield self._content[place:]
        if self._breaks:
            raise OSError("it broke")

    def close(self) -> None:
        pass


class Server:
    """What a server sends on each connection in turn."""

    def __init__(self) -> None:
        self.state: State = {}

    def lines(self, happenings: list[tuple[str, int | None]]) -> bytes:
        """A whole connection: what there is, a bookmark, and what happens then."""
        told = [("ADDED", each) for each in self.state.values()] + [("BOOKMARK", None)]
        for name, value in happenings:
            before = self.state.get(name)
            if value is None:
                if before is not None:
                    told.append(("DELETED", self.state.pop(name)))
            else:
                self.state[name] = {"name": name, "value": value}
                told.append(("MODIFIED" if before else "ADDED", self.state[name]))
            if value == 0:
                told.append(("BOOKMARK", None))
        return b"".join(json.dumps({"type": kind, "instance": each}).encode() + b"\n" for kind, each in told)


@given(CONNECTIONS, HAPPENINGS, st.lists(st.integers(1, 60), max_size=8), st.booleans())
def test_a_watch_comes_to_what_there_is_wherever_it_breaks(
    connections: list[tuple[list[tuple[str, int | None]], int]],
    last: list[tuple[str, int | None]],
    sizes: list[int],
    ends: bool,
) -> None:
    server = Server()
    answers = [(server.lines(happenings)[:cut], True) for happenings, cut in connections]
    answers.append((server.lines(last), False))

    class Client(AllocatorClient):
        def _open(self, *_args: Any) -> Any:
            content, breaks = answers.pop(0)
            return Answer(content, sizes, breaks=breaks and not ends)

    seen: State = {}
    watching = Client("http://127.0.0.1:1", token_of("t", "t")).watch()
    before, clients.PAUSES = clients.PAUSES, (0.0, 0.0)
    try:
        while answers:
            apply(next(watching), seen)
        for change in watching:  # of the last connection, of which all arrives
            apply(change, seen)
    except IndexError:
        pass  # it would connect once more
    finally:
        clients.PAUSES = before
    assert seen == server.state


@given(
    st.sampled_from([*REFUSALS, "malformed", "throttled", "unavailable", "of-tomorrow", ""]) | st.text(),
    st.integers(400, 599),
    st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.integers())),
)
def test_whatever_is_refused_is_told(word: str, status: int, more: dict[str, Any]) -> None:
    document = {**more, "type": f"urn:muster:allocator:{word}", "detail": "in these words"}
    refused = refusal_of(document, status)
    assert isinstance(refused, Refused) and str(refused).startswith("in these words")
    if status in (429, 503):
        assert isinstance(refused, Later) and 0 <= refused.retry_after <= 60
    elif word in REFUSALS and status != 401:
        assert type(refused) is REFUSALS[word]
    assert refused.members.keys() == more.keys() - {"type", "title", "status", "detail"}


VALUES = {
    "text": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50),
    "whole": st.integers(-(2**63), 2**63 - 1),
    "number": st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6).map(lambda number: round(number, 6)),
    "switch": st.booleans(),
}
TYPES = {"text": "string", "whole": "integer", "number": "number", "switch": "boolean"}


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_a_value_means_the_same_as_text(values: dict[str, Any]) -> None:
    offer = {"parameters": {name: {"type": kind} for name, kind in TYPES.items()}}
    spelled = {name: spell_value(value) for name, value in values.items()}
    assert typed(offer, values) == values
    assert typed(offer, spelled) == values
    assert [type(value) for value in typed(offer, {"switch": "true", "whole": "1"}).values()] == [bool, int]


def test_what_breaks_is_no_answer() -> None:
    """The stand-in breaks as a connection does."""
    client = AllocatorClient("http://127.0.0.1:1", token_of("t", "t"))
    client._open = lambda *_args: Answer(b'{"type": ', [], breaks=True)  # type: ignore[method-assign, assignment, return-value]
    try:
        list(client._watch_once(None, False))
    except NoAnswer as error:
        assert "it broke" in str(error)
    else:
        raise AssertionError("a connection broke, and nobody was told")
