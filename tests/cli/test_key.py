"""``outbox key …``."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from outbox import keys
from outbox.clock import Clock
from outbox.core.account import Sender
from outbox.core.secret import Secret
from outbox.store import accounts, senders, tables
from outbox.store.database import connect
from outbox.store.journal import Act
from outbox.vault import DkimBinding, Kind, Vault
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


def test_a_dkim_key_needs_its_key_like_a_password(program: Program) -> None:
    program.init().add_account("shop")
    (old,) = ids()
    vault = Vault(keys.load(FILE.absolute()))
    binding = DkimBinding("shop@example.com", "outbox1", "example.com", "ed25519-sha256")
    db = connect(program.url)
    act = Act("test", Clock().now())
    with db.atomic():
        senders.add_sender(db, Sender("shop@example.com", "shop"), act)
        token = vault.seal(Secret(CANARY), binding, Kind.DKIM)
        row = {"selector": "outbox1", "domain": "example.com", "algorithm": "ed25519-sha256", "created_at": act.at}
        tables.Dkim.insert(sender="shop@example.com", secret=token, key_id=old, **row).execute(db)
    program.run("key", "add")
    said = program.fails(1, "key", "retire", old)
    assert "still seals the secrets of: shop, shop@example.com outbox1 (DKIM)" in said
    assert "sealed 2 secrets again" in program.run("key", "rotate").stdout
    program.run("key", "retire", old)
    (key,) = program.json("key", "status")["keys"]
    assert (key["accounts"], key["dkim"]) == (["shop"], ["shop@example.com outbox1"])
    (line,) = tables.Dkim.select().dicts().execute(db)
    db.close()
    opened = Vault(keys.load(FILE.absolute())).open(line["secret"], binding, key_id=line["key_id"], kind=Kind.DKIM)
    assert opened.reveal() == CANARY


def test_init_makes_no_key_where_a_token_is_sealed_with_another(program: Program) -> None:
    relay = ("--relay", "127.0.0.1:25", "--tls", "none", "--username", "shop", "--mechanism", "xoauth2")
    program.init().run("account", "add", "shop", *relay)
    program.run("account", "oauth", "shop", "--command", "--", "token")
    (key_id,) = ids()
    FILE.unlink()
    assert f"sealed with key {key_id}" in program.run("init", "--database", program.url, code=1).stderr
    assert not FILE.exists()
