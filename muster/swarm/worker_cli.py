# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster swarm-worker`: runs the jobs that a Swarm gives to one worker."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from ansible_collections.muster.coordination.plugins.module_utils.api import PODS, Api, ApiError
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster.options import Options, WrongUsage, command, connect, system

APPLIED = "muster.dev/applied-version"  # annotation of a Pod: UID:VERSION

WORKER = """\
A worker of a Swarm: it runs the jobs that stand in its list, each as a command
of yours, and tells which version of the list it runs.

  run      work until SIGTERM

`muster swarm-worker run --help` says more.
"""

RUN = """\
Run the jobs of one worker, whose list stands in `config.yml` of a ConfigMap,
and follow each change: end what was taken away, begin what is new. It tells a
version (GET /config) when nothing that is not in its list runs any more.
"""

EPILOG = """\
examples:
  muster swarm-worker run --configmap swarm-worker-config --exec 'consume {job}'
      in a Pod that has POD_NAME and POD_UID; reads the ConfigMap from the API
  muster swarm-worker run --config /config --exec 'consume {job}'
      reads the mounted ConfigMap: needs no rights, and learns of a change when
      the kubelet does, within about a minute
  muster swarm-worker run --name w-0 --uid local --config jobs.yml --journal j
      without a cluster, and without a command: see who would run what

A command is split once, as a shell would, but no shell runs it; {job} stands
for the job's name, which it finds in the variable JOB, too. It ends by SIGTERM,
is started again when it ends by itself, and never outlives the worker.

exit status:
  0  ended by SIGTERM or SIGINT, when all jobs had ended
  1  it could not go on; the message says why
  2  wrong usage
"""


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the command."""
    commands = system(systems, "swarm-worker", WORKER)
    parser = command(commands, "muster swarm-worker run", _run, RUN, EPILOG)
    _Options(parser, environ).itself().source().work().telling().cluster().how()


class _Options(Options):
    """The options of a worker."""

    def itself(self) -> Self:
        self.begin("who it is")
        self.add("--name", "POD_NAME", metavar="NAME", help="its name in the list of workers: its Pod's")
        self.add("--uid", "POD_UID", metavar="UID", help="its Pod's uid: what it tells is true of this Pod only")
        return self

    def source(self) -> Self:
        self.begin("where its list stands; give one of them")
        text = "a mounted ConfigMap: a file, or a directory with YAML files, also in directories"
        self.add("--config", "MUSTER_CONFIG", type=Path, metavar="PATH", help=text)
        text = "a ConfigMap, read from the API, and those that carry its name in the label muster.dev/worker-config"
        self.add("--configmap", "WORKERS_CONFIGMAP_NAME", metavar="NAME", help=text)
        return self

    def work(self) -> Self:
        self.begin("what a job is")
        text = "a command for each job; {job} in it is the job's name (default: none, only the journal is kept)"
        self.add("--exec", "MUSTER_EXEC", dest="command", metavar="COMMAND", help=text)
        text = "time from SIGTERM to SIGKILL for a job that has to end, 0 to 86400 (default: 10); a Pod's "
        text += "terminationGracePeriodSeconds has to be longer"
        self.add("--stop-seconds", "MUSTER_STOP_SECONDS", type=float, default=10.0, metavar="SECONDS", help=text)
        return self

    def telling(self) -> Self:
        self.begin("what it tells")
        text = "where to serve GET /config /healthz /readyz /metrics; empty for nowhere (default: 0.0.0.0:8390)"
        self.add("--listen", "MUSTER_LISTEN", default="0.0.0.0:8390", metavar="ADDRESS:PORT", help=text)
        text = "keep the version in the annotation muster.dev/applied-version of its Pod, too (needs `get` and `patch` "
        self.flag("--annotate", "MUSTER_ANNOTATE", f"{text}on pods)")
        text = "append when each job began, ran and ended, as lines of JSON; it grows for ever"
        self.add("--journal", "MUSTER_JOURNAL", type=Path, metavar="PATH", help=text)
        text = "time between two lines of a running job, 0.01 to 3600 (default: 0.2)"
        self.add("--beat", "MUSTER_BEAT", type=float, default=0.2, metavar="SECONDS", help=text)
        return self

    def how(self) -> Self:
        self.begin("how it works")
        return self.logs()


def _run(args: argparse.Namespace) -> int:
    from muster import process  # prometheus-client and the web server: only who runs pays for them
    from muster.swarm import worker_process, worker_runners, worker_sources
    from muster.swarm.journal import Journal

    process.set_up_logs(args.log_format, args.verbose)
    _check(args)
    runner: Callable[[worker_runners.Tell], worker_runners.Runner] = worker_runners.Nothing
    if args.command is not None:
        runner = partial(worker_runners.Commands, worker_runners.parse_command(args.command))
    api, namespace = connect(args) if args.configmap or args.annotate else (None, "")
    source: worker_sources.Source
    if api and args.configmap:
        source = worker_sources.ConfigMaps(api, namespace, args.configmap, args.name)
    else:
        source = worker_sources.Files(args.config, args.name)
    settings = worker_process.Settings(args.name, args.uid, args.listen or None, args.stop_seconds)
    annotation = None
    if api and args.annotate:
        from muster.pod import Annotation

        settings = replace(settings, seen=_told_before(api, namespace, args.name, args.uid))
        annotation = Annotation(api, namespace, args.name, args.uid, APPLIED)
    journal = Journal(args.journal, args.name, args.uid, args.beat)
    return worker_process.Worker(settings, source, runner, journal, annotation).run()


def _check(args: argparse.Namespace) -> None:
    """Raise Malformed or WrongUsage for what makes no sense."""
    for option, variable, value, path in (
        ("--name", "POD_NAME", args.name, "metadata.name"),
        ("--uid", "POD_UID", args.uid, "metadata.uid"),
    ):
        if not value:
            remedy = f"in a Pod set {variable} by valueFrom.fieldRef.fieldPath: {path}, elsewhere give any word"
            raise Malformed(option, value, remedy)
    if bool(args.config) == bool(args.configmap):
        which = "both" if args.config else "neither"
        raise WrongUsage(
            f"--config (or MUSTER_CONFIG) and --configmap (or WORKERS_CONFIGMAP_NAME): give one of them, not {which}"
        )
    for option, value, least, most in (
        ("--stop-seconds", args.stop_seconds, 0, 86400),
        ("--beat", args.beat, 0.01, 3600),
    ):
        if not least <= value <= most:
            raise Malformed(option, value, f"give seconds from {least:g} to {most:g}")


def _told_before(api: Api, namespace: str, name: str, uid: str) -> int:
    """The version that an earlier container of this Pod said: what it let go then may run elsewhere by now."""
    from muster.process import say
    from muster.swarm.worker import NONE_YET

    try:
        pod = api.get(PODS, name, namespace)
    except ApiError as error:
        say(logging.WARNING, "what this Pod told before is not known", why=str(error))
        return NONE_YET
    of, _colon, version = ((pod["metadata"].get("annotations") or {}).get(APPLIED) or "").partition(":")
    return int(version) if of == uid and version.isascii() and version.isdecimal() else NONE_YET
