"""Sets of rows on SQLite: the same as row by row, with fewer statements."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outbox.core.batches import LARGEST, in_powers
from outbox.store.engine import sqlite3
from outbox.store.sets import in_sets

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
    for each in in_sets(INSERT, rows):
        many.execute(*each)
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
    counted = sum(many.execute(*each).rowcount for each in in_sets(UPDATE, rows))
    assert contents(one) == contents(many)
    assert counted == sum(matched)


def test_there_are_few_statements_for_any_number_of_rows() -> None:
    for sql, row in ((INSERT, (1, "x")), (UPDATE, ("x", 1, 1, 1))):
        assert len({text for count in range(1, 300) for text, _ in in_sets(sql, [row] * count)}) <= 7
    assert len(list(in_sets(UPDATE, [("x", 1, 1, 1)] * 63))) == 1
