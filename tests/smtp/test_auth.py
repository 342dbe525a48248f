"""AUTH PLAIN and LOGIN: one mechanism, one attempt, UTF-8, and no trace of the credentials in what is reported."""

from __future__ import annotations

from base64 import b64encode

import pytest

from outbox.core.outcome import Report, Stage
from outbox.core.reply import Reply
from outbox.core.secret import Secret
from outbox.smtp.auth import scrub
from outbox.smtp.connection import Relay
from outbox.smtp.dialogue import Dialogue
from outbox.smtp.opening import opening
from outbox.smtp.session import Session
from tests import relay as scripted
from tests.smtp.peer import Peer, singly
from tests.smtp.sending import account, run, send

PASSWORD = "pässwörd no. 1"


def sign_in(
    offer: bytes,
    *answers: bytes,
    mechanism: str = "auto",
    password: str = PASSWORD,
    username: str = "ann",
    loopback: bool = True,
) -> tuple[Report | None, list[bytes]]:
    """Open a session with a relay that offers `offer`, and answers AUTH and the lines after it with `answers`."""
    relay = Relay("relay.example", 25, "none", mechanism=mechanism, username=username, password=Secret(password))
    session = Session(relay, loopback=loopback)
    replies = list(answers)

    class Signing(Peer):
        def _answer(self, verb: bytes) -> bytes:
            return super()._answer(verb) if verb in (b"", b"EHLO") else replies.pop(0)

    peer = Signing({b"EHLO": b"250-relay.example\r\n250 " + offer + b"\r\n"}, singly)
    return peer.play(Dialogue(session), opening(session)), peer.said[1:]


PLAIN = b"AUTH PLAIN " + b64encode(f"\0ann\0{PASSWORD}".encode()) + b"\r\n"
LOGIN = [b"AUTH LOGIN\r\n", b64encode(b"ann") + b"\r\n", b64encode(PASSWORD.encode()) + b"\r\n"]
OK, GO = b"235 2.7.0 welcome\r\n", b"334 VXNlcm5hbWU6\r\n"


@pytest.mark.parametrize(
    ("offer", "mechanism", "expected"),
    [
        (b"AUTH LOGIN PLAIN", "auto", [PLAIN]),
        (b"AUTH PLAIN", "plain", [PLAIN]),
        (b"auth plain", "auto", [PLAIN]),
        (b"AUTH CRAM-MD5 LOGIN", "auto", LOGIN),
        (b"AUTH SCRAM-SHA-256 XOAUTH2 LOGIN", "auto", LOGIN),
        (b"AUTH PLAIN LOGIN", "login", LOGIN),
        (b"AUTH=LOGIN", "auto", LOGIN),
    ],
)
def test_one_mechanism_is_used(offer: bytes, mechanism: str, expected: list[bytes]) -> None:
    report, said = sign_in(offer, *[GO] * (len(expected) - 1), OK, mechanism=mechanism)
    assert report is None
    assert said == expected


@pytest.mark.parametrize(
    ("offer", "mechanism", "words"),
    [
        (b"SIZE", "auto", "AUTH PLAIN, LOGIN, SCRAM-SHA-256 or CRAM-MD5, but no AUTH at all"),
        (b"AUTH GSSAPI XOAUTH2", "auto", "AUTH PLAIN, LOGIN, SCRAM-SHA-256 or CRAM-MD5, but GSSAPI, XOAUTH2"),
        (b"AUTH PLAIN LOGIN", "scram-sha-256", "does not offer AUTH SCRAM-SHA-256, but LOGIN, PLAIN"),
        (b"AUTH PLAIN LOGIN", "xoauth2", "does not offer AUTH XOAUTH2, but LOGIN, PLAIN"),
        (b"AUTH LOGIN", "plain", "does not offer AUTH PLAIN, but LOGIN"),
        (b"AUTH PLAIN", "login", "does not offer AUTH LOGIN, but PLAIN"),
    ],
)
def test_no_mechanism_in_common_is_the_accounts_fault(offer: bytes, mechanism: str, words: str) -> None:
    report, said = sign_in(offer, mechanism=mechanism)
    assert report is not None
    assert report.reply is not None
    assert (report.stage, report.reply.code, report.reply.status) == (Stage.AUTH, 504, "5.5.4")
    assert words in report.reply.text
    assert said == []


