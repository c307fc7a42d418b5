# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which cluster to use: the user's own, kind, or the embedded one. Pure; `machine` gathers the facts."""

from __future__ import annotations

from dataclasses import dataclass

from cluster import ClusterError
from cluster.spec import NODE

EXISTING, KIND, EMBEDDED = "existing", "kind", "embedded"
PROVIDERS = (EXISTING, KIND, EMBEDDED)


@dataclass(frozen=True)
class Facts:
    """What there is on this machine. Problems are sentences with their remedy, empty when there is none."""

    kubeconfig: str = ""
    docker_problem: str = ""
    kind_installed: bool = False
    linux: bool = True
    root: bool = True
    can_install: bool = True
    unbuilt: tuple[str, ...] = ()
    go_problem: str = ""
    packages: tuple[str, ...] = ()


def problems(provider: str, facts: Facts, level: str) -> list[str]:
    """Why `provider` cannot be used here at this level, each with its remedy; empty when it can."""
    found: list[str] = []
    if provider == EXISTING:
        if not facts.kubeconfig:
            found.append("KUBECONFIG is not set. Set it to the kubeconfig of a cluster that tests may write to.")
        return found
    if provider == KIND:
        if facts.docker_problem:
            found.append(facts.docker_problem)
        if not facts.kind_installed:
            found.append("kind is not on the PATH. Install it: go install sigs.k8s.io/kind@latest")
        return found
    if not facts.linux:
        found.append("it runs on Linux only. Use kind here (Docker Desktop, then kind), or a Linux machine.")
    if level == NODE and not facts.root:
        found.append(
            "level node needs root (namespaces, mounts). Run it with sudo -E, or use --level control-plane, "
            "which needs no root but runs no Pods."
        )
    if level == NODE and facts.packages and not (facts.root and facts.can_install):
        found.append(
            f"missing packages: {', '.join(facts.packages)}. On Debian: sudo apt-get install {' '.join(facts.packages)}"
        )
    if facts.unbuilt and facts.go_problem:
        found.append(facts.go_problem)
    return found


def choose(override: str, facts: Facts, level: str) -> str:
    """The provider to use. `override` is MUSTER_CLUSTER or empty. Raises ClusterError naming what is missing."""
    if override and override not in PROVIDERS:
        raise ClusterError(f"MUSTER_CLUSTER={override!r} is none of {', '.join(PROVIDERS)}")
    if override:
        if found := problems(override, facts, level):
            raise ClusterError(_sentence([override], facts, level, f"MUSTER_CLUSTER={override} cannot be used here:"))
        return override
    for provider in (KIND, EMBEDDED):  # existing only on purpose: a test must not write to whatever KUBECONFIG names
        if not problems(provider, facts, level):
            return provider
    found = list(PROVIDERS)
    raise ClusterError(_sentence(found, facts, level, "there is no cluster to use here. One of these is needed:"))


def _sentence(providers: list[str], facts: Facts, level: str, head: str) -> str:
    lines = [head]
    for provider in providers:
        reasons = problems(provider, facts, level) or ["set MUSTER_CLUSTER=existing to use the cluster of KUBECONFIG."]
        lines += [f"  {provider}: {reasons[0]}"] + [f"  {' ' * len(provider)}  {reason}" for reason in reasons[1:]]
    return "\n".join(lines)
