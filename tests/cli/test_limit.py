"""``outbox limit …``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from outbox.core.limits import Limit, Limited
from outbox.store import limits
from outbox.store.database import connect
from outbox.store.limits import Want
from tests.cli.program import Program

ADD = ("account", "add", "main", "--relay", "smtp.example.com:587", "--tls", "starttls")


def take(program: Program, limit: Limit, count: int, at: datetime) -> None:
    db = connect(program.url)
    with db.atomic():
        assert limits.reserve(db, [[Want(limit, count)]], at) == [()]
    db.close()


def test_limits_are_set_changed_listed_and_lifted(program: Program) -> None:
    program.init().run(*ADD)
    assert program.run("limit", "list").stdout == ""
    said = program.run("limit", "set", "account", "main", "--per-minute", "30", "--connections", "3").stdout
    assert said == "limited account main: 3 connections, 30 a minute\n"
    said = program.run("limit", "set", "account", "main", "--per-day", "100", "--connections", "0").stdout
    assert said == "limited account main: 30 a minute, 100 a day\n"
    assert program.json("limit", "list") == [
        {
            "scope": "account",
            "name": "main",
            "connections": None,
            "per_minute": 30,
            "per_hour": None,
            "per_day": 100,
            "used": {"minute": 0, "day": 0},
            "next_free": None,
        }
    ]
    program.run("limit", "remove", "account", "main")
    assert program.json("limit", "list") == []


def test_the_list_says_how_much_is_used_and_when_there_is_room(program: Program) -> None:
    program.init().run("limit", "set", "domain", "Example.NET", "--per-day", "5", "--per-minute", "100")
    today = datetime.now(UTC)
    take(program, Limit(Limited.DOMAIN, "example.net", per_minute=100, per_day=5), 5, today)
    (found,) = program.json("limit", "list")
    assert found["used"]["day"] == 5
    soon = today.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1, hours=2, minutes=24)
    assert datetime.fromisoformat(found["next_free"]) == soon  # half of a fifth of the next day
    header, row = program.run("limit", "list").stdout.splitlines()
    assert header.split() == ["SCOPE", "NAME", "CONNECTIONS", "MINUTE", "HOUR", "DAY", "NEXT", "FREE"]
    assert row.split()[:3] == ["domain", "example.net", "-"]
    assert row.split()[4:] == ["-", "5/5", f"{soon:%Y-%m-%dT%H:%M:%SZ}"]


def test_names_are_written_as_they_are_registered(program: Program) -> None:
    program.init().run(*ADD)
    program.run("sender", "add", "*@example.com", "--account", "main")
    program.run("limit", "set", "sender", "*@Example.com", "--per-hour", "7")
    program.run("limit", "set", "domain", "bücher.example", "--connections", "2")
    names = [(each["scope"], each["name"]) for each in program.json("limit", "list")]
    assert names == [("domain", "xn--bcher-kva.example"), ("sender", "*@example.com")]
    program.run("limit", "remove", "domain", "BÜCHER.example")
    assert len(program.json("limit", "list")) == 1


@pytest.mark.parametrize(
    ("scope", "name", "options", "code", "why"),
    [
        ("account", "main", ["--per-day", "5"], 1, "there is no account main"),
        ("sender", "shop@example.com", ["--per-day", "5"], 1, "there is no sender shop@example.com"),
        ("sender", "shop", ["--per-day", "5"], 2, "NAME"),
        ("domain", "a b", ["--per-day", "5"], 2, "NAME"),
        ("relay", "x", ["--per-day", "5"], 2, "relay"),
        ("domain", "example.net", [], 2, "give --connections"),
        ("domain", "example.net", ["--per-day", "0"], 1, "no limit"),
        ("domain", "example.net", ["--per-day", "-1"], 2, "--per-day"),
        ("domain", "example.net", ["--per-minute", "many"], 2, "--per-minute"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(
    sqlite_program: Program, scope: str, name: str, options: list[str], code: int, why: str
) -> None:
    assert why in sqlite_program.init().fails(code, "limit", "set", scope, name, *options)
    assert sqlite_program.json("limit", "list") == []


def test_what_is_not_limited_cannot_be_lifted(sqlite_program: Program) -> None:
    assert "there is no limit of domain x.example" in sqlite_program.init().fails(
        1, "limit", "remove", "domain", "x.example"
    )


def test_what_people_do_with_limits_is_in_the_journal(sqlite_program: Program) -> None:
    sqlite_program.init().run("limit", "set", "domain", "example.net", "--per-day", "5")
    sqlite_program.run("limit", "remove", "domain", "example.net")
    db = connect(sqlite_program.url)
    sql = "SELECT verb, filter, detail FROM outbox_journal WHERE verb LIKE 'limit%' ORDER BY id"
    assert db.execute_sql(sql).fetchall() == [
        ("limit set", "domain=example.net", "per_day=5"),
        ("limit remove", "domain=example.net", None),
    ]
    db.close()
