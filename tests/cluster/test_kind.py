# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line on kind and on an existing cluster: what it asks and never does.

Both programs are scripts that note their arguments: this shows our side of the talk, not that kind understands it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
KIND = """#!/bin/sh
echo "kind $*" >> "$LOG"
case "$1 $2" in
"get clusters") cat "$CLUSTERS" ;;
"create cluster") echo "$4" >> "$CLUSTERS" ;;
"delete cluster") : > "$CLUSTERS" ;;
esac
"""
NOTE = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
[ "$1" = version ] && [ "$2" = --client ] && echo '{"gitVersion": "v1.37.2"}'
exit 0
"""


class Machine:
    """A PATH with kind, docker and kubectl, and what was asked of them."""

    def __init__(self, base: Path) -> None:
        self.log, clusters = base / "log", base / "clusters"
        clusters.touch()
        self.log.touch()
        for name, script in (("kind", KIND), ("docker", NOTE), ("kubectl", NOTE)):
            (base / name).write_text(script)
            (base / name).chmod(0o755)
        self.environment = {
            "PATH": f"{base}:/usr/bin:/bin",
            "HOME": str(base),
            "LOG": str(self.log),
            "CLUSTERS": str(clusters),
            "MUSTER_CLUSTER_DIR": str(base / "state"),
            "MUSTER_CACHE": str(base / "cache"),
        }

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        command = [sys.executable, "-m", "cluster", *arguments]
        done = subprocess.run(
            command, cwd=REPOSITORY, env={**self.environment, **environment}, capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def asked(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if "get clusters" not in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_kind_from_up_to_down(machine: Machine, tmp_path: Path) -> None:
    state = tmp_path / "state" / "muster"
    archive = tmp_path / "image.tar"
    archive.touch()
    assert "cluster muster (kind) is up" in machine.run("up")
    assert f"kind create cluster --name muster --kubeconfig {state}/kubeconfig --wait 180s" in machine.asked()
    machine.run("up")
    assert machine.asked()[-1] == f"kind export kubeconfig --name muster --kubeconfig {state}/kubeconfig"
    assert machine.run("env") == f"export KUBECONFIG={state}/kubeconfig\n"
    machine.run("load", str(archive))
    assert machine.asked()[-1] == f"kind load image-archive {archive} --name muster"
    machine.run("kill", "kube-apiserver")
    assert machine.asked()[-1] == "docker exec muster-control-plane pkill -KILL -x kube-apiserver"
    assert "cluster muster (kind): running" in machine.run("status")
    assert "cluster muster (kind) is removed" in machine.run("down")
    assert machine.asked()[-1] == f"kind delete cluster --name muster --kubeconfig {state}/kubeconfig"
    assert not state.exists()


def test_kind_cluster_of_somebody_else_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "clusters").write_text("muster\n")
    assert "a kind cluster muster exists which was not made here" in machine.run("up", code=1)
    assert "nothing to remove" in machine.run("down")
    assert not [line for line in machine.asked() if line.startswith(("kind create", "kind delete"))]


def test_existing_is_asked_and_never_changed(machine: Machine, tmp_path: Path) -> None:
    mine = {"MUSTER_CLUSTER": "existing", "KUBECONFIG": "/home/me/config"}
    assert "the cluster of KUBECONFIG is up" in machine.run("up", **mine)
    assert machine.asked()[-1].startswith("kubectl get --raw /readyz")
    assert machine.run("env", **mine) == "export KUBECONFIG=/home/me/config\n"
    assert "nothing was removed" in machine.run("down", **mine)
    assert "kill is not for an existing cluster" in machine.run("kill", "etcd", code=1, **mine)
    (tmp_path / "image.tar").touch()
    assert "push the image to a registry" in machine.run("load", str(tmp_path / "image.tar"), code=1, **mine)
    assert all(line.startswith(("kubectl get --raw", "kubectl version", "docker version")) for line in machine.asked())


def test_existing_that_does_not_answer(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "kubectl").write_text(
        '#!/bin/sh\ncase $1 in version) echo \'"gitVersion": "v1.37.0"\';; *) echo refused >&2; exit 1;; esac\n'
    )
    message = machine.run("up", code=1, MUSTER_CLUSTER="existing", KUBECONFIG="/home/me/config")
    assert "the cluster of KUBECONFIG=/home/me/config does not answer: refused. Check it with: kubectl" in message
