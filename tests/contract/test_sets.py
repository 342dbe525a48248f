"""Sets of rows on SQLite: the same as row by row, with fewer statements."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outbox.core.batches import LARGEST, flat, in_powers
from outbox.store.engine import sqlite3
from outbox.store.sets import for_a_set

INSERT = "INSERT INTO t (id, a) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"
UPDATE = "UPDATE t SET a = a || ?, b = COALESCE(?, b) WHERE id = ? AND b = ? RETURNING id"


def table() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b INTEGER DEFAULT 1)")
    return db


def contents(db: sqlite3.Connection) -> list[tuple[object, ...]]:
    return db.execute("SELECT * FROM t ORDER BY id").fetchall()


@given(st.integers(0, 300))
def test_sets_hold_everything_in_order_in_powers_of_two(count: int) -> None:
    sets = list(in_powers(range(count)))
    assert [each for rows in sets for each in rows] == list(range(count))
    assert all(len(rows) <= LARGEST and len(rows).bit_count() == 1 for rows in sets)


@given(st.lists(st.tuples(st.integers(1, 30), st.text("xy", max_size=3)), max_size=100))
def test_a_set_of_inserts_does_what_its_rows_do(rows: list[tuple[int, str]]) -> None:
    one, many = table(), table()
    one.executemany(INSERT, rows)
    for each in in_powers(rows):
        many.execute(for_a_set(INSERT, len(each)), flat(each))
    assert contents(one) == contents(many)


@given(
    st.dictionaries(
        st.integers(1, 40), st.tuples(st.text("xy", max_size=2), st.none() | st.integers(0, 2)), max_size=80
    )
)
def test_a_set_of_updates_does_what_its_rows_do(changes: dict[int, tuple[str, int | None]]) -> None:
    one, many = table(), table()
    for db in (one, many):
        db.executemany("INSERT INTO t (id, a, b) VALUES (?, '', ?)", [(key, key % 3) for key in range(1, 31)])
    rows = [(a, b, key, 1) for key, (a, b) in changes.items()]
    matched = [one.execute(UPDATE, row).fetchone() is not None for row in rows]
    counted = sum(many.execute(for_a_set(UPDATE, len(each)), flat(each)).rowcount for each in in_powers(rows))
    assert contents(one) == contents(many)
    assert counted == sum(matched)
