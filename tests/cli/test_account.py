"""``outbox account …``."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme

from outbox.store.database import connect
from tests.cli.program import CANARY, Program
from tests.relay import HANG, Relay, server_context

ADD = ("account", "add", "shop", "--relay", "smtp.example.com:587", "--tls", "starttls")


def execute(program: Program, sql: str) -> None:
    db = connect(program.url)
    db.execute_sql(sql)
    db.close()


def shop(program: Program) -> Any:
    return program.json("account", "show", "shop")


def test_an_account_is_added_and_shown_without_its_password(program: Program) -> None:
    program.init().run(
        *ADD,
        *("--username", "shop@example.com", "--password-stdin", "--mechanism", "login"),
        *("--connections", "7", "--messages", "9"),
        stdin=CANARY,
    )
    found = shop(program)
    assert found.pop("created_at").endswith("Z")
    assert len(found.pop("key_id")) == 8
    assert found == {
        "name": "shop",
        "relay_host": "smtp.example.com",
        "relay_port": 587,
        "tls": "starttls",
        "mechanism": "login",
        "username": "shop@example.com",
        "has_password": True,
        "credential_version": 1,
        "ca_file": "",
        "tls_pins": [],
        "max_connections": 7,
        "max_messages": 9,
        "paused": False,
        "pause_reason": "",
        "paused_until": None,
        "probing": False,
        "pauses_in_a_row": 0,
        "brake": "",
        "failed_by_brake": [],
        "breaker_failures": 0,
        "breaker_until": None,
        "breaker_reason": "",
        "blocked": "",
        "senders": [],
    }
    assert program.json("account", "list") == [shop(program)]
    table = program.run("account", "list").stdout.splitlines()
    assert table[0].split() == ["NAME", "RELAY", "TLS", "LOGIN", "SENDERS", "STATE"]
    assert table[1].split() == ["shop", "smtp.example.com:587", "starttls", "shop@example.com", "0", "ready"]


@pytest.mark.parametrize(
    ("relay", "tls", "shown"),
    [
        ("[::1]:2525", "none", "[::1]:2525"),
        ("[2001:DB8::1]", "starttls", "[2001:db8::1]:587"),
        ("Smtp.Example.COM", "implicit", "smtp.example.com:465"),
        ("bücher.example:25", "starttls", "xn--bcher-kva.example:25"),
        ("mail_relay:1025", "none", "mail_relay:1025"),
        ("192.0.2.1:25", "none", "192.0.2.1:25"),
    ],
)
def test_relays_are_written_as_people_write_them(sqlite_program: Program, relay: str, tls: str, shown: str) -> None:
    sqlite_program.init().run("account", "add", "x", "--relay", relay, "--tls", tls)
    assert shown in sqlite_program.run("account", "show", "x").stdout


@pytest.mark.parametrize("relay", ["::1:25", "a:b", "a:0", "a:70000", "[zz]:25", "", "a b:25", "-a-.b:25", "user@a:25"])
def test_a_relay_that_is_none_is_a_usage_error(sqlite_program: Program, relay: str) -> None:
    sqlite_program.init().fails(2, "account", "add", "x", "--relay", relay, "--tls", "none")


@pytest.mark.parametrize("name", ["", "a b", "-x", "a\nb", "x" * 101, "a'b"])
def test_a_name_has_no_surprises(sqlite_program: Program, name: str) -> None:
    sqlite_program.init().fails(2, "account", "add", "--relay", "h:25", "--tls", "none", "--", name)


def test_the_password_is_nowhere_but_in_the_envelope(
    sqlite_program: Program, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    program = sqlite_program.init()
    with caplog.at_level(logging.DEBUG):
        program.add_account()
        (tmp_path / "new-password").write_text(CANARY + "2\n", encoding="utf-8")
        program.run("account", "set-password", "shop", "--password-file", str(tmp_path / "new-password"))
        for command in ("list", "show shop", "test shop", "pause shop", "resume shop"):
            program.run("-vv", "account", *command.split(), code=7 if "test" in command else 0)
        program.run("-vv", *ADD, "--username", "u", "--password-stdin", stdin=CANARY, code=1)
        execute(program, "UPDATE outbox_account SET relay_host = 'smtp.evil.test'")
        program.run("-vv", "account", "test", "shop", code=5)
        program.run("-vv", "key", "status")
    assert CANARY not in "".join(program.printed)
    assert CANARY not in caplog.text
    assert CANARY not in repr(os.environ)
    for name, content in program.files().items():
        assert CANARY.encode() not in content, name
    database = Path(program.url.removeprefix("sqlite:///"))
    for path in database.parent.glob(database.name + "*"):
        assert CANARY.encode() not in path.read_bytes(), path
        assert b"canary" not in path.read_bytes(), path


@pytest.mark.parametrize("content", ["", "\n", "two\nlines\n", "nul\0\n", "x" * 5000])
def test_a_password_is_one_line_and_not_empty(sqlite_program: Program, content: str) -> None:
    program = sqlite_program.init()
    said = program.fails(2, *ADD, "--username", "u", "--password-stdin", stdin=content)
    assert "a password is one line, and not empty" in said
    assert program.json("account", "list") == []


@pytest.mark.parametrize("content", ["pass word \n", " x", "x\r\n", "ünïcode\n"])
def test_only_the_end_of_the_line_is_taken_off_a_password(sqlite_program: Program, content: str) -> None:
    from outbox import keys
    from outbox.store import accounts
    from outbox.vault import Vault

    sqlite_program.init().run(*ADD, "--username", "u", "--password-stdin", stdin=content)
    db = connect(sqlite_program.url)
    found = accounts.account(db, "shop")
    db.close()
    assert Vault(keys.load(Path("outbox.key"))).open_account(found).reveal() == content.rstrip("\r\n")


def test_a_password_that_is_not_text_a_missing_file_and_two_sources_are_refused(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    Path("latin1").write_bytes(b"\xfcmlaut\n")
    for args, words in (
        (("--password-file", "latin1"), "not UTF-8"),
        (("--password-file", "none"), "cannot read none"),
        (("--password-file", "latin1", "--password-stdin"), "give one of"),
        ((), "no terminal to ask"),
    ):
        assert words in program.fails(2, *ADD, "--username", "u", *args)
    assert "needs a --username" in program.fails(2, *ADD, "--password-stdin", stdin="x")


def test_there_is_no_option_that_takes_a_password(sqlite_program: Program) -> None:
    for command in ("add", "set-password"):
        assert "No such option" in sqlite_program.fails(2, "account", command, "--password", "x")


@pytest.mark.parametrize("relay", ["smtp.example.com:25", "10.0.0.1:25", "localhost.example.com:25"])
def test_a_login_without_tls_is_refused_before_the_password_is_read(sqlite_program: Program, relay: str) -> None:
    program = sqlite_program.init()
    args = ("account", "add", "x", "--relay", relay, "--tls", "none", "--username", "u")
    assert "without TLS" in program.fails(1, *args)
    program.run("account", "add", "y", "--relay", "127.0.0.1:25", "--tls", "none", "--username", "u", code=2)


def test_nobody_types_a_password_in_vain(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    Path("outbox.key").unlink()
    assert "does not exist" in program.fails(5, *ADD, "--username", "u")
    program.run("key", "generate")
    program.add_account()
    assert "there is an account shop already" in program.fails(1, *ADD, "--username", "u")


def test_a_new_password_is_for_the_settings_as_they_are_now_and_says_which(program: Program) -> None:
    program.init().add_account()
    execute(program, "UPDATE outbox_account SET relay_host = 'smtp.new.example'")
    said = program.run("account", "test", "shop", code=5).stderr
    assert "the relay host is now 'smtp.new.example'; its password was stored for 'smtp.example.com'" in said
    assert "outbox account set-password shop" in said
    result = program.run("account", "set-password", "shop", "--password-stdin", stdin=CANARY)
    assert "shop@example.com at smtp.new.example:587 (starttls)" in result.stdout
    assert shop(program)["credential_version"] == 2
    assert "the relay host is now" not in program.run("account", "test", "shop", code=7).stderr


def test_a_login_can_be_given_later_and_not_without_tls(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    program.run(*ADD)
    assert "has no login" in program.fails(1, "account", "set-password", "shop", "--password-stdin", stdin="x")
    program.run("account", "set-password", "shop", "--username", "u", "--password-stdin", stdin="x")
    assert (shop(program)["username"], shop(program)["has_password"]) == ("u", True)
    execute(program, "UPDATE outbox_account SET tls = 'none'")
    assert "without TLS" in program.fails(1, "account", "set-password", "shop", "--password-stdin", stdin="x")


def test_an_account_is_paused_and_resumed(program: Program) -> None:
    program.init().add_account()
    program.run("account", "pause", "shop", "--reason", "moving", "--for", "2h")
    found = shop(program)
    assert (found["paused"], found["pause_reason"]) == (True, "operator: moving")
    assert found["paused_until"] > found["created_at"]
    listed = program.run("account", "list")
    assert "paused by operator until" in listed.stdout
    assert "to end the pause of account shop: outbox account resume shop" in listed.stderr
    assert "outbox account resume shop" in program.run("account", "show", "shop").stdout
    result = program.run("account", "set-password", "shop", "--password-stdin", stdin=CANARY)
    assert "outbox account resume shop" in result.stderr
    program.run("account", "resume", "shop")
    assert not shop(program)["paused"]
    assert "is not a duration" in program.fails(2, "account", "pause", "shop", "--for", "soon")
    assert "there is no account" in program.fails(1, "account", "pause", "nobody")


def test_an_account_with_senders_is_not_removed_and_without_asks(program: Program) -> None:
    program.init().add_account()
    program.run("sender", "add", "shop@example.com", "--account", "shop")
    assert "still has senders: shop@example.com" in program.fails(1, "account", "remove", "shop", "--yes")
    program.run("sender", "remove", "shop@example.com", "--yes")
    assert "--yes" in program.fails(2, "account", "remove", "shop")
    program.run("account", "remove", "shop", "--yes")
    assert program.json("account", "list") == []
    assert "there is no account" in program.fails(1, "account", "remove", "shop", "--yes")


def test_what_somebody_wrote_into_the_database_cannot_drive_the_terminal(program: Program) -> None:
    program.init().run(*ADD)
    execute(program, "UPDATE outbox_account SET pause_reason = 'a\x1b[2J\n\x07[bold]b'")
    for command in (("list",), ("show", "shop")):
        said = program.run("account", *command).stdout
        assert "\x1b" not in said
        assert "a [2J [bold]b" in said


# ---- account test


@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_a_test_connects_secures_and_logs_in_and_sends_nothing(
    sqlite_program: Program, mode: str, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = server_context(authority.issue_cert("127.0.0.1"))
    program = sqlite_program.init()
    with Relay(tls=mode, context=context, credentials={"ann": CANARY}) as relay:
        args = ("--relay", f"127.0.0.1:{relay.port}", "--tls", mode, "--ca-file", str(tmp_path / "ca.pem"))
        program.run("account", "add", "shop", *args, "--username", "ann", "--password-stdin", stdin=CANARY)
        result = program.run("account", "test", "shop")
        found = program.json("account", "test", "shop")
        program.run("account", "add", "untrusting", *args[:4])
        said = program.run("account", "test", "untrusting", code=7).stderr
    assert "account shop works" in result.stdout
    assert "TLSv1.3" in result.stdout
    assert (found["ok"], found["stage"], found["reply"]) == (True, "", "")
    assert said.startswith("error: account untrusting: tls: ")
    assert "hint: if you know the authority that signed it: --ca-file FILE" in said
    assert relay.messages == []
    assert not [line for line in relay.commands if line.upper().startswith(("MAIL", "DATA"))]


def test_a_refused_login_shows_the_relays_words_and_ends_with_seven(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    with Relay({"auth": "535 5.7.8 wrong, sorry"}, credentials={"ann": "x"}) as relay:
        args = ("--relay", f"127.0.0.1:{relay.port}", "--tls", "none")
        program.run("account", "add", "shop", *args, "--username", "ann", "--password-stdin", stdin=CANARY)
        said = program.run("account", "test", "shop", code=7).stderr
        found = program.json("account", "test", "shop", code=7)
    assert "error: account shop: auth: 535 5.7.8 wrong, sorry" in said
    assert "hint: outbox account set-password shop" in said
    assert (found["ok"], found["stage"], found["reply"]) == (False, "auth", "535 5.7.8 wrong, sorry")


def test_a_relay_that_is_not_there_is_named_by_its_stage(sqlite_program: Program) -> None:
    with Relay() as relay:
        port = relay.port
    program = sqlite_program.init()
    program.run("account", "add", "shop", "--relay", f"127.0.0.1:{port}", "--tls", "none")
    assert "error: account shop: connect: " in program.run("account", "test", "shop", code=7).stderr


def test_a_test_that_fails_says_which_kind_of_tls_the_port_wants(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    with Relay() as relay:
        for tls in ("implicit", "starttls"):
            program.run("account", "add", tls, "--relay", f"127.0.0.1:{relay.port}", "--tls", tls)
        at_once = program.run("account", "test", "implicit", code=7).stderr
        later = program.run("account", "test", "starttls", code=7).stderr
        assert program.json("account", "test", "implicit", code=7)["tls"] is None
    assert "hint: this port does not begin with TLS: --tls starttls" in at_once
    assert "hint: use the relay's port for TLS (465) with --tls implicit" in later


def test_a_port_that_waits_for_tls_is_not_waited_for_long(
    sqlite_program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.cli.account.TEST_PATIENCE", 0.2)
    program = sqlite_program.init()
    with Relay({"banner": HANG}) as relay:
        program.run("account", "add", "shop", "--relay", f"127.0.0.1:{relay.port}", "--tls", "starttls")
        said = program.run("account", "test", "shop", code=7).stderr
    assert "hint: a port that speaks TLS at once (465) wants --tls implicit" in said


def test_an_operators_pause_is_said_without_repetition(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    program.add_account("main")
    program.run("account", "pause", "main", "--reason", "relay moves")
    assert "paused by operator: relay moves" in program.run("account", "list").stdout
    assert "account main is" not in program.run("account", "list").stdout
    program.run("account", "pause", "main")
    assert program.run("account", "list").stdout.rstrip().endswith("paused by operator")
    assert "outbox retry --state deferred" in program.run("account", "resume", "main").stderr


# ---- the prompt


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_at_a_terminal_the_password_is_asked_for_twice_and_not_echoed(sqlite_program: Program) -> None:
    import pty
    import subprocess

    program = sqlite_program.init()
    control, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "outbox", *ADD, "--username", "u"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown = b""
    for prompt in (b"(starttls): ", b"confirmation: "):
        while not shown.endswith(prompt):
            shown += os.read(control, 1024)
        os.write(control, CANARY.encode() + b"\n")
    while b"added account shop" not in shown:
        shown += os.read(control, 1024)
    assert process.wait(30) == 0
    os.close(control)
    assert b"Password of u at smtp.example.com:587 (starttls): " in shown
    assert b"canary" not in shown
    assert shop(program)["has_password"]


def test_a_pause_that_names_its_remedy_is_listed_with_that_command(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    program.add_account("shop")
    said = "local: 554 5.7.8 account shop: re-consent needed: outbox account login shop"
    execute(program, f"UPDATE outbox_account SET pause_reason = '{said}', paused_until = '2199-01-01T00:00:00.000Z'")
    listed = program.run("account", "list").stderr
    assert listed.endswith("to end the pause of account shop: outbox account login shop\n")
