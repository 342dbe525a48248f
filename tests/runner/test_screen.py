"""Who is sorted out before a relay is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import peewee
import pytest

from outbox.clock import Clock
from outbox.core.fate import Fate
from outbox.core.message import Recipient
from outbox.core.staging import Mode, Staging
from outbox.core.suppression import Suppression
from outbox.runner.sending.screen import Screen, Screened
from outbox.runner.writing.clerk import Clerk
from outbox.store import open_store
from outbox.store.journal import Act
from outbox.store.suppression import add, any_active

NOW = datetime.now(UTC)
ANN, BOB, CYD = (Recipient(n, f"{who}@example.net", "to") for n, who in enumerate(("ann", "bob", "cyd")))
DAN = Recipient(3, "dan@Example.ORG", "bcc")
ALL = (ANN, BOB, CYD, DAN)
SUPPRESSED = (
    Suppression("bob@example.net", "hard bounce"),
    Suppression("*@example.org", "closed"),
    Suppression("cyd@example.net", "was full", NOW - timedelta(seconds=1)),
)


@asynccontextmanager
async def clerk_at(url: str) -> AsyncIterator[Clerk]:
    clerk = Clerk(open_store(url, Clock()), Clock(), byte_budget=1_000_000, on_change=lambda: None)
    await clerk.start()
    try:
        yield clerk
    finally:
        await clerk.stop(5, asyncio.Event())


def sorted_by(url: str, staging: Staging, recipients: tuple[Recipient, ...] = ALL) -> Screened:
    async def story() -> Screened:
        async with clerk_at(url) as clerk:
            screen = Screen(clerk, staging)
            screen.load(await clerk.read(lambda store: any_active(store.db, store.now())))
            return await screen.sort(recipients)

    return asyncio.run(story())


@pytest.fixture
def suppressing(database_url: str, database: peewee.Database) -> str:
    """A database in which BOB and DAN's domain are suppressed, and CYD not any more."""
    with database.atomic():
        add(database, SUPPRESSED, Act("ann", NOW))
    return database_url


def words(screened: Screened) -> list[tuple[Recipient, str]]:
    assert {each.fate for each in screened.withheld} <= {Fate.BOUNCED}
    return [(each.recipient, str(each.reply)) for each in screened.withheld]


def test_the_suppressed_are_withheld_and_the_others_kept(suppressing: str) -> None:
    screened = sorted_by(suppressing, Staging())

    assert screened.kept == (ANN, CYD)
    assert words(screened) == [
        (BOB, "5.7.1 suppressed: hard bounce; `outbox suppress remove bob@example.net`, then retry"),
        (DAN, "5.7.1 suppressed: closed; `outbox suppress remove '*@example.org'`, then retry"),
    ]


def test_redirected_mail_is_suppressed_like_any_other(suppressing: str) -> None:
    assert sorted_by(suppressing, Staging(Mode.REDIRECT, "bob@example.net")).kept == (ANN, CYD)


def test_of_those_who_are_allowed_the_suppressed_are_withheld(suppressing: str) -> None:
    screened = sorted_by(suppressing, Staging(Mode.ALLOWLIST, allow=("*@example.net",)))

    assert screened.kept == (ANN, CYD)
    assert [reply.split(":")[0] for _, reply in words(screened)] == [
        "5.7.1 suppressed",
        "5.7.1 not sent, says Outbox",
    ]


def test_an_allowlist_needs_no_suppression(database_url: str) -> None:
    screened = sorted_by(database_url, Staging(Mode.ALLOWLIST, allow=("ann@example.net",)))

    assert screened.kept == (ANN,)
    assert [recipient for recipient, _ in words(screened)] == [BOB, CYD, DAN]


def test_nobody_is_kept_when_all_is_off(database_url: str) -> None:
    assert sorted_by(database_url, Staging(Mode.OFF)).kept == ()


def test_when_nobody_is_suppressed_and_all_is_live_nobody_is_asked(sqlite_url: str) -> None:
    async def story() -> Screened:
        async with clerk_at(sqlite_url) as clerk:
            screen = Screen(clerk, Staging())
            idle = [screen.idle]
            sorting = screen.sort(ALL)
            with pytest.raises(StopIteration) as done:  # it does not wait for anything
                sorting.send(None)
            for suppressing in (True, False):
                screen.load(suppressing)
                idle.append(screen.idle)
            assert idle == [True, False, True]
            assert not Screen(clerk, Staging(Mode.OFF)).idle
            kept: Screened = done.value.value
            return kept

    assert asyncio.run(story()) == Screened(ALL, ())
