# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: python -m cluster up | down | status | load | env | tool | kill | install."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cluster import ClusterError, choose, embedded, existing, health, kind, machine, toolchain
from cluster.spec import CONTROL_PLANE, DEFAULT_NAMES, LEVELS, NODE, Spec, check_name

ENVIRONMENT = """\
environment:
  MUSTER_CLUSTER         existing, kind or embedded. Otherwise: kind when a Docker daemon answers and kind is
                         installed, else embedded. existing is the cluster of KUBECONFIG, used only when asked for
  MUSTER_CLUSTER_NAME    the name when --name is not given
  MUSTER_CLUSTER_DIR     where clusters keep their state (.cluster in the checkout)
  MUSTER_CLUSTER_SUBNET  a private IPv4 /20 for Pods and Services (else one that the host has no route to)
  MUSTER_CACHE           where built programs are kept (~/.cache/muster)
"""


def state_directory() -> Path:
    """Absolute, links resolved: it is the identity of the clusters in it."""
    return Path(os.environ.get("MUSTER_CLUSTER_DIR") or embedded.REPOSITORY / ".cluster").resolve()


def kubectl() -> str:
    """kubectl of the PATH when it is within the supported distance of one minor version, else one built here."""
    built = toolchain.path("kubectl")
    if found := shutil.which("kubectl"):
        command = [found, "version", "--client", "--output=json"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "KUBECONFIG": os.devnull})
        minor = re.search(r'"gitVersion": "v1\.(\d+)', done.stdout)
        ours = int(toolchain.pinned("kubernetes", "k8s.io/kubernetes").split(".")[1])
        if minor and abs(int(minor[1]) - ours) <= 1:
            return found
    return str(built) if built.exists() else toolchain.build(["kubectl"])["kubectl"]


class Cluster:
    """One cluster by name, with the provider that it was made with or, when there is none yet, the chosen one."""

    def __init__(self, level: str, name: str | None) -> None:
        self.level = level
        self.name = check_name(name or os.environ.get("MUSTER_CLUSTER_NAME") or DEFAULT_NAMES[level])
        self.directory = state_directory() / self.name

    def provider(self) -> str:
        override = os.environ.get("MUSTER_CLUSTER", "")
        made = self.made()
        if override and made and override not in (made, choose.EXISTING):
            raise ClusterError(
                f"cluster {self.name} is {made}, and MUSTER_CLUSTER={override}: choose another name (--name), "
                f"or remove it first: MUSTER_CLUSTER={made} python -m cluster down --name {self.name}"
            )
        if made and override != choose.EXISTING:
            return made
        return choose.choose(override, machine.facts(self.level), self.level)

    def made(self) -> str:
        if health.recorded(self.directory):
            return choose.EMBEDDED
        return choose.KIND if kind.recorded(self.directory) else ""

    def spec(self) -> Spec:
        spec = health.load_spec(self.directory)
        if spec is None:
            raise self.none()
        return spec

    def command(self, verb: str) -> str:
        named = "" if self.name == DEFAULT_NAMES[self.level] else f" --name {self.name}"
        level = "" if self.level == NODE or (named and verb != "up") else f" --level {self.level}"
        return f"python -m cluster {verb}{level}{named}"

    def kubeconfig(self) -> str:
        if os.environ.get("MUSTER_CLUSTER") == choose.EXISTING:
            return os.environ.get("KUBECONFIG", "")
        if not self.made():
            raise self.none()
        return str(self.directory / "kubeconfig")

    def none(self) -> ClusterError:
        where = f"there is no cluster {self.name} in {state_directory()}"
        return ClusterError(f"{where}. Start it: {self.command('up')}")


