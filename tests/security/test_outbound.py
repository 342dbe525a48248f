"""Whom a runner talks to: its database and its relays, and nobody else. And who may read the files that it makes."""

from __future__ import annotations

import os
import re
import shutil
import stat
from contextlib import closing
from pathlib import Path

import pytest

from outbox import keys
from outbox.store.database import dialect
from tests.relay import Relay
from tests.running import Program, Site, command, eventually

CONNECT = re.compile(r"connect\(\d+, \{sa_family=(AF_\w+), (.*?)\}, \d+\)")
LOCAL_SERVICES = ("/var/run/nscd/", "/run/nscd/", "/run/systemd/")
"""Where libc asks who is who on this machine."""


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")
def test_a_runner_connects_to_its_database_and_its_relays_alone(site: Site) -> None:
    trace = site.folder / "trace"
    strace = ["strace", "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(trace), "--"]
    with Relay() as relay:
        site.register(relay.port)
        site.insert(10)
        with Program([*strace, *command("run")], site.folder, OUTBOX_DATABASE=site.url) as runner:
            if "ptrace" in "".join(runner.lines):
                pytest.skip("strace may not trace here")
            site.until(sent=10)
            site.insert(5)
            site.until(sent=15)
            # The runner itself: strace hands no signal on.
            eventually(lambda: site.query("SELECT pid FROM outbox_runner"), "it is registered")
            os.kill(site.query("SELECT pid FROM outbox_runner")[0][0], 15)
            assert runner.wait() == 0
        found = CONNECT.findall(trace.read_text(errors="replace"))
    allowed = f'sin_port=htons({relay.port}), sin_addr=inet_addr("127.0.0.1")'
    assert allowed in {where for _, where in found}, "the trace has seen the relay"
    others = [each for each in found if each[1] != allowed and not _is_local(site, *each)]
    assert others == []


def _is_local(site: Site, family: str, where: str) -> bool:
    """To the database; or something on this machine that leaves it never."""
    if family in ("AF_UNIX", "AF_UNSPEC"):
        path = re.search(r'sun_path=@?"([^"]*)"', where)
        ours = (str(site.folder), *LOCAL_SERVICES)
        return path is None or path[1].startswith(ours) or (dialect(site.db) == "postgres" and ".s.PGSQL." in path[1])
    if dialect(site.db) != "postgres":
        return False
    ((port,),) = site.query("SELECT current_setting('port')")
    return f"port=htons({port})" in where


@pytest.mark.skipif(os.name == "nt", reason="POSIX file modes")
def test_the_files_that_a_runner_makes_are_closed_to_others(sqlite_url: str, tmp_path: Path) -> None:
    """Its key to everybody else; those beside the database, that hold mail, as the database itself is."""
    Path(tmp_path, "outbox.db").chmod(0o600)
    with closing(Site(sqlite_url, tmp_path)) as site:
        look_at_the_files(site)


def look_at_the_files(site: Site) -> None:
    keys.create(site.folder / "new.key")
    assert stat.S_IMODE((site.folder / "new.key").stat().st_mode) == 0o600
    with Relay() as relay, site.run() as runner:
        site.register(relay.port)
        site.insert(1)
        site.until(sent=1)
        runner.started()
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in site.folder.glob("outbox.db*")}
        runner.stop()
        assert runner.wait() == 0
    for name in ("outbox.db", "outbox.db-wal", "outbox.db-shm"):
        assert modes[name] == 0o600, name
    holding_content = {name: mode for name, mode in modes.items() if "runner-" not in name and "doorbell" not in name}
    assert all(mode & 0o077 == 0 for mode in holding_content.values()), holding_content
