"""Forks programs of ours from a process that has loaded them already: a runner is at work after 30 ms, not 400.

    python -m tests.torture.zygote

One JSON object a line. In, what to run: ``{"entry": "module:function", "argument": …, "log": path, "folder": path,
"environment": {…}}``. Out, in the order of events: ``{"born": pid}`` for each of those, and ``{"pid": …, "event":
"exited" | "stopped" | "continued", "status": …}``, where a status is negative for a signal.

It has no threads, no connections and no event loop, and so nothing that a fork could break.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

LOADED = (
    "outbox.cli.main",
    "outbox.cli.run",
    "outbox.config",
    "outbox.runner.service",
    "outbox.runner.supervise",
    "outbox.store.sqlite",
    "outbox.store.presence",
    "outbox.store.opened",
    "outbox.cli.origin",
    "outbox.log",
    "tests.torture.watched",
    "tests.torture.writer",
)
LOADED_FOR_POSTGRES = ("psycopg", "outbox.store.postgres", "outbox.store.listener")


def main() -> None:
    for module in LOADED:
        importlib.import_module(module)
    with suppress(ImportError):
        for module in LOADED_FOR_POSTGRES:
            importlib.import_module(module)
    bell, ringer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(ringer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    asked = b""
    while True:
        ready, _, _ = select.select([0, bell], [], [])
        if bell in ready:
            with suppress(BlockingIOError):
                os.read(bell, 4096)
            _tell_of_children()
        if 0 in ready:
            octets = os.read(0, 65536)
            if not octets:
                return
            *lines, asked = (asked + octets).split(b"\n")
            for line in lines:
                _bear(json.loads(line))


def _say(**event: Any) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")


def _bear(wanted: dict[str, Any]) -> None:
    pid = os.fork()
    if pid:
        _say(born=pid)
        return
    status = 70
    try:
        _settle_in(wanted)
        module, _, function = wanted["entry"].partition(":")
        status = getattr(importlib.import_module(module), function)(wanted["argument"]) or 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001  # whatever it is, this is a child, and must not become a second zygote
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _settle_in(wanted: dict[str, Any]) -> None:
    """A process of its own: session, signals, standard files, folder, environment."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, place in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(number, place)
    os.closerange(3, 64)
    os.chdir(wanted["folder"])
    for name in [each for each in os.environ if each.startswith("OUTBOX_")]:
        del os.environ[name]
    os.environ.update(wanted["environment"])
    sys.path.insert(0, str(Path(__file__).parent.parent.parent))


def _tell_of_children() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        except ChildProcessError:
            return
        if not pid:
            return
        if os.WIFSTOPPED(status):
            _say(pid=pid, event="stopped", status=-os.WSTOPSIG(status))
        elif os.WIFCONTINUED(status):
            _say(pid=pid, event="continued", status=0)
        else:
            _say(pid=pid, event="exited", status=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
