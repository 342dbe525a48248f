"""``outbox account oauth`` and ``outbox account login``."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from outbox import keys
from outbox.cli import oauth as commands
from outbox.oauth.setup import Grant, Setup
from outbox.store import accounts, oauth, tables
from outbox.store.database import connect
from outbox.vault import Binding, Kind, Vault
from tests.cli.program import Program
from tests.oauth.endpoint import ERROR, Endpoint
from tests.relay import Relay

SECRET = "canary-client-secret"
REFRESH = "canary-refresh-1"
USER = "shop@example.com"


@pytest.fixture
def shop(program: Program) -> Program:
    """After `outbox init`, with an account that takes tokens, at a relay that is not there."""
    return added(program.init())


@pytest.fixture(autouse=True)
def _no_canary_anywhere(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    async def no_time(seconds: float) -> None:
        """A person's browser is quick here."""

    monkeypatch.setattr(commands, "sleep", no_time)
    caplog.set_level(logging.DEBUG)
    program: Program = request.getfixturevalue("program")
    yield
    assert "canary" not in "".join(program.printed)
    assert "canary" not in caplog.text
    assert "canary" not in repr(os.environ)
    for name, content in program.files().items():
        assert b"canary" not in content, name
    with closing(connect(program.url)) as db:
        if not db.table_exists("outbox_oauth"):
            return
        for table in tables.TABLES:
            assert "canary" not in repr(list(table.select().dicts().execute(db))), table
    if program.url.startswith("sqlite"):
        database = Path(program.url.removeprefix("sqlite:///"))
        for path in database.parent.glob(database.name + "*"):
            assert b"canary" not in path.read_bytes(), path


def added(program: Program, port: int = 1, mechanism: str = "xoauth2") -> Program:
    relay = ("--relay", f"127.0.0.1:{port}", "--tls", "none")
    said = program.run("account", "add", "shop", *relay, "--username", USER, "--mechanism", mechanism)
    assert "next: outbox account oauth shop" in said.stderr
    return program


def stored(program: Program) -> tuple[Setup, oauth.OAuth]:
    """The setup, opened, and its row."""
    with closing(connect(program.url)) as db:
        account, row = accounts.account(db, "shop"), oauth.find(db, "shop")
    assert row is not None
    vault = Vault(keys.load(Path("outbox.key").absolute()))
    return Setup.unpack(vault.open(row.setup, Binding.of(account), key_id=row.key_id, kind=Kind.OAUTH)), row


def update(program: Program, **values: Any) -> None:
    with closing(connect(program.url)) as db:
        tables.Account.update(**values).execute(db)


def client(server: Endpoint, *more: str) -> tuple[str, ...]:
    return ("--token-url", server.token_url, "--client-id", "app", *more)


# ---- storing a setup


def test_client_credentials_are_stored_with_the_secret_from_standard_input(shop: Program) -> None:
    args = ("--provider", "microsoft365", "--tenant", "contoso.example", "--client-id", "app")
    result = shop.run(
        "account", "oauth", "shop", "--grant", "client_credentials", *args, "--client-secret-stdin", stdin=SECRET
    )
    assert f"gets the access tokens of {USER} at 127.0.0.1:1 (none): client_credentials" in result.stdout
    assert "next: outbox account test shop" in result.stderr
    setup, row = stored(shop)
    assert setup.client_secret.reveal() == SECRET
    assert setup.token_url == "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token"
    assert setup.scope == "https://outlook.office365.com/.default"
    assert row.token is None


def test_a_refresh_token_is_stored_from_a_file(shop: Program, tmp_path: Path) -> None:
    (tmp_path / "refresh").write_text(REFRESH + "\n", encoding="utf-8")
    (tmp_path / "secret").write_text(SECRET + "\n", encoding="utf-8")
    files = ("--client-secret-file", str(tmp_path / "secret"), "--refresh-token-file", str(tmp_path / "refresh"))
    args = ("--grant", "refresh_token", "--provider", "google", "--client-id", "app", *files, "--client-auth", "basic")
    assert shop.json("account", "oauth", "shop", *args) == {
        "account": "shop",
        "grant": "refresh_token",
        "logged_in": True,
        "seconds": None,
    }
    setup, _ = stored(shop)
    assert (setup.client_secret.reveal(), setup.refresh_token.reveal()) == (SECRET, REFRESH)
    assert (setup.client_auth, setup.scope) == ("basic", "https://mail.google.com/")


def test_a_setup_without_a_refresh_token_waits_for_a_login(shop: Program) -> None:
    args = ("--grant", "refresh_token", "--provider", "microsoft365", "--client-id", "app")
    assert "next: outbox account login shop" in shop.run("account", "oauth", "shop", *args).stderr
    said = shop.run("account", "test", "shop", code=7).stderr
    assert "nobody has consented yet; re-consent needed: outbox account login shop" in said


