"""The reconciliation finds what it is there to find: each invariant, broken by hand.

But I8 and I9: the databases let nobody break these (that claim numbers only grow, a trigger says).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outbox.store.database import dialect
from tests.reconcile import Journal, broken
from tests.relay import Relay
from tests.running import Site
from tests.running import site as site
from tests.stories import Stories

ANN = "ann@example.net"
Found = dict[str, list[Any]]


class Told:
    """Three messages: two that were sent, of which `second` has been held for a doubt before, and one that waits."""

    def __init__(self, site: Site, stories: Stories) -> None:
        stories.register("shop@example.com")
        self.site, self.stories = site, stories
        self.first, self.second = stories.mail(), stories.mail(on_doubt="hold")
        stories.attempt(self.first)
        stories.attempt(self.second)
        self.journal = Journal()
        for number in (self.first, self.second):
            self.accept(number)

    def name(self, number: int) -> str:
        [(token,)] = self.site.query("SELECT token FROM outbox WHERE id = ?", number)
        return f"{number}.{token}"

    def accept(self, number: int, content: bytes = b"hello", name: str = "") -> None:
        """As the relay would note it."""
        name = name or self.name(number)
        self.journal.contents.setdefault(name, set()).add(content)
        self.journal.copies[name, ANN] += 1

    def broken(self) -> Found:
        committed = [self.first, self.second]
        return broken(self.site.query, self.journal, dialect(self.site.db), committed=committed, at_rest=True)


@pytest.fixture
def told(site: Site, database_url: str) -> Any:
    with Stories(database_url) as stories:
        yield Told(site, stories)


def test_what_is_as_it_should_be_is_not_broken(told: Told) -> None:
    assert told.broken() == {}


def unsay(told: Told) -> None:
    told.journal.contents.pop(told.name(told.first))
    told.journal.copies.pop((told.name(told.first), ANN))


def leave_open(told: Told) -> None:
    told.site.query(
        "INSERT INTO outbox_attempt (message_id, claim_no, runner_id, started_at)"
        " SELECT message_id, 0, runner_id, started_at FROM outbox_attempt WHERE message_id = ?",
        told.first,
    )


BREAKS: dict[str, tuple[Callable[[Told], object], set[str]]] = {
    "a mail that nobody was given, and no state that says so": (unsay, {"I1", "I4"}),
    "a mail that is still queued": (lambda told: told.stories.mail(), {"I1", "I5"}),
    "a mail of nobody's": (lambda told: told.accept(0, name="99.abcdef"), {"I2"}),
    "a second copy that nobody announced": (lambda told: told.accept(told.first), {"I3"}),
    "a second copy, with hold": (lambda told: told.accept(told.second), {"I3", "I6"}),
    "other bytes": (lambda told: told.accept(told.first, b"hello!"), {"I3", "I10"}),
    "an attempt that is left open": (leave_open, {"I7"}),
}


@pytest.mark.parametrize("what", BREAKS)
def test_what_is_broken_is_found(told: Told, what: str) -> None:
    breaks, invariants = BREAKS[what]
    breaks(told)

    assert set(told.broken()) == invariants


def test_a_journal_knows_messages_by_id_and_token(tmp_path: Path, sqlite_url: str) -> None:
    site = Site(sqlite_url, tmp_path)
    with Relay() as relay:
        site.register(relay.port)
        [number] = site.insert(1)
        with site.run("--until-empty") as runner:
            assert runner.wait() == 0
        journal = Journal(relay.messages)
        [(token,)] = site.query("SELECT token FROM outbox")
    site.close()

    assert journal.copies == {(f"{number}.{token}", "ann0@example.net"): 1}
    assert journal.count == len(journal.contents) == 1
