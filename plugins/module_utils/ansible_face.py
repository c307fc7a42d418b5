# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a verb an Ansible module: argument spec in, exit_json or fail_json out.

A module file is its documentation, its argument spec and one call of `run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, ApiError
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials, MissingLibrary
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError, TimedOut

Result = dict[str, Any]

# The same names, types and aliases as kubernetes.core's AUTH_ARG_SPEC; documented in the fragment k8s_auth_options
AUTH_SPEC: Final[dict[str, dict[str, Any]]] = {
    "kubeconfig": {"type": "raw", "no_log": True},
    "context": {"type": "str"},
    "host": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "validate_certs": {"type": "bool", "aliases": ["verify_ssl"]},
    "ca_cert": {"type": "path", "aliases": ["ssl_ca_cert"]},
    "client_cert": {"type": "path", "aliases": ["cert_file"]},
    "client_key": {"type": "path", "aliases": ["key_file"]},
    "proxy": {"type": "str"},
    "no_proxy": {"type": "str"},
    "proxy_headers": {
        "type": "dict",
        "options": {
            "proxy_basic_auth": {"type": "str", "no_log": True},
            "basic_auth": {"type": "str", "no_log": True},
            "user_agent": {"type": "str"},
        },
    },
    "persist_config": {"type": "bool"},
    "impersonate_user": {"type": "str"},
    "impersonate_groups": {"type": "list", "elements": "str"},
}


def run(argument_spec: Mapping[str, Any], verb: Callable[..., Result], *, lazily: bool = False, **rules: Any) -> None:
    """Run one verb as an Ansible module; does not return.

    The call is `verb(api, **options, check_mode=...)`, with the options of `argument_spec`; it returns at least
    `changed`, its `before` and `after` become the diff, its `warnings` are shown as such. The options of authentication
    are added to the spec and kept from the verb. A `namespace` that is not set becomes that of the context (or Pod),
    else `default`. `rules` are AnsibleModule's required_if, mutually_exclusive and so on. MusterError becomes
    fail_json; any other exception is a bug and keeps its traceback.

    `lazily`: in place of the Api the verb gets the options of authentication, and connects by itself if it needs to.
    """
    module = AnsibleModule({**AUTH_SPEC, **argument_spec}, supports_check_mode=True, **rules)
    _tune_censorship(module)
    try:
        options = {name: value for name, value in module.params.items() if name not in AUTH_SPEC}
        if lazily:
            login = {name: module.params[name] for name in AUTH_SPEC}
            result = dict(verb(login, **options, check_mode=module.check_mode))
        else:
            result = _connected(module, verb, options)
    except MusterError as error:
        _fail(module, error)
    for warning in result.pop("warnings", ()):
        module.warn(warning)
    if module._diff and "before" in result and "after" in result:
        result["diff"] = {"before": result["before"] or {}, "after": result["after"] or {}}
    module.exit_json(**result)


def _connected(module: AnsibleModule, verb: Callable[..., Result], options: Result) -> Result:
    credentials = Credentials.load(module.params)
    if "namespace" in options and options["namespace"] is None:
        options["namespace"] = credentials.namespace or "default"
    api = Api(credentials)
    try:
        return dict(verb(api, **options, check_mode=module.check_mode))
    finally:
        api.close()


def _tune_censorship(module: AnsibleModule) -> None:
    """Hide what is secret and nothing else: with a short name censored, no message could be read.

    A kubeconfig's path and what it says of clusters and contexts is not secret; a password in a proxy's URL is.
    """
    kubeconfig = module.params["kubeconfig"]
    if isinstance(kubeconfig, dict):
        users = [item.get("user") for item in kubeconfig.get("users") or () if isinstance(item, dict)]
        options = [module.params[option] for option in ("api_key", "password", "proxy_headers")]
        module.no_log_values -= _texts(kubeconfig) - _texts(users) - _texts(options)
    else:
        module.no_log_values.discard(kubeconfig)
    password = urlsplit(module.params["proxy"] or "").password
    if password:
        module.no_log_values.add(password)


def _texts(value: Any) -> set[str]:
    """All texts in nested mappings and lists, but for the keys."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*map(_texts, value))
    return {str(value)}


def _fail(module: AnsibleModule, error: MusterError) -> NoReturn:
    facts: dict[str, Any] = {}
    if isinstance(error, ApiError):
        facts = {"status": error.status, "reason": error.reason, "details": error.details}
    elif isinstance(error, MissingLibrary):
        facts = {"reason": "MissingLibrary"}
        module.fail_json(msg=missing_required_lib(error.library, reason=error.purpose), **facts)
    elif isinstance(error, TimedOut):
        facts = {"reason": "TimedOut", "last_seen": error.last_seen}
    elif isinstance(error, Malformed):
        facts = {"reason": "Malformed", "field": error.field}
    else:
        facts = {"reason": type(error).__name__}
    module.fail_json(msg=str(error), **facts)
    raise AssertionError("fail_json returns never")
