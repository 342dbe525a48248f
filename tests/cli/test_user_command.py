"""`outbox user`: who may hand over mail by SMTP."""

from __future__ import annotations

from tests.cli.program import CANARY, Program


def test_users_come_and_go_and_are_written_down(program: Program) -> None:
    program.init()
    assert "no users" in program.run("user", "list").output
    assert program.json("user", "list") == []
    program.run("user", "add", "crm", "--password-stdin", stdin=CANARY + "\n")
    senders = ("--sender", "Shop@Example.com", "--sender", "*@news.example.com")
    added = program.run("user", "add", "shop", *senders, "--password-stdin", stdin=CANARY + "\n")
    assert "next: outbox sender add shop@example.com --account NAME" in added.stderr
    assert "next: outbox sender add '*@news.example.com' --account NAME" in added.stderr

    assert program.json("user", "list") == [
        {"name": "crm", "senders": []},
        {"name": "shop", "senders": ["shop@example.com", "*@news.example.com"]},
    ]
    assert "all registered" in program.run("user", "list").output
    program.run("user", "remove", "crm")
    assert [each["name"] for each in program.json("user", "list")] == ["shop"]


def test_a_password_is_stored_as_a_hash_and_changed(program: Program) -> None:
    from contextlib import closing

    from outbox.core.secret import Secret
    from outbox.core.user import is_password
    from outbox.store.database import connect

    program.init()
    program.run("user", "add", "crm", "--password-stdin", stdin=CANARY + "\n")

    def stored() -> str:
        with closing(connect(program.url)) as db:
            return str(db.execute_sql("SELECT password_hash FROM outbox_user").fetchone()[0])

    first = stored()
    program.run("user", "password", "crm", "--password-stdin", stdin="another\n")

    assert is_password(Secret(CANARY), first)
    assert not is_password(Secret(CANARY), stored())
    assert is_password(Secret("another"), stored())
    assert not is_password(Secret("another"), "scrypt$broken")
    assert CANARY not in "".join(program.printed)
    assert not any(CANARY.encode() in content for content in program.files().values())


def test_what_cannot_be_is_said(program: Program) -> None:
    program.init()
    program.run("user", "add", "crm", "--password-stdin", stdin="x\n")

    again = program.fails(1, "user", "add", "crm", "--password-stdin", stdin="x\n")
    assert "there already" in again
    for verb in (("remove",), ("password", "--password-stdin")):
        assert "no user bob" in program.fails(1, "user", verb[0], "bob", *verb[1:], stdin="x\n")
    program.fails(2, "user", "add", "", "--password-stdin", stdin="x\n")
    program.fails(2, "user", "add", "x" * 101, "--password-stdin", stdin="x\n")
    program.fails(2, "user", "add", "a\nb", "--password-stdin", stdin="x\n")
    program.fails(2, "user", "add", "bob", "--sender", "nobody", "--password-stdin", stdin="x\n")
    assert [each["name"] for each in program.json("user", "list")] == ["crm"]