def test_a_command_is_what_comes_after_the_dashes(shop: Program) -> None:
    shop.run("account", "oauth", "shop", "--command", "--", "/usr/bin/token", "--for", "shop", "-v")
    setup, _ = stored(shop)
    assert (setup.grant, setup.command) == (Grant.COMMAND, ("/usr/bin/token", "--for", "shop", "-v"))


def test_a_new_setup_lifts_a_runners_pause_and_is_a_new_credential(shop: Program) -> None:
    before = shop.json("account", "show", "shop")["credential_version"]
    update(shop, pause_reason="auth: 535 5.7.8 no")
    shop.run("account", "oauth", "shop", "--command", "--", "token")
    after = shop.json("account", "show", "shop")
    assert (after["credential_version"], after["paused"]) == (before + 1, False)
    shop.run("account", "pause", "shop", "--reason", "moving")
    said = shop.run("account", "oauth", "shop", "--command", "--", "token").stderr
    assert "to lift that: outbox account resume shop" in said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "give one of client_credentials, refresh_token, command"),
        (("--command",), "there is no command"),
        (("--command", "--grant", "refresh_token", "--", "x"), "do not go together"),
        (("--grant", "refresh_token", "--client-id", "a", "--", "x"), "a program is for --command"),
        (("--grant", "refresh_token", "--client-id", "a"), "there is no token URL"),
        (("--grant", "refresh_token", "--client-id", "a", "--token-url", "http://x.example/"), "https://"),
        (("--grant", "refresh_token", "--provider", "google"), "there is no client id"),
        (("--grant", "refresh_token", "--provider", "aol"), "is not one of microsoft365, google"),
        (("--grant", "client_credentials", "--provider", "google"), "no access to mail"),
        (("--grant", "client_credentials", "--provider", "microsoft365"), "needs the tenant"),
        (("--grant", "client_credentials", "--token-url", "https://x.example/", "--client-id", "a"), "no terminal"),
        (("--grant", "refresh_token", "--client-secret-stdin", "--refresh-token-stdin"), "standard input"),
    ],
)
def test_a_setup_that_cannot_work_is_a_usage_error(shop: Program, args: tuple[str, ...], words: str) -> None:
    said = shop.fails(2, "account", "oauth", "shop", *args)
    assert words in " ".join(said.split())
    with closing(connect(shop.url)) as db:
        assert oauth.every(db) == []


def test_an_account_with_a_password_is_told_apart(program: Program) -> None:
    program.init().run("account", "add", "plain", "--relay", "127.0.0.1:1", "--tls", "none")
    for verb in (("oauth", "plain", "--command", "--", "x"), ("login", "plain")):
        assert "logs in by auto, which takes a password" in program.fails(1, "account", *verb)
    added(program)
    assert "takes access tokens and no password" in program.fails(1, "account", "set-password", "shop")
    add = ("account", "add", "x", "--relay", "127.0.0.1:1", "--tls", "none", "--mechanism", "oauthbearer")
    assert "needs a --username" in program.fails(2, *add)
    assert "instead of a password" in program.fails(2, *add, "--username", "u", "--password-stdin", stdin="secret")


def test_a_token_is_not_given_to_a_relay_without_tls(program: Program) -> None:
    add = ("account", "add", "far", "--relay", "smtp.example.com:25", "--tls", "none")
    assert "without TLS" in program.init().fails(1, *add, "--username", USER, "--mechanism", "xoauth2")
    added(program)
    update(program, relay_host="smtp.example.com")
    assert "without TLS" in program.fails(1, "account", "oauth", "shop", "--command", "--", "token")
    assert "without TLS" in program.fails(1, "account", "login", "shop", "--provider", "google", "--client-id", "a")


# ---- logging in


def test_a_login_shows_url_and_code_and_stores_both_tokens(shop: Program) -> None:
    with Endpoint(ERROR("authorization_pending"), {"refresh_token": REFRESH}) as server:
        args = client(server, "--device-url", server.device_url, "--scope", "mail offline_access")
        result = shop.run("account", "login", "shop", *args)
        assert len(server.requests) == 3
    assert "open  https://login.example.com/device" in result.stderr
    assert "enter the code  WDJB-MJHT" in result.stderr
    assert "next: outbox account test shop" in result.stderr
    setup, row = stored(shop)
    assert (setup.grant, setup.refresh_token.reveal(), row.token is not None) == ("refresh_token", REFRESH, True)
    shown = shop.json("account", "show", "shop")
    assert shown["oauth"]["expires_at"] > shown["oauth"]["refresh_at"] > shown["oauth"]["refreshed_at"]
    assert shown["mechanism"] == "xoauth2"
    assert "token of 20" in shop.run("account", "show", "shop").stdout


