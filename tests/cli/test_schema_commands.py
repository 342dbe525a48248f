"""``outbox schema apply | status | show | check``, as an operator types them."""

from __future__ import annotations

from outbox.store.engine import sqlite3
from outbox.store.migrate import latest, migrations
from tests.cli.program import Program

LATEST = latest("sqlite")
ALL = ", ".join(f"{each.number:04}" for each in migrations("sqlite"))


def test_apply_says_what_it_did_and_then_that_there_is_nothing_to_do(sqlite_program: Program, empty_url: str) -> None:
    first = sqlite_program.run("schema", "apply", "--database", empty_url)
    assert first.stdout == f"applied {ALL}; the schema is at version {LATEST}\n"
    second = sqlite_program.json("schema", "apply", "--database", empty_url)
    assert second == {"applied": [], "version": LATEST}


def test_the_database_may_come_from_the_environment(program: Program) -> None:
    result = program.run("schema", "check", env={"OUTBOX_DATABASE": program.url})
    assert result.stdout == f"ok: the schema is at version {LATEST}\n"


def test_the_database_may_come_from_the_configuration(sqlite_program: Program) -> None:
    (sqlite_program.home / "outbox.toml").write_text(f'database = "{sqlite_program.url}"\n')
    assert sqlite_program.json("schema", "check") == {"ok": True, "version": LATEST}


def test_what_is_typed_wins_over_the_environment(sqlite_program: Program) -> None:
    elsewhere = {"OUTBOX_DATABASE": "sqlite:///nowhere.db"}
    sqlite_program.run("schema", "check", "--database", sqlite_program.url, env=elsewhere)
    sqlite_program.run("--database", sqlite_program.url, "schema", "check", env=elsewhere)


def test_no_database_at_all_is_an_error_of_the_configuration(sqlite_program: Program) -> None:
    assert "OUTBOX_DATABASE" in sqlite_program.fails(3, "schema", "status")


def test_status_shows_how_far_a_database_is(program: Program) -> None:
    now = program.json("schema", "status", "--database", program.url)
    assert (now["version"], now["latest"], now["pending"]) == (LATEST, LATEST, [])
    assert now["database_uuid"] in program.run("schema", "status", "--database", program.url).stdout


def test_status_of_an_empty_database_lists_what_is_pending(sqlite_program: Program) -> None:
    (sqlite_program.home / "empty.db").touch()
    printed = sqlite_program.run("schema", "status", "--database", "empty.db").stdout
    assert "there are no tables of Outbox" in printed
    assert "0001, 0002, 0003" in printed


def test_status_and_check_create_no_file(sqlite_program: Program) -> None:
    for verb in ("status", "check"):
        assert "there is no database" in sqlite_program.fails(4, "schema", verb, "--database", "new.db")
    assert list(sqlite_program.home.glob("new.db*")) == []


def test_check_fails_with_what_is_missing(sqlite_program: Program) -> None:
    direct = sqlite3.connect(sqlite_program.url.removeprefix("sqlite:///"))
    direct.execute("DROP VIEW outbox_daily")
    direct.close()
    assert "lacks: view outbox_daily" in sqlite_program.fails(4, "schema", "check", "--database", sqlite_program.url)


def test_show_prints_a_script_that_runs(sqlite_program: Program) -> None:
    script = sqlite_program.run("schema", "show", "--dialect", "sqlite").stdout
    direct = sqlite3.connect(sqlite_program.home / "shown.db")
    direct.executescript(script)
    direct.close()
    sqlite_program.run("schema", "check", "--database", "shown.db")


def test_show_prints_postgres_and_its_roles_without_a_database(sqlite_program: Program) -> None:
    assert "PARTITION BY LIST" in sqlite_program.run("schema", "show", "--dialect", "postgres").stdout
    assert "GRANT INSERT" in sqlite_program.run("schema", "show", "--dialect", "postgres", "--roles").stdout
    assert "SQLite has no roles" in sqlite_program.fails(2, "schema", "show", "--dialect", "sqlite", "--roles")
    assert "mysql" in sqlite_program.fails(2, "schema", "show", "--dialect", "mysql")
