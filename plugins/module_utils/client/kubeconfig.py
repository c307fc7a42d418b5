# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubeconfig files: read, checked, merged. A missing or senseless part is named with its file and field."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError

Entry = dict[str, Any]  # a cluster, user or context of a kubeconfig


# what the fields that we read have to be
_TEXTS = (
    *("server", "certificate-authority", "certificate-authority-data", "tls-server-name", "proxy-url"),
    *("token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data"),
    *("username", "password", "as", "as-uid", "namespace", "cluster", "user"),
)
_FIELDS: tuple[tuple[type, str, tuple[str, ...]], ...] = (
    (str, "a text", _TEXTS),
    (dict, "a mapping", ("exec", "auth-provider", "as-user-extra")),
    (list, "a list", ("as-groups",)),
    (bool, "true or false", ("insecure-skip-tls-verify",)),
)


class CredentialsError(MusterError):
    """The credentials can't be used as they are; says where they came from and what to do."""


class MissingLibrary(CredentialsError):
    """A Python library is needed and not installed."""

    def __init__(self, library: str, purpose: str) -> None:
        super().__init__(f"the Python library {library} is needed {purpose}: install it with `pip install {library}`")
        self.library = library
        self.purpose = purpose


def read_kubeconfig(path: str) -> Entry:
    text = file_text(path)
    what = f"kubeconfig {path}"
    try:
        document = json.loads(text)  # JSON is YAML, and needs no library
    except ValueError:
        document = _yaml(text, what)
    return checked(document or {}, what, os.path.dirname(os.path.abspath(path)))


def _yaml(text: str, what: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise MissingLibrary("PyYAML", "to read a kubeconfig") from None
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise CredentialsError(f"{what} is not valid YAML{where}") from None  # the parser quotes the line, with secrets


def checked(document: Any, what: str, directory: str) -> Entry:
    """The document as {section: {name: entry}}, relative paths resolved against `directory`."""
    if not isinstance(document, dict):
        raise CredentialsError(f"{what} is not a kubeconfig: a mapping with clusters, contexts and users is expected")
    config: Entry = {"current-context": document.get("current-context") or ""}
    for section, key in (("clusters", "cluster"), ("contexts", "context"), ("users", "user")):
        entries: dict[str, Entry] = {}
        config[section] = entries
        items = document.get(section) or []
        if not isinstance(items, list):
            raise CredentialsError(f"{section} in {what} is not a list")
        for index, item in enumerate(items):
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                raise CredentialsError(f"{section}[{index}] in {what} has no name")
            entry = item.get(key) or {}
            if not isinstance(entry, dict):
                raise CredentialsError(f"{section}[{item['name']}].{key} in {what} is not a mapping")
            _check_types(entry, f"{section}[{item['name']}].{key}", what)
            entries.setdefault(item["name"], _resolved(entry, directory))
    return config


def _check_types(entry: Entry, place: str, what: str) -> None:
    for field, value in entry.items():
        for kind, word, fields in _FIELDS:
            if field in fields and value is not None and not isinstance(value, kind):
                raise CredentialsError(f"{place}.{field} in {what} is not {word}")


def _resolved(entry: Entry, directory: str) -> Entry:
    entry = dict(entry)
    for field in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
        if entry.get(field):
            entry[field] = os.path.join(directory, os.path.expanduser(entry[field]))
    plugin = entry.get("exec")
    if isinstance(plugin, dict) and os.sep in str(plugin.get("command")):
        entry["exec"] = {**plugin, "command": os.path.join(directory, plugin["command"])}
    return entry


def merged(documents: list[Entry]) -> Entry:
    """Several files as one, kubectl's rule: who names an entry first, keeps it whole."""
    merged: Entry = {"current-context": ""}
    merged["current-context"] = next((d["current-context"] for d in documents if d["current-context"]), "")
    for section in ("clusters", "contexts", "users"):
        merged[section] = {}
        for document in reversed(documents):
            merged[section].update(document[section])
    return merged


def entry_of(config: Entry, section: str, name: str, field: str, source: str) -> Entry:
    try:
        return config[section][name]
    except KeyError:
        raise CredentialsError(
            f"{field} {name!r} is not in {source}: its {section} are {listed(config[section])}"
        ) from None


def listed(entries: Iterable[str]) -> str:
    return ", ".join(sorted(entries)) or "(none)"


def file_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError:
        raise CredentialsError(f"{path} is not a text file") from None
    except OSError as error:
        raise CredentialsError(f"{path} can't be read: {error.strerror}") from error
