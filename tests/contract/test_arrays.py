"""Sets of rows on PostgreSQL: any text arrives as it is, and of rows with the same key the first one counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import peewee
import pytest

from outbox.store import Settled, Store
from outbox.store.arrays import array, as_arrays, for_arrays
from outbox.store.database import connect
from tests.contract.stores import add, attempts, claim, deferred, delivery, sent, settle

TEXTS = [
    "plain",
    "",
    " ",
    "NULL",
    "null",
    '"',
    "\\",
    '\\"',
    "{a,b}",
    "a,b",
    "'",
    "\n\r\t",
    "\x01",
    "ß€😀",
    "\\N",
    '","',
]


@pytest.fixture
def database(database_url: str) -> Iterator[peewee.Database]:
    opened = connect(database_url)
    yield opened
    opened.close()


@pytest.mark.parametrize("values", [TEXTS, [*TEXTS, None], [None, None], ["one"]])
def test_texts_arrive_as_they_are(postgres_url: str, values: list[str | None]) -> None:
    opened = connect(postgres_url)
    rows = opened.execute_sql("SELECT unnest(%s::text[])", (array(values),)).fetchall()
    opened.close()
    assert [value for (value,) in rows] == values


@pytest.mark.parametrize(
    ("values", "kind"), [([1, -2, 1 << 62], "bigint"), ([1, None], "integer"), ([True, False], "boolean"), ([], "text")]
)
def test_numbers_arrive_as_they_are(postgres_url: str, values: list[Any], kind: str) -> None:
    opened = connect(postgres_url)
    rows = opened.execute_sql(f"SELECT unnest(%s::{kind}[])", (array(values),)).fetchall()
    opened.close()
    assert [value for (value,) in rows] == values


@pytest.mark.parametrize("values", [["a\0b"], ["a", "b\0c"], ["\0", "a"]])
def test_a_nul_is_refused_and_shifts_no_row(values: list[str]) -> None:
    with pytest.raises(ValueError, match="NUL"):
        array(values)


def test_rows_become_columns() -> None:
    assert as_arrays([(1, "a"), (2, "b")]) == ["{1,2}", '{"a","b"}']


def test_a_statement_for_arrays_is_that_for_one_row() -> None:
    insert = for_arrays("INSERT INTO t (message_id, reply) VALUES (?, ?) ON CONFLICT DO NOTHING")
    rows = "unnest((SELECT %s::bigint[]), %s::text[])"
    assert insert == f"INSERT INTO t (message_id, reply) SELECT * FROM {rows} ON CONFLICT DO NOTHING"
    update = for_arrays("UPDATE t SET due_at = COALESCE(?, due_at) WHERE message_id = ? RETURNING 1")
    rows = "unnest((SELECT %s::timestamptz[]), %s::bigint[]) WITH ORDINALITY AS m (c1, c2, n)"
    assert update == f"UPDATE t SET due_at = COALESCE(m.c1, due_at) FROM {rows} WHERE message_id = m.c2 RETURNING m.n"


def test_of_two_settlements_of_a_claim_in_one_batch_the_first_counts(store: Store, database: peewee.Database) -> None:
    (number, other) = add(database, 2)
    first, second = claim(store)
    assert settle(store, sent(second), sent(first), deferred(first), sent(second)) == [
        Settled.WRITTEN,
        Settled.WRITTEN,
        Settled.LATE,
        Settled.WRITTEN,
    ]
    assert delivery(database, number, "state", "failures") == ("sent", 0)
    assert attempts(database, number) == [(1, "accepted", "deferred")]
    assert attempts(database, other) == [(1, "accepted", None)]


def test_of_a_batch_only_what_was_lost_is_late(store: Store, database: peewee.Database) -> None:
    add(database, 40)
    claims = claim(store)
    stale = [replace(each, claim_no=7) if place % 3 == 0 else each for place, each in enumerate(claims)]
    words = settle(store, *map(sent, stale))
    assert words == [Settled.LATE if place % 3 == 0 else Settled.WRITTEN for place in range(40)]
    for each, word in zip(claims, words, strict=True):
        assert delivery(database, each.message_id, "state") == ("sending" if word is Settled.LATE else "sent",)
