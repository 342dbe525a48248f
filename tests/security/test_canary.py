"""A password, an access token and a key that must come up nowhere: not in what is logged, printed, stored or listed by
`ps`, with everything at DEBUG, tracebacks with their local variables, and relays that repeat what they were told.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from outbox import keys
from outbox.clock import Clock
from outbox.core.account import Account, Mechanism, Sender, Tls
from outbox.core.secret import Secret
from outbox.store import accounts, senders
from outbox.store.database import dialect
from outbox.store.journal import Act
from outbox.vault import Binding, Vault
from tests.relay import Relay, Session
from tests.relay_session import Answer
from tests.running import ROOT, Program, Site, eventually

SHOP = "shop@example.com"
ACT = Act("test", Clock().now())
MECHANISMS = ("plain", "login", "cram-md5", "scram-sha-256")

pytestmark = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the process list is read in /proc")


class Canary:
    """A secret, and every spelling in which it could leak."""

    def __init__(self, *users: str) -> None:
        self.text = "canary" + secrets.token_hex(8)
        raw = self.text.encode()
        # Base64 of it at each of the three places where it can begin in something longer, without what lies beside it.
        shifted = [b64encode(bytes(shift) + raw)[shift + (shift > 0) : -4] for shift in range(3)]
        blobs = [b64encode(f"\0{user}\0{self.text}".encode()) for user in users]
        self.spellings = {raw, raw.hex().encode(), raw[::-1], quote(self.text).encode(), *shifted, *blobs}
        self.spellings |= {urlsafe_b64encode(raw).rstrip(b"="), raw.decode().encode("utf-16-le")}

    def seen_in(self, content: bytes) -> list[bytes]:
        return [spelling for spelling in self.spellings if spelling in content]


class Watch:
    """What `ps` shows of every process but this one, looked at again and again."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def seen(self) -> bytes:
        return b"\n".join(self._seen)

    def _look(self) -> None:
        known: set[Path] = {Path("/proc", str(os.getpid()))}
        while not self._over.wait(0.05):
            for folder in Path("/proc").glob("[0-9]*"):
                if folder not in known:
                    with suppress(OSError):
                        self._seen |= {(folder / name).read_bytes() for name in ("cmdline", "environ")}
                        # Of a process that has just forked, it is still its parent's: look once more.
                        if time.time() - folder.stat().st_mtime > 1:
                            known.add(folder)

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join(10)


