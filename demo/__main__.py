# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show Muster at work on the cluster that KUBECONFIG names: python -m demo, after playbooks/site.yml.

Each act runs a command that a user could have typed, and shows what became of it, with the seconds it took.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, ApiError, NotFound, Resource
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import said
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from demo.allocator import NAME as ALLOCATOR
from demo.allocator import Allocations
from demo.machines import NAME as VM_OPERATOR
from demo.machines import Machines
from demo.partitions import NAMESPACE as PARTITIONS
from demo.partitions import Ranges
from demo.stage import Stage, environment, heading
from demo.swarm import NAMESPACE as SWARM_OPERATOR
from demo.swarm import Swarm
from demo.watcher import Object, View, Watcher
from muster.table import semaphore_text

DEPLOYMENTS = Resource("apps/v1", "deployments", "Deployment")
TICKETS = Path(__file__).resolve().parent / "tickets.yml"
NAMESPACE = "distributor"  # the role's own


class Demo(Stage):
    """The acts of the demo, on one Deployment and its semaphore of the same name.

    `share`: so many permits does each Pod claim.
    """

    def __init__(
        self, api: Api, namespace: str, name: str, timeout: float, *, engine: str = "annotations", share: int = 1
    ) -> None:
        super().__init__(namespace, timeout)
        self._name, self._share, self._api = name, share, api
        self._watcher = Watcher(api, namespace, name, engine)
        self._began = time.monotonic()

    def run(self) -> View:
        """With annotations: Pods come and go, and are lost."""
        view = self._open()
        view = self._scale(7, "Two more Pods: they wait, nobody loses what they hold", view)
        view = self._scale(2, "Down to two Pods: who ends hands on, and everybody who is left holds something", view)
        view = self._scale(5, "Up again", view)
        view = self._lose_a_pod(view)
        return self._lose_a_sidecar(view)

    def run_tickets(self) -> None:
        """With tickets: all or nothing of several resources, and what nobody may do."""
        heading("The other engine, tickets: one Lease a claim. Each Pod wants 2 gpu and a licence, all or nothing")
        self._play()
        try:
            view = self._until_settled(4)
            print(
                f"\n{view}\n\n  Of 4 gpu and 2 licences two Pods have all that they want; two have nothing, and wait."
            )
            view = self._lose_a_pod(view)
            self._try_to_cheat(view)
        finally:
            self._play("distributor_state=absent")

    # ------------------------------------------------------------------------------------------ the acts

    def _open(self) -> View:
        replicas = self._deployment()["spec"]["replicas"]
        heading(f"{replicas} Pods share one semaphore, the ConfigMap {self.namespace}/{self._name}")
        view = self._until_settled(replicas)
        print(f"\n{view}\n\n  Every Pod has a sidecar that claims one resource for it. What is not free is waited for.")
        return view

    def _scale(self, pods: int, title: str, view: View) -> View:
        heading(title)
        self.kubectl("scale", f"deployment/{self._name}", f"--replicas={pods}")
        view = self._until_settled(pods)
        print(f"\n{view}")
        return view

    def _lose_a_pod(self, view: View) -> View:
        heading("A Pod is lost without a word: the first who waits is served")
        victim = view.semaphore["holders"][0]
        self.kubectl("delete", "pod", victim["holder"], "--grace-period=0", "--force")
        view = self._until_settled(len(view.pods))
        print(f"\n{view}\n\n  Fence {victim['fence']} is never given again: whoever still uses it can be told apart.")
        return view

    def _lose_a_sidecar(self, view: View) -> View:
        heading("A sidecar is killed (kill -9): it comes back, and its Pod has kept what it held")
        holder = view.semaphore["holders"][0]
        victim = view.pod(holder["uid"])
        before = restarts(victim)
        with self.killed(victim):
            self._until(
                f"the sidecar of {holder['holder']} was started again",
                lambda view: restarts(view.pod(holder["uid"])) > before and sidecar(view.pod(holder["uid"]))["ready"],
            )
        view = self._until_settled(len(view.pods))
        after = next((grant for grant in view.semaphore["holders"] if grant["uid"] == holder["uid"]), None)
        if after is None or after["fence"] != holder["fence"]:
            raise MusterError(f"{holder['holder']} held fence {holder['fence']} and now has {after}: this is a bug")
        what = said(after["resources"])
        print(f"  started again; {holder['holder']} holds {what} under fence {after['fence']}, as before")
        return view

    def _try_to_cheat(self, view: View) -> None:
        heading("Somebody wants to want less than a ticket says, to be served before its turn: the cluster says no")
        ticket = f"{self._name}.{view.semaphore['waiters'][0]['uid']}"
        answer = self.kubectl("annotate", "--overwrite", "lease", ticket, 'muster.dev/want={"licence":1}', refused=True)
        print(textwrap.indent(textwrap.fill(answer, 96), "  "))

    def _play(self, *changes: str) -> None:
        """Deploy the second workload by the playbook, as a user would; or remove it."""
        elsewhere = [] if self.namespace == NAMESPACE else [f"distributor_namespace={self.namespace}"]
        extra = [word for change in (*elsewhere, *changes) for word in ("-e", change)]
        typed = ["ansible-playbook", "playbooks/distributor.yml", "-e", f"@demo/{TICKETS.name}", *extra]
        print(f"  $ {shlex.join(typed)}", flush=True)
        playbook = TICKETS.parents[1] / "playbooks" / "distributor.yml"
        self.command(["ansible-playbook", str(playbook), "-e", f"@{TICKETS}", *extra], seconds=3 * self.timeout)

    def close(self, view: View) -> None:
        """Say what there is now, and what can be done with it."""
        heading(f"So it is now, after {time.monotonic() - self._began:.0f} s")
        print(f"{view}\n\n{semaphore_text(view.semaphore)}\n")
        namespaced = f"kubectl -n {self.namespace}"
        print("Look further:")
        for line in environment():
            print(f"  {line}")
        for line, why in (
            (f"muster distributor status --namespace {self.namespace}", "this picture"),
            (f"{namespaced} logs -f deployment/{self._name} -c app", "what an app sees of it"),
            (f"{namespaced} get events --sort-by=.lastTimestamp", "who was granted what, and when"),
            (f"{namespaced} edit configmap {self._name}", "change distributor_capacity"),
            (f"muster leaders --namespace {VM_OPERATOR}", "who leads the operator, and since when"),
            (f"muster swarm status --namespace {SWARM_OPERATOR}", "who has which jobs"),
            (f"kubectl -n {ALLOCATOR} get instances", "who has which instances"),
            (f"muster partitions list --namespace {PARTITIONS}", "who has which range"),
            ("python -m demo", "once more"),
        ):
            print(f"  {line:60}  # {why}")
        print("Clean up:")
        print(f"  {'make distributor_delete':60}  # the workload and its namespace")
        print(f"  {'ansible-playbook playbooks/vm_operator.yml -e vm_operator_state=absent':60}  # the operator")
        print(f"  {'ansible-playbook playbooks/swarm_operator.yml -e swarm_operator_state=absent':60}  # the other one")
        print(f"  {'ansible-playbook playbooks/allocator.yml -e allocator_state=absent':60}  # the allocator")
        print(f"  {'ansible-playbook playbooks/partitions.yml -e partitions_state=absent':60}  # and the partitions")
        print(f"  {'make cluster-down':60}  # the cluster, if made for this")

    # ------------------------------------------------------------------------------------------ tools

    def _deployment(self) -> Object:
        try:
            return self._api.get(DEPLOYMENTS, self._name, self.namespace)
        except NotFound:
            where = f"{self.namespace}/{self._name}"
            raise MusterError(
                f"there is no Deployment {where}: run `ansible-playbook playbooks/site.yml` first"
            ) from None

    def _until_settled(self, pods: int) -> View:
        return self._until(
            f"{pods} Pods run and each holds or waits", lambda view: view.settled(pods, view.permits // self._share)
        )

    def _until(self, wanted: str, true: Callable[[View], bool]) -> View:
        return self._watcher.until(wanted, true, since=self.acted, timeout=self.timeout)


def sidecar(pod: Object) -> Object:
    status: Object = pod["status"]["initContainerStatuses"][0]
    return status


def restarts(pod: Object) -> int:
    return int(sidecar(pod)["restartCount"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__.splitlines()[0])
    parser.add_argument("--namespace", default=NAMESPACE, help="(default: %(default)s)")
    parser.add_argument("--name", default="distributor", help="Deployment and semaphore (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="for each act (default: 120)")
    args = parser.parse_args()
    if not shutil.which("kubectl"):
        print("demo: kubectl is not on PATH. `make demo` brings one, or install it", file=sys.stderr)
        return 1
    try:
        api = Api(Credentials.load({}))
        demo = Demo(api, args.namespace, args.name, args.timeout)
        view = demo.run()
        Demo(api, args.namespace, "tickets", args.timeout, engine="tickets", share=3).run_tickets()
        Machines(api, args.timeout).run()
        Swarm(api, args.timeout).run()
        Allocations(api, args.timeout).run()
        Ranges(api, args.timeout).run()
        demo.close(view)
    except (MusterError, ApiError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
