"""``outbox account add``: presets and pins."""

from __future__ import annotations

import hashlib
import ssl
from typing import Any

import pytest
import trustme

from outbox.store import accounts
from outbox.store.database import connect
from tests.cli.program import CANARY, Program
from tests.relay import Relay, server_context

PASSWORD = ("--username", "shop@example.com", "--password-stdin")
PIN = "0123456789abcdef" * 4


def pins(program: Program) -> str:
    db = connect(program.url)
    try:
        return accounts.account(db, "main").tls_pins
    finally:
        db.close()


def limited(program: Program) -> dict[str, Any]:
    (found,) = program.json("limit", "list")
    return {name: value for name, value in found.items() if value and name not in ("used", "next_free")}


def test_a_preset_fills_in_the_relay_the_login_and_the_limits(program: Program) -> None:
    said = program.init().run("account", "add", "main", "--preset", "microsoft365", "--username", "shop@example.com")
    found = program.json("account", "show", "main")
    assert (found["relay_host"], found["relay_port"]) == ("smtp.office365.com", 587)
    assert (found["tls"], found["mechanism"], found["has_password"]) == ("starttls", "xoauth2", False)
    assert (found["max_connections"], found["max_messages"]) == (3, 100)
    expected = {"scope": "account", "name": "main", "connections": 3, "per_minute": 30, "per_day": 10_000}
    assert limited(program) == expected
    lines = said.stdout.splitlines()
    assert lines[0] == "added account main: smtp.office365.com:587 (starttls), logging in as shop@example.com"
    assert lines[1] == (
        "preset microsoft365: mechanism xoauth2, 3 connections a runner, 100 messages a connection;"
        " limits: 30 a minute, 10000 a day, 3 connections together"
    )
    assert "as of 20" in said.stderr
    assert "https://learn.microsoft.com/" in said.stderr
    assert "next: outbox account oauth main" in said.stderr


def test_what_is_given_wins_over_the_preset(program: Program) -> None:
    given = ("--tls", "implicit", "--relay", "smtp.gmail.com:465", "--mechanism", "plain", "--connections", "1")
    program.init().run("account", "add", "main", "--preset", "gmail", *given, *PASSWORD, stdin=CANARY)
    found = program.json("account", "show", "main")
    assert (found["relay_port"], found["tls"], found["mechanism"], found["max_connections"]) == (
        465,
        "implicit",
        "plain",
        1,
    )
    assert limited(program) == {"scope": "account", "name": "main", "per_day": 500}
    assert CANARY not in "".join(program.printed)


def test_a_provider_with_regions_needs_one(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    add = ("account", "add", "main", "--preset", "ses", *PASSWORD)
    assert "it needs a region" in program.fails(2, *add, stdin=CANARY)
    assert "not a region" in program.fails(2, *add, "--region", "evil.test", stdin=CANARY)
    program.run(*add, "--region", "eu-central-1", stdin=CANARY)
    assert program.json("account", "show", "main")["relay_host"] == "email-smtp.eu-central-1.amazonaws.com"


def test_without_a_preset_relay_and_tls_are_needed(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    for given in ([], ["--relay", "h:25"], ["--tls", "none"]):
        assert "give --relay and --tls, or a --preset" in program.fails(2, "account", "add", "main", *given)
    add = ("account", "add", "main", "--relay", "h:25", "--tls", "none", "--region", "eu-central-1")
    assert "a region belongs to a --preset" in program.fails(2, *add)
    assert program.json("account", "list") == []


def test_without_tls_there_is_nothing_to_pin(sqlite_program: Program) -> None:
    add = ("account", "add", "main", "--relay", "127.0.0.1:25", "--tls", "none", "--tls-pin", PIN)
    assert "shows no certificate" in sqlite_program.init().fails(2, *add)
    assert sqlite_program.json("account", "list") == []


def test_an_account_and_its_limits_are_added_together_or_not_at_all(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    db = connect(program.url)
    db.execute_sql("CREATE TRIGGER no BEFORE INSERT ON outbox_limit BEGIN SELECT RAISE(ABORT, 'no limits'); END")
    db.close()
    assert "no limits" in program.fails(4, "account", "add", "main", "--preset", "gmail", *PASSWORD, stdin=CANARY)
    assert program.json("account", "list") == []


def test_the_limits_of_an_account_go_with_it(program: Program) -> None:
    add = ("account", "add", "main", "--preset", "gmail", *PASSWORD)
    program.init().run(*add, stdin=CANARY)
    program.run("account", "remove", "main", "--yes")
    assert program.json("limit", "list") == []


def test_a_test_trusts_the_pinned_certificate_and_no_other(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    issued = trustme.CA().issue_cert("127.0.0.1")
    right = hashlib.sha256(ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())).hexdigest()
    with Relay(tls="starttls", context=server_context(issued)) as relay:
        add = ("--relay", f"127.0.0.1:{relay.port}", "--tls", "starttls", "--tls-pin")
        program.run("account", "add", "pinned", *add, right)
        program.run("account", "add", "wrong", *add, PIN)
        assert "account pinned works" in program.run("account", "test", "pinned").stdout
        assert right in program.run("account", "test", "wrong", code=7).stderr


def test_pins_are_stored_as_hex_however_they_are_written(sqlite_program: Program) -> None:
    colons = ":".join(PIN[i : i + 2] for i in range(0, 64, 2)).upper()
    other = "f" * 64
    add = ("account", "add", "main", "--relay", "h:587", "--tls", "starttls")
    sqlite_program.init().run(*add, "--tls-pin", colons, "--tls-pin", other, "--tls-pin", PIN)
    assert pins(sqlite_program) == f"{PIN} {other}"
    assert sqlite_program.json("account", "show", "main")["tls_pins"] == [PIN, other]
    assert PIN in sqlite_program.run("account", "show", "main").stdout


@pytest.mark.parametrize("pin", ["", "abc", "g" * 64, "0" * 63, "0" * 65, f"{'0' * 64} {'1' * 64}"])
def test_a_pin_that_is_none_is_a_usage_error(sqlite_program: Program, pin: str) -> None:
    add = ("account", "add", "main", "--relay", "h:587", "--tls", "starttls", "--tls-pin", pin)
    assert "is not a SHA-256 in hex" in sqlite_program.init().fails(2, *add)