def up(cluster: Cluster, args: argparse.Namespace) -> None:
    begun = time.monotonic()
    provider = cluster.provider()
    if provider == choose.EXISTING:
        existing.check(kubectl())
    elif provider == choose.KIND:
        kind.up(cluster.name, cluster.directory)
    else:
        embedded.up(cluster.name, cluster.level, cluster.directory, args.audit)
    what = "the cluster of KUBECONFIG" if provider == choose.EXISTING else f"cluster {cluster.name} ({provider})"
    print(f"{what} is up, after {time.monotonic() - begun:.1f} s")
    print(f"  use it:     export KUBECONFIG={shlex.quote(cluster.kubeconfig())}")
    if provider != choose.EXISTING:
        print(f"  look:       {cluster.command('status')}")
        print(f"  remove it:  {cluster.command('down')}")


def down(cluster: Cluster, args: argparse.Namespace) -> None:
    if os.environ.get("MUSTER_CLUSTER") == choose.EXISTING:
        print("the existing cluster is yours: nothing was removed")
    elif cluster.made() == choose.KIND:
        kind.down(cluster.name, cluster.directory)
        print(f"cluster {cluster.name} (kind) is removed")
    elif embedded.down(cluster.directory):
        print(f"cluster {cluster.name} (embedded) is removed")
    else:
        print(f"there is no cluster {cluster.name} in {state_directory()}: nothing to remove")


def status(args: argparse.Namespace) -> int:
    """All clusters, or the one that was named; exit code 1 when one does not run or there is none."""
    if os.environ.get("MUSTER_CLUSTER") == choose.EXISTING:
        found = [existing.status(kubectl())]
    else:
        base, named = state_directory(), args.name or os.environ.get("MUSTER_CLUSTER_NAME")
        named = named or (DEFAULT_NAMES[args.level] if args.level else "")
        directories = sorted(d for d in base.iterdir() if d.is_dir()) if base.is_dir() else []
        wanted = [d for d in directories if not named or d.name == named]
        rows = [kind.status(d.name, d) if kind.recorded(d) else health.status(d) for d in wanted]
        found = [row for row in rows if row]
    if args.output == "json":
        print(json.dumps(found, indent=2))
    else:
        print("\n\n".join(map(_table, found)) or "no cluster here. Start one: python -m cluster up")
    return 0 if found and all(row["state"] == "running" for row in found) else 1


def _table(row: dict[str, Any]) -> str:
    where = row["provider"] + (f", level {row['level']}" if "level" in row else "")
    lines = [f"cluster {row['name']} ({where}): {row['state']}"]
    for title, field in (
        ("problem", "problem"),
        ("server", "server"),
        ("pods", "pod_cidr"),
        ("services", "service_cidr"),
    ):
        if row.get(field):
            lines.append(f"  {title:<11} {row[field]}")
    lines.append(f"  {'kubeconfig':<11} {row['kubeconfig']}")
    if row.get("logs"):
        lines.append(f"  {'logs':<11} {row['logs']}")
    if row.get("components"):
        lines.append(f"  {'COMPONENT':<24} {'PID':>8} {'READY':<6} {'RESTARTS':>8} {'MIB':>6}")
        for c in row["components"]:
            ready = "yes" if c["ready"] else "no"
            size = c["resident_bytes"] / 2**20
            lines.append(f"  {c['name']:<24} {c['pid'] or '-':>8} {ready:<6} {c['restarts']:>8} {size:>6.0f}")
        total = sum(c["resident_bytes"] for c in row["components"]) / 2**20
        lines.append(f"  {'total':<24} {'':>8} {'':<6} {'':>8} {total:>6.0f}")
    return "\n".join(lines)


def load(cluster: Cluster, args: argparse.Namespace) -> None:
    archive = Path(args.archive)
    if not archive.is_file():
        raise ClusterError(f"{archive} is not a file. Make one with: docker save IMAGE -o {archive}, or buildah push")
    if os.environ.get("MUSTER_CLUSTER") == choose.EXISTING:
        raise ClusterError(
            "an existing cluster pulls its images itself: push the image to a registry which it can read, "
            "and name it there (the image variable of the role, image.repository of the chart)"
        )
    if cluster.made() == choose.KIND:
        kind.load(cluster.name, archive)
        print(f"loaded {archive} into kind cluster {cluster.name}")
    else:
        print(embedded.load(cluster.spec(), archive))


