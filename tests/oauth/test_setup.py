"""The setup of an account: what is checked of it, what is sealed of it, and what providers need."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.secret import Secret
from outbox.oauth.setup import ClientAuth, Grant, Setup, check_url, preset

CANARY = "canary-client-secret"
APP = Setup(
    Grant.CLIENT_CREDENTIALS,
    token_url="https://login.example.com/token",
    client_id="app",
    client_secret=Secret(CANARY),
    scope="mail",
)
LOGGED_IN = replace(
    APP,
    grant=Grant.REFRESH_TOKEN,
    device_url="https://login.example.com/device",
    client_auth=ClientAuth.BASIC,
    refresh_token=Secret("canary-refresh"),
)
COMMAND = Setup(Grant.COMMAND, command=("/usr/bin/token", "--for", "shop"))


@pytest.mark.parametrize("setup", [APP, LOGGED_IN, COMMAND])
def test_a_setup_is_read_as_it_was_packed(setup: Setup) -> None:
    setup.check()
    assert Setup.unpack(setup.pack()) == setup


@given(st.text(), st.text(), st.lists(st.text()))
def test_any_text_survives_packing(name: str, secret: str, command: list[str]) -> None:
    setup = Setup(Grant.COMMAND, client_id=name, client_secret=Secret(secret), command=tuple(command))
    assert Setup.unpack(setup.pack()) == setup


@pytest.mark.parametrize("text", ["", "canary", "[]", "{}", '{"grant": "magic"}', '{"grant": "command", "new": 1}'])
def test_what_is_no_setup_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match="newer version") as caught:
        Setup.unpack(Secret(text))
    assert "canary" not in str(caught.value)


def test_a_setup_shows_no_secret_and_no_argument() -> None:
    for setup in (APP, LOGGED_IN, COMMAND):
        assert "canary" not in repr(setup)
        assert "--for" not in repr(setup)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"token_url": ""}, "there is no token URL"),
        ({"token_url": "http://login.example.com/token"}, "must begin with https://"),
        ({"token_url": "ftp://127.0.0.1/token"}, "must begin with https://"),
        ({"token_url": "https://ann:x@login.example.com/"}, "is not a URL"),
        ({"token_url": "https:///token"}, "is not a URL"),
        ({"token_url": "https://login.example.com/#part"}, "is not a URL"),
        ({"token_url": "https://login.example.com:99999/"}, "host or port"),
        ({"token_url": "https://login.example.com:x/"}, "host or port"),
        ({"token_url": "https://[::1/token"}, "host or port"),
        ({"token_url": "https://login.example.com:0/"}, "is not a URL"),
        ({"token_url": "https://login.example.com/a b"}, "letters that no URL has"),
        ({"token_url": "https://bücher.example/"}, "letters that no URL has"),
        ({"token_url": "https://login.example.com/\r\nX: y"}, "letters that no URL has"),
        ({"device_url": "http://login.example.com/device"}, "the device URL must begin"),
        ({"client_id": ""}, "no client id"),
        ({"client_secret": Secret()}, "there is no secret"),
        ({"grant": Grant.COMMAND}, "there is no command"),
        ({"grant": Grant.COMMAND, "command": ("",)}, "there is no command"),
        ({"grant": Grant.COMMAND, "command": ("a", "b\0")}, "no NUL"),
    ],
)
def test_a_setup_that_cannot_work_is_refused_in_words(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(APP, **change).check()  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/token", "http://localhost/token", "http://[::1]/token"])
def test_a_token_may_be_asked_for_in_clear_text_on_this_machine(url: str) -> None:
    check_url(url, "token URL")


def test_the_presets_are_what_the_providers_document() -> None:
    delegated = preset("microsoft365", Grant.REFRESH_TOKEN, "contoso.example")
    assert delegated.token_url == "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token"
    assert delegated.device_url == "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/devicecode"
    assert delegated.scope == "https://outlook.office.com/SMTP.Send offline_access"
    app_only = preset("microsoft365", Grant.CLIENT_CREDENTIALS, "contoso.example")
    assert (app_only.scope, app_only.device_url) == ("https://outlook.office365.com/.default", "")
    assert "/organizations/" in preset("microsoft365", Grant.REFRESH_TOKEN).token_url
    google = preset("google", Grant.REFRESH_TOKEN)
    assert (google.token_url, google.scope) == ("https://oauth2.googleapis.com/token", "https://mail.google.com/")
    assert google.device_url == ""  # its devices may not have mail


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("aol", Grant.REFRESH_TOKEN), "is not one of microsoft365, google"),
        (("microsoft365", Grant.CLIENT_CREDENTIALS), "needs the tenant"),
        (("microsoft365", Grant.REFRESH_TOKEN, "evil.test/x?"), "is not a tenant"),
        (("google", Grant.CLIENT_CREDENTIALS), "no access to mail for client credentials"),
    ],
)
def test_a_preset_that_does_not_exist_is_refused_in_words(arguments: tuple[str, Grant], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        preset(*arguments)
