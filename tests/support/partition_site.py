# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real workers of partitions, and real reconcilers and assigners beside them, at a real API server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import View
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import ASSIGNMENTS, PARTITIONS
from ansible_collections.muster.coordination.tests.support.partition_worker_lab import (
    PATIENCE,
    Lab,
)
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until

Object = dict[str, Any]


class ControllerProcess:
    """`muster partition-reconciler run`, `muster partition-assigner run` or `muster partition-router run`."""

    def __init__(self, site: Site, system: str, number: int, *further: str) -> None:
        self.log = site.directory / f"{system}-{number}.log"
        own = ("MUSTER_", "POD_", "CONTAINER_NAME", "KUBECONFIG", "K8S_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        arguments = [system, "run", "--kubeconfig", site.kubeconfig, "--namespace", site.namespace]
        arguments += ["--listen", "127.0.0.1:0"]
        if system != "partition-router":
            arguments += ["--watch-namespace", site.namespace, "--lease-seconds", "2"]
        arguments += ["--token-file", str(site.directory / "token"), *further]
        with self.log.open("w") as file:
            self.popen = subprocess.Popen(
                [sys.executable, *site.launcher, *arguments], env=environment, stdin=subprocess.DEVNULL, stderr=file
            )

    @property
    def port(self) -> int:
        found: list[str] = []

        def look() -> bool:
            text = self.log.read_text()
            found.extend(re.findall(r'"port": (\d+)', text))
            assert found or self.popen.poll() is None, f"it has ended:\n{text}"
            return bool(found)

        until(look, "its pages", PATIENCE)
        return int(found[0])

    def kill(self) -> None:
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait()

    def end(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(PATIENCE)


class Site(Lab):
    """A Lab in which others than the test carry out what is asked for."""

    def __init__(self, api: Api, namespace: str, kubeconfig: str, directory: Path, **space: Any) -> None:
        super().__init__(api, namespace, kubeconfig, directory, **space)
        (directory / "token").write_text("the-token-of-these-workers")
        self.controllers: list[ControllerProcess] = []

    def close(self) -> None:
        for controller in self.controllers:
            if controller.popen.poll() is None:
                controller.kill()
        super().close()

    def reconciler(self, *further: str) -> ControllerProcess:
        return self._start("partition-reconciler", *further)

    def assigner(self, *further: str) -> ControllerProcess:
        return self._start("partition-assigner", *further)

    def router(self, *further: str) -> ControllerProcess:
        return self._start("partition-router", *further)

    def _start(self, system: str, *further: str) -> ControllerProcess:
        controller = ControllerProcess(self, system, len(self.controllers), *further)
        self.controllers.append(controller)
        return controller

    # ------------------------------------------------------------------------------------------ what is seen

    def phase(self, assignment: Object) -> str:
        try:
            return operations.phase_of(self.api.get(ASSIGNMENTS, assignment["metadata"]["name"], self.namespace))
        except NotFound:
            return "gone"

    def ends(self, assignment: Object, *phases: str) -> Object:
        """Wait until it is over; it ends as one of these phases."""
        name = assignment["metadata"]["name"]
        until(lambda: self.phase(assignment) in operations.FINAL, f"{name} to be over", PATIENCE)
        there = self.api.get(ASSIGNMENTS, name, self.namespace)
        assert operations.phase_of(there) in (phases or ("Completed",)), there["status"]
        return there

    def view(self) -> View:
        partitions = self.api.list(PARTITIONS, self.namespace).items
        return keyspace.view(partitions, self.api.list(ASSIGNMENTS, self.namespace).items)

    def owners(self) -> dict[str, str]:
        """Primary of each Partition in the view."""
        return {fact.partition: fact.primary for fact in self.view().facts}

    def is_exact(self) -> View:
        """The view has no gap, nothing is void, and nothing is claimed or fenced by anybody."""
        view = self.view()
        assert not view.gaps and not view.void, view
        for obj in self.api.list(PARTITIONS, self.namespace).items:
            assert not obj["spec"].get("fencedBy"), obj
        return view

    def is_quiet(self) -> bool:
        """No Assignment is open, no Partition claimed."""
        open_ones = [obj for obj in self.api.list(ASSIGNMENTS, self.namespace).items if not operations.is_final(obj)]
        claimed = [obj for obj in self.api.list(PARTITIONS, self.namespace).items if obj["spec"].get("claimedBy")]
        return not open_ones and not claimed

    def new_batch(self, pairs: Iterable[tuple[str, str]]) -> Object:
        listed = [{"partition": partition, "primary": primary} for partition, primary in pairs]
        return self.assignment("New", partitions=listed)
