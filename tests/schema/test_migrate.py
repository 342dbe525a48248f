"""Bringing a database's tables up to date, over both databases."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator

import peewee
import pytest

from outbox.errors import DatabaseError, SchemaError
from outbox.store.database import connect, dialect
from outbox.store.migrate import apply, check, latest, migrations, roles_sql, show, status
from tests.statements import insert, one, rows, run

ALL = [migration.number for migration in migrations("sqlite")]


@pytest.fixture
def empty(empty_url: str) -> Iterator[peewee.Database]:
    database = connect(empty_url)
    yield database
    database.close()


def test_an_empty_database_gets_everything_once(empty: peewee.Database) -> None:
    assert status(empty).version == 0
    assert status(empty).pending == tuple(ALL)
    assert apply(empty) == ALL
    assert apply(empty) == []
    check(empty)
    now = status(empty)
    assert (now.version, now.pending, now.latest) == (ALL[-1], (), ALL[-1])
    insert(empty)


def test_each_database_has_an_id_of_its_own_that_stays(empty: peewee.Database, sqlite_url: str) -> None:
    apply(empty)
    first = status(empty).database_uuid
    apply(empty)
    assert first == status(empty).database_uuid
    assert uuid.UUID(first).version == 4
    other = connect(sqlite_url)
    assert first != status(other).database_uuid
    other.close()


def test_twenty_migrators_at_once_all_succeed(empty_url: str) -> None:
    together = threading.Barrier(20)
    applied: list[list[int]] = []

    def migrate() -> None:
        together.wait(30)
        database = connect(empty_url, timeout=30)
        applied.append(apply(database))
        check(database)
        database.close()

    migrators = [threading.Thread(target=migrate) for _ in range(20)]
    for migrator in migrators:
        migrator.start()
    for migrator in migrators:
        migrator.join(60)
    assert len(applied) == 20
    assert sorted(number for numbers in applied for number in numbers) == ALL


def test_migrators_in_other_processes_wait_for_each_other_too(empty_url: str) -> None:
    program = "import sys; from outbox.cli.schema import app; app(['apply', '--database', sys.argv[1]])"
    migrators = [subprocess.Popen([sys.executable, "-c", program, empty_url]) for _ in range(3)]
    assert [migrator.wait(60) for migrator in migrators] == [0, 0, 0]
    database = connect(empty_url)
    check(database)
    database.close()


def test_newer_tables_are_refused(database: peewee.Database) -> None:
    run(database, "UPDATE outbox_meta SET value = '99' WHERE key = 'schema_version'")
    for verb in (apply, check):
        with pytest.raises(SchemaError, match="newer than this program") as caught:
            verb(database)
        assert caught.value.exit_code == 4
        assert "upgrade" in caught.value.hint
    assert status(database).version == 99


def test_missing_tables_are_said(empty: peewee.Database) -> None:
    with pytest.raises(SchemaError, match="no tables of Outbox") as caught:
        check(empty)
    assert caught.value.hint == "outbox schema apply"


def test_older_tables_are_said(database: peewee.Database) -> None:
    run(database, "UPDATE outbox_meta SET value = '1' WHERE key = 'schema_version'")
    with pytest.raises(SchemaError, match=f"at version 1, this program needs {ALL[-1]}") as caught:
        check(database)
    assert caught.value.hint == "outbox schema apply"


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("DROP VIEW outbox_daily", "view outbox_daily"),
        ("DROP INDEX outbox_delivery_due", "index outbox_delivery_due"),
        ("DROP TABLE outbox_journal", "table outbox_journal"),
        ("DROP TRIGGER outbox_immutable", "trigger outbox_immutable"),
    ],
)
def test_what_somebody_dropped_is_named(database: peewee.Database, statement: str, named: str) -> None:
    on = " ON outbox" if dialect(database) == "postgres" and "TRIGGER" in statement else ""
    run(database, statement + on)
    with pytest.raises(SchemaError, match=f"lacks: {named}$"):
        check(database)


def test_a_migration_that_fails_leaves_nothing(empty: peewee.Database) -> None:
    run(empty, "CREATE TABLE outbox_journal (theirs integer)")
    with pytest.raises(SchemaError, match=r"migration 0001 .* failed: .*already exists") as caught:
        apply(empty)
    assert "not ours" in caught.value.hint
    assert empty.get_tables() == ["outbox_journal"]
    assert status(empty).version == 0
    run(empty, "DROP TABLE outbox_journal")
    assert apply(empty) == ALL


def test_what_the_database_refuses_is_said_in_our_words(empty_url: str) -> None:
    database = connect(empty_url)
    database.close()
    for verb in (status, check):
        with pytest.raises(DatabaseError, match="the database refused"):
            verb(database)


def test_a_database_that_cannot_be_written_gets_no_tables(empty: peewee.Database) -> None:
    read_only = "PRAGMA query_only = 1" if dialect(empty) == "sqlite" else "SET default_transaction_read_only = on"
    run(empty, read_only)
    with pytest.raises(DatabaseError, match=r"read-?only"):
        apply(empty)
    assert status(empty).version == 0


def test_the_printed_script_does_what_apply_does(empty: peewee.Database) -> None:
    script = show(dialect(empty))
    if dialect(empty) == "sqlite":
        empty.connection().executescript(script)
    else:
        empty.connection().execute(script)
    check(empty)
    assert apply(empty) == []
    assert uuid.UUID(str(status(empty).database_uuid)).version == 4


def test_both_dialects_have_the_same_migrations() -> None:
    names = [
        [(migration.number, migration.name) for migration in migrations(which)] for which in ("sqlite", "postgres")
    ]
    assert names[0] == names[1]
    assert list(range(1, latest("postgres") + 1)) == ALL


def test_both_dialects_have_the_same_tables_with_the_same_columns(sqlite_url: str, postgres_url: str) -> None:
    columns = []
    for url in (sqlite_url, postgres_url):
        database = connect(url)
        tables = {table for table in database.get_tables() if not re.search("_(live|final)$", table)}
        columns.append({table: [column.name for column in database.get_columns(table)] for table in tables})
        database.close()
    assert columns[0] == columns[1]


def test_the_schema_uses_only_features_that_old_sqlite_has() -> None:
    sql = "\n".join(re.sub(r"--.*", "", migration.sql) for migration in migrations("sqlite"))
    newer = r"\b(STRICT|unixepoch|jsonb?_\w+|RETURNING|GENERATED|iif|octet_length|ON CONFLICT|OVER \(|FILTER \()"
    assert not re.findall(newer, sql, re.IGNORECASE)


# ------------------------------------------------------------------------------------------------- PostgreSQL's schemas


def within(url: str, schema: str) -> str:
    """`url`, its session in another schema."""
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{schema}"


@pytest.mark.parametrize("schema", ["mail", '"Our Mail"'])
def test_postgres_tables_may_live_in_any_schema(postgres_url: str, schema: str) -> None:
    administrator = connect(postgres_url)
    run(administrator, f"CREATE SCHEMA {schema}")
    database = connect(within(postgres_url, schema.replace('"', "%22").replace(" ", "%5C%20")))
    assert apply(database) == ALL
    check(database)
    database.connection().execute(roles_sql())
    paths = rows(
        database,
        "SELECT DISTINCT array_to_string(proconfig, '') FROM pg_proc"
        " WHERE pronamespace = quote_ident(current_schema())::regnamespace",
    )
    assert paths == [(f"search_path=pg_catalog, {schema}, pg_temp",)]
    with administrator.atomic():  # an application that qualifies, and has another table outbox in its path
        run(administrator, "SET LOCAL ROLE outbox_app")
        run(
            administrator,
            f"INSERT INTO {schema}.outbox (sender, recipients, text_body) VALUES ('a@b', 'c@d', 'x') RETURNING id",
        )
    assert one(database, "SELECT state FROM outbox_delivery") == "queued"
    assert one(administrator, "SELECT count(*) FROM public.outbox_delivery") == 0
    database.close()
    administrator.close()


def test_a_schema_that_does_not_exist_is_said(postgres_url: str) -> None:
    database = connect(within(postgres_url, "nowhere"))
    with pytest.raises(SchemaError, match="no schema on the search_path exists") as caught:
        apply(database)
    assert "CREATE SCHEMA" in caught.value.hint
    database.close()


def test_a_role_that_may_not_create_is_told_so(postgres_url: str) -> None:
    database = connect(postgres_url)
    run(database, "CREATE SCHEMA closed")
    database.connection().execute(roles_sql())
    run(database, "GRANT USAGE ON SCHEMA closed TO outbox_auditor")
    run(database, "SET search_path = closed")
    run(database, "SET ROLE outbox_auditor")
    with pytest.raises(SchemaError, match="permission denied") as caught:
        apply(database)
    assert "may CREATE" in caught.value.hint
    database.close()
