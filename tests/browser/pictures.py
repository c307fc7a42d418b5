# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take the pictures of the allocator's page that docs/ shows: of a stand-in, so that they are always of the same.

python -m ansible_collections.muster.coordination.tests.browser.pictures DIRECTORY
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ansible_collections.muster.coordination.tests.browser.conftest import browser
from ansible_collections.muster.coordination.tests.browser.stand_in import StandIn, instance, stand_in
from ansible_collections.muster.coordination.tests.browser.tab import Tab

ONE, TWO, SHARED, KEPT = (f"syncbased-{end}" for end in ("91ab07c4ee", "3f9c2a71d0", "b0b5c0ffee", "77aa10fe02"))
PICTURES = (
    ("allocator-page.png", 1200, 950, 1.0, "light"),
    ("allocator-page-phone.png", 360, 740, 2.0, "dark"),
)  # fmt: skip


def ago(**passed: float) -> str:
    return (datetime.now(UTC) - timedelta(**passed)).isoformat(timespec="seconds")


def furnish(server: StandIn) -> None:
    said = f"Deployment {ONE} has 0 of 1 Pods ready"
    parameters = {"size": "medium", "title": "shared notes", "tracing": False, "workers": 4}
    access = {"users": [], "groups": ["team"]}
    server.put(
        instance(ONE, "alice", "Creating", message=said, created=ago(minutes=2), parameters=parameters, access=access)
    )
    server.put(instance(TWO, "alice", created=ago(days=9)))
    access = {"users": ["alice"], "groups": []}
    server.put(instance(SHARED, "bob", "Suspended", suspended=True, created=ago(days=30), access=access))
    server.disks = [{"name": KEPT, "size": "50G", "created": ago(days=40)}]
    server.events[ONE] = [
        event(
            f"Pod {ONE}-6c9f7", "FailedScheduling", "0/3 nodes are available: 3 Insufficient memory.", 40, "Warning", 3
        ),
        event(f"Deployment {ONE}", "ScalingReplicaSet", f"Scaled up replica set {ONE}-6c9f7 from 0 to 1", 120),
    ]


def event(
    about: str, reason: str, message: str, seconds: float, kind: str = "Normal", count: int = 1
) -> dict[str, object]:
    told = {"type": kind, "reason": reason, "object": about, "message": message}
    return {"time": ago(seconds=seconds), "count": count, **told}


def main(directory: Path) -> None:
    with tempfile.TemporaryDirectory() as profile, browser(profile) as driver, stand_in() as server:
        furnish(server)
        tab = Tab(driver, server.url)
        tab.sign_in()
        tab.open(ONE)
        tab.says("FailedScheduling")
        for name, width, height, scale, scheme in PICTURES:
            tab.window(width, height, scale)
            tab.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
            tab.run("document.documentElement.style.scrollbarWidth = 'none'; scrollTo(0, 0)")
            tab.picture(str(directory / name))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
