"""Postfix as the queue: an instance of its own, whose queue is filled first and then handed to the relay."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.content import SHOP, TEXT
from tests.bench.figures import Bench, Unmeasurable
from tests.bench.ground import ADMIN_PATH, Sink
from tests.bench.peers.rival import Watch, own_folder
from tests.bench.process import Process, free_port

MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/state
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = queue.invalid
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{port}
"""
MASTER = """\
127.0.0.1:{own_port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup -o in_flow_delay=0
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
error unix - - n - - error
retry unix - - n - - error
smtp unix - - n - - smtp
postlog unix-dgram n - n - 1 postlogd
"""
QMGR = "qmgr unix n - n 300 1 qmgr\n"


@dataclass(frozen=True, eq=False)
class Postfix:
    """`options` go into its main.cf."""

    name: str
    settings: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        asked = [shutil.which("postconf", path=ADMIN_PATH) or "postconf", "-h", "mail_version"]
        return f"Postfix {subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()}"

    def rate(self, bench: Bench, sink: Sink, count: int) -> float:
        """Mails a second, from the first that the sink has taken to the last. Raises Unmeasurable."""
        if shutil.which("postfix", path=ADMIN_PATH) is None or os.geteuid() != 0:
            raise Unmeasurable("it needs Postfix installed, and only root can start it")
        with ExitStack() as stack:
            folder = stack.enter_context(own_folder(bench, "postfix"))
            port = free_port()
            self._write(folder, sink.port, port)
            control(folder, "start")
            stack.callback(control, folder, "stop")
            bench.say(f"{count:,} mails by {self.name}")
            self._fill(folder, port, count)
            sent = Watch(sink, count)
            with (folder / "etc" / "master.cf").open("a") as file:
                file.write(QMGR)
            control(folder, "reload")
            return sent.rate([])

    def _write(self, folder: Path, relay: int, port: int) -> None:
        from pwd import getpwnam  # not on Windows

        owner = getpwnam("postfix")
        for name in ("etc", "queue", "state"):
            (folder / name).mkdir()
        os.chown(folder / "state", owner.pw_uid, owner.pw_gid)
        options = "".join(f"{key} = {value}\n" for key, value in self.options.items())
        (folder / "etc" / "main.cf").write_text(MAIN.format(folder=folder, port=relay) + options)
        (folder / "etc" / "master.cf").write_text(MASTER.format(own_port=port))

    def _fill(self, folder: Path, port: int, count: int) -> None:
        """Through its own smtpd; there is no queue manager yet, so everything stays in the incoming queue."""
        source = shutil.which("smtp-source", path=ADMIN_PATH)
        if source is None:
            raise Unmeasurable("there is no smtp-source")
        options = ["-d", "-s", 20, "-m", count, "-l", len(TEXT), "-f", SHOP, "-N", "-t", "customer@example.net"]
        with Process([source, *map(str, options), f"127.0.0.1:{port}"], folder) as filling:
            filling.wait()
        incoming = sum(1 for each in (folder / "queue" / "incoming").rglob("*") if each.is_file())
        if incoming != count:
            raise RuntimeError(
                f"only {incoming} of {count} mails are in its queue: {(folder / 'log').read_text()[-2000:]}"
            )


def control(folder: Path, verb: str) -> None:
    program = shutil.which("postfix", path=ADMIN_PATH) or "postfix"
    for _ in range(2):
        done = subprocess.run(
            [program, "-c", folder / "etc", verb], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode == 0:
            return
        time.sleep(0.5)
    raise RuntimeError(f"postfix {verb}: {done.stderr[-2000:]}")
