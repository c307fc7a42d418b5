# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One cache of all VirtualMachines in a process of its own, to be measured: bench/cache.py starts it.

    python -m bench.cached muster|official KUBECONFIG NAMESPACE

It prints a line of JSON when it has all objects, and one for each line that it reads: how it stands then.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

GROUP, VERSION, PLURAL = "muster.dev", "v1alpha1", "virtualmachines"


def muster(kubeconfig: str, namespace: str) -> tuple[Callable[[], bool], Callable[[], int]]:
    """Whether it has all, and how many objects it has."""
    from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Resource
    from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
    from muster.frame.cache import Cache

    api = Api(Credentials.load({"kubeconfig": kubeconfig}))
    cache = Cache(api, Resource(f"{GROUP}/{VERSION}", PLURAL, "VirtualMachine"), namespace)
    cache.start()
    return cache.synced.is_set, cache.__len__


def official(kubeconfig: str, namespace: str) -> tuple[Callable[[], bool], Callable[[], int]]:
    """Its SharedInformer, and what it needs to work with custom objects at all: a list that is no dictionary."""
    from kubernetes import client, config
    from kubernetes.informer import SharedInformer

    config.load_kube_config(kubeconfig)
    objects = client.CustomObjectsApi()

    def listed(**options: Any) -> Any:
        found: Any = objects.list_namespaced_custom_object(GROUP, VERSION, plural=PLURAL, **options)
        if options.get("watch"):
            return found
        version = found["metadata"]["resourceVersion"]
        return SimpleNamespace(items=found["items"], metadata=SimpleNamespace(resource_version=version))

    listed.__doc__ = ":return: object"  # by this the client tells what a watch brings
    informer = SharedInformer(listed, namespace=namespace)
    informer.start()
    return lambda: informer._resource_version is not None, lambda: len(informer.cache.list_keys())


def standing(count: int, began: float) -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text()
    sizes = {name: int(kib) for name, kib in re.findall(r"^(VmRSS|VmHWM):\s+(\d+)", status, re.MULTILINE)}
    return {
        "objects": count,
        "seconds": round(time.monotonic() - began, 3),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
        "resident_mib": round(sizes["VmRSS"] / 1024, 1),
        "peak_mib": round(sizes["VmHWM"] / 1024, 1),
    }


def main() -> None:
    which, kubeconfig, namespace = sys.argv[1:]
    print(json.dumps({"empty": standing(0, time.monotonic())}), flush=True)
    began = time.monotonic()
    has_all, count = (muster if which == "muster" else official)(kubeconfig, namespace)
    while not has_all():
        time.sleep(0.01)
    print(json.dumps(standing(count(), began)), flush=True)
    for _line in sys.stdin:
        print(json.dumps(standing(count(), began)), flush=True)


if __name__ == "__main__":
    main()
