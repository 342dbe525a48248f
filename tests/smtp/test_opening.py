"""From the banner to a session that may send mail, against a relay without sockets."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

import pytest

from outbox.core.outcome import Report, Stage
from outbox.core.secret import Secret
from outbox.smtp.dialogue import Dialogue
from outbox.smtp.features import Features
from outbox.smtp.opening import opening
from outbox.smtp.relay import Relay
from outbox.smtp.session import SECURE, Derive, Done, Say, Session
from tests.smtp.test_sasl import NONCE, SERVER_FIRST

PLAIN = Relay("relay.example", 25, "none", helo="client.example")
USER = {"username": "user", "password": Secret("pencil")}
EHLO = b"EHLO client.example\r\n"


class Play:
    """A dialogue whose relay says what the test says; `said` is what we said to it."""

    def __init__(self, relay: Relay, *, loopback: bool = False) -> None:
        self.session = Session(relay, loopback=loopback)
        self.dialogue = Dialogue(self.session)
        self.said: list[bytes] = []
        self.secured = 0
        self.report: Report | None = None
        self.over = False
        self._take(self.dialogue.begin(opening(self.session)))

    def hears(self, *lines: bytes) -> Play:
        self._take(self.dialogue.received(b"".join(line + b"\r\n" for line in lines)))
        return self

    def _take(self, action: object) -> None:
        if action is SECURE:
            self.secured += 1
            self._take(self.dialogue.resume())
        elif isinstance(action, Derive):
            action.run()
            self._take(self.dialogue.resume())
        elif isinstance(action, Done):
            self.over, self.report = True, action.report
        elif isinstance(action, Say) and action.octets:
            self.said.append(action.octets)


def ended(play: Play) -> tuple[Stage, int] | None:
    """Where it ended, and by what; None where the session is ready."""
    assert play.over
    if play.report is None:
        return None
    return play.report.stage, play.report.reply.code if play.report.reply else 0


@pytest.mark.parametrize("banner", [b"220 hello", b"220-hello\r\n220 again", b"220"])
def test_a_relay_that_says_220_is_greeted(banner: bytes) -> None:
    play = Play(PLAIN).hears(banner)
    assert play.said == [EHLO]
    assert ended(play.hears(b"250 relay.example")) is None
    assert play.session.usable


@pytest.mark.parametrize(("banner", "code"), [(b"250 hello", 250), (b"554 no", 554), (b"221 bye", 221)])
def test_any_other_banner_is_the_end(banner: bytes, code: int) -> None:
    play = Play(PLAIN).hears(banner)
    assert (ended(play), play.said) == ((Stage.BANNER, code), [])


@pytest.mark.parametrize(
    ("code", "again"),
    [(499, False), (500, True), (501, False), (502, True), (503, False), (504, True), (505, False), (550, False)],
)
def test_who_does_not_know_ehlo_is_greeted_as_long_ago(code: int, again: bool) -> None:
    play = Play(PLAIN).hears(b"220 hello").hears(b"%d what" % code)
    if not again:
        assert ended(play) == (Stage.EHLO, code)
        return
    assert play.said == [EHLO, b"HELO client.example\r\n"]
    assert ended(play.hears(b"250 relay.example")) is None
    assert play.session.features == Features()
    assert ended(Play(PLAIN).hears(b"220 hello").hears(b"500 what").hears(b"550 no")) == (Stage.EHLO, 550)


@pytest.mark.parametrize(
    "relay",
    [replace(PLAIN, **USER), replace(PLAIN, tls="starttls")],  # type: ignore[arg-type]
)
def test_without_ehlo_there_is_neither_tls_nor_a_login(relay: Relay) -> None:
    play = Play(relay, loopback=True).hears(b"220 hello").hears(b"502 what")
    assert (ended(play), play.said) == ((Stage.EHLO, 502), [EHLO])


def test_under_tls_already_helo_is_enough() -> None:
    play = Play(replace(PLAIN, tls="implicit"))
    assert (play.secured, play.session.encrypted, play.said) == (1, True, [])
    assert ended(play.hears(b"220 hello").hears(b"502 what").hears(b"250 relay.example")) is None


@pytest.mark.parametrize(
    ("tls", "seen", "offered", "outcome"),
    [
        ("starttls", False, True, "secured"),
        ("starttls", False, False, "the relay does not offer STARTTLS, and this account requires it"),
        ("starttls", True, False, "the relay does not offer STARTTLS, and this account requires it"),
        ("opportunistic", False, True, "secured"),
        ("opportunistic", False, False, "plain"),
        ("opportunistic", True, False, "the relay has offered STARTTLS before and does not now"),
        ("none", True, True, "plain"),
        ("implicit", True, True, "plain"),
    ],
)
def test_when_tls_begins(tls: str, seen: bool, offered: bool, outcome: str) -> None:
    play = Play(replace(PLAIN, tls=tls, starttls_seen=seen)).hears(b"220 hello")
    play.hears(*((b"250-relay.example", b"250 STARTTLS") if offered else (b"250 relay.example",)))
    assert play.session.starttls_offered is offered
    if outcome == "secured":
        assert play.said == [EHLO, b"STARTTLS\r\n"]
        play.hears(b"220 go ahead")
        assert (play.secured, play.said[-1]) == (1, EHLO)
        assert ended(play.hears(b"250-relay.example", b"250 PIPELINING")) is None
        assert play.session.features == Features(pipelining=True)  # and not what was said in clear
        assert (play.session.starttls_offered, play.session.encrypted) == (True, True)
    elif outcome == "plain":
        assert (ended(play), play.said) == (None, [EHLO])
    else:
        assert play.report is not None
        assert (play.report.stage, play.report.fault) == (Stage.STARTTLS, outcome)


@pytest.mark.parametrize("answer", [b"454 4.7.0 not now", b"250 ok", b"501 no"])
def test_a_starttls_that_is_refused_is_the_end(answer: bytes) -> None:
    play = Play(replace(PLAIN, tls="opportunistic")).hears(b"220 hello").hears(b"250-relay.example", b"250 STARTTLS")
    assert ended(play.hears(answer)) == (Stage.STARTTLS, int(answer[:3]))
    assert play.secured == 0


def test_a_password_is_not_said_where_others_may_listen() -> None:
    relay = replace(PLAIN, **USER)  # type: ignore[arg-type]
    play = Play(relay)
    assert (ended(play), play.said, play.session.broken) == ((Stage.AUTH, 538), [], True)
    here = Play(relay, loopback=True).hears(b"220 hello").hears(b"250-relay.example", b"250 AUTH PLAIN")
    assert here.said[-1].startswith(b"AUTH PLAIN ")
    assert ended(here.hears(b"235 2.7.0 welcome")) is None
    unencrypted = Play(replace(relay, tls="opportunistic")).hears(b"220 hello").hears(b"250 AUTH PLAIN")
    assert ended(unencrypted) == (Stage.AUTH, 538)


def test_a_login_that_is_called_an_error_is_called_off_where_the_relay_wants_more() -> None:
    relay = replace(PLAIN, **USER, nonce=lambda: NONCE)  # type: ignore[arg-type]
    play = Play(relay, loopback=True).hears(b"220 hello").hears(b"250-relay.example", b"250 AUTH SCRAM-SHA-256")
    for challenge in (SERVER_FIRST, "e=other-error", "and more"):
        play.hears(b"334 " + b64encode(challenge.encode()))
    assert play.said[-2:] == [b"\r\n", b"*\r\n"]
    assert ended(play.hears(b"501 5.7.0 called off")) == (Stage.AUTH, 501)