@pytest.mark.parametrize("code", [b"535 5.7.8", b"534 5.7.9", b"454 4.7.0", b"421 4.7.0", b"504 5.5.4", b"550 5.7.30"])
def test_a_refused_login_is_tried_no_other_way(code: bytes) -> None:
    report, said = sign_in(b"AUTH PLAIN LOGIN", code + b" no\r\n")
    assert report is not None
    assert str(report.reply) == f"{code.decode()} no"
    assert said == [PLAIN]


def test_a_challenge_that_plain_does_not_have_is_called_off() -> None:
    report, said = sign_in(b"AUTH PLAIN", b"334 eyJzdGF0dXMiOiI0MDEifQ==\r\n", b"535 5.7.8 no\r\n")
    assert said == [PLAIN, b"*\r\n"]
    assert report is not None
    assert str(report.reply) == "535 5.7.8 no"


def test_a_relay_that_challenges_for_ever_is_left() -> None:
    report, said = sign_in(b"AUTH PLAIN", GO, GO)
    assert said == [PLAIN, b"*\r\n"]
    assert report is not None
    assert report.stage is Stage.AUTH


@pytest.mark.parametrize(("length", "lines"), [(367, 1), (368, 2), (3000, 2)])
def test_an_initial_response_of_more_than_512_octets_has_a_line_of_its_own(length: int, lines: int) -> None:
    _, said = sign_in(b"AUTH PLAIN", *[GO] * (lines - 1), OK, password="x" * length)
    assert len(said) == lines
    assert (said[0] == b"AUTH PLAIN\r\n") == (lines == 2)
    assert len(said[0]) <= 512


def test_login_that_is_refused_at_the_name_does_not_say_the_password() -> None:
    report, said = sign_in(b"AUTH LOGIN", GO, b"535 5.7.8 who?\r\n")
    assert said == LOGIN[:2]
    assert report is not None


def test_nothing_at_all_is_said_in_clear_to_another_machine() -> None:
    report, said = sign_in(b"AUTH PLAIN", loopback=False)
    assert report is not None
    assert (report.stage, report.reply and report.reply.code) == (Stage.AUTH, 538)
    assert said == []


@pytest.mark.parametrize("mechanism", ["plain", "login"])
def test_a_relay_signs_us_in(mechanism: str) -> None:
    with scripted.Relay(credentials={"änn": PASSWORD}) as relay:
        report = run(send(account(relay, username="änn", password=PASSWORD, mechanism=mechanism)))
    assert report.stage is Stage.DOT
    assert relay.messages[0].session.user == "änn"


BLOB = PLAIN.decode().split()[2]
ECHOES = {
    "the blob": f"535 5.7.8 bad blob {BLOB}",
    "the blob in two lines": f"535-5.7.8 bad {BLOB[:20]}\r\n535 5.7.8 {BLOB[20:]}",
    "the command": f"500 5.5.2 unknown command: AUTH PLAIN {BLOB}",
    "the password": f"535 5.7.8 {PASSWORD} is wrong",
    "the decoded blob": f"535 5.7.8 got \0ann\0{PASSWORD}",
    "nonsense with the blob": f"what is {BLOB}?",
    "the blob cut off": f"535 {'x' * 1000} {BLOB}",
}


@pytest.mark.parametrize("echo", ECHOES)
def test_credentials_that_the_relay_echoes_are_not_reported(echo: str) -> None:
    report, _ = sign_in(b"AUTH PLAIN", ECHOES[echo].encode() + b"\r\n")
    assert report is not None
    shown = f"{report}"
    for piece in (PASSWORD, BLOB, BLOB[:10], BLOB[20:30]):
        assert piece not in shown


def test_ordinary_words_are_left_alone() -> None:
    reply = Reply(535, "5.7.8", "Authentication credentials invalid for account ann, https://example.com/help/535")
    report = Report(Stage.AUTH, reply)
    assert scrub(report, "ann", Secret(PASSWORD)) == report
    assert scrub(report, "ann", Secret("")) == report
    assert scrub(report, "ann", Secret("a")) == report


@pytest.mark.parametrize("said", ["{} is wrong", "wrong: {}.", "({})", "'{}…'", "token={}"])
def test_a_piece_of_an_access_token_is_not_reported(said: str) -> None:
    token = "ya29." + "A-_b~" * 20
    reply = Reply(535, "5.7.8", said.format(token[:33]))
    hidden = scrub(Report(Stage.AUTH, reply), "ann", Secret(token)).reply
    assert hidden is not None
    assert "A-_b~A" not in hidden.text
    assert "<secret>" in hidden.text
