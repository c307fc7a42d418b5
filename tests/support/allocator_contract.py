# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold an allocator's server against its own OpenAPI document, by schemathesis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.tests.support.allocator_server import Client

# what no schema can say: 422 where a key was given before, with other values
SETTINGS = """\
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429", "5xx"]
"""


def contract(client: Client, directory: Path, *further: str, examples: int = 20) -> subprocess.CompletedProcess[str]:
    """Try what its document allows, and what it does not; the same each time.

    Left out of the document as it is served: `watch`, whose answer has no end, and disks to attach: there are none.
    """
    document: dict[str, Any] = client("GET", "/openapi.json", token="").json()
    listing = document["paths"]["/v1/instances"]["get"]
    listing["parameters"] = [each for each in listing["parameters"] if each["name"] != "watch"]
    document["components"]["schemas"]["Wish"]["properties"]["attach"] = {"const": ""}
    (directory / "schemathesis.toml").write_text(SETTINGS)
    file = directory / "openapi.json"
    file.write_text(json.dumps(document))
    command = [sys.executable, "-m", "schemathesis.cli", "run", str(file), "--url", f"http://127.0.0.1:{client.port}"]
    command += ["--header", f"Authorization: Bearer {client.token}", "--generation-deterministic", "--checks", "all"]
    command += ["--max-examples", str(examples), "--phases", "examples,coverage,fuzzing", "--request-timeout", "20"]
    return subprocess.run(
        [*command, *further], cwd=directory, env={**os.environ}, capture_output=True, text=True, timeout=170
    )