class Loud:
    """The command line with everything said, over a site; all that it ever said is in `said`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.key_file = site.folder / "outbox.key"
        self.environment = {"OUTBOX_DATABASE": site.url, "OUTBOX_KEY_FILE": str(self.key_file)}
        self.said = b""

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tests.security.loud", *arguments]

    def run(self, *arguments: str, stdin: str = "", codes: Sequence[int] = (0,)) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.site.folder,
            env=inherited | {"PYTHONPATH": str(ROOT)} | self.environment,
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self.said += done.stdout
        assert done.returncode in codes, f"{arguments}: {done.returncode}: {done.stdout.decode()[-900:]}"

    @contextmanager
    def runner(self, *arguments: str) -> Iterator[Program]:
        with Program(self.command("run", *arguments), self.site.folder, **self.environment) as program:
            yield program
        self.said += program.output.encode()


def parrot(session: Session, line: str) -> Answer:
    """Says no, and repeats what it was told."""
    if line.upper() in ("AUTH LOGIN", "AUTH CRAM-MD5") or line.upper().startswith("AUTH SCRAM"):
        return None
    return f"535 5.7.8 you said {line} ({line.rpartition(' ')[2]}), which is wrong"


def stored(site: Site) -> bytes:
    """The bytes of everything that the database and its neighbours have written."""
    if dialect(site.db) == "sqlite":
        return _bytes_of(each for each in site.folder.glob("outbox.db*") if each.is_file())
    ((folder,),) = site.query("SHOW data_directory")
    ((oid,),) = site.query("SELECT oid FROM pg_database WHERE datname = current_database()")
    site.query("CHECKPOINT")
    content = _bytes_of(Path(folder, "base", str(oid)).iterdir())
    for (table,) in site.query("SELECT relname FROM pg_class WHERE relkind = 'r' AND starts_with(relname, 'outbox')"):
        content += str(site.query(f"SELECT t::text FROM {table} AS t")).encode()
    return content + _bytes_of(Path(folder, "pg_wal").glob("0*"))


def _bytes_of(files: Iterable[Path]) -> bytes:
    content = b""
    for each in files:
        with suppress(OSError):  # the server deletes some meanwhile
            content += each.read_bytes()
    return content


@pytest.mark.timeout(300)
def test_no_secret_comes_up_anywhere(site: Site) -> None:
    loud, watch = Loud(site), Watch()
    password, token = Canary(*MECHANISMS, "good"), Canary("token")
    (site.folder / "token").write_text(token.text)
    honest = dict.fromkeys(("good",), password.text)
    with (
        Relay({"auth": parrot, "response": parrot}, credentials={"nobody": "x"}, mechanisms=_offered()) as relay,
        Relay(credentials=honest) as good,
        watch.watching(),
    ):
        loud.run("key", "generate")
        at = ("--relay", f"127.0.0.1:{relay.port}", "--tls", "none")
        loud.run("account", "add", "plain", *at, "--username", "plain", "--password-stdin", stdin=password.text)
        box = Vault(keys.load(loud.key_file))
        for name in MECHANISMS:
            account = Account(name, "127.0.0.1", relay.port, Tls.NONE, Mechanism(name), name)
            sealed = replace(account, secret=box.seal(Secret(password.text), Binding.of(account)), key_id=box.key_id)
            with site.db.atomic():
                if name != "plain":
                    accounts.add_account(site.db, sealed, ACT)
                senders.add_sender(site.db, Sender(f"{name}@example.com", name), ACT)
        loud.run("account", "add", "token", *at, "--username", "token", "--mechanism", "xoauth2")
        loud.run("account", "oauth", "token", "--command", "--", "cat", str(site.folder / "token"))
        honest_login = ("--relay", f"127.0.0.1:{good.port}", "--tls", "none", "--username", "good")
        loud.run("account", "add", "good", *honest_login, "--password-stdin", stdin=password.text)
        with site.db.atomic():
            senders.add_sender(site.db, Sender("token@example.com", "token"), ACT)
            senders.add_sender(site.db, Sender(SHOP, "good"), ACT)
        loud.run("sender", "dkim", SHOP, "--generate")
        for name in ("plain", "token"):
            loud.run("account", "test", name, codes=(7,))
        for name in (*MECHANISMS, "token"):
            site.insert_one(sender=f"{name}@example.com", recipients="ann@example.net")
        site.insert_one(recipients="ann@example.net")
        loud.run("account", "add", "good", *honest_login, "--password-stdin", stdin=password.text, codes=(1,))

        with loud.runner() as runner:
            good.wait(1)
            paused = "SELECT count(*) FROM outbox_account WHERE pause_reason IS NOT NULL"
            eventually(lambda: site.query(paused)[0][0] == len(MECHANISMS) + 1, "every parrot's account is paused")
            site.query("ALTER TABLE outbox_runner RENAME TO outbox_gone")  # what follows ends in tracebacks
            runner.says("Traceback")
            runner.process.send_signal(6)  # SIGABRT: faulthandler's last words
            runner.wait()
        site.query("ALTER TABLE outbox_gone RENAME TO outbox_runner")
        for command in (("account", "show", "good", "--json"), ("doctor",), ("show", "1", "--json"), ("events",)):
            loud.run(*command, codes=(0, 1))

    assert b"DEBUG peewee" in loud.said, "it was not quiet"
    assert b"DEBUG asyncio" in loud.said
    assert b"Current thread" in loud.said
    key = loud.key_file.read_text().splitlines()[-1].encode()
    places = {"output": loud.said, "database": stored(site), "process list": watch.seen}
    for place, content in places.items():
        assert len(content) > 1000, place
        assert [password.seen_in(content), token.seen_in(content)] == [[], []], place
        assert key not in content, place
    assert b"you said" in places["database"], "what the relay said is kept, but for the secret"


def _offered() -> tuple[str, ...]:
    return (*(name.upper() for name in MECHANISMS), "XOAUTH2")
