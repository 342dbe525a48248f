"""How long outbox-sendmail takes for a mail, beside Postfix's own sendmail: from its start to a commit on the disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE
from tempfile import mkdtemp

from tests.bench.content import SHOP
from tests.bench.figures import Bench, Figure, Unmeasurable, at_most
from tests.bench.ground import fresh
from tests.bench.process import ROOT
from tests.bench.start import BARE, Best

TOPIC = "sendmail"
MAIL = f"From: {SHOP}\nTo: ann@example.net\nSubject: Order 7\n\nThanks\n".encode()
LOWEST = "import sys; from outbox.doors.sendmail.command import main; main()"
POSTFIX = "/usr/sbin/sendmail"
MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/state
myhostname = relay.example
"""


def measure(bench: Bench) -> Iterator[Figure]:
    if not hasattr(os, "wait4"):
        raise Unmeasurable("this system does not tell what a process has used (os.wait4)")
    script = Path(sys.executable).with_name("outbox-sendmail")
    ours = [str(script)] if script.exists() else [sys.executable, "-c", LOWEST]
    with fresh(bench, "sqlite") as ground, postfix() as config:
        ground.register(1)
        commands = [BARE, [*ours, "-i", "-t"]]
        if config is not None:
            commands.append([POSTFIX, "-C", str(config), "-i", "-t"])
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OUTBOX_DATABASE": ground.url}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        bare, own, *theirs = (Best() for _ in commands)
        for _ in range(bench.size(20, 3)):
            for command, least in zip(commands, (bare, own, *theirs), strict=True):
                least.take(*time_of(command, ground.folder, environment))
    note = f"CPU {own.cpu:.0f} ms; bare Python takes {bare.wall:.0f} ms, CPU {bare.cpu:.0f} ms"
    yield at_most(TOPIC, "outbox-sendmail", own.wall, "ms", 150, note=note)
    for each in theirs:
        yield Figure(TOPIC, "Postfix's sendmail", each.wall, "ms", note=f"CPU {each.cpu:.0f} ms; it waits for an fsync")
        yield Figure(TOPIC, "outbox-sendmail, to Postfix's", own.wall / each.wall, "×", note="from start to end")


def time_of(command: Sequence[str], folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds from start to end, and of CPU, with what it starts itself. It has to end with 0."""
    began = time.perf_counter()
    started = subprocess.Popen(command, cwd=folder, env=environment, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL)
    assert started.stdin is not None
    started.stdin.write(b"" if command is BARE else MAIL)
    started.stdin.close()
    _, status, used = os.wait4(started.pid, 0)
    seconds = time.perf_counter() - began
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {started.returncode}")
    return seconds, used.ru_utime + used.ru_stime


@contextmanager
def postfix() -> Iterator[Path | None]:
    """The configuration of a Postfix of our own, which takes mail into its maildrop and does not run. None where it is
    not installed, or we are not root, who alone may name another configuration.
    """
    if not shutil.which("postconf", path="/usr/sbin") or os.geteuid() != 0:
        yield None
        return
    from pwd import getpwnam

    folder = Path(mkdtemp(prefix="outbox-sendmail-"))
    try:
        folder.chmod(0o755)
        for name in ("etc", "state", "queue/maildrop", "queue/public", "queue/pid"):
            (folder / name).mkdir(parents=True)
        for name in ("state", "queue/maildrop"):
            os.chown(folder / name, getpwnam("postfix").pw_uid, -1)
        (folder / "etc" / "main.cf").write_text(MAIN.format(folder=folder))
        (folder / "etc" / "master.cf").write_text("")
        yield folder / "etc"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
