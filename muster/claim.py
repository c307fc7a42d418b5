# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an application is told of its claim, and in which forms: JSON, shell variables, environment."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import Grant, Resources, single
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError

PREFIX = "DISTRIBUTOR"  # of each variable


@dataclass(frozen=True)
class Claim:
    """All that one holder has: a grant at each of its semaphores (`namespace/name`), in the order of their names."""

    holder: str
    grants: tuple[tuple[str, Grant], ...]

    @property
    def fences(self) -> frozenset[tuple[str, int]]:
        """Semaphores and fences: as long as these are the same, it is the same claim."""
        return frozenset((semaphore, grant.fence) for semaphore, grant in self.grants)

    def fields(self) -> dict[str, Any]:
        """For JSON: `holder` and `claims`; where there is one semaphore, its fields beside them."""
        claims = [_fields(semaphore, grant) for semaphore, grant in self.grants]
        return {**(claims[0] if len(claims) == 1 else {}), "holder": self.holder, "claims": claims}

    def environment(self) -> dict[str, str]:
        """`DISTRIBUTOR_<n>_FENCE` and so on, n from 1 to `DISTRIBUTOR_CLAIMS`; of a single one without number, too."""
        found = {f"{PREFIX}_HOLDER": self.holder, f"{PREFIX}_CLAIMS": str(len(self.grants))}
        for number, (semaphore, grant) in enumerate(self.grants, start=1):
            fields = {**_fields(semaphore, grant), "resources": counted(grant.resources)}
            for key, value in fields.items():
                text = "" if value is None else str(value)
                found[f"{PREFIX}_{number}_{key.upper()}"] = text
                if len(self.grants) == 1:
                    found[f"{PREFIX}_{key.upper()}"] = text
        return found

    def json(self) -> str:
        return json.dumps(self.fields())

    def shell(self) -> str:
        """Lines that a shell can read with `.`"""
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in self.environment().items())


def write(path: Path, claim: Claim) -> None:
    """As shell variables where the name ends in .env, else as JSON. Raises MusterError."""
    try:
        write_atomically(path, claim.shell() if path.suffix == ".env" else f"{claim.json()}\n")
    except OSError as error:
        raise MusterError(
            f"the claim file {path} can't be written ({error.strerror}): name one in a directory that is there and "
            "may be written, by --claim-file"
        ) from error


def fences_in(path: Path | None) -> frozenset[tuple[str, int]]:
    """Semaphores and fences that an earlier run told of in its file; nothing where there is none that can be read."""
    try:
        text = path.read_text(encoding="utf-8") if path else ""
        if path and path.suffix == ".env":
            said = dict(entry.split("=", 1) for entry in shlex.split(text))
            numbers = range(1, int(said[f"{PREFIX}_CLAIMS"]) + 1)
            pairs = [(said[f"{PREFIX}_{n}_SEMAPHORE"], int(said[f"{PREFIX}_{n}_FENCE"])) for n in numbers]
        else:
            pairs = [(entry["semaphore"], int(entry["fence"])) for entry in json.loads(text)["claims"]]
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
    return frozenset(pairs)


def counted(resources: Resources) -> str:
    """`db=2,gpu=1`"""
    return ",".join(f"{name}={count}" for name, count in sorted(resources.items()))


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never a half. Others may read it (mode 0644)."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _fields(semaphore: str, grant: Grant) -> dict[str, Any]:
    return {
        "semaphore": semaphore,
        "resource": single(grant.resources),
        "resources": dict(sorted(grant.resources.items())),
        "fence": grant.fence,
        "since": grant.since,
    }
