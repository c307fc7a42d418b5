#!/usr/bin/env python3
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the container image of Muster's processes: with Docker where a daemon answers, with buildah elsewhere.

The result is an archive under `build/` that `docker load`, `kind load image-archive` and `ctr images import` take.
Three layers, each made again only when what it is made of changed: the base, the dependencies (requirements/image.lock)
and Muster's own wheel. With buildah the base is a small Debian made by mmdebstrap, so no image registry is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("MUSTER_CACHE") or Path.home() / ".cache" / "muster") / "images"
BUILD = ROOT / "build" / "image"
CONTAINERFILE = ROOT / "images" / "Containerfile"
LOCK = ROOT / "requirements" / "image.lock"

PYTHON = "3.11"  # of both bases: Debian 12's, and the tag of the public one
GLIBC = 36  # Debian 12 has glibc 2.36: wheels made for it or for an older one run there

DEBIAN = "bookworm"
DEBIAN_PACKAGES = "python3-minimal,libpython3-stdlib,ca-certificates"
DEBIAN_LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*")
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"  # without it apt takes usrmerge, and with it 55 MB of Perl
DEBIAN_HOOKS = (
    # dpkg compiles only what python3-minimal needs; a read-only root would compile the rest at each start
    f'chroot "$1" python3 -m compileall -q -x "/(test|lib2to3|pydoc_data)/" /usr/lib/python{PYTHON}',
    'rm -rf "$1"/var/cache/debconf/* "$1"/var/lib/dpkg/*-old "$1"/usr/share/bash-completion "$1"/var/log/*',
)


class BuildError(Exception):
    """Something a person can mend; the message says what and how."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python images/build.py",
        description="Build the image of Muster's processes and write it to build/ as an archive.",
        epilog="MUSTER_CACHE names the directory that keeps the base image and buildah's layers (~/.cache/muster).",
    )
    parser.add_argument("--tag", metavar="NAME:TAG", help="name of the image (default: muster:<version of galaxy.yml>)")
    parser.add_argument("--load", action="store_true", help="hand the archive to the cluster (python -m cluster load)")
    tools = ("docker", "buildah")
    parser.add_argument("--with", dest="tool", choices=tools, help="the tool (default: docker if its daemon answers)")
    parser.add_argument("--base", metavar="IMAGE", help=f"build on this image (with Python {PYTHON} and a shell)")
    options = parser.parse_args(arguments)
    try:
        archive = build(options.tag or f"muster:{version()}", options.tool, options.base)
        if options.load:
            with step("load into the cluster"):
                run([sys.executable, "-m", "cluster", "load", str(archive)], show=True)
    except BuildError as error:
        print(f"images/build.py: {error}", file=sys.stderr)
        return 1
    return 0


def build(tag: str, tool: str | None = None, base: str | None = None) -> Path:
    """Build `tag` unless the archive of exactly these inputs is there; returns the archive's path."""
    tool = tool or ("docker" if docker_answers() else "buildah")
    wheel = application_wheel()
    key = digest(tool, base or base_key(), tag, CONTAINERFILE.read_bytes(), LOCK.read_bytes(), wheel.read_bytes())
    archive = ROOT / "build" / f"{tag.replace('/', '_').replace(':', '-')}.tar"
    stamp = archive.with_suffix(".key")
    if archive.exists() and stamp.exists() and stamp.read_text() == key:
        say(f"{tag} is up to date: {archive.relative_to(ROOT)}")
        return archive
    context(wheel)
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(".part")
    partial.unlink(missing_ok=True)
    if tool == "docker":
        build_with_docker(tag, base, partial)
    else:
        build_with_buildah(tag, base, partial)
    partial.replace(archive)
    stamp.write_text(key)
    say(f"{tag} is built: {archive.relative_to(ROOT)} ({archive.stat().st_size / 1e6:.0f} MB)")
    return archive


# ---- what goes in -------------------------------------------------------------------------------------------------


def version() -> str:
    found = re.search(r"^version:\s*(\S+)", (ROOT / "galaxy.yml").read_text(), re.MULTILINE)
    if not found:
        raise BuildError("galaxy.yml has no `version:` line; the image takes its tag from it")
    return found[1]


def application_wheel() -> Path:
    name = f"muster_coordination-{version()}-py3-none-any.whl"
    wheel = ROOT / "dist" / name
    if not wheel.exists():
        raise BuildError(f"dist/{name} is missing: the image holds Muster's own wheel. Run `make dist` first")
    return wheel


def context(wheel: Path) -> None:
    """Lay out what the Containerfile copies: the dependencies' wheels (downloaded when the lock changed) and ours."""
    dependencies = BUILD / "dependencies"
    stamp = BUILD / "dependencies.key"
    key = digest(LOCK.read_bytes(), platform.machine(), PYTHON)
    if not (dependencies.exists() and stamp.exists() and stamp.read_text() == key):
        with step(f"collect the dependencies of {LOCK.relative_to(ROOT)} for Python {PYTHON}"):
            shutil.rmtree(dependencies, ignore_errors=True)
            dependencies.mkdir(parents=True)
            machine = platform.machine()
            platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(GLIBC, 4, -1)]
            platforms += [f"--platform=manylinux{year}_{machine}" for year in ("2014", "2010", "1")]
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--no-deps"]
            download += [f"--dest={dependencies}", f"--python-version={PYTHON}", *platforms]
            run([*download, "--require-hashes", "--requirement", str(LOCK)])
            run([*download, "pip"])
        stamp.write_text(key)
    application = BUILD / "application"
    shutil.rmtree(application, ignore_errors=True)
    application.mkdir(parents=True)
    shutil.copy(wheel, application)


