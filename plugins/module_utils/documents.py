# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML text that people write, as plain values. Who decides on those is `decisions`, which know no YAML."""

from __future__ import annotations

from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.credentials import MissingLibrary
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

LIMIT: Final = 4 * 1024 * 1024  # characters; a ConfigMap holds a quarter of that


def parse_yaml(text: str, where: str) -> Any:
    """The value of one YAML document; None of an empty text. `where` names it in errors. Raises Malformed."""
    try:
        import yaml
    except ImportError:
        raise MissingLibrary("PyYAML", "to read YAML documents") from None
    if len(text) > LIMIT:
        raise Malformed(where, text, f"give at most {LIMIT:,} characters")
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date such as 2026-99-99
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise Malformed(where, text, f"give valid YAML ({said})") from None