def env(cluster: Cluster, args: argparse.Namespace) -> None:
    print(f"export KUBECONFIG={shlex.quote(cluster.kubeconfig())}")


def tool(args: argparse.Namespace) -> None:
    if args.tool == "kubectl":
        print(kubectl())
    elif args.tool == "helm" and (found := shutil.which("helm")):
        print(found)
    else:
        print(toolchain.build([args.tool])[args.tool])


def kill(cluster: Cluster, args: argparse.Namespace) -> None:
    if os.environ.get("MUSTER_CLUSTER") == choose.EXISTING:
        raise ClusterError("kill is not for an existing cluster: nothing of yours is ended")
    if cluster.made() == choose.KIND:
        kind.kill(cluster.name, args.component)
        print(f"killed {args.component} in kind cluster {cluster.name}")
    else:
        pid = embedded.kill(cluster.spec(), args.component)
        print(f"killed {args.component} (process {pid}) of cluster {cluster.name}")


def install(cluster: Cluster, args: argparse.Namespace) -> None:
    provider = cluster.provider()
    if provider == choose.EMBEDDED:
        embedded.prepare(cluster.level)
        kubectl()
    print(f"all that {provider} needs for level {cluster.level} is here")


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m cluster",
        description="A Kubernetes for demo and tests.",
        epilog=ENVIRONMENT,
        formatter_class=form,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, summary: str, detail: str = "") -> argparse.ArgumentParser:
        text = f"{summary}. {detail}".strip()
        return verbs.add_parser(name, help=summary, description=text, epilog=ENVIRONMENT, formatter_class=form)

    def which(command: argparse.ArgumentParser, default: str | None = NODE) -> None:
        names = ", ".join(f"{name} at level {level}" for level, name in DEFAULT_NAMES.items())
        command.add_argument(
            "--level",
            choices=LEVELS,
            default=default,
            help=f"{CONTROL_PLANE}: API server and controllers, no Pods, no root needed; {NODE} (default): real Pods",
        )
        command.add_argument("--name", help=f"name of the cluster (default: {names})")

    command = verb(
        "up", "start a cluster, or do nothing when it runs", "What an interrupted one left is cleared first."
    )
    which(command)
    command.add_argument("--audit", action="store_true", help="embedded: log every API request to logs/audit.log")
    which(verb("down", "end a cluster and remove all it had", "Its data goes with it."))
    command = verb("status", "show the clusters, or one of them", "Exit code 0: there is one, and all run.")
    which(command, None)
    command.add_argument("-o", "--output", choices=("table", "json"), default="table")
    command = verb("load", "load a container image from an archive")
    which(command)
    command.add_argument("archive", metavar="IMAGE_ARCHIVE", help="docker or OCI archive, as docker save writes it")
    which(verb("env", "print the line that points kubectl at a cluster", 'Use it as: eval "$(python -m cluster env)"'))
    command = verb("tool", "print the path of a program, built when it is missing")
    command.add_argument("tool", choices=("helm", "kubectl", "ctr"))
    command = verb(
        "kill",
        "SIGKILL one component, to see it come back",
        "`supervisor` ends the whole cluster, as a crash of its machine would.",
    )
    which(command)
    command.add_argument("component", metavar="COMPONENT", help="as status lists it, for example kube-apiserver")
    which(verb("install", "install and build what a cluster needs, without starting one"))
    return parser


VERBS = {"up": up, "down": down, "load": load, "env": env, "kill": kill, "install": install}


def main() -> int:
    args = _parser().parse_args()
    try:
        if args.verb == "status":
            return status(args)
        if args.verb == "tool":
            tool(args)
        else:
            VERBS[args.verb](Cluster(args.level, args.name), args)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
