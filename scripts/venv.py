# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the development environment `.venv` of this checkout: `python3 scripts/venv.py .venv`.

It installs what `requirements/dev.lock` pins (by hash), unpacks kubernetes.core, and makes the checkout importable as
`ansible_collections.muster.coordination`, `muster` and `cluster`. It can be repeated: what is there already is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
OLDEST, TOO_NEW = (3, 11), (3, 14)  # what ansible-core 2.19 runs on
NO_VENV = """error: {python} cannot make virtual environments (its ensurepip is missing).
  Remedy on Debian and Ubuntu: apt-get install {package}   - then run the same command again."""


def main() -> None:
    venv = Path(sys.argv[1]).resolve()
    refuse_unfit_python()
    make_venv(venv)
    python = str(venv / "bin" / "python")
    say("packages of requirements/dev.lock (about a minute the first time)")
    pip(python, "install", "--require-hashes", "--requirement", CHECKOUT / "requirements/dev.lock")
    site_packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    collections = site_packages / "ansible_collections"
    unpack_kubernetes_core(python, collections)
    say("this checkout, as muster.coordination and as the command `muster`")
    link(collections / "muster" / "coordination", CHECKOUT)
    pip(python, "install", "--no-deps", "--no-build-isolation", "--no-index", "--editable", CHECKOUT)
    say(f"ready: {venv}")


def refuse_unfit_python() -> None:
    """Stop with the remedy when the running Python is not one that ansible-core supports."""
    if not OLDEST <= sys.version_info < TOO_NEW:
        sys.exit(
            f"error: Python {sys.version.split()[0]} ({sys.executable}) does not fit: 3.11, 3.12 or 3.13 is needed.\n"
            "  Remedy: install one of them and name it: make venv MUSTER_PYTHON=/path/to/python3.12"
        )


def make_venv(venv: Path) -> None:
    """Create the environment, or keep the one that is there if its Python still runs."""
    python = venv / "bin" / "python"
    if python.exists() and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return
    say(f"virtual environment {venv} with Python {sys.version.split()[0]}")
    if not has_ensurepip():
        install_ensurepip()
    subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)


def has_ensurepip() -> bool:
    """Debian splits ensurepip off into python3-venv."""
    return subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True).returncode == 0


def install_ensurepip() -> None:
    """As root on Debian install what is missing, else say how."""
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(NO_VENV.format(python=sys.executable, package=package))
    say(f"Debian package {package}")
    subprocess.run(["apt-get", "update", "-qq"], check=False)
    subprocess.run(["apt-get", "install", "-y", "-qq", package], check=False)
    if not has_ensurepip():
        sys.exit(NO_VENV.format(python=sys.executable, package=package))


def unpack_kubernetes_core(python: str, collections: Path) -> None:
    """Put kubernetes.core, as pinned by requirements/collections.lock, where Ansible and ansible-galaxy find it."""
    lock = CHECKOUT / "requirements/collections.lock"
    stamp = collections / "kubernetes" / ".unpacked-from"
    if stamp.exists() and stamp.read_text() == lock.read_text():
        return
    say("collection kubernetes.core (53 MB to download the first time)")
    with tempfile.TemporaryDirectory() as directory:
        pip(python, "download", "--no-deps", "--require-hashes", "--requirement", lock, "--dest", directory)
        (wheel,) = Path(directory).glob("ansible-*.whl")
        shutil.rmtree(collections / "kubernetes", ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            wanted = [name for name in archive.namelist() if name.startswith("ansible_collections/kubernetes/")]
            archive.extractall(collections.parent, wanted)
    stamp.write_text(lock.read_text())


def link(path: Path, target: Path) -> None:
    """Make `path` a symbolic link to `target`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    path.symlink_to(target)


def pip(python: str, *arguments: object) -> None:
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    if subprocess.run(command).returncode:
        sys.exit(f"error: {' '.join(command)} failed, see above")


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def say(text: str) -> None:
    print(f"venv: {text}", flush=True)


if __name__ == "__main__":
    main()
