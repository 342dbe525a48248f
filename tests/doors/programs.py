"""`outbox-sendmail` as a process, as programs start it, on a database with one account and senders of example.com."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import ROOT, Site

SHOP = "shop@example.com"
MAIL = b"From: shop@example.com\nTo: ann@example.net\nSubject: Order 7\n\nThanks\n"


class Command:
    """The command under a name of its own, in `bin`. `run` gives its end."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")},
            "PYTHONPATH": str(ROOT),
            "OUTBOX_DATABASE": site.url,
            "OUTBOX_SENDMAIL_DOMAIN": "example.com",
            "NAME": "",
        }
        self.path = self.bin / "sendmail"
        self.path.write_text(
            f"#!{sys.executable}\nfrom outbox.doors.sendmail.command import main\nmain()\n", encoding="utf-8"
        )
        self.path.chmod(0o755)
        for name in ("mailq", "newaliases"):
            (self.bin / name).symlink_to("sendmail")

    def run(
        self, *arguments: str, stdin: Any = MAIL, name: str = "sendmail", code: int = 0, **more: Any
    ) -> subprocess.CompletedProcess[bytes]:
        given: dict[str, Any] = {"env": self.env, "cwd": self.site.folder, "timeout": 60, **more}
        given["input" if isinstance(stdin, bytes) else "stdin"] = stdin
        done = subprocess.run([str(self.bin / name), *arguments], capture_output=True, **given)
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        assert b"Traceback" not in done.stderr
        return done

    def rows(self, columns: str = "sender, recipients") -> list[Any]:
        return self.site.query(f"SELECT {columns} FROM outbox ORDER BY id")

    def raw(self) -> bytes:
        """The only message."""
        ((raw,),) = self.rows("raw")
        return bytes(raw)


@pytest.fixture
def make_command(tmp_path: Path) -> Iterator[Callable[[str], Command]]:
    """A command over the database at a URL."""
    if os.name != "posix":
        pytest.skip("scripts without an extension, and links to them, are POSIX's")
    sites: list[Site] = []

    def make(url: str) -> Command:
        site = Site(url, tmp_path)
        sites.append(site)
        site.register(1, sender="*@example.com")
        return Command(site, tmp_path)

    yield make
    for each in sites:
        each.close()


@pytest.fixture
def command(make_command: Callable[[str], Command], sqlite_url: str) -> Command:
    return make_command(sqlite_url)


@pytest.fixture
def any_command(make_command: Callable[[str], Command], database_url: str) -> Command:
    """Over each kind of database."""
    return make_command(database_url)


__all__ = ["MAIL", "SHOP", "Command", "any_command", "command", "make_command"]