# ---- how it is built ----------------------------------------------------------------------------------------------


def docker_answers() -> bool:
    if not shutil.which("docker"):
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def build_with_docker(tag: str, base: str | None, archive: Path) -> None:
    with step(f"docker build {tag}"):
        arguments = ["--build-arg", f"VERSION={version()}"] + (["--build-arg", f"BASE={base}"] if base else [])
        run(["docker", "build", "--tag", tag, "--file", str(CONTAINERFILE), *arguments, str(BUILD)])
    with step("docker save"):
        run(["docker", "save", "--output", str(archive), tag])


def build_with_buildah(tag: str, base: str | None, archive: Path) -> None:
    need("buildah", "mmdebstrap")
    base = base or debian_base()
    dependencies = dependency_layer(base)
    with step(f"buildah build {tag}"):
        # The stage `dependencies` is replaced by the image that was made of it before.
        stage = f"--build-context=dependencies=container-image://{dependencies}"
        buildah_build(tag, stage, f"--build-arg=VERSION={version()}")
    with step("write the archive"):
        # The full name is the one under which Kubernetes looks for a name without a registry.
        name = tag if "/" in tag else f"docker.io/library/{tag}"
        buildah("push", "--quiet", tag, f"docker-archive:{archive}:{name}")
    tidy(keep=(base, dependencies))


def dependency_layer(base: str) -> str:
    """The base with what requirements/image.lock names; made again when one of the two changed."""
    name = f"localhost/muster-dependencies:{digest(base, LOCK.read_bytes(), CONTAINERFILE.read_bytes())[:12]}"
    if not has_image(name):
        with step("buildah build the layer of dependencies"):
            buildah_build(name, "--target=dependencies", f"--build-arg=BASE={base}")
    return name


def base_key() -> str:
    return digest(DEBIAN, DEBIAN_PACKAGES, *DEBIAN_LEFT_OUT, *DEBIAN_HOOKS, platform.machine())[:12]


def debian_base() -> str:
    """The small Debian under the image, made once: Python, its standard library and the public CAs."""
    name = f"localhost/muster-base:{base_key()}"
    if has_image(name):
        return name
    directory = CACHE / "base"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with step(f"make the base: Debian {DEBIAN} with {DEBIAN_PACKAGES} (once, about half a minute)"):
        run([
            "mmdebstrap", "--quiet", "--variant=essential", f"--hook-dir={MERGED_USR}", f"--include={DEBIAN_PACKAGES}",
            *(f"--dpkgopt=path-exclude={path}" for path in DEBIAN_LEFT_OUT),
            *(f"--customize-hook={hook}" for hook in DEBIAN_HOOKS),
            DEBIAN, str(directory / "base.tar"),
        ])  # fmt: skip
        (directory / "Containerfile").write_text("FROM scratch\nADD base.tar /\n")
        buildah("build", "--tag", name, "--file", str(directory / "Containerfile"), str(directory))
    shutil.rmtree(directory)
    return name


def tidy(keep: Sequence[str]) -> None:
    """Remove bases and layers of earlier keys, and what has no name: with the vfs driver each is a full copy."""
    for name in buildah("images", "--format", "{{.Name}}:{{.Tag}}", check=False).stdout.split():
        if name.startswith("localhost/muster-") and name not in keep:
            buildah("rmi", name, check=False)
    buildah("rmi", "--prune", check=False)


def has_image(name: str) -> bool:
    return bool(buildah("images", "--quiet", "--filter", f"reference={name}", check=False).stdout.strip())


def buildah_build(name: str, *arguments: str) -> None:
    buildah("build", "--pull-never", "--tag", name, "--file", str(CONTAINERFILE), *arguments, str(BUILD))


def buildah(command: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    isolation = ["--isolation", "chroot"] if command == "build" else []
    state = ["--storage-driver", "vfs", "--root", str(CACHE / "storage"), "--runroot", str(CACHE / "run")]
    return run(["buildah", *state, command, *isolation, *arguments], check=check)


# ---- small tools --------------------------------------------------------------------------------------------------


def need(*programs: str) -> None:
    """Have these Debian packages: install them where that is possible, else say how."""
    missing = [program for program in programs if not shutil.which(program)]
    if not missing:
        return
    install = f"apt-get install --yes --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BuildError(
            f"{' and '.join(missing)} not found, and no Docker daemon answers. "
            f"Start Docker, or as root run `{install}` (Debian or Ubuntu)"
        )
    with step(f"install {', '.join(missing)}"):
        run(["apt-get", "update", "--quiet=2"])
        run(["env", "DEBIAN_FRONTEND=noninteractive", *install.split()])


def run(command: Sequence[str], *, check: bool = True, show: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a program; its output is kept and shown only when it fails (or as it comes, with `show`)."""
    out, err = (None, None) if show else (subprocess.PIPE, subprocess.STDOUT)
    result = subprocess.run(command, text=True, cwd=ROOT, check=False, stdout=out, stderr=err)
    if check and result.returncode != 0:
        said = "".join(f"\n  {line}" for line in (result.stdout or "").strip().splitlines()[-30:])
        raise BuildError(f"`{' '.join(command)[:160]}` ended with {result.returncode}{said}")
    return result


def digest(*parts: str | bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return total.hexdigest()


@contextmanager
def step(what: str) -> Iterator[None]:
    say(f"{what} …")
    started = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - started:.0f} s")


def say(text: str) -> None:
    print(f"[image] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
