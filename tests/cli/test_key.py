"""``outbox key …``."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from outbox import keys
from outbox.store import accounts, tables
from outbox.store.database import connect
from outbox.vault import Vault
from tests.cli.program import CANARY, Program

FILE = Path("outbox.key")


def ids() -> tuple[str, ...]:
    return keys.load(FILE.absolute()).ids


def password_of(program: Program, name: str) -> str:
    db = connect(program.url)
    try:
        return Vault(keys.load(FILE.absolute())).open_account(accounts.account(db, name)).reveal()
    finally:
        db.close()


def execute(program: Program, sql: str) -> None:
    db = connect(program.url)
    db.execute_sql(sql)
    db.close()


def test_generate_makes_the_configured_file_once(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    assert "exists already" in program.fails(1, "key", "generate")
    FILE.unlink()
    said = program.run("key", "generate")
    assert f"with key {ids()[0]}" in said.stdout
    assert FILE.read_text(encoding="utf-8").splitlines()[-1] not in said.output


def test_generate_without_a_configured_file_says_how_to_have_one(sqlite_program: Program) -> None:
    assert "no key file is configured" in sqlite_program.fails(3, "key", "generate")


def test_a_printed_key_is_for_elsewhere_and_makes_no_file(sqlite_program: Program) -> None:
    printed = sqlite_program.run("key", "generate", "--print").stdout
    Fernet(printed.strip())
    assert sqlite_program.files() == {}


def test_a_key_is_replaced_by_add_rotate_retire(program: Program) -> None:
    program.init().add_account("shop")
    program.add_account("news")
    (old,) = ids()
    program.run("key", "add")
    new = ids()[0]
    assert program.json("key", "status") == {
        "source": f"file {FILE.absolute()}",
        "keys": [
            {"id": new, "use": "seals and opens", "accounts": [], "oauth": [], "dkim": []},
            {"id": old, "use": "opens", "accounts": ["news", "shop"], "oauth": [], "dkim": []},
        ],
    }
    assert "still seals the secrets of: news, shop" in program.fails(1, "key", "retire", old)
    assert "sealed 2 secrets again" in program.run("key", "rotate").stdout
    assert "sealed 0 secrets again" in (again := program.run("key", "rotate")).stdout
    assert again.stderr == f"next: outbox key retire {old}\n"
    program.run("key", "retire", old)
    assert ids() == (new,)
    assert [password_of(program, name) for name in ("shop", "news")] == [CANARY, CANARY]
    db = connect(program.url)
    lines = [(line.verb, line.matching) for line in tables.Journal.select().order_by(tables.Journal.id).execute(db)]
    assert [account.credential_version for account in accounts.accounts(db)] == [1, 1]
    db.close()
    assert lines[2:] == [("key rotate", "account=news"), ("key rotate", "account=shop"), ("key retire", f"key={old}")]


def test_rotating_with_one_key_and_retiring_the_only_one_are_refused(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    assert "only one key is loaded" in program.fails(1, "key", "rotate")
    assert "is the only key" in program.fails(1, "key", "retire", ids()[0])
    program.add_account()
    assert "hint: outbox key add, then outbox key rotate" in program.fails(1, "key", "retire", ids()[0])
    assert "holds no key ffffffff" in program.fails(1, "key", "retire", "ffffffff")


def test_what_is_written_beside_a_token_cannot_talk_a_needed_key_away(program: Program) -> None:
    program.init().add_account("shop")
    (old,) = ids()
    program.run("key", "add")
    new = ids()[0]
    execute(program, f"UPDATE outbox_account SET key_id = '{new}'")
    assert "still seals" in program.fails(1, "key", "retire", old)
    assert "sealed 1 secret again" in program.run("key", "rotate").stdout
    program.run("key", "retire", old)
    assert password_of(program, "shop") == CANARY


def test_a_missing_key_is_named_by_status_and_rotate_goes_on_with_the_others(program: Program) -> None:
    program.init().add_account("lost")
    (lost,) = ids()
    FILE.unlink()
    program.run("key", "generate")
    program.add_account("shop")
    result = program.run("key", "status", code=5)
    assert "no loaded key opens the secrets of: lost" in result.stderr
    assert lost in result.stdout
    assert "missing" in result.stdout
    program.run("key", "add")
    assert "of: lost" in program.run("key", "rotate", code=5).stderr
    assert password_of(program, "shop") == CANARY


def test_a_damaged_token_is_named_by_status(program: Program) -> None:
    program.init().add_account("shop")
    execute(program, "UPDATE outbox_account SET secret = 'gAAAA-damaged'")
    result = program.run("key", "status", code=5)
    assert "of: shop" in result.stderr
    assert "gAAAA" not in result.output


def test_keys_that_come_from_elsewhere_are_not_ours_to_change(
    sqlite_program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_KEYS", keys.new().text)
    sqlite_program.init()
    for command in (("add",), ("retire", "ffffffff")):
        monkeypatch.setenv("OUTBOX_KEYS", keys.new().text)
        assert "come from OUTBOX_KEYS" in sqlite_program.fails(1, "key", *command)
    monkeypatch.setenv("OUTBOX_KEYS", keys.new().text)
    assert sqlite_program.json("key", "status")["source"] == "OUTBOX_KEYS"


def test_a_malformed_key_is_named_by_its_line_only(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    text = FILE.read_text(encoding="utf-8")
    FILE.write_text(text + "canary-oops\n", encoding="utf-8")
    said = program.fails(5, "key", "status")
    assert "line 4: not a key" in said
    assert "canary" not in said


def test_no_key_at_all_ends_with_five(sqlite_program: Program) -> None:
    assert "there is no key" in sqlite_program.fails(5, "--database", sqlite_program.url, "key", "status")
