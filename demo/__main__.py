# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the Distributor at work on the cluster that KUBECONFIG names: python -m demo, after playbooks/site.yml.

Each act runs a command that a user could have typed, and shows what the semaphore made of it, with the seconds it took.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jinja2

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, ApiError, NotFound, Resource
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError, TimedOut
from demo.watcher import Object, View, Watcher
from muster.table import semaphore_text

DEPLOYMENTS = Resource("apps/v1", "deployments", "Deployment")
KILLER = Path(__file__).parent / "kill-sidecar.yaml.j2"


class Demo:
    """The acts of the demo, on one Deployment and its semaphore of the same name."""

    def __init__(self, api: Api, namespace: str, name: str, timeout: float) -> None:
        self._namespace, self._name, self._timeout = namespace, name, timeout
        self._api = api
        self._watcher = Watcher(api, namespace, name)
        self._began = self._acted = time.monotonic()

    def run(self) -> None:
        view = self._open()
        view = self._scale(7, "Two more Pods: they wait, nobody loses what they hold", view)
        view = self._scale(2, "Down to two Pods: who ends hands on, and everybody who is left holds something", view)
        view = self._scale(5, "Up again", view)
        view = self._lose_a_pod(view)
        view = self._lose_a_sidecar(view)
        self._close(view)

    # ------------------------------------------------------------------------------------------ the acts

    def _open(self) -> View:
        replicas = self._deployment()["spec"]["replicas"]
        heading(f"{replicas} Pods share one semaphore, the ConfigMap {self._namespace}/{self._name}")
        view = self._until_settled(replicas)
        print(f"\n{view}\n\n  Every Pod has a sidecar that claims one resource for it. What is not free is waited for.")
        return view

    def _scale(self, pods: int, title: str, view: View) -> View:
        heading(title)
        self._kubectl("scale", f"deployment/{self._name}", f"--replicas={pods}")
        view = self._until_settled(pods)
        print(f"\n{view}")
        return view

    def _lose_a_pod(self, view: View) -> View:
        heading("A Pod is lost without a word: the first who waits is served")
        victim = view.semaphore["holders"][0]
        self._kubectl("delete", "pod", victim["holder"], "--grace-period=0", "--force")
        view = self._until_settled(len(view.pods))
        print(f"\n{view}\n\n  Fence {victim['fence']} is never given again: whoever still uses it can be told apart.")
        return view

    def _lose_a_sidecar(self, view: View) -> View:
        heading("A sidecar is killed (kill -9): it comes back, and its Pod has kept what it held")
        holder = view.semaphore["holders"][0]
        victim = view.pod(holder["uid"])
        before = restarts(victim)
        print(f"  $ kubectl apply -f {KILLER.parent.name}/{KILLER.name}   # SIGKILL for {holder['holder']}")
        self._kubectl_quietly("apply", "-f", "-", given=jinja2.Template(KILLER.read_text()).render(victim=victim))
        try:
            view = self._until(
                f"the sidecar of {holder['holder']} was started again",
                lambda view: restarts(view.pod(holder["uid"])) > before and sidecar(view.pod(holder["uid"]))["ready"],
            )
        finally:
            self._kubectl_quietly("delete", "pod", "kill-sidecar", "--ignore-not-found", "--wait=false")
        view = self._until_settled(len(view.pods))
        after = next((grant for grant in view.semaphore["holders"] if grant["uid"] == holder["uid"]), None)
        if after is None or after["fence"] != holder["fence"]:
            raise MusterError(f"{holder['holder']} held fence {holder['fence']} and now has {after}: this is a bug")
        print(f"  started again; {holder['holder']} holds {after['resource']} under fence {after['fence']}, as before")
        return view

    def _close(self, view: View) -> None:
        heading(f"So it is now, after {time.monotonic() - self._began:.0f} s")
        print(f"{view}\n\n{semaphore_text(view.semaphore)}\n")
        namespaced = f"kubectl -n {self._namespace}"
        print("Look further:")
        for line in environment():
            print(f"  {line}")
        for line, why in (
            (f"muster distributor status --namespace {self._namespace}", "this picture"),
            (f"{namespaced} logs -f deployment/{self._name} -c app", "what an app sees of it"),
            (f"{namespaced} get events --sort-by=.lastTimestamp", "who was granted what, and when"),
            (f"{namespaced} edit configmap {self._name}", "change distributor_capacity"),
            ("python -m demo", "once more"),
        ):
            print(f"  {line:60}  # {why}")
        print("Clean up:")
        print(f"  {'make distributor_delete':60}  # the workload and its namespace")
        print(f"  {'make cluster-down':60}  # the cluster, if made for this")

    # ------------------------------------------------------------------------------------------ tools

    def _deployment(self) -> Object:
        try:
            return self._api.get(DEPLOYMENTS, self._name, self._namespace)
        except NotFound:
            where = f"{self._namespace}/{self._name}"
            raise MusterError(
                f"there is no Deployment {where}: run `ansible-playbook playbooks/site.yml` first"
            ) from None

    def _until_settled(self, pods: int) -> View:
        return self._until(f"{pods} Pods run and each holds or waits", lambda view: view.settled(pods))

    def _until(self, wanted: str, true: Callable[[View], bool]) -> View:
        return self._watcher.until(wanted, true, since=self._acted, timeout=self._timeout)

    def _kubectl(self, *arguments: str) -> None:
        print(f"  $ kubectl -n {self._namespace} {' '.join(arguments)}")
        self._kubectl_quietly(*arguments)

    def _kubectl_quietly(self, *arguments: str, given: str | None = None) -> None:
        self._acted = time.monotonic()
        command = ["kubectl", "--namespace", self._namespace, *arguments]
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, text=True, timeout=self._timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise TimedOut(f"waited {self._timeout:g} s for `{' '.join(command)}`") from None
        if done.returncode != 0:
            raise MusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


def sidecar(pod: Object) -> Object:
    status: Object = pod["status"]["initContainerStatuses"][0]
    return status


def restarts(pod: Object) -> int:
    return int(sidecar(pod)["restartCount"])


def heading(text: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}▌ {text}{plain}", flush=True)


def environment() -> list[str]:
    """What a new shell needs to run the commands that follow."""
    lines = [f"export KUBECONFIG={os.environ['KUBECONFIG']}"] if os.environ.get("KUBECONFIG") else []
    places = [Path(found).parent for tool in ("kubectl", "muster") if (found := shutil.which(tool))]
    own = [str(place) for place in dict.fromkeys(places) if place not in (Path("/usr/bin"), Path("/usr/local/bin"))]
    return [*lines, *([f"export PATH={':'.join(own)}:$PATH"] if own else [])]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__.splitlines()[0])
    parser.add_argument("--namespace", default="distributor", help="(default: %(default)s)")
    parser.add_argument("--name", default="distributor", help="Deployment and semaphore (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="for each act (default: 120)")
    args = parser.parse_args()
    if not shutil.which("kubectl"):
        print("demo: kubectl is not on PATH. `make demo` brings one, or install it", file=sys.stderr)
        return 1
    try:
        Demo(Api(Credentials.load({})), args.namespace, args.name, args.timeout).run()
    except (MusterError, ApiError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
