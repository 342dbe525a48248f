"""Access tokens from a scripted endpoint, by each grant, and what is made of its answers."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import trustme

from outbox.core.secret import Secret
from outbox.errors import OAuthError
from outbox.oauth import command, endpoint
from outbox.oauth.answer import LONGEST_LIFE, SHORTEST_LIFE, UNSAID_LIFE
from outbox.oauth.granted import Granted, GrantError, ask, obtain
from outbox.oauth.setup import ClientAuth, Grant, Setup
from tests.oauth.endpoint import ERROR, HANG, Answer, Endpoint, Reply
from tests.relay import server_context
from tests.running import eventually

SECRET = "canary-client-secret"
REFRESH = "canary-refresh-1"


def app(server: Endpoint) -> Setup:
    return Setup(Grant.CLIENT_CREDENTIALS, server.token_url, client_id="app", client_secret=Secret(SECRET), scope="s")


def person(server: Endpoint) -> Setup:
    return replace(app(server), grant=Grant.REFRESH_TOKEN, refresh_token=Secret(REFRESH))


def got(setup: Setup) -> Granted:
    return asyncio.run(obtain(setup))


def refused(*script: Answer) -> GrantError:
    with Endpoint(*script) as server, pytest.raises(GrantError) as caught:
        got(person(server))
    shown = traceback.TracebackException(type(caught.value), caught.value, caught.tb.tb_next, capture_locals=True)
    told = f"{caught.value!r} {caught.value.hint} {''.join(shown.format())}"
    assert "canary" not in told, told
    return caught.value


@pytest.fixture(autouse=True)
def _no_canary_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert "canary" not in caplog.text


# ---- requests


def test_client_credentials_go_in_the_form() -> None:
    with Endpoint() as server:
        granted = got(app(server))
        assert granted.access_token.reveal() == server.current
    assert granted.life == timedelta(hours=1)
    assert granted.refresh_token is None
    assert server.requests[0].form == {
        "grant_type": "client_credentials",
        "scope": "s",
        "client_id": "app",
        "client_secret": SECRET,
    }


def test_a_refresh_token_is_replaced_where_the_endpoint_does_so() -> None:
    with Endpoint({"refresh_token": "canary-refresh-2"}, {}) as server:
        assert got(person(server)).refresh_token == Secret("canary-refresh-2")
        assert got(person(server)).refresh_token is None
    form = server.requests[0].form
    assert (form["grant_type"], form["refresh_token"], form["client_secret"]) == ("refresh_token", REFRESH, SECRET)


def test_a_public_client_sends_its_id_and_no_secret() -> None:
    with Endpoint() as server:
        got(replace(person(server), client_secret=Secret()))
    assert server.requests[0].form["client_id"] == "app"
    assert "client_secret" not in server.requests[0].form
    assert "authorization" not in server.requests[0].headers


def test_client_authentication_in_the_header_is_encoded_as_the_rfc_says() -> None:
    with Endpoint() as server:
        got(replace(app(server), client_auth=ClientAuth.BASIC, client_id="a:b", client_secret=Secret("c&ü d")))
    header = server.requests[0].headers["authorization"]
    assert base64.b64decode(header.removeprefix("Basic ")) == b"a%3Ab:c%26%C3%BC+d"
    assert set(server.requests[0].form) == {"grant_type", "scope"}


def test_secrets_of_any_letters_arrive_as_they_are() -> None:
    text = "pläin+text&client_id=evil=%00\"' ~"
    with Endpoint() as server:
        got(replace(person(server), client_secret=Secret(text), refresh_token=Secret(text[::-1])))
    form = server.requests[0].form
    assert (form["client_secret"], form["refresh_token"], form["client_id"]) == (text, text[::-1], "app")


def test_nobody_is_asked_where_nobody_has_consented() -> None:
    with Endpoint() as server, pytest.raises(GrantError) as caught:
        got(replace(person(server), refresh_token=Secret()))
    assert (caught.value.permanent, caught.value.code, server.requests) == (True, "consent_required", [])


def test_secrets_leave_this_machine_only_over_https(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="https://"):
        got(Setup(Grant.CLIENT_CREDENTIALS, "http://login.example.com/", client_id="app", client_secret=Secret(SECRET)))


def test_a_proxy_is_not_told_what_is_asked_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with Endpoint() as proxy, Endpoint() as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        got(app(server))
        assert (len(server.requests), proxy.requests) == (1, [])


def test_a_secret_is_sent_only_to_who_has_a_certificate_for_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, stranger = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with Endpoint(context=server_context(ours.issue_cert("127.0.0.1"))) as server:
        assert got(app(server)).access_token.reveal() == server.current
    for certificate in (stranger.issue_cert("127.0.0.1"), ours.issue_cert("login.example.com")):
        with Endpoint(context=server_context(certificate)) as server:
            with pytest.raises(GrantError, match="certificate verify failed") as caught:
                got(app(server))
            assert not caught.value.permanent
            assert server.requests == []


# ---- answers


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        (3600, timedelta(hours=1)),
        ("3600", timedelta(hours=1)),
        (3599.5, timedelta(seconds=3599.5)),
        (None, UNSAID_LIFE),
        (0, UNSAID_LIFE),
        (-5, UNSAID_LIFE),
        ("", UNSAID_LIFE),
        ("soon", UNSAID_LIFE),
        ("nan", UNSAID_LIFE),
        (True, UNSAID_LIFE),
        ([1], UNSAID_LIFE),
        (1, SHORTEST_LIFE),
        ("inf", LONGEST_LIFE),
        (10**12, LONGEST_LIFE),
        (10**400, UNSAID_LIFE),
    ],
)
def test_the_life_of_a_token_is_what_is_said_within_reason(expires_in: Any, life: timedelta) -> None:
    with Endpoint({"expires_in": expires_in}) as server:
        assert got(app(server)).life == life


def test_a_token_without_a_type_is_taken_as_a_bearer_token() -> None:
    with Endpoint({"token_type": None}, {"token_type": "bearer"}) as server:
        assert got(app(server)).access_token
        assert got(app(server)).access_token


@pytest.mark.parametrize(
    ("code", "permanent"),
    [
        ("invalid_grant", True),
        ("invalid_client", True),
        ("unauthorized_client", True),
        ("invalid_scope", True),
        ("something_new", True),
        ("temporarily_unavailable", False),
        ("server_error", False),
        ("slow_down", False),
    ],
)
def test_the_endpoints_word_says_whether_it_may_pass(code: str, permanent: bool) -> None:
    error = refused(ERROR(code, "AADSTS70008: it has expired.\r\nTrace ID: 1"))
    assert (error.permanent, error.code) == (permanent, code)
    assert f"refuses: {code}: AADSTS70008: it has expired." in str(error)
    assert "Trace" not in str(error)


@pytest.mark.parametrize(
    ("answer", "permanent", "words"),
    [
        (Reply(500, b"<html>canary"), False, "answers 500 (Internal Server Error)"),
        (Reply(503), False, "answers 503"),
        (Reply(599, b"[]"), False, "answers 599"),
        (Reply(429), False, "answers 429"),
        (ERROR("invalid_request", status=429), False, "refuses: invalid_request"),
        (ERROR("invalid_request", status=502), False, "refuses: invalid_request"),
        (Reply(404, b"canary"), True, "answers 404 (Not Found)"),
        (Reply(403), True, "answers 403"),
        (Reply(204), True, "answers 204"),
        (Reply(200, b"canary"), False, "no JSON object"),
        (Reply(200, b"[1]"), False, "no JSON object"),
        (Reply(200, b"[" * 100_000), False, "no JSON object"),
        (Reply(200, b"\xff\xfe\x00"), False, "no JSON object"),
        (Reply(200, b"x" * (endpoint.MAX_ANSWER + 1)), False, "larger than 256 KiB"),
        (Reply(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}), False, "compressed"),
        ({"access_token": None}, False, "without an access token"),
        ({"access_token": ["canary"]}, False, "without an access token"),
        ({"access_token": "canary\x01auth=x"}, True, "letters that no token has"),
        ({"access_token": "canary\r\nMAIL"}, True, "letters that no token has"),
        ({"access_token": "canary-ü"}, True, "letters that no token has"),
        ({"access_token": "canary" + "x" * 20_000}, True, "or a huge one"),
        ({"token_type": "mac"}, True, "of type 'mac'"),
        ({"token_type": 7}, True, "of type '7'"),
        (ERROR("invalid_grant", f"the token {REFRESH} and {SECRET}"), True, "the token <secret> and <secret>"),
    ],
)
def test_an_answer_that_is_no_token_is_an_error_in_words(answer: Answer, permanent: bool, words: str) -> None:
    error = refused(answer)
    assert (error.permanent, words in str(error)) == (permanent, True), error


@pytest.mark.parametrize("echo", [str, quote_plus, lambda text: quote(text, safe="")], ids=["plain", "form", "percent"])
def test_an_endpoint_that_repeats_the_form_betrays_no_secret(echo: Callable[[str], str]) -> None:
    secrets = [Secret(f"canary + {each}/=%") for each in ("client", "refresh", "device")]
    words = "&".join(f"field={echo(each.reveal())}" for each in secrets)
    with Endpoint(ERROR("invalid_request", words)) as server:
        setup = replace(person(server), client_secret=secrets[0], refresh_token=secrets[1])
        with pytest.raises(GrantError) as caught:
            asyncio.run(ask(setup, "device", device_code=secrets[2]))
    assert str(caught.value).endswith("invalid_request: field=<secret>&field=<secret>&field=<secret>")


def test_a_redirect_is_not_followed_for_a_secret_is_in_the_request() -> None:
    with Endpoint() as elsewhere:
        error = refused(Reply(307, headers={"Location": elsewhere.token_url}))
        assert elsewhere.requests == []
    assert "redirect" in str(error)
    assert not error.permanent


def test_an_endpoint_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "SILENCE", 0.2)
    error = refused(HANG)
    assert (error.permanent, "no answer from 127.0.0.1" in str(error)) == (False, True)


def test_an_exchange_has_a_deadline_whatever_is_dripped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(server: Endpoint) -> None:
        await endpoint.ask_token(person(server), "refresh_token", {}, deadline=0.2)

    with Endpoint(HANG) as server, pytest.raises(GrantError, match=r"within 0.2 s"):
        asyncio.run(ask(server))


def test_an_endpoint_that_is_not_there_may_come_back() -> None:
    with Endpoint() as server:
        setup = app(server)
    with pytest.raises(GrantError, match=r"cannot ask 127.0.0.1") as caught:
        got(setup)
    assert not caught.value.permanent


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "outbox.oauth.endpoint")
    monkeypatch.setattr(sys.modules["outbox.oauth"], "endpoint", None)
    monkeypatch.delattr(sys.modules["outbox.oauth"], "endpoint")
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with Endpoint() as server, pytest.raises(OAuthError, match="not installed: httpx2") as caught:
        got(app(server))
    assert caught.value.permanent
    assert "mail-outbox[oauth2]" in caught.value.hint


# ---- commands


def program(*lines: str) -> Setup:
    return Setup(Grant.COMMAND, command=(sys.executable, "-c", "\n".join(lines)))


@pytest.mark.parametrize(
    ("output", "life"),
    [
        ("canary-cmd\\n", UNSAID_LIFE),
        ("canary-cmd", UNSAID_LIFE),
        ("canary-cmd\\r\\n600\\r\\n", timedelta(minutes=10)),
        ("canary-cmd\\n600\\nmore\\n", timedelta(minutes=10)),
        ("canary-cmd\\nvalid for ever\\n", UNSAID_LIFE),
        ('{"access_token": "canary-cmd", "expires_in": 600}', timedelta(minutes=10)),
        ('\\n{"access_token": "canary-cmd"}'[2:], UNSAID_LIFE),
    ],
)
def test_a_command_prints_a_token_and_perhaps_its_life(output: str, life: timedelta) -> None:
    granted = got(program("import sys", f"sys.stdout.write('{output}')"))
    assert (granted.access_token.reveal(), granted.life) == ("canary-cmd", life)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("print()", "no token in its first line"),
        ("print('canary two words')", "first line that is no token"),
        ("print('canary\\x01')", "first line that is no token"),
        ("import sys; sys.stdout.buffer.write(b'canary\\xff')", "letters that no token has"),
        ("print('{canary')", "JSON that is none"),
        ("print('{}')", "without an access token"),
        ("print('canary'); raise SystemExit(3)", "ends with 3; run it yourself"),
        ("print('canary' * 20000)", "more than 64 KiB"),
        ("import sys; print('canary', file=sys.stderr); sys.exit(1)", "ends with 1"),
    ],
)
def test_a_command_that_prints_no_token_is_an_error_that_may_pass(line: str, words: str) -> None:
    with pytest.raises(GrantError, match=words) as caught:
        got(program(line))
    assert not caught.value.permanent
    assert "canary" not in f"{caught.value!r}"


def test_a_command_that_is_not_there_needs_somebody(tmp_path: Path) -> None:
    missing = tmp_path / "token"
    with pytest.raises(GrantError, match="cannot be run") as caught:
        got(Setup(Grant.COMMAND, command=(str(missing), "canary-argument")))
    assert caught.value.permanent
    assert "canary" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups on Windows")
def test_a_command_that_hangs_is_killed_with_what_it_has_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = (
        "import subprocess, sys, time",
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])",
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))",
        "time.sleep(60)",
    )

    async def attempt() -> None:
        await command.run(program(*script).command, deadline=2.0)

    with pytest.raises(GrantError, match="within 2 s"):
        asyncio.run(attempt())
    child = int(pid_file.read_text())
    eventually(lambda: _is_gone(child), "the child of the command lives on")


def _is_gone(pid: int) -> bool:
    """Ended, or only a zombie that nobody reaps here."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_command_is_run_without_a_shell_and_without_our_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_KEYS", "canary-key")
    monkeypatch.setenv("TOKEN_FOR", "canary-mine")
    granted = got(program("import os", "print(os.environ.get('OUTBOX_KEYS', 'none') + os.environ['TOKEN_FOR'])"))
    assert granted.access_token.reveal() == "nonecanary-mine"
    literal = (sys.executable, "-c", "import sys; print(sys.argv[1])", "$(echo;id)|`x`")
    assert got(Setup(Grant.COMMAND, command=literal)).access_token.reveal() == "$(echo;id)|`x`"
