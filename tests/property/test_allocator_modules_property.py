# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks at random: check mode tells what a run does, a second one changes nothing, nor does one that is refused."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.tests.support.allocator_memory import Site

WISHES = st.fixed_dictionaries(
    {"state": st.sampled_from(["present", "suspended", "absent"]), "key": st.sampled_from(["a", "b", "c"])},
    optional={
        "parameters": st.sampled_from([{"size": 2}, {"size": "2"}, {"colour": "blue"}, {"size": 10}, {"taste": 1}, {}]),
        "access": st.sampled_from([{"users": ["bob"]}, {"groups": ["g"], "users": None}, {"users": []}]),
        "storage": st.sampled_from(["delete", "retain"]),
        "owner": st.sampled_from(["alice", "bob"]),
    },
)


def outcome(site: Site, wish: dict[str, Any], **more: Any) -> tuple[Any, ...]:
    """Whether it changed something, and what is said of the instance before and after; or the refusal."""
    try:
        told = site.settle(**wish, **more)
        return told["changed"], told["before"], told["after"]
    except MusterError as error:
        return type(error), str(error)


def check(wish: dict[str, Any], after: dict[str, Any]) -> None:
    """What there is, is what was asked for."""
    assert after["suspended"] == (wish["state"] == "suspended")
    for name, value in wish.get("parameters", {}).items():
        assert str(after["parameters"][name]) == str(value)
    for group, names in wish.get("access", {}).items():
        assert names is None or after["access"][group] == names
    assert wish.get("storage") in (None, after["storage"])


def states(site: Site) -> list[Any]:
    return [(each["metadata"]["name"], each["spec"]) for each in site.all()]


@settings(max_examples=60, deadline=None)
@given(st.lists(WISHES, min_size=1, max_size=12))
def test_check_mode_tells_what_is_done_and_a_second_run_does_nothing(wishes: list[dict[str, Any]]) -> None:
    site = Site()
    for wish in wishes:
        before = states(site)
        planned = outcome(site, wish, check_mode=True)
        assert states(site) == before
        done = outcome(site, wish)
        assert done == planned
        if isinstance(done[0], type):
            assert states(site) == before
        elif wish["state"] != "absent":
            check(wish, done[2])
        site.look()
        after = states(site)
        again = outcome(site, wish)
        assert again == (done if isinstance(done[0], type) else (False, done[2], done[2]))
        site.look()
        assert states(site) == after
        assert len(after) <= 4  # two for each of two owners
    site.close()
