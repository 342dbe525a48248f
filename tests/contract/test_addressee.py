"""Who is looked for is found in every group of messages, and whoever is new is recorded beside the last ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import peewee
import pytest

from outbox.store.database import connect, dialect, sqlite_path
from outbox.store.filters import Filter
from outbox.store.migrate import apply, migrations
from tests.plans import observed
from tests.statements import MOMENT, bring, insert, one, rows, run

GROUP = 1 << 14
"""Messages whose recipients' addresses stand together."""

FOUND = "SELECT message_id FROM outbox_addressee WHERE address = ? ORDER BY message_id DESC"


def tried(db: peewee.Database, number: int, *addresses: str, claim_no: int = 1, fate: str = "accepted") -> None:
    """A mail of that id, if there is none yet, and what became of its recipients."""
    if not one(db, "SELECT count(*) FROM outbox WHERE id = ?", number):
        insert(db, id=number, recipients=", ".join(addresses))
        bring(db, number, "sent")
    for position, address in enumerate(addresses):
        run(
            db,
            "INSERT INTO outbox_recipient (message_id, position, claim_no, address, kind, fate, at)"
            " VALUES (?, ?, ?, ?, 'to', ?, ?)",
            *(number, position, claim_no, address, fate, MOMENT),
        )


@pytest.mark.parametrize(
    "ids",
    [
        (1,),
        (1, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP),
        (64 * GROUP - 1, 64 * GROUP, 65 * GROUP),
        (7, 129 * GROUP, 1 << 40, (1 << 40) + 1, 1 << 62),
        (5 * 10**9, 5 * 10**9 + 100 * GROUP),
    ],
)
def test_an_address_is_found_wherever_its_mail_is(scratch_database: peewee.Database, ids: Sequence[int]) -> None:
    for number in ids:
        tried(scratch_database, number, "bob@example.net", "ann@example.net")
    assert rows(scratch_database, FOUND, "ann@example.net") == [(number,) for number in sorted(ids, reverse=True)]
    assert rows(scratch_database, FOUND, "eve@example.net") == []
    which = Filter(recipient="Ann@Example.net")
    assert which.newest(scratch_database, 2) == sorted(ids, reverse=True)[:2]


def test_nobody_is_found_where_nobody_was_tried(scratch_database: peewee.Database) -> None:
    insert(scratch_database)
    assert rows(scratch_database, FOUND, "ann@example.net") == []


def test_an_addressee_is_a_fate_with_its_address_in_lower_case(scratch_database: peewee.Database) -> None:
    tried(scratch_database, 3, "Ann@Example.NET", "bob@example.net", fate="doubt")
    tried(scratch_database, 3, "Ann@Example.NET", claim_no=2)
    tried(scratch_database, 2 * GROUP, "ann@example.net")
    columns = "message_id, position, claim_no, lower(address), kind, fate, code, status, reply, at"
    addressees = rows(scratch_database, f"SELECT {columns} FROM outbox_addressee ORDER BY message_id, position")
    assert addressees == rows(scratch_database, f"SELECT {columns} FROM outbox_fate ORDER BY message_id, position")
    assert rows(scratch_database, "SELECT DISTINCT address FROM outbox_addressee WHERE position = 0") == [
        ("ann@example.net",)
    ]


def test_gaps_between_ids_are_not_walked_through(scratch_database: peewee.Database) -> None:
    tried(scratch_database, 1, "ann@example.net")
    tried(scratch_database, 1 << 62, "ann@example.net")
    if dialect(scratch_database) == "postgres" and not one(
        scratch_database, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    ):
        pytest.skip("auto_explain needs a superuser")
    with observed(scratch_database) as seen:
        run(scratch_database, FOUND, "ann@example.net").fetchall()
    assert seen.cost < 10_000, "\n".join(seen.plans)


def test_a_new_address_changes_few_pages_however_many_there_are(database: peewee.Database, database_url: str) -> None:
    """By an index on addresses alone, each of these would change a page of its own."""
    old, groups, new = 5_000, 8, 200
    numbers = [group * GROUP + each for group in range(groups) for each in range(1, old + 1)]
    first = groups * GROUP
    changed = _changed_in_postgres if dialect(database) == "postgres" else _changed_in_sqlite
    pages = changed(database, database_url, numbers, range(first, first + new))
    assert pages < new / 2


def _changed_in_sqlite(db: peewee.Database, url: str, numbers: Sequence[int], later: Sequence[int]) -> int:
    sql = "INSERT INTO outbox_recipient (message_id, position, claim_no, address, kind, fate) VALUES (?, 0, 1, ?, ?, ?)"
    db.execute_sql("PRAGMA foreign_keys = off")
    for some in (numbers, later):
        db.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        with db.atomic():
            db.cursor().executemany(sql, [(each, _address(each), "to", "accepted") for each in some])
    page = int(one(db, "PRAGMA page_size"))
    return Path(sqlite_path(url) + "-wal").stat().st_size // page


def _changed_in_postgres(db: peewee.Database, _: str, numbers: Sequence[int], later: Sequence[int]) -> int:
    if not one(db, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        pytest.skip("a CHECKPOINT needs a superuser")
    sql = (
        "INSERT INTO outbox_recipient (message_id, position, claim_no, address, kind, fate)"
        " SELECT n, 0, 1, address, 'to', 'accepted' FROM unnest(?::bigint[], ?::text[]) AS given (n, address)"
    )
    run(db, sql, list(numbers), [_address(each) for each in numbers])
    db.execute_sql("CHECKPOINT")
    explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
    ((plan,),) = run(db, explain + sql, list(later), [_address(each) for each in later]).fetchone()
    return int(plan["Plan"]["Shared Dirtied Blocks"])


def _address(number: int) -> str:
    """In no order, as addresses come."""
    return f"customer{number * 2654435761 % 2147483647}@example.net"


def test_what_was_recorded_before_the_migration_is_found_after_it(empty_url: str) -> None:
    db = connect(empty_url)
    kind = dialect(db)
    for migration in migrations(kind)[:6]:
        connection = db.connection()
        connection.executescript(migration.sql) if kind == "sqlite" else connection.execute(migration.sql)
    run(db, "INSERT INTO outbox_meta (key, value) VALUES ('schema_version', '6')")
    tried(db, 7, "Ann@example.net")
    tried(db, 3 * GROUP, "ann@example.net")
    assert apply(db)[0] == 7
    assert rows(db, FOUND, "ann@example.net") == [(3 * GROUP,), (7,)]
    db.close()
