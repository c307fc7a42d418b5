# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes when each item of a loop was done: one line of JSON each, to the file that BENCH_TIMES names."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: item_times
type: aggregate
short_description: time stamps of loop items
description: writes a time stamp for each item of a loop to the file that the environment variable BENCH_TIMES names
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_NAME = "item_times"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._write(task.get_name(), "start")

    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._write(result.task.get_name() if hasattr(result, "task") else result._task.get_name(), "item")

    def _write(self, task: str, what: str) -> None:
        with open(os.environ["BENCH_TIMES"], "a", encoding="utf-8") as file:
            file.write(json.dumps({"task": task, "what": what, "at": time.monotonic()}) + "\n")
