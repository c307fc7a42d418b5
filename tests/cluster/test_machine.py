# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of the machine: processes by more than their pid, cgroups, Go, packages, images, certificates."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import stat
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from cluster import ClusterError, health, image, kernel, nodespace, packages, pki, toolchain
from cluster.embedded import clear, down
from cluster.kernel import Process
from cluster.nodespace import Hierarchy
from cluster.spec import NODE, make


@pytest.fixture
def sleeper() -> subprocess.Popen[bytes]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_process_is_alive_until_it_ends(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    Process.of(sleeper.pid).save(tmp_path / "p.json")
    process = Process.load(tmp_path / "p.json")
    assert process and process.alive()
    assert process.end(((signal.SIGKILL, 10.0),))
    assert not process.alive()  # a zombie until its parent looks: not alive all the same


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another boot"}])
def test_reused_pid_is_neither_alive_nor_signalled(sleeper: subprocess.Popen[bytes], change: dict[str, object]) -> None:
    stranger = replace(Process.of(sleeper.pid), **change)
    assert not stranger.alive()
    assert stranger.end(((signal.SIGKILL, 10.0),))
    assert sleeper.poll() is None


def test_record_cut_short_is_no_process(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"pid": 12')
    assert Process.load(tmp_path / "p.json") is None
    assert Process.load(tmp_path / "missing.json") is None


def test_stat_of_a_process_whose_name_has_brackets() -> None:
    assert kernel.stat_fields("12 (a) b (c) S 1 2\n")[:2] == ["S", "1"]


def test_stale_record_is_cleared_and_down_again_finds_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "gone"
    directory.mkdir()
    (directory / "spec.json").write_text(make("gone", NODE, str(directory)).dump())
    Process(2**22 - 1, 1, "another boot").save(directory / "supervisor.json")
    (directory / "logs").mkdir()
    found = health.status(directory)
    assert found and found["state"] == "ended"
    assert down(directory)
    assert not directory.exists()
    assert not down(directory)


def test_directory_of_something_else_is_never_cleared(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years")
    with pytest.raises(ClusterError, match="is not the state of a cluster"):
        clear(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


HYBRID = """\
30 20 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
"""


def test_hierarchies_of_cgroup_v1_and_v2() -> None:
    assert nodespace.hierarchies(HYBRID) == [
        Hierarchy("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct"),
        Hierarchy("/sys/fs/cgroup/systemd", "cgroup", "xattr,name=systemd"),
        Hierarchy("/sys/fs/cgroup/unified", "cgroup2", ""),
    ]
    unified = "30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
    assert nodespace.hierarchies(unified) == [Hierarchy("/sys/fs/cgroup", "cgroup2", "")]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("go1.26.8 auto", ""),
        ("go1.27 local", ""),
        ("go1.22.1 auto", ""),  # fetches the toolchain that go.mod names
        ("go1.22.1 local", "Go 1.22 is too old. Install Go 1.26 or newer"),
        ("go1.19 ", "Go 1.19 is too old. Install Go 1.26 or newer"),
        ("nonsense", "`go env GOVERSION` failed: nonsense"),
    ],
)
def test_go_versions(answer: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "go").write_text(f"#!/bin/sh\nprintf '%s\\n' {answer}\n")
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = toolchain.go_problem()
    assert found.startswith(problem) if problem else found == ""


def test_no_go_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MUSTER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ClusterError, match=r"etcd must be built, but Go is not on the PATH\. Install Go 1\.26"):
        toolchain.build(["etcd"])


def test_cache_key_follows_what_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = toolchain.key("helm")
    (tmp_path / "helm").mkdir()
    for name in ("go.mod", "go.sum"):
        (tmp_path / "helm" / name).write_bytes((toolchain.MODULES / "helm" / name).read_bytes())
    monkeypatch.setattr(toolchain, "MODULES", tmp_path)
    assert toolchain.key("helm") == before
    with (tmp_path / "helm" / "go.sum").open("a") as file:
        file.write("\n")
    assert toolchain.key("helm") != before


def test_built_programs_are_found_without_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    toolchain.path("etcd").parent.mkdir(parents=True)
    toolchain.path("etcd").touch()
    assert toolchain.build(["etcd"]) == {"etcd": str(toolchain.path("etcd"))}


def test_kubernetes_reports_the_version_that_is_pinned() -> None:
    version = toolchain.pinned("kubernetes", "k8s.io/kubernetes")
    assert f"gitVersion={version} " in toolchain.ldflags("kubernetes")


def test_packages_are_named_by_what_is_missing() -> None:
    assert packages.missing(lambda program: "" if program in ("nft", "cni:ptp") else "/bin/x") == [
        "containernetworking-plugins",
        "nftables",
    ]


def test_image_is_a_docker_archive_whose_digest_fits(tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_text("#!/bin/sh\nprintf 'busybox\\nsh\\nsleep\\n'\n")
    busybox.chmod(0o755)
    image.write(tmp_path / "a.tar", "example.org/a:1", str(busybox))
    image.write(tmp_path / "b.tar", "example.org/a:1", str(busybox))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        parts = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    manifest = json.loads(parts["manifest.json"])[0]
    layer = parts[manifest["Layers"][0]]
    assert json.loads(parts[manifest["Config"]])["rootfs"]["diff_ids"] == [
        f"sha256:{hashlib.sha256(layer).hexdigest()}"
    ]
    with tarfile.open(fileobj=io.BytesIO(layer)) as content:
        assert content.getmember("bin/sh").linkname == "busybox"
        assert content.getmember("bin/busybox").mode == 0o755


def test_certificates_name_what_clients_dial_and_keys_are_private(tmp_path: Path) -> None:
    spec = make("one", NODE, str(tmp_path))
    pki.write(spec, tmp_path / "pki")

    def load(name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((tmp_path / "pki" / f"{name}.crt").read_bytes())

    names = load("apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(a) for a in names.get_values_for_type(x509.IPAddress)}
    assert {spec.service_ip, spec.address, "127.0.0.1"} <= addresses
    assert "kubernetes.default.svc" in names.get_values_for_type(x509.DNSName)
    for leaf in pki.leaves(spec):
        load(leaf.file).verify_directly_issued_by(load("ca"))
    load("etcd-client").verify_directly_issued_by(load("etcd-ca"))
    node = load("kubelet").subject
    assert node.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:one"
    assert node.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "pki").iterdir()} == {0o600}