def test_a_second_login_needs_nothing_again(shop: Program) -> None:
    first, second = {"refresh_token": REFRESH}, {"refresh_token": "canary-refresh-2"}
    with Endpoint(first, second) as server:
        args = client(server, "--device-url", server.device_url, "--client-secret-stdin")
        shop.run("account", "login", "shop", *args, stdin=SECRET)
        assert shop.json("account", "login", "shop") == {
            "account": "shop",
            "grant": "refresh_token",
            "logged_in": True,
            "seconds": 3600,
        }
        assert server.requests[-1].form["client_secret"] == SECRET
    assert stored(shop)[0].refresh_token.reveal() == "canary-refresh-2"


def test_a_stored_secret_goes_to_nobody_it_was_not_given_for(shop: Program) -> None:
    with Endpoint({"refresh_token": REFRESH}) as first, Endpoint({"refresh_token": REFRESH}) as second:
        args = client(first, "--device-url", first.device_url, "--client-secret-stdin")
        shop.run("account", "login", "shop", *args, stdin=SECRET)
        shop.run("account", "login", "shop", "--token-url", second.url, "--device-url", second.device_url)
        assert [each for each in second.requests if "client_secret" in each.form] == []
        assert len(second.requests) > 1
    assert not stored(shop)[0].client_secret


def test_a_login_that_is_refused_changes_nothing(shop: Program) -> None:
    shop.run("account", "oauth", "shop", "--command", "--", "token")
    before = stored(shop)
    with Endpoint(ERROR("access_denied", "the user said no"), {}) as server:
        args = client(server, "--device-url", server.device_url)
        said = shop.run("account", "login", "shop", *args, code=7).stderr
        assert "access_denied: the user said no" in said
        said = shop.run("account", "login", "shop", *args, code=7).stderr
        assert "gave no refresh token" in said
        assert "offline_access" in said
    assert stored(shop) == before


def test_a_login_without_a_setup_says_what_is_missing(shop: Program) -> None:
    assert "there is no token URL" in shop.fails(2, "account", "login", "shop")
    said = shop.fails(2, "account", "login", "shop", "--token-url", "https://x.example/", "--client-id", "a")
    assert "there is no device URL" in said
    said = shop.fails(2, "account", "login", "shop", "--provider", "google", "--client-id", "a")
    assert "google gives no access to mail for a code" in " ".join(said.split())


# ---- using it


def test_a_test_gets_a_token_first_and_logs_in_with_it(program: Program) -> None:
    with Endpoint() as server, Relay(credentials={USER: ""}, mechanisms=("XOAUTH2", "OAUTHBEARER")) as relay:
        added(program.init(), relay.port)
        args = client(server, "--grant", "client_credentials", "--client-secret-stdin")
        program.run("account", "oauth", "shop", *args, stdin=SECRET)
        refused = program.run("account", "test", "shop", code=7).stderr
        assert "535" in refused
        assert "hint: outbox account oauth shop" in refused
        relay.credentials[USER] = server.current
        assert f"logged in as {USER}" in program.run("account", "test", "shop").stdout
        assert len(server.requests) == 1  # the token was kept


def test_a_test_says_what_the_endpoint_says(shop: Program) -> None:
    with Endpoint(ERROR("invalid_client", "no such app")) as server:
        args = client(server, "--grant", "client_credentials", "--client-secret-stdin")
        shop.run("account", "oauth", "shop", *args, stdin=SECRET)
        said = shop.run("account", "test", "shop", code=7).stderr
    assert "account shop: 127.0.0.1" in said
    assert "invalid_client: no such app; the setup is to be corrected: outbox account oauth shop" in said


def test_a_setup_does_not_open_after_the_relay_was_changed_behind_our_back(shop: Program) -> None:
    shop.run("account", "oauth", "shop", "--command", "--", sys.executable, "-c", "print('canary-' + 'token')")
    update(shop, relay_host="localhost")
    said = shop.run("account", "test", "shop", code=5).stderr
    assert "the relay host is now 'localhost'; its OAuth setup was stored for '127.0.0.1'" in said
    assert "hint: if the change is right, enter it again: outbox account oauth shop" in said


def test_the_key_of_a_setup_and_its_token_is_replaced_like_any_other(shop: Program) -> None:
    with Endpoint({"refresh_token": REFRESH}) as server:
        shop.run("account", "login", "shop", *client(server, "--device-url", server.device_url))
    old = keys.load(Path("outbox.key").absolute()).ids[0]
    shop.run("key", "add")
    assert "still seals the secrets of: shop (OAuth)" in shop.fails(1, "key", "retire", old)
    assert "sealed 1 secret again" in shop.run("key", "rotate").stdout
    shop.run("key", "retire", old)
    (key,) = shop.json("key", "status")["keys"]
    assert (key["accounts"], key["oauth"], key["dkim"]) == ([], ["shop"], [])
    assert "shop (OAuth)" in shop.run("key", "status").stdout
    setup, row = stored(shop)
    assert setup.refresh_token.reveal() == REFRESH
    assert row.key_id == key["id"]
