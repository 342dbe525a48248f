"""The runner as people run it: `outbox run`, a process of its own, on a database that tests share with it.

    def test_…(site: Site) -> None:                        # once for each kind of database
        with Relay() as relay:
            site.register(relay.port)                      # an account, and shop@example.com as its sender
            numbers = site.insert(20)                      # plain INSERTs, as an application has them
            with site.run("--until-empty", run_grace="5s") as runner:
                assert runner.wait() == 0
            site.audit(relay.messages)                     # the promise: copies of a recipient ≤ 1 + doubts, and so on

Nothing here sleeps for a fixed time: `eventually` looks again until something is so, or raises at its deadline.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import peewee
import pytest

from outbox.clock import Clock
from outbox.core.account import Account, Sender, Tls
from outbox.store import accounts, engine, senders
from outbox.store.database import connect, dialect
from outbox.store.journal import Act
from tests.reconcile import SHOWN, Journal, broken
from tests.relay import Received

ROOT = Path(__file__).parent.parent
SHOP = "shop@example.com"
PATIENCE = 20.0

T = TypeVar("T")


def eventually(check: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
    """The first true value of `check`, asked every 10 ms. Raises TimeoutError, with `what`, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := check()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)
    return value


class Site:
    """A database, and what an application and an operator do in it. Belongs to the thread that made it."""

    def __init__(self, url: str, folder: Path) -> None:
        """`folder` is the working directory of the programs."""
        self.url = url
        self.folder = folder
        self.db: peewee.Database = connect(url)

    def close(self) -> None:
        self.db.close()

    def query(self, sql: str, *parameters: object) -> list[Any]:
        """The rows of a statement; ``?`` stands for a parameter in both dialects."""
        cursor = self.db.execute_sql(sql.replace("?", self.db.param), parameters)
        return list(cursor.fetchall()) if cursor.description else []

    def register(
        self, port: int, *, account: str = "main", sender: str = SHOP, connections: int = 3, host: str = "127.0.0.1"
    ) -> None:
        """An account at that relay, without TLS or login, and its sender."""
        act = Act("test", Clock().now())
        with self.db.atomic():
            accounts.add_account(self.db, Account(account, host, port, Tls.NONE, max_connections=connections), act)
            senders.add_sender(self.db, Sender(sender, account), act)

    def insert(self, count: int = 1, **columns: object) -> list[int]:
        """So many mails in one transaction: to ann0@example.net, ann1@…; `columns` are set on each. Their ids."""
        with self.db.atomic():
            return [self.insert_one(**{"recipients": f"ann{turn}@example.net", **columns}) for turn in range(count)]

    def insert_one(self, **columns: object) -> int:
        row = {"sender": SHOP, "subject": "Order 7", "text_body": "Thanks", **columns}
        row = {name: value for name, value in row.items() if value is not None}
        marks = ", ".join("?" * len(row))
        sql = f"INSERT INTO outbox ({', '.join(row)}) VALUES ({marks}) RETURNING id"
        return int(self.query(sql, *row.values())[0][0])

    def states(self) -> dict[str, int]:
        """How many messages are in each state."""
        return dict(self.query("SELECT state, count(*) FROM outbox_delivery GROUP BY state"))

    def until(self, seconds: float = PATIENCE, **states: int) -> None:
        """Until there are exactly so many messages in each state, and none in any other."""
        try:
            eventually(lambda: self.states() == states, "", seconds)
        except TimeoutError:
            raise TimeoutError(f"not {states} within {seconds:g} s, but {self.states()}") from None

    def delivery(self, message_id: int) -> dict[str, Any]:
        return self._record("outbox_delivery WHERE message_id = ?", message_id)

    def attempt(self, message_id: int, claim_no: int = 1) -> dict[str, Any]:
        return self._record("outbox_attempt WHERE message_id = ? AND claim_no = ?", message_id, claim_no)

    def _record(self, source: str, *parameters: object) -> dict[str, Any]:
        cursor = self.db.execute_sql(f"SELECT * FROM {source}".replace("?", self.db.param), parameters)
        return dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))

    def attempts(self) -> Counter[str]:
        """How many attempts ended how; ``open`` for those that have not."""
        rows = self.query("SELECT coalesce(outcome, 'open'), count(*) FROM outbox_attempt GROUP BY 1")
        return Counter(dict(rows))

    def freeze(self, program: Program) -> None:
        """Freeze it while it is not writing: a frozen process keeps the database's locks, too. For any thread."""
        with closing(connect(self.url)) as own, own.atomic():  # on SQLite this is the lock
            if dialect(own) == "postgres":
                own.execute_sql("LOCK TABLE outbox_runner, outbox_delivery IN EXCLUSIVE MODE")
            program.freeze()

    def runners(self) -> list[str]:
        """The runners that nobody has declared dead, and have not left."""
        return [row[0] for row in self.query("SELECT id FROM outbox_runner WHERE dead_at IS NULL ORDER BY id")]

    def audit(
        self,
        accepted: Iterable[Received] | Journal,
        *,
        committed: Collection[int] | None = None,
        at_rest: bool = False,
    ) -> None:
        """The promise of DESIGN §1, held against what the relay has accepted: `tests.reconcile`."""
        journal = accepted if isinstance(accepted, Journal) else Journal(accepted)
        found = broken(self.query, journal, dialect(self.db), committed=committed, at_rest=at_rest)
        some = {name: each[:SHOWN] for name, each in found.items()}
        assert found == {}, f"the promise is broken: {some}"

    def run(self, *arguments: str, **settings: str) -> Runner:
        """`outbox run ARGUMENTS` on this database. A setting ``run_lease="2s"`` is OUTBOX_RUN_LEASE=2s."""
        environment = {f"OUTBOX_{name.upper()}": value for name, value in settings.items()}
        own = {"OUTBOX_DATABASE": self.url, "XDG_STATE_HOME": str(self.folder)}
        return Runner(command("run", *arguments), self.folder, **{**own, **environment})

    def outbox(self, *arguments: str, **settings: str) -> tuple[int, str]:
        """`outbox ARGUMENTS`, to its end: exit status, and everything it said."""
        environment = {f"OUTBOX_{name.upper()}": value for name, value in settings.items()}
        with Program(command(*arguments), self.folder, **{"OUTBOX_DATABASE": self.url, **environment}) as program:
            return program.wait(), program.output


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Iterator[Site]:
    """A fresh database of each kind."""
    with closing(Site(database_url, tmp_path)) as made:
        yield made


