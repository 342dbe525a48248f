"""Suppressed addresses, on both databases."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import peewee
import pytest

from outbox.core.suppression import Suppression
from outbox.store import tables
from outbox.store.journal import Act
from outbox.store.suppression import BATCH, LOOKED_UP, Added, add, any_active, bring_in, listed, remove, suppressed

NOW = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)
ANN = Act("ann", NOW)
LATER = NOW + timedelta(days=1)
BOUNCED = Suppression("ann@example.net", "hard bounce")


def journaled(db: peewee.Database) -> list[tuple[str, str, str, int, str]]:
    query = tables.Journal.select().order_by(tables.Journal.id)
    return [(line.who, line.verb, line.matching, line.count, line.detail or "") for line in query.execute(db)]


def test_an_entry_is_read_as_it_was_added(database: peewee.Database) -> None:
    with database.atomic():
        assert add(database, [BOUNCED, Suppression("*@example.org", "moved", LATER)], ANN) == Added(new=2)

    assert listed(database) == [
        Suppression("*@example.org", "moved", LATER, NOW),
        Suppression("ann@example.net", "hard bounce", None, NOW),
    ]
    assert journaled(database) == [
        ("ann", "suppress add", "address=ann@example.net", 1, "hard bounce"),
        ("ann", "suppress add", "address=*@example.org", 1, "until=2026-03-02T12:00:00.123Z moved"),
    ]


def test_what_is_added_again_gets_the_new_reason_and_end(database: peewee.Database) -> None:
    with database.atomic():
        add(database, [BOUNCED], ANN)
        assert add(database, [BOUNCED], Act("bob", LATER)) == Added(same=1)
        assert add(database, [Suppression("ann@example.net", "spam", LATER)], Act("bob", LATER)) == Added(changed=1)

    assert listed(database) == [Suppression("ann@example.net", "spam", LATER, NOW)]


def test_a_list_can_be_searched_and_percent_is_only_a_letter(database: peewee.Database) -> None:
    with database.atomic():
        add(database, [BOUNCED, Suppression("50%@example.org", "Spam report")], ANN)

    assert [each.address for each in listed(database, "%")] == ["50%@example.org"]
    assert [each.address for each in listed(database, "hard")] == ["ann@example.net"]
    assert [each.address for each in listed(database, "example")] == ["50%@example.org", "ann@example.net"]
    assert listed(database, "nobody") == []


def test_an_address_is_suppressed_by_itself_before_its_domain(database: peewee.Database) -> None:
    with database.atomic():
        add(database, [BOUNCED, Suppression("*@example.net", "closed"), Suppression("*@example.org", "moved")], ANN)

    found = suppressed(
        database, ["Ann@Example.NET", "bob@example.net", "x@example.org", "x@sub.example.org", "x@example.com"], NOW
    )
    assert {address: (by.address, by.reason) for address, by in found.items()} == {
        "Ann@Example.NET": ("ann@example.net", "hard bounce"),
        "bob@example.net": ("*@example.net", "closed"),
        "x@example.org": ("*@example.org", "moved"),
    }
    assert suppressed(database, [], NOW) == {}


def test_what_is_over_does_not_count(database: peewee.Database) -> None:
    with database.atomic():
        add(database, [Suppression("ann@example.net", "full", LATER), Suppression("*@example.net", "down", NOW)], ANN)

    assert set(suppressed(database, ["ann@example.net", "bob@example.net"], NOW)) == {"ann@example.net"}
    assert suppressed(database, ["ann@example.net"], LATER) == {}
    assert any_active(database, NOW)
    assert not any_active(database, LATER)


def test_nobody_is_suppressed_at_first(database: peewee.Database) -> None:
    assert not any_active(database, NOW)
    assert suppressed(database, ["ann@example.net"], NOW) == {}


def test_removing_says_which_there_were(database: peewee.Database) -> None:
    with database.atomic():
        add(database, [BOUNCED, Suppression("*@example.net", "closed")], ANN)
        assert remove(database, ["ann@example.net", "bob@example.net"], ANN) == ["ann@example.net"]

    assert [each.address for each in listed(database)] == ["*@example.net"]
    assert journaled(database)[-1] == ("ann", "suppress remove", "address=ann@example.net", 1, "")


def test_an_import_may_come_again(database: peewee.Database) -> None:
    entries = [Suppression(f"user{number}@example.net", "") for number in range(2 * BATCH + 1)]
    told: list[int] = []
    first = bring_in(database, entries, ANN, source="old.txt", reason="imported", progress=told.append)
    again = bring_in(database, entries, ANN, source="old.txt", reason="imported again")

    assert (first, again) == (Added(new=len(entries)), Added(same=len(entries)))
    assert told == [BATCH, 2 * BATCH, 2 * BATCH + 1]
    assert {each.reason for each in listed(database)} == {"imported"}
    assert journaled(database) == [("ann", "suppress import", "file=old.txt", len(entries), "")] * 2


def test_an_import_keeps_a_reason_that_it_has_no_better_one_for(database: peewee.Database) -> None:
    with database.atomic():
        add(database, [BOUNCED, Suppression("bob@example.net", "full", LATER)], ANN)
    entries = [Suppression("ann@example.net", ""), Suppression("bob@example.net", "hard bounce")]

    assert bring_in(database, entries, ANN, source="-", reason="imported") == Added(changed=1, same=1)
    assert [(each.reason, each.until) for each in listed(database)] == [("hard bounce", None), ("hard bounce", None)]


def test_an_import_that_is_interrupted_has_counted_what_it_did(database: peewee.Database) -> None:
    entries = [Suppression(f"user{number}@example.net", "") for number in range(2 * BATCH)]

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring_in(database, entries, ANN, source="old.txt", reason="imported", progress=interrupt)
    assert [line[3] for line in journaled(database)] == [BATCH]
    assert len(listed(database)) == BATCH
    assert bring_in(database, entries, ANN, source="old.txt", reason="imported") == Added(new=BATCH, same=BATCH)


def test_ten_thousand_recipients_are_looked_up_in_a_few_statements(
    database: peewee.Database, caplog: pytest.LogCaptureFixture
) -> None:
    domains = 3000
    addresses = [f"user{number}@example{number % domains}.net" for number in range(10_000)]
    entries = [Suppression(each, "") for each in addresses[:: LOOKED_UP // 2]]
    bring_in(database, entries, ANN, source="-", reason="x")
    with caplog.at_level(logging.DEBUG, logger="peewee"):
        found = suppressed(database, addresses, NOW)

    assert set(found) == {each.address for each in entries}
    assert 0 < len(caplog.records) <= (len(addresses) + domains) / LOOKED_UP
