"""``outbox sender …``."""

from __future__ import annotations

import pytest

from outbox.store.database import connect
from tests.cli.program import Program


@pytest.fixture
def registered(program: Program) -> Program:
    """Accounts shop and news, ``*@example.com`` and ``ann@example.com`` registered to shop."""
    program.init()
    for name in ("shop", "news"):
        program.run("account", "add", name, "--relay", f"{name}.example.net:587", "--tls", "starttls")
    program.run("sender", "add", "*@example.com", "--account", "shop", "--name", "The Shop")
    program.run("sender", "add", "Ann@Example.com", "--account", "shop", "--return-path", "bounces@example.com")
    return program


def test_senders_are_listed_with_their_accounts(registered: Program) -> None:
    whole, ann = registered.json("sender", "list")
    assert whole.pop("created_at").endswith("Z")
    assert whole == {
        "address": "*@example.com",
        "account": "shop",
        "display_name": "The Shop",
        "return_path": "",
        "paused": False,
        "pause_reason": "",
        "paused_until": None,
        "probing": False,
        "pauses_in_a_row": 0,
        "brake": "",
        "failed_by_brake": [],
        "blocked": "",
    }
    assert (ann["address"], ann["return_path"]) == ("ann@example.com", "bounces@example.com")
    assert registered.json("sender", "list", "--account", "news") == []
    assert "*@example.com" in registered.run("sender", "list").stdout


@pytest.mark.parametrize(
    "address",
    ["", "ann", "@example.com", "a@b@c", "*@", "*@*", "a@*.com", "Ann <a@b.example>", "a@b.example,c@d.example"],
)
def test_what_is_no_address_is_a_usage_error(sqlite_program: Program, address: str) -> None:
    sqlite_program.init().fails(2, "sender", "add", "--account", "shop", "--", address)


def test_what_cannot_be_registered_is_refused_with_what_to_do(registered: Program) -> None:
    add = ("sender", "add")
    assert "there is no account nobody" in registered.fails(1, *add, "x@y.example", "--account", "nobody")
    assert "registered to account shop already" in registered.fails(1, *add, "ANN@example.com", "--account", "news")
    said = registered.fails(1, *add, "x@y.example", "--account", "news", "--return-path", "b@example.com")
    assert "the return path b@example.com is not registered to account news" in said
    assert "one line" in registered.fails(2, *add, "x@y.example", "--account", "news", "--name", "a\nBcc: x@y.example")
    assert registered.fails(2, *add, "x@y.example", "--account", "news", "--return-path", "*@example.com")


def test_a_pause_of_a_domain_shows_at_its_addresses_and_ends(registered: Program) -> None:
    registered.run("sender", "pause", "*@example.com", "--reason", "moving", "--for", "1d")
    whole, ann = registered.json("sender", "list")
    assert (whole["paused"], ann["paused"]) == (True, False)
    assert ann["blocked"].startswith("sender *@example.com is paused by operator until ")
    registered.run("sender", "resume", "*@example.com")
    assert [each["blocked"] for each in registered.json("sender", "list")] == ["", ""]


def test_a_pause_of_one_address_of_a_domain_registers_it_by_itself(registered: Program) -> None:
    registered.run("sender", "pause", "bo@example.com")
    bo = next(each for each in registered.json("sender", "list") if each["address"] == "bo@example.com")
    assert (bo["account"], bo["paused"], bo["display_name"]) == ("shop", True, "The Shop")
    assert "not a registered sender" in registered.fails(1, "sender", "pause", "x@elsewhere.example")
    assert "not a registered sender" in registered.fails(1, "sender", "resume", "x@example.com")


def test_removing_says_what_waits_and_what_stays(registered: Program) -> None:
    db = connect(registered.url)
    for sender in ("ann@example.com", "bo@example.com"):
        values = f"('{sender}', 'r@example.net', 's', 't')"
        db.execute_sql(f"INSERT INTO outbox (sender, recipients, subject, text_body) VALUES {values}")
    db.close()
    said = registered.fails(2, "sender", "remove", "*@example.com")
    assert "Remove *@example.com? 2 of its messages are waiting, and will fail." in said
    said = registered.fails(2, "sender", "remove", "ann@example.com")
    assert "1 of its messages are waiting, and still have a sender." in said
    assert "still registered: ann@example.com" in registered.run("sender", "remove", "*@example.com", "--yes").stderr
    assert registered.run("sender", "remove", "ANN@example.com", "--yes").stderr == ""
    assert registered.json("sender", "list") == []
    assert "not a registered sender" in registered.fails(1, "sender", "remove", "ann@example.com", "--yes")


def test_a_pause_of_an_account_shows_at_its_senders(registered: Program) -> None:
    registered.run("account", "pause", "shop", "--reason", "moving")
    assert [each["blocked"] for each in registered.json("sender", "list")] == [
        "account shop is paused by operator: moving"
    ] * 2
