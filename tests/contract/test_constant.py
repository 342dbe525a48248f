"""A query that is made once says what it would say if it were made each time."""

from __future__ import annotations

import peewee
import pytest

from outbox.store import tables
from outbox.store.constant import Constant
from outbox.store.database import connect
from tests.statements import run


def test_it_is_made_once_and_asked_again(db: peewee.Database) -> None:
    made = []

    def make() -> peewee.ModelSelect[tables.Suppression]:
        made.append(1)
        row = tables.Suppression
        return row.select(row.address, row.until, row.reason.alias("why")).order_by(row.address)

    constant = Constant(make)
    assert constant.rows(db) == []

    insert = "INSERT INTO outbox_suppression (address, reason, until, created_at) VALUES (?, 'manual', ?, ?)"
    for address, until in (("b@example.net", None), ("a@example.net", "2027-01-01T00:00:00.000Z")):
        run(db, insert, address, until, "2026-01-01T00:00:00.000Z")
    assert constant.rows(db) == list(make().dicts().execute(db))
    assert [(row["address"], row["why"], row["until"] is None) for row in constant.rows(db)] == [
        ("a@example.net", "manual", False),
        ("b@example.net", "manual", True),
    ]
    assert len(made) == 2, "once by itself, and once here"


@pytest.mark.parametrize("times", [1, 2])
def test_it_asks_each_database_in_its_own_words(sqlite_url: str, postgres_url: str, times: int) -> None:
    constant = Constant(lambda: tables.Sender.select(tables.Sender.address).where(tables.Sender.address != "?"))
    for url in (sqlite_url, postgres_url) * times:
        with connect(url) as database:
            assert constant.rows(database) == []
