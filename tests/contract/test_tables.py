"""peewee's map says what the schema says, in both dialects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import peewee
import pytest

from outbox.store import tables
from outbox.store.tables import TABLES


def test_every_model_has_exactly_the_columns_of_its_table(database: peewee.Database) -> None:
    for model in TABLES:
        table = model._meta.table_name
        mapped = {field.column_name for field in model._meta.sorted_fields}
        assert {column.name for column in database.get_columns(table)} == mapped, table


def test_every_table_has_a_model(database: peewee.Database) -> None:
    mapped = {model._meta.table_name for model in TABLES}
    partitions = {"outbox_delivery_live", "outbox_delivery_final"}
    assert {name for name in database.get_tables() if name.startswith("outbox")} - partitions == mapped


def test_primary_keys_and_what_may_be_null_agree(database: peewee.Database) -> None:
    for model in TABLES:
        table = model._meta.table_name
        key = {field.column_name for field in model._meta.get_primary_keys()}
        if table != "outbox_delivery":  # a partitioned table has its key on each partition
            assert set(database.get_primary_keys(table)) == key, table
        may_be_null = {field.column_name for field in model._meta.sorted_fields if field.null}
        really = {column.name for column in database.get_columns(table) if column.null}
        assert really - key == may_be_null, table


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
        datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    ],
)
def test_a_moment_comes_back_as_it_was_written(database: peewee.Database, moment: datetime) -> None:
    tables.Journal.insert(at=moment, who="w", verb="v").execute(database)
    found = tables.Journal.select().first(database)
    assert found.at == moment
    assert found.at.tzinfo is UTC
    assert tables.Journal.select().where(tables.Journal.at <= moment).count(database) == 1
    assert tables.Journal.select().where(tables.Journal.at < moment).count(database) == 0


def test_a_moment_without_a_time_zone_is_refused(database: peewee.Database) -> None:
    with pytest.raises(ValueError, match="time zone"):
        tables.Journal.insert(at=datetime(2026, 1, 1), who="w", verb="v").execute(database)  # noqa: DTZ001


def test_a_stored_moment_is_the_text_that_the_schema_writes_itself(sqlite_url: str) -> None:
    from outbox.store.database import connect

    database = connect(sqlite_url)
    tables.Journal.insert(at=datetime(2026, 3, 1, 12, tzinfo=UTC), who="w", verb="v").execute(database)
    database.execute_sql("INSERT INTO outbox_journal (who, verb) VALUES ('w', 'v')")
    mine, theirs = (row[0] for row in database.execute_sql("SELECT at FROM outbox_journal ORDER BY id").fetchall())
    assert mine == "2026-03-01T12:00:00.000Z"
    assert len(theirs) == len(mine) == 24
    database.close()


def test_raw_and_headers_are_read_alike(database: peewee.Database) -> None:
    sqlite = isinstance(database, peewee.SqliteDatabase)
    insert = "INSERT INTO outbox (sender, recipients, headers, raw) VALUES ('a@b.example', 'c@d.example', '{h}', {r})"
    raw = "'Subject: x'" if sqlite else "'Subject: x'::bytea"
    database.execute_sql(insert.format(h='{"X-A": "ü"}', r=raw))
    found = tables.Outbox.select().first(database)
    assert (found.headers, found.raw) == ('{"X-A": "ü"}', b"Subject: x")
