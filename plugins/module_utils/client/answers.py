# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was asked of the API server, and what a bad answer to it means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials

Object = dict[str, Any]


class Resource(NamedTuple):
    """A kind of object, as the API's paths name it."""

    api_version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group as RBAC names it; "" is the core group."""
        return self.api_version.rpartition("/")[0]


CONFIGMAPS: Final = Resource("v1", "configmaps", "ConfigMap")
PODS: Final = Resource("v1", "pods", "Pod")
EVENTS: Final = Resource("v1", "events", "Event")
STATEFUL_SETS: Final = Resource("apps/v1", "statefulsets", "StatefulSet")
DEPLOYMENTS: Final = Resource("apps/v1", "deployments", "Deployment")
NAMESPACES: Final = Resource("v1", "namespaces", "Namespace", namespaced=False)
LEASES: Final = Resource("coordination.k8s.io/v1", "leases", "Lease")
SELF_SUBJECT_REVIEWS: Final = Resource("authentication.k8s.io/v1", "selfsubjectreviews", "SelfSubjectReview", False)


class ApiError(MusterError):
    """The API server, or the way to it, said no.

    `status` is the HTTP status (0: there was no answer), `reason` the API's one-word reason, `message` the server's own
    words, `retry_after` the seconds that it asked for (None: it did not), `details` its machine-readable part.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        retry_after: float | None = None,
        *,
        asked: Asked | None = None,
        remedy: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        answer = f"{status} {reason}" if status else reason
        text = f"{asked}: {answer}: {message}" if asked else f"{answer}: {message}"
        super().__init__(f"{text.rstrip('.')}. {remedy}" if remedy else text)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.remedy = remedy
        self.details = dict(details or {})


class NotFound(ApiError):
    """404: the object, its namespace, or the whole kind does not exist."""


class Conflict(ApiError):
    """409: somebody wrote first, or a precondition does not hold."""


class AlreadyExists(ApiError):
    """409: an object of this name is there already."""


class Gone(ApiError):
    """410: that version is no longer known; list again."""


class Forbidden(ApiError):
    """403: RBAC (or admission) does not allow it."""


class Unauthorized(ApiError):
    """401: the server does not know who we are."""


class Invalid(ApiError):
    """422: the object breaks its schema."""


class Throttled(ApiError):
    """429: later; see `retry_after`."""


class ServerError(ApiError):
    """5xx: after a write it may or may not have been applied."""


class Unreachable(ApiError):
    """Nothing was sent: safe to repeat."""


class LostAnswer(ApiError):
    """It was sent and no complete answer came: it may or may not have been applied."""


_BY_STATUS: Final[Mapping[int, type[ApiError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Throttled,
}
_REASONS: Final[Mapping[int, str]] = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
}


class Asked(NamedTuple):
    """One request, in the words of RBAC; what an error message begins with."""

    verb: str
    resource: Resource
    namespace: str | None = None
    name: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.verb} {self.rbac_resource} {where}".rstrip()

    @property
    def rbac_resource(self) -> str:
        return f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural

    def collection(self) -> str:
        """The path of the collection in which the object is."""
        return self._replace(name="", subresource="").path()

    def path(self) -> str:
        """The path of the object. Raises Malformed for a name that can't be part of a path."""
        version = self.resource.api_version
        parts = ["api" if "/" not in version else "apis", *version.split("/")]
        if self.resource.namespaced and self.namespace:
            parts += ["namespaces", self.namespace]
        parts += [part for part in (self.resource.plural, self.name, self.subresource) if part]
        for part in parts:
            if part in (".", "..") or "/" in part or "%" in part:
                raise Malformed(f"the name of {self.resource.kind}", part, "it can't be a path segment of the API")
        return "/" + "/".join(quote(part, safe=":") for part in parts)


def _remedy(status: int, asked: Asked, details: Mapping[str, Any], message: str, credentials: Credentials) -> str:
    """What the user can do about it, where that is known."""
    kind, plural, namespace = asked.resource.kind, asked.rbac_resource, asked.namespace
    if status == 401:
        return f"The credentials come from {credentials.source}: renew them, or name others"
    if status == 403:
        scope = f"in namespace {namespace}, by a Role and a RoleBinding" if namespace else "by a ClusterRole"
        group = asked.resource.group or '""'
        return f"Allow the verb {asked.verb} on {plural} (apiGroup {group}) {scope}; identity: {credentials.source}"
    if status == 404 and details.get("kind") == "namespaces":
        return f"Create the namespace first: kubectl create namespace {details.get('name')}"
    if status == 404 and not details.get("name"):
        return f"This server does not serve {kind} in {asked.resource.api_version}: is its CRD installed?"
    if status == 400 and "HTTP request to an HTTPS server" in message:
        return "The server's URL has to begin with https://"
    if 300 <= status < 400:
        return f"Redirects are not followed: is {credentials.server} really an API server?"
    return ""


def failure(response: BaseHTTPResponse, body: bytes, asked: Asked, credentials: Credentials) -> ApiError:
    """The error that an answer with a bad status stands for."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("kind") != "Status":
        document = {"message": body[:500].decode("utf-8", "replace").strip() or "(no message)"}
    after = response.headers.get("Retry-After", "")
    return status_error(response.status, document, asked, credentials, float(after) if after.isdigit() else None)


def status_error(
    code: int, document: Object, asked: Asked, credentials: Credentials, retry_after: float | None = None
) -> ApiError:
    reason = str(document.get("reason") or _REASONS.get(code) or "Error")
    details = document.get("details") or {}
    message = str(document.get("message") or "(no message)")
    error = AlreadyExists if reason == "AlreadyExists" else _BY_STATUS.get(code)
    if error is None:
        error = ServerError if code >= 500 else ApiError
    if retry_after is None and details.get("retryAfterSeconds"):
        retry_after = float(details["retryAfterSeconds"])
    remedy = _remedy(code, asked, details, message, credentials)
    return error(code, reason, message, retry_after, asked=asked, remedy=remedy, details=details)
