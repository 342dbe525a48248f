"""`outbox run`, as far as its command line goes; what it does is in `tests/runner` and `tests/crash`."""

from __future__ import annotations

import json

import pytest

from tests.cli.program import Program
from tests.relay import Relay


def test_a_copy_of_another_database_is_not_sent(program: Program) -> None:
    program.init()
    config = program.home / "outbox.toml"
    lines = config.read_text(encoding="utf-8").splitlines()
    other = 'database_uuid = "00000000-0000-4000-8000-000000000000"'
    changed = [other if line.startswith("database_uuid") else line for line in lines]
    assert changed != lines
    config.write_text("\n".join(changed), encoding="utf-8")
    assert "a copy?" in program.fails(3, "run", "--until-empty")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--once", "--until-empty"),
        ("--until-empty", "--wait", "5"),
        ("--wait", "5s"),
        ("--grace", "soon"),
        ("--processes", "0"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_a_usage_error(sqlite_program: Program, arguments: tuple[str, ...]) -> None:
    sqlite_program.init()
    sqlite_program.fails(2, "run", *arguments)


def test_an_unregistered_senders_mail_goes_out_once_it_is_registered_and_retried(program: Program) -> None:
    program.init()
    program.run(
        "enqueue", "--from", "shop@example.com", "--to", "ann@example.net", "--subject", "7", "--text", "Thanks"
    )
    said = program.run("run", "--until-empty").stderr
    assert "id=1 from=<shop@example.com> status=failed (5.7.1 sender not registered" in said
    assert "done: 1 failed" in said
    shown = json.loads(program.run("show", "1", "--json").stdout)
    assert (shown["state"], shown["source"]) == ("failed", "cli")
    assert shown["attempts"][0]["status"] == "5.7.1"
    assert "outbox sender add shop@example.com" in shown["attempts"][0]["reply"]
    with Relay() as relay:
        program.run("account", "add", "main", "--relay", f"127.0.0.1:{relay.port}", "--tls", "none")
        program.run("sender", "add", "shop@example.com", "--account", "main")
        program.run("retry", "1")
        program.run("run", "--until-empty", "-q")
        assert [each.recipients for each in relay.messages] == [("ann@example.net",)]
    assert json.loads(program.run("show", "1", "--json").stdout)["state"] == "sent"


def test_what_stays_is_said_with_its_reason(program: Program) -> None:
    program.init()
    program.run("account", "add", "main", "--relay", "127.0.0.1:9", "--tls", "none")
    program.run("sender", "add", "*@example.com", "--account", "main")
    enqueue = ("enqueue", "--to", "ann@example.net", "--subject", "7", "--text", "Thanks")
    program.run("account", "pause", "main", "--reason", "vacation")
    program.run(*enqueue, "--from", "shop@example.com")
    program.run(*enqueue, "--from", "news@example.com", "--in", "1h")
    said = program.run("run", "--until-empty", "-q").stderr
    assert "stays: 1 from shop@example.com: account main is paused" in said
    assert "vacation" in said
    assert "stays: 1 from news@example.com" in said
