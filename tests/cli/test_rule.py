"""``outbox rule …``."""

from __future__ import annotations

import pytest

from outbox.store.database import connect
from tests.cli.program import Program

ADD = ("rule", "add", "frequency limited", "--verdict", "defer", "--scope", "account")


@pytest.fixture
def ready(program: Program) -> Program:
    return program.init()


@pytest.fixture
def sqlite_ready(sqlite_program: Program) -> Program:
    return sqlite_program.init()


def test_a_rule_is_added_listed_and_removed(ready: Program) -> None:
    assert "there are no rules" in ready.run("rule", "list").stderr
    said = ready.run(*ADD, "--relay", "*.example.com", "--delay", "10m", "--note", "they mean: slower").stdout
    assert "the account is paused for a while" in said
    (rule,) = ready.json("rule", "list")
    assert rule.pop("created_at").endswith("Z")
    assert rule == {
        "id": 1,
        "relay": "*.example.com",
        "pattern": "frequency limited",
        "verdict": "defer",
        "scope": "account",
        "delay": 600.0,
        "note": "they mean: slower",
        "flaw": "",
    }
    header, line = ready.run("rule", "list").stdout.splitlines()
    assert header.split() == ["ID", "RELAY", "PATTERN", "VERDICT", "SCOPE", "DELAY", "NOTE"]
    assert line.split()[:4] == ["1", "*.example.com", "frequency", "limited"]
    assert ready.run("rule", "remove", "1").stdout == "removed rule 1\n"
    assert ready.json("rule", "list") == []
    assert "there is no rule 1" in ready.fails(1, "rule", "remove", "1")


def test_what_is_no_rule_is_refused_with_what_to_do(sqlite_ready: Program) -> None:
    def refused(*args: str) -> str:
        return sqlite_ready.fails(1, "rule", "add", *args)

    said = refused("(a", "--verdict", "defer", "--scope", "account")
    assert "'(a' is not a regular expression" in said
    assert "hint: it is searched, in any case" in said
    assert "could be searched for ever" in refused("(a+)+", "--verdict", "defer", "--scope", "account")
    said = refused("x", "--verdict", "defer", "--scope", "account", "--relay", "smtp.example.com:587")
    assert "hint: a host without its port" in said
    said = refused("x", "--verdict", "bounce", "--scope", "message", "--delay", "1h")
    assert "not tried again" in said
    for wrong in (("--delay", "soon"), ("--note", "two\nlines"), ("--verdict", "accept"), ("--scope", "world")):
        assert wrong[0] in sqlite_ready.fails(2, *ADD, *wrong)
    assert sqlite_ready.json("rule", "list") == []


def test_a_reply_is_explained_by_the_built_in_table(sqlite_ready: Program) -> None:
    assert sqlite_ready.run("rule", "test", "451 4.7.1 Greylisted, try again in 20 minutes").stdout.splitlines() == [
        "reply             rcpt: 451 4.7.1 Greylisted, try again in 20 minutes",
        "verdict           defer",
        "reaches           recipient",
        "so                this recipient is tried again; the others go on",
        "not again before  20m10s",
        "decided by        built-in: greylisted",
        "because           It wants to see us again, but not at once.",
    ]
    found = sqlite_ready.json("rule", "test", "250 2.0.0 queued", "--stage", "dot")
    assert (found["verdict"], found["scope"], found["meaning"], found["rule"]) == (
        "accept",
        "message",
        "accepted",
        None,
    )
    found = sqlite_ready.json("rule", "test", "535 5.7.8 wrong", "--stage", "auth")
    assert (found["verdict"], found["scope"], found["delay"]) == ("bounce", "account", 0)


def test_a_reply_is_explained_by_the_rule_that_would_decide(sqlite_ready: Program) -> None:
    sqlite_ready.run(*ADD, "--relay", "*.example.com", "--note", "they mean: slower")
    sqlite_ready.run("rule", "add", "limited", "--verdict", "bounce", "--scope", "message")
    reply = ("rule", "test", "550 Connection frequency limited")

    said = sqlite_ready.run(*reply, "--relay", "smtp.example.com").stdout
    assert "decided by        rule 1, for *.example.com" in said
    assert "because           they mean: slower" in said
    found = sqlite_ready.json(*reply, "--relay", "smtp.example.net", "--stage", "dot")
    assert (found["rule"], found["verdict"], found["meaning"]) == (2, "bounce", None)
    assert found["why"] == "'limited' fits"
    assert sqlite_ready.json(*reply)["rule"] == 1
    assert sqlite_ready.json("rule", "test", "250 not limited", "--stage", "dot")["rule"] is None


@pytest.mark.parametrize("text", ["", "hello", "55", "550-5.7.1 and", "650 no", "550_no"])
def test_what_no_relay_would_say_is_a_usage_error(sqlite_ready: Program, text: str) -> None:
    assert "REPLY" in sqlite_ready.fails(2, "rule", "test", "--", text)


def test_a_rule_that_cannot_be_asked_is_shown_with_the_reason(ready: Program) -> None:
    db = connect(ready.url)
    db.execute_sql("INSERT INTO outbox_reply_rule (pattern, verdict, scope) VALUES ('(', 'defer', 'account')")
    db.close()
    assert "never asked" in ready.run("rule", "list").stdout
    (rule,) = ready.json("rule", "list")
    assert "not a regular expression" in rule["flaw"]
    assert ready.json("rule", "test", "450 (")["rule"] is None
    ready.run("rule", "remove", str(rule["id"]))
    assert ready.json("rule", "list") == []
