# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an administrator's template file to an offer: read, checked, tried at the cluster, published, and read again.

A template that is wrong is never offered: at the start the process ends and says what is wrong, later the one before
stays in use.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, NotFound, Resource
from ansible_collections.muster.coordination.plugins.module_utils.decisions import allocator as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions import template as templates
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import (
    Offer,
    RefusedByCluster,
    Wish,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import handle, key_hash
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import MAX_BYTES, Template
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_import import (
    CLOUD_DISKS,
    SUCCESSORS,
    Note,
    import_template,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_parameters import (
    Parameter,
    Scalar,
    check_value,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_policy import check_template
from ansible_collections.muster.coordination.plugins.module_utils.documents import parse_yaml_all
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import (
    RESOURCES,
    Allocator,
    publish_offer,
    read_offer,
)
from muster.process import say

LOOK_SECONDS: Final = 2.0  # between two looks at the file
SAMPLE: Final = "sample-user"
_BARE: Final = re.compile(r"[:\[,]\s*\{\{")  # a placeholder in place of a JSON value

Object = dict[str, Any]
Make = Callable[[Template], Offer]


class Read(NamedTuple):
    """A template, and what its import has changed."""

    template: Template
    notes: tuple[Note, ...] = ()


def read_template(text: str, where: str, *, imports: bool = False, repair: bool = False) -> Read:
    """A template from the text of a file: YAML or JSON, or an old JSON template, which is known by its form.

    `imports`: it is an old one, whatever it looks like; `repair` puts missing commas right. Raises Malformed.
    """
    if imports or _is_old(text):
        documents, notes = import_template(text, where, repair=repair)
        return Read(templates.parse(documents, where), tuple(notes))
    return Read(templates.parse(parse_yaml_all(text, where), where))


def _is_old(text: str) -> bool:
    """JSON in which there is what Kubernetes has no more, or a placeholder outside quotes."""
    if not text.lstrip().startswith("{"):
        return False
    names = {version for version, _kind in SUCCESSORS} | set(CLOUD_DISKS)
    return any(f'"{name}"' in text for name in names) or bool(_BARE.search(text))


def read_file(path: Path) -> str:
    """The text of a template's file. Raises Malformed."""
    try:
        with path.open("rb") as file:
            content = file.read(4 * MAX_BYTES + 1)
        return content.decode()
    except OSError as error:
        raise Malformed("deployment-template", str(path), f"give a file that can be read ({error.strerror})") from None
    except ValueError:
        raise Malformed("deployment-template", str(path), "give a text in UTF-8") from None


def sample_values(template: Template, given: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Values for all parameters that have no default; None where one can't be guessed."""
    values: dict[str, Any] = dict(given or {})
    for name, parameter in template.parameters.items():
        if name not in values and parameter.default is None:
            guess = _guess(parameter)
            if guess is None:
                return None
            values[name] = guess
    return values


def _guess(parameter: Parameter) -> Scalar | None:
    guesses: list[Scalar] = list(parameter.enum)
    match parameter.type:
        case "boolean":
            guesses.append(False)
        case "integer" | "number":
            guesses += [bound for bound in (parameter.minimum, parameter.maximum, 1) if bound is not None]
        case _:
            length = max(1, parameter.min_length)
            guesses += ["a" * length, "1" * length, f"{'a' * length}.example.org", "sample"]
    for guess in guesses:
        try:
            return check_value(parameter, guess, parameter.name)
        except Malformed:
            continue
    return None


def sample(offer: Offer, namespace: str, user: str = SAMPLE, given: Mapping[str, Any] | None = None) -> Object | None:
    """The Instance that a user would have; None where a parameter's value can't be guessed. Raises Malformed."""
    values = sample_values(offer.template, given)
    if values is None:
        return None
    name = handle(offer.server_name, user, "sample")
    now = "2000-01-01T00:00:00Z"
    return decisions.make(offer, namespace, user, name, key_hash("sample"), Wish(values), now)


def learn_kinds(api: Api, offer: Offer) -> None:
    """How the API's paths name the kinds that an administrator has added. Raises Malformed for one that is not served.

    Named by the server itself: a plural can't be guessed.
    """
    for version, kind in sorted(offer.policy.kinds - RESOURCES.keys()):
        try:
            found = api.get(Resource(version, "", "APIResourceList", namespaced=False), "")
        except NotFound:
            found = {}
        for each in found.get("resources") or ():
            if each.get("kind") == kind and "/" not in each.get("name", "/"):
                if not each.get("namespaced"):
                    raise Malformed("allowed-kinds", f"{version}/{kind}", "leave it out: it is of no namespace")
                RESOURCES[version, kind] = Resource(version, each["name"], kind)
        if (version, kind) not in RESOURCES:
            raise Malformed("allowed-kinds", f"{version}/{kind}", "leave it out: this cluster does not serve it")


class Offering:
    """The offer of one allocator, kept as the file says; `apply` has it used from then on."""

    def __init__(
        self,
        allocator_of: Callable[[Offer], Allocator],
        path: Path,
        make: Make,
        *,
        imports: bool = False,
        repair: bool = False,
    ) -> None:
        """`make` makes an offer of a template, by all that is not in the file. Raises what `look` raises."""
        self._path, self._make, self._imports, self._repair = path, make, imports, repair
        self._stop = threading.Event()
        self._seen = ""
        offer = self._read()
        if offer is None:
            raise Malformed("deployment-template", str(path), "give a template: the file is empty")
        self.allocator = allocator_of(offer)
        self.refusals = 0

    def begin(self) -> None:
        """Try what was read at the cluster, and publish it. Raises RefusedByCluster, Malformed, ApiError.

        What was offered before is offered again, whatever the cluster says of it today: a quota may be used up.
        """
        offer = self.allocator.offer
        learn_kinds(self.allocator.api, offer)
        try:
            self._try(offer)
        except RefusedByCluster as error:
            if not self._is_published(offer):
                raise RefusedByCluster(f"{self._path}: {error}") from error
            say(logging.WARNING, "the cluster would not take the template now; it was offered before", error=str(error))
        publish_offer(self.allocator.api, self.allocator.namespace, offer)
        say(logging.INFO, "offers", name=offer.name, template=offer.template.digest, version=offer.template.version)

    def look(self) -> bool:
        """Look at the file; whether another template is offered from now on. What is wrong with it is logged."""
        try:
            offer = self._read()
            if offer is None or offer == self.allocator.offer:
                return False
            self._try(offer)
            publish_offer(self.allocator.api, self.allocator.namespace, offer)
        except MusterError as error:
            self.refusals += 1
            say(logging.WARNING, "the template has changed, and is wrong: the one before stays", error=str(error))
            return False
        self.allocator.offer = offer
        say(logging.INFO, "offers", name=offer.name, template=offer.template.digest, version=offer.template.version)
        return True

    def start(self, changed: Callable[[], None]) -> None:
        """Look again and again, in a thread; `changed` is called after each change."""

        def run() -> None:
            while not self._stop.wait(LOOK_SECONDS):
                if self.look():
                    changed()

        threading.Thread(target=run, name="template", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _read(self) -> Offer | None:
        """Of the file, checked; None where it is as it was seen last. Raises Malformed."""
        text = read_file(self._path)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest == self._seen:
            return None
        self._seen = digest
        template, notes = read_template(text, self._path.name, imports=self._imports, repair=self._repair)
        for note in notes:
            say(logging.INFO, "imported", place=note.place, what=note.text)
        offer = self._make(template)
        check_template(template, offer.policy)
        return offer

    def _try(self, offer: Offer) -> None:
        made = sample(offer, self.allocator.namespace)
        if made is None:
            say(logging.WARNING, "not tried at the cluster: a parameter has no default, and none could be guessed")
            return
        self.allocator.check_with_cluster(made["spec"]["manifest"])

    def _is_published(self, offer: Offer) -> bool:
        try:
            published = read_offer(self.allocator.api, self.allocator.namespace, offer.name)
        except (NotFound, Malformed):
            return False
        return published.template.digest == offer.template.digest
