"""The walk through all states, depth first, on one database: every step is undone when it has been followed.

A state is what the database says and what the processes remember. Reaching one that was there before ends a path.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from outbox.clock import Clock
from outbox.store.database import connect
from outbox.store.engine import sqlite3
from outbox.store.migrate import apply
from outbox.store.sqlite import SqliteStore
from tests.model.promises import broken, unfinished
from tests.model.protocol import MESSAGES, ON_DOUBT, SHOP, Bounds, Process, Protocol, World
from tests.model.reading import Database, read

_INSERT = "INSERT INTO outbox (id, sender, recipients, subject, text_body, on_doubt) VALUES (?, ?, ?, ?, ?, ?)"


@dataclass(slots=True)
class Exploration:
    """What was found. `broken`: the promise, and then the steps that break it. `ends`: how often the two messages were
    in which states when nothing more was left to do for either.
    """

    states: int = 0
    transitions: int = 0
    deepest: int = 0
    seconds: float = 0.0
    broken: str = ""
    steps: tuple[str, ...] = ()
    ends: Counter[tuple[str, ...]] = field(default_factory=Counter)


class BrokenError(Exception):
    """A promise does not hold."""


class Explorer:
    """Explores `protocol` on `store`. One use."""

    def __init__(self, store: SqliteStore, protocol: Protocol) -> None:
        self._store, self._protocol = store, protocol
        self._connection = store.db.connection()
        self._seen: set[int] = set()
        self._path: list[str] = []
        self.found = Exploration()

    def explore(self) -> Exploration:
        began = time.process_time()
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 20_000))
        world = World((Process(""), Process("")))
        self._run("BEGIN")
        try:
            self._visit(world, read(self._store))
        except BrokenError as error:
            self.found.broken, self.found.steps = str(error), tuple(self._path)
        finally:
            self._run("ROLLBACK")
        self.found.states = len(self._seen)
        self.found.seconds = time.process_time() - began
        return self.found

    def _visit(self, world: World, database: Database) -> None:
        self.found.deepest = max(self.found.deepest, len(self._path))
        if not unfinished(database):
            self.found.ends[tuple(each.state for each in database.deliveries)] += 1
        for name, take, writes in self._protocol.steps(world, database):
            self._path.append(name)
            if writes:
                self._run("SAVEPOINT step")
                self._take(take, database)
                self._run("ROLLBACK TO step")
                self._run("RELEASE step")
            elif (after := take()) is not None:
                self._follow(database, database, after)
            self._path.pop()

    def _take(self, take: Callable[[], World | None], before: Database) -> None:
        try:
            after = take()
        except sqlite3.IntegrityError as error:  # a trigger or a constraint has refused what a variant did
            raise BrokenError(f"the database refuses: {error}") from error
        if after is not None:
            self._follow(before, read(self._store), after)

    def _follow(self, before: Database, database: Database, world: World) -> None:
        self.found.transitions += 1
        state = hash((world, database))
        if state in self._seen:
            return
        self._seen.add(state)
        if words := broken(before, database, world):
            raise BrokenError(words)
        self._visit(world, database)

    def _run(self, sql: str) -> None:
        self._connection.execute(sql)


def prepared(folder: Path) -> str:
    """The URL of a database with the messages. A file, because a store opens what is there; but what is explored is
    never committed.
    """
    url = f"sqlite:///{(folder / 'model.db').as_posix()}"
    database = connect(url)
    apply(database)
    for number in MESSAGES:
        row = (number, SHOP, "ann@example.net", "Order 7", "Thanks", ON_DOUBT[number])
        database.connection().execute(_INSERT, row)
    database.close()
    return url


def explore(bounds: Bounds, store: type[SqliteStore] = SqliteStore, protocol: type[Protocol] = Protocol) -> Exploration:
    """The whole space within `bounds`, or up to the first broken promise."""
    with TemporaryDirectory() as folder:
        opened = store(prepared(Path(folder)), Clock())
        opened.open()
        try:
            return Explorer(opened, protocol(opened, bounds)).explore()
        finally:
            opened.close()
