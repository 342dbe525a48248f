"""What the tests of the store's verbs share: the store of a registered runner, mails, claims and settlements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import peewee
import pytest

from outbox.clock import Clock
from outbox.core.lifecycle import State
from outbox.core.message import Recipient
from outbox.core.outcome import Outcome, Scope, Stage, Verdict
from outbox.core.reply import Reply
from outbox.core.settlement import Claim, Fate, RecipientFate, Result, Settlement
from outbox.store import Pick, Settled, Store, open_store, runners
from tests.statements import MAIL, rows, run

T = TypeVar("T")

NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)  # later than any test here inserts
LATER = NOW + timedelta(hours=1)
SHOP = "shop@example.com"
ME, OTHER, SURVIVOR = "a" * 32, "b" * 32, "c" * 32
QUEUED = Reply(250, "2.0.0", "queued as 4X")
ANN = Recipient(0, "ann@example.net", "to")
BOB = Recipient(1, "bob@example.net", "to")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """The store of ME, a registered runner."""
    opened = open_store(database_url, Clock())
    opened.open()
    register(opened, ME)
    yield opened
    opened.close()


@pytest.fixture
def second(database_url: str) -> Iterator[Store]:
    """The store of OTHER, another runner."""
    opened = open_store(database_url, Clock())
    opened.open()
    register(opened, OTHER)
    yield opened
    opened.close()


def write(store: Store, verb: Callable[[], T]) -> T:
    with store.transaction():
        return verb()


def add(database: peewee.Database, count: int = 1, **columns: Any) -> list[int]:
    """Insert mails; their ids."""
    row = {**MAIL, **columns}
    sql = f"INSERT INTO outbox ({', '.join(row)}) VALUES ({', '.join('?' * len(row))}) RETURNING id"
    return [run(database, sql, *row.values()).fetchall()[0][0] for _ in range(count)]


def claim(store: Store, count: int = 100, sender: str = SHOP, priority: int = 5, runner: str = ME) -> list[Claim]:
    return write(store, lambda: store.claim(runner, [Pick(sender, priority, count)], NOW))


def sent(each: Claim, **changes: Any) -> Settlement:
    fate = RecipientFate(ANN, Fate.ACCEPTED, QUEUED, Outcome(Verdict.ACCEPT, Scope.MESSAGE), Stage.DOT)
    settlement = Settlement(
        each.message_id,
        each.claim_no,
        State.SENT,
        Result.ACCEPTED,
        stage=Stage.DOT,
        reply=QUEUED,
        fates=(fate,),
        relay="mx[192.0.2.1]:25",
        account="main",
        sha256="0" * 64,
        dot_at=NOW,
    )
    return replace(settlement, **changes)


def deferred(each: Claim) -> Settlement:
    grey = Reply(450, "4.2.0", "greylisted")
    fate = RecipientFate(ANN, Fate.DEFERRED, grey, Outcome(Verdict.DEFER, Scope.RECIPIENT), Stage.RCPT)
    return sent(each, state=State.QUEUED, result=Result.DEFERRED, reply=grey, due_at=LATER, failures=1, fates=(fate,))


def settle(store: Store, *settlements: Settlement) -> list[Settled]:
    return write(store, lambda: store.settle(settlements, NOW))


def delivery(database: peewee.Database, message_id: int, *columns: str) -> tuple[Any, ...]:
    (row,) = rows(database, f"SELECT {', '.join(columns)} FROM outbox_delivery WHERE message_id = ?", message_id)
    return row


def attempts(database: peewee.Database, message_id: int) -> list[tuple[Any, ...]]:
    sql = "SELECT claim_no, outcome, late_outcome FROM outbox_attempt WHERE message_id = ? ORDER BY claim_no"
    return rows(database, sql, message_id)


def fates(database: peewee.Database, message_id: int) -> list[tuple[Any, ...]]:
    sql = "SELECT position, claim_no, fate FROM outbox_recipient WHERE message_id = ? ORDER BY claim_no, position"
    return rows(database, sql, message_id)


def register(store: Store, runner: str, lease: timedelta = timedelta(hours=1)) -> None:
    write(store, lambda: runners.register(store, runner, host="web1", pid=1, version="0.1.0", now=NOW, lease=lease))


def bury(store: Store, runner: str) -> None:
    write(store, lambda: runners.bury(store, [runner], NOW))
