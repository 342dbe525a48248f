"""outbox doctor: what it knows of access tokens and signatures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from outbox import keys
from outbox.core.dkim import Algorithm
from outbox.core.dkim_key import SealedKey
from outbox.core.secret import Secret
from outbox.keypair import generate
from outbox.oauth.setup import Grant, Setup
from outbox.store import accounts, dkim, oauth
from outbox.store.database import connect
from outbox.store.filters import written
from outbox.store.journal import Act
from outbox.store.oauth import Sealed
from outbox.vault import Binding, DkimBinding, Kind, Vault
from tests.cli.installation import checks, found, runner, well
from tests.cli.program import CANARY, Program
from tests.cli.test_pauses import SHOP
from tests.stories import Stories

SECRET = "whsec_c2VjcmV0IG9mIHRoZSBzaG9wLCAzMiBieXRlcy4="


@pytest.fixture
def outbox(program: Program) -> Program:
    return well(program)


@pytest.fixture
def stories(outbox: Program) -> Iterator[Stories]:
    with Stories(outbox.url) as opened:
        yield opened


# -- access tokens


def test_an_account_without_its_oauth_setup_is_a_failure(program: Program) -> None:
    program.init()
    _token_account(program)
    (check,) = checks(program.json("doctor", code=1), "oauth", "fail")
    assert check["words"].startswith("account shop logs in by xoauth2, and has no OAuth setup")
    assert check["hint"] == "outbox account oauth shop"
    program.run("account", "oauth", "shop", "--command", "--", "/bin/true")
    report = program.json("doctor")
    assert checks(report, "oauth", "fail") == []
    assert found(report, "key")["words"].partition("; ")[2].startswith("opens 1 OAuth setup")
    assert found(report, "account")["words"] == "1 account, 0 with a password, 1 with OAuth"


def test_a_setup_that_does_not_open_is_a_failure(program: Program) -> None:
    program.init()
    _token_account(program)
    program.run("account", "oauth", "shop", "--command", "--", "/bin/true")
    with Stories(program.url) as stories:
        stories.sql("UPDATE outbox_account SET relay_host = 'evil.example.com', tls = 'starttls'")
    report = program.json("doctor", code=1)
    (check,) = checks(report, "oauth", "fail")
    assert "the relay host is now 'evil.example.com'; its OAuth setup was stored for '127.0.0.1'" in check["words"]
    assert check["hint"].endswith("outbox account oauth shop")
    assert [each for each in report["checks"] if each["check"] == "key"] == []


def test_a_setup_that_nobody_has_consented_to_is_a_failure(program: Program) -> None:
    program.init()
    _token_account(program)
    with_device = Setup(Grant.REFRESH_TOKEN, "https://login.example.com/t", "https://login.example.com/d", "shop")
    _store(program, with_device)
    (check,) = checks(program.json("doctor", code=1), "oauth", "fail")
    assert (check["words"].partition(", ")[0], check["hint"]) == (
        "account shop: nobody has consented yet",
        "outbox account login shop",
    )
    _store(program, replace(with_device, device_url=""))
    assert found(program.json("doctor", code=1), "oauth")["hint"] == "outbox account oauth shop"


def test_a_library_that_is_missing_is_a_failure_unless_a_command_gets_the_tokens(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.init()
    _token_account(program)
    _store(program, Setup(Grant.CLIENT_CREDENTIALS, "https://login.example.com/t", "", "shop", Secret(CANARY)))
    assert checks(program.json("doctor"), "oauth", "fail") == []
    monkeypatch.delitem(sys.modules, "outbox.oauth.endpoint")
    monkeypatch.delattr(sys.modules["outbox.oauth"], "endpoint")
    monkeypatch.setitem(sys.modules, "httpx2", None)
    (check,) = checks(program.json("doctor", code=1), "oauth", "fail")
    assert "not installed: httpx2; without it no token is got for: shop" in check["words"]
    assert check["hint"] == "pip install 'mail-outbox[oauth2]'"
    assert CANARY not in "".join(program.printed)
    _store(program, Setup(Grant.COMMAND, command=("/bin/true",)))
    assert checks(program.json("doctor"), "oauth", "fail") == []


def test_a_token_that_could_not_be_renewed_is_a_warning_until_the_rest_is_over(program: Program) -> None:
    program.init()
    _token_account(program)
    _store(program, Setup(Grant.COMMAND, command=("/bin/true",)))
    soon = written(datetime.now(UTC) + timedelta(seconds=40))
    with Stories(program.url) as stories:
        stories.sql("UPDATE outbox_oauth SET refreshing_until = ?, refreshing_by = 'runner 1'", soon)
        assert checks(program.json("doctor"), "oauth", "warn") == [], "somebody is renewing it"
        stories.sql("UPDATE outbox_oauth SET refreshing_by = NULL")
        (check,) = checks(program.json("doctor"), "oauth", "warn")
        stories.sql("UPDATE outbox_oauth SET refreshing_until = ?", written(datetime.now(UTC)))
    assert check["words"].startswith("account shop: the last try to get a token has failed; none before 20")
    assert check["hint"] == "outbox account test shop"
    assert checks(program.json("doctor"), "oauth", "warn") == []


def test_a_token_that_has_ended_is_a_warning_while_mail_is_due(program: Program) -> None:
    program.init()
    _token_account(program)
    program.run("sender", "add", SHOP, "--account", "shop")
    _store(program, Setup(Grant.COMMAND, command=("/bin/true",)))
    with Stories(program.url) as stories:
        runner(stories)
        stories.sql("UPDATE outbox_oauth SET expires_at = '2026-03-01T00:00:00.000Z'")
        stories.mail(sender="stranger@example.org")
        stories.mail(due_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
        assert checks(program.json("doctor"), "oauth", "warn") == [], "nothing of it is due"
        stories.mail()
        (check,) = checks(program.json("doctor"), "oauth", "warn")
    assert check["words"] == "account shop: its token ended at 2026-03-01T00:00:00Z, and 1 message is due"


def test_a_token_that_does_not_open_is_a_note_for_a_runner_gets_another(program: Program) -> None:
    program.init()
    _token_account(program)
    _store(program, Setup(Grant.COMMAND, command=("/bin/true",)))
    with Stories(program.url) as stories:
        stories.sql("UPDATE outbox_oauth SET token = 'damaged'")
    (check,) = checks(program.json("doctor"), "oauth", "note")
    assert "opens its access token" in check["words"]


# -- signatures


def test_a_signature_is_a_note_that_says_how_to_check_its_record(outbox: Program) -> None:
    outbox.run("sender", "dkim", "*@example.com", "--generate", "--algorithm", "ed25519")
    report = outbox.json("doctor")
    (check,) = checks(report, "dkim", "note")
    assert check["words"] == "1 key; whether the DNS has its record is not looked up"
    assert check["hint"] == "outbox sender dkim '*@example.com' --show, then compare: dig TXT NAME"
    assert "opens 1 password, 1 DKIM key" in found(report, "key")["words"]
    assert checks(report, "dkim", "warn") == []


def test_a_signing_key_that_does_not_open_is_a_failure(outbox: Program, stories: Stories) -> None:
    outbox.run("sender", "dkim", "*@example.com", "--generate", "--algorithm", "ed25519", "--selector", "a")
    stories.sql("UPDATE outbox_dkim SET selector = 'b'")
    (check,) = checks(outbox.json("doctor", code=1), "dkim", "fail")
    assert "sender *@example.com: the selector is now 'b'; its DKIM key was stored for 'a'" in check["words"]


def test_a_signature_of_another_domain_is_a_warning(outbox: Program) -> None:
    secret = generate(Algorithm.ED25519)
    vault = Vault(keys.load(Path("outbox.key").absolute()))
    binding = DkimBinding("*@example.com", "a", "example.org", "ed25519-sha256")
    sealed = vault.seal(secret, binding, Kind.DKIM)
    key = SealedKey("*@example.com", "a", "example.org", Algorithm.ED25519, sealed, vault.key_id)
    with closing(connect(outbox.url)) as db, db.atomic():
        dkim.add_key(db, key, Act("olga", datetime.now(UTC)))
    report = outbox.json("doctor")
    (check,) = checks(report, "dkim", "warn")
    assert check["words"] == "the key a of *@example.com signs for example.org: DMARC does not count that"
    assert checks(report, "dkim", "fail") == []


def test_any_secret_needs_the_key(program: Program) -> None:
    program.init()
    program.run("account", "add", "main", "--relay", "smtp.example.net:587", "--tls", "starttls")
    program.run("sender", "add", SHOP, "--account", "main")
    program.run("sender", "dkim", SHOP, "--generate", "--algorithm", "ed25519")
    Path("outbox.key").unlink()
    assert found(program.json("doctor", code=1), "key")["result"] == "fail"


# -- planting


def _token_account(program: Program) -> None:
    relay = ("--relay", "127.0.0.1:1", "--tls", "none", "--username", SHOP)
    program.run("account", "add", "shop", *relay, "--mechanism", "xoauth2")


def _store(program: Program, setup: Setup) -> None:
    """The setup of account shop, as `outbox account oauth` leaves it."""
    vault = Vault(keys.load(Path("outbox.key").absolute()))
    with closing(connect(program.url)) as db, db.atomic():
        account = accounts.account(db, "shop")
        sealed = Sealed(vault.seal(setup.pack(), Binding.of(account), Kind.OAUTH), vault.key_id)
        oauth.save(db, account, sealed, Act("olga", datetime.now(UTC)), "account oauth")