@pytest.fixture
def sqlite_site(sqlite_url: str, tmp_path: Path) -> Iterator[Site]:
    with closing(Site(sqlite_url, tmp_path)) as made:
        yield made


@pytest.fixture
def postgres_site(postgres_url: str, tmp_path: Path) -> Iterator[Site]:
    with closing(Site(postgres_url, tmp_path)) as made:
        yield made


class Program:
    """A program of ours in a process of its own. What it says is in `lines`, standard output and error together; but
    `of_machine` has what a runner says of this machine's SQLite, at each start, whatever the test is about.
    """

    def __init__(self, command: Sequence[str], folder: Path, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
        self.lines: list[str] = []
        self.of_machine: list[str] = []
        self._said = threading.Condition()
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**inherited, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **_away_from(folder), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._listener.start()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.resume()
            self.kill()
        self.process.wait(5)
        self._listener.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()
        if error is not None:
            print(f"--- what {self.process.args!r} said:", *self.lines, sep="\n")

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                about_sqlite = f"WARNING outbox.runner: {engine.WAL_RESET_BUG}" in line
                (self.of_machine if about_sqlite else self.lines).append(line.rstrip("\n"))
                self._said.notify_all()

    @property
    def output(self) -> str:
        """Everything it said, once it has ended."""
        self._listener.join(5)
        return "\n".join(self.lines)

    def silent(self, seconds: float = PATIENCE) -> None:
        """Until nobody holds its standard output any more: it has ended, and so has every process it started."""
        self._listener.join(seconds)
        if self._listener.is_alive():
            raise TimeoutError(
                f"a process that it started has not ended within {seconds:g} s:\n" + "\n".join(self.lines)
            )

    def says(self, pattern: str, seconds: float = PATIENCE) -> re.Match[str]:
        """Until one of its lines matches. Raises TimeoutError."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines if (match := re.search(pattern, line))), None)

        with self._said:
            match = self._said.wait_for(lambda: found() or self.process.poll() is not None, seconds)
        if match and (said := found()):
            return said
        raise TimeoutError(f"it did not say {pattern!r}, but:\n" + "\n".join(self.lines))

    def wait(self, seconds: float = 30.0) -> int:
        """Until it ends. Its exit status. Raises TimeoutError."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"it has not ended within {seconds:g} s:\n" + "\n".join(self.lines)) from None

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(5)

    def stop(self) -> None:
        """SIGTERM; returns at once."""
        self.process.terminate()

    def freeze(self) -> None:
        """SIGSTOP: the process is there, holds its locks and its connections, and does nothing."""
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def resume(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGCONT)


def _away_from(folder: Path) -> dict[str, str]:
    """What programs keep beside their configuration stays in the test's own folder."""
    return {"XDG_STATE_HOME": str(folder), "STATE_DIRECTORY": ""}


def command(*arguments: str) -> list[str]:
    """The command line of `outbox ARGUMENTS`."""
    return [sys.executable, "-m", "outbox", *arguments]


class Runner(Program):
    """`outbox run`. Made by `Site.run`."""

    def __enter__(self) -> Runner:
        return self

    def started(self, seconds: float = PATIENCE) -> str:
        """Until it is at work. The beginning of its id."""
        return self.says(r"runner ([0-9a-f]{8}) (?:started|serves)", seconds)[1]

    @property
    def stays(self) -> list[str]:
        """What it said, at its end, that stays."""
        return [line for line in self.output.splitlines() if line.startswith("stays: ")]

    @property
    def complaints(self) -> list[str]:
        """Its warnings and worse."""
        return [line for line in self.output.splitlines() if re.search("WARNING|ERROR|CRITICAL|Traceback|^error", line)]
