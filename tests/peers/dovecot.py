"""Dovecot's login service, for Postfix: a private instance that knows one user, and serves no mail."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.postfix import Postfix
from tests.peers.programs import needs_root, open_folder, program
from tests.running import eventually

# Without anvil's penalty, which lets everybody wait who comes from where a wrong password came from.
CONFIGURATION = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols =
ssl = no
listen = 127.0.0.1
auth_mechanisms = plain login
auth_failure_delay = 0
disable_plaintext_auth = no
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  unix_listener {socket} {{
    mode = 0666
  }}
}}
"""


@dataclass(frozen=True)
class Dovecot:
    username: str = "shop"
    password: str = "correct horse"


@pytest.fixture(scope="package")
def dovecot(postfix: Postfix) -> Iterator[Dovecot]:
    """It answers where `postfix` asks."""
    name = program("dovecot")
    needs_root("Dovecot")
    version = subprocess.run([name, "--version"], check=True, capture_output=True, text=True).stdout
    if not version.startswith("2.3."):
        pytest.skip(f"A REAL LOGIN IS NOT TESTED: DOVECOT {version.split()[0]} IS CONFIGURED ANOTHER WAY THAN 2.3")
    socket = postfix.folder / "login" / "socket"
    socket.parent.mkdir()
    with open_folder("dovecot") as folder:
        for each in ("run", "state"):
            (folder / each).mkdir()
        (folder / "dovecot.conf").write_text(CONFIGURATION.format(folder=folder, socket=socket))
        known = Dovecot()
        (folder / "users").write_text(f"{known.username}:{{PLAIN}}{known.password}\n")
        # Not a `Program`: its children may outlive it, as long as Postfix is connected, and hold its standard output.
        running = subprocess.Popen(
            [name, "-F", "-c", str(folder / "dovecot.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            eventually(lambda: socket.exists() or running.poll() is not None, "Dovecot listens")
            assert running.poll() is None, _log(folder)
            yield known
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait(5)


def _log(folder: Path) -> str:
    return (folder / "log").read_text() if (folder / "log").exists() else "no log"
