"""``outbox sender dkim``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from outbox import keys
from outbox.core.dkim import Algorithm
from outbox.core.message import Message
from outbox.core.render import render
from outbox.runner.sending.signing import Signing
from outbox.store import dkim as stored
from outbox.store.database import connect
from outbox.vault import Vault
from tests.cli.program import Program
from tests.signatures import Zone, private

SHOP = "shop@example.com"


@pytest.fixture
def registered(program: Program) -> Program:
    """``shop@example.com`` and ``*@example.org``."""
    return _registered(program)


@pytest.fixture
def sqlite_registered(sqlite_program: Program) -> Program:
    return _registered(sqlite_program)


def _registered(program: Program) -> Program:
    program.init()
    program.run("account", "add", "main", "--relay", "smtp.example.net:587", "--tls", "starttls")
    for sender in (SHOP, "*@example.org"):
        program.run("sender", "add", sender, "--account", "main")
    return program


def dkim(program: Program, *arguments: str, sender: str = SHOP) -> str:
    return program.run("sender", "dkim", sender, *arguments).stdout


def checks(program: Program, zone: Zone, sender: str = SHOP) -> list[bool]:
    """Whether the signatures of a mail of that sender hold, as a runner would make them now."""
    vault = Vault(keys.load(program.home / "outbox.key"))
    signing = Signing(lambda: vault)
    db = connect(program.url)
    signing.load(stored.keys(db))
    db.close()
    at = datetime.fromisoformat("2026-03-01T09:30:00Z")
    mail = Message(7, "0a" * 16, at, sender, recipients="ann@example.net", text_body="Thanks.\n")
    return zone.checks(signing.sign(mail, render(mail)).data)


def test_the_record_of_a_key_that_was_made_is_the_one_that_checks_its_signatures(registered: Program) -> None:
    records = [
        dkim(registered, "--generate", "--selector", "one"),
        dkim(registered, "--generate", "--algorithm", "ed25519", "--selector", "two"),
    ]

    assert checks(registered, Zone(*(each.strip() for each in records))) == [True, True]
    assert dkim(registered, "--show") == dkim(registered) == "".join(records)
    assert records[0].startswith('one._domainkey.example.com. TXT "v=DKIM1; k=rsa; p=')
    assert max(map(len, records[0].split('"')[1::2])) == 255


def test_a_domain_signs_for_all_its_addresses(registered: Program) -> None:
    record = dkim(registered, "--generate", sender="*@example.org").strip()

    assert checks(registered, Zone(record), sender="news@example.org") == [True]
    assert checks(registered, Zone(record), sender=SHOP) == []


def test_what_is_shown_is_the_same_as_json(registered: Program) -> None:
    made: dict[str, Any] = registered.json("sender", "dkim", SHOP, "--generate", "--algorithm", "ed25519")
    (shown,) = registered.json("sender", "dkim", SHOP)

    assert made == shown
    assert shown.pop("created_at").endswith("Z")
    assert len(shown.pop("key_id")) == 8
    value = shown.pop("value")
    assert value.startswith("v=DKIM1; k=ed25519; p=")
    assert shown.pop("strings") == [value]
    selector = shown.pop("selector")
    assert selector.startswith("outbox-ed25519-")
    assert shown == {
        "sender": SHOP,
        "domain": "example.com",
        "algorithm": "ed25519-sha256",
        "bits": 256,
        "name": f"{selector}._domainkey.example.com.",
        "type": "TXT",
    }


def test_a_key_of_ones_own_is_imported(registered: Program) -> None:
    file = registered.home / "key.pem"
    file.write_text(private(Algorithm.RSA).reveal())
    record = dkim(registered, "--import", str(file), "--selector", "mine").strip()
    file.unlink()

    assert checks(registered, Zone(record)) == [True]


def test_a_short_key_is_taken_and_talked_about(sqlite_registered: Program) -> None:
    key = rsa.generate_private_key(65537, 1024)
    file = sqlite_registered.home / "short.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    said = sqlite_registered.run("sender", "dkim", SHOP, "--import", str(file), "--selector", "short").stderr
    assert "short has 1024 bits only" in said


def test_a_file_that_is_no_key_is_refused(sqlite_registered: Program) -> None:
    (sqlite_registered.home / "x.pem").write_text("canary")

    said = sqlite_registered.fails(1, "sender", "dkim", SHOP, "--import", "x.pem")
    assert "x.pem: it is not a private key of RSA or Ed25519" in said
    assert "canary" not in said
    assert "cannot read y.pem" in sqlite_registered.fails(2, "sender", "dkim", SHOP, "--import", "y.pem")


def test_a_key_that_is_removed_does_not_sign_any_more(registered: Program) -> None:
    dkim(registered, "--generate", "--algorithm", "ed25519", "--selector", "old")
    kept = dkim(registered, "--generate", "--algorithm", "ed25519", "--selector", "new").strip()

    assert dkim(registered, "--remove", "OLD") == f"removed the DKIM key old of {SHOP}\n"
    assert checks(registered, Zone(kept)) == [True]
    assert "no DKIM key with the selector old" in registered.fails(1, "sender", "dkim", SHOP, "--remove", "old")


def test_a_sender_without_keys_says_what_is_so(registered: Program) -> None:
    said = registered.run("sender", "dkim", SHOP)
    assert said.stdout == ""
    assert f"is not signed; outbox sender dkim '{SHOP}' --generate" in said.stderr
    assert registered.json("sender", "dkim", SHOP) == []
    registered.run("sender", "add", "news@example.org", "--account", "main")
    dkim(registered, "--generate", sender="*@example.org")
    assert "those of *@example.org sign its mail" in registered.run("sender", "dkim", "news@example.org").stderr


def test_a_selector_is_used_once_in_a_domain(registered: Program) -> None:
    registered.run("sender", "add", "news@example.com", "--account", "main")
    dkim(registered, "--generate", "--selector", "s1")

    for sender in (SHOP, "news@example.com"):
        said = registered.fails(1, "sender", "dkim", sender, "--generate", "--selector", "s1")
        assert "has a DKIM key with the selector s1 already" in said
    dkim(registered, "--generate", "--selector", "s1", sender="*@example.org")


@pytest.mark.parametrize(
    ("arguments", "code", "fault"),
    [
        (("nobody@example.com", "--generate"), 1, "not a registered sender"),
        ((SHOP, "--generate", "--show"), 2, "give one of"),
        ((SHOP, "--generate", "--selector", "a_b"), 2, "is not a selector"),
        ((SHOP, "--generate", "--bits", "1024"), 2, "--bits"),
    ],
)
def test_what_cannot_be_is_refused(
    sqlite_registered: Program, arguments: tuple[str, ...], code: int, fault: str
) -> None:
    assert fault in sqlite_registered.fails(code, "sender", "dkim", *arguments)


def test_no_private_key_comes_out(registered: Program) -> None:
    dkim(registered, "--generate")
    registered.json("sender", "dkim", SHOP)
    file = registered.home / "key.pem"
    file.write_text(private(Algorithm.ED25519).reveal())
    dkim(registered, "--import", str(file), "--selector", "mine")
    file.unlink()
    secret = private(Algorithm.ED25519).reveal().splitlines()[1]

    assert not any("PRIVATE" in text or secret in text for text in registered.printed)
    assert not any(b"PRIVATE" in content or secret.encode() in content for content in registered.files().values())


def test_another_vault_does_not_open_it(sqlite_registered: Program) -> None:
    dkim(sqlite_registered, "--generate", "--algorithm", "ed25519")
    (sqlite_registered.home / "outbox.key").unlink()
    sqlite_registered.run("key", "generate")

    assert "its DKIM key is sealed with key" in sqlite_registered.fails(5, "sender", "dkim", SHOP)
