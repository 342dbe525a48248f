"""Delivery status notifications (RFC 3461): asked for where offered and wanted, and never at the price of the mail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outbox.core.dsn import Dsn
from outbox.core.outcome import Stage
from tests import relay as scripted
from tests.smtp.peer import Peer, session, transact
from tests.smtp.sending import ANN, BOB, HELLO, SENDER, TO_ALL, TO_ANN, account, run, send

EVERYTHING = Dsn("success,failure,delay", "hdrs", "order 7+8=15")
ASKING = replace(TO_ANN, dsn=EVERYTHING)
PLAIN_MAIL, PLAIN_RCPT = b"MAIL FROM:<shop@example.com>", b"RCPT TO:<ann@example.net>"


def lines(peer: Peer) -> list[bytes]:
    return [line for octets in peer.said for line in octets.splitlines()]


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(
    ("dsn", "mail", "rcpt"),
    [
        (
            EVERYTHING,
            b" RET=HDRS ENVID=order+207+2B8+3D15",
            b" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;ann@example.net",
        ),
        (Dsn(notify="never"), b"", b" NOTIFY=NEVER ORCPT=rfc822;ann@example.net"),
        (Dsn(ret="full"), b" RET=FULL", b" ORCPT=rfc822;ann@example.net"),
        (Dsn(envid="7"), b" ENVID=7", b" ORCPT=rfc822;ann@example.net"),
        (Dsn(), b"", b""),
    ],
)
def test_what_is_asked_for_is_said(dsn: Dsn, mail: bytes, rcpt: bytes, pipelining: bool) -> None:
    peer = Peer()
    report = transact(peer, session(dsn=True, pipelining=pipelining), replace(TO_ANN, dsn=dsn), HELLO)
    assert (report.stage, report.reply and report.reply.code) == (Stage.DOT, 250)
    assert lines(peer) == [PLAIN_MAIL + mail, PLAIN_RCPT + rcpt, b"DATA", b"."]


def test_where_it_is_not_offered_nothing_is_said() -> None:
    peer = Peer()
    assert transact(peer, session(), ASKING, HELLO).stage is Stage.DOT
    assert lines(peer) == [PLAIN_MAIL, PLAIN_RCPT, b"DATA", b"."]


@pytest.mark.parametrize(
    ("address", "original"),
    [
        ("a+b=c@example.net", b"rfc822;a+2Bb+3Dc@example.net"),
        ('"a b"@example.net', b'rfc822;"a+20b"@example.net'),
        ("jörg+x@example.net", "utf-8;jörg\\x{2B}x@example.net".encode()),
    ],
)
def test_the_original_recipient_is_written_so_that_it_ends_nowhere(address: str, original: bytes) -> None:
    peer = Peer()
    envelope = replace(ASKING, recipients=(address,))
    assert transact(peer, session(dsn=True, smtputf8=True), envelope, HELLO).stage is Stage.DOT
    assert lines(peer)[1].endswith(b" ORCPT=" + original)


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("code", [b"501", b"504", b"555"])
def test_parameters_that_mail_is_refused_for_are_left_out(code: bytes, pipelining: bool) -> None:
    peer = Peer({b"MAIL": [code + b" what?\r\n"], b"RCPT": [b"503 no\r\n"] * pipelining})
    opened = session(dsn=True, size=0, pipelining=pipelining)
    for _ in range(2):
        report = transact(peer, opened, ASKING, HELLO)
        assert (report.stage, report.reply and report.reply.code) == (Stage.DOT, 250)
    said = lines(peer)
    assert b" SIZE=" in said[0]
    assert b" RET=HDRS" in said[0]
    mails = [line for line in said[1:] if line.startswith(b"MAIL")]
    assert mails == [PLAIN_MAIL] * 2, "and not tried again on this connection"
    assert [line for line in said if line.startswith(b"RCPT")][-2:] == [PLAIN_RCPT] * 2


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_recipient_refused_for_its_parameters_is_asked_for_without_them(pipelining: bool) -> None:
    peer = Peer({b"RCPT": [b"250 ok\r\n", b"555 5.5.4 NOTIFY?\r\n", b"550 5.1.1 unknown\r\n", b"250 ok\r\n"]})
    opened = session(dsn=True, pipelining=pipelining)
    report = transact(peer, opened, replace(TO_ALL, dsn=EVERYTHING), HELLO)
    assert [answer.code for answer in report.recipients if answer] == [250, 250, 550]
    assert (report.stage, report.reply and report.reply.code) == (Stage.DOT, 250)
    said = lines(peer)
    assert said[-3:] == [b"RCPT TO:<bob@example.net>", b"DATA", b"."]
    assert opened.bare


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_recipient_refused_either_way_was_not_refused_for_its_parameters(pipelining: bool) -> None:
    peer = Peer({b"RCPT": b"501 5.1.3 what?\r\n"})
    opened = session(dsn=True, pipelining=pipelining)
    report = transact(peer, opened, replace(TO_ANN, recipients=(ANN, BOB), dsn=EVERYTHING), HELLO)
    assert (report.stage, report.reply and report.reply.code) == (Stage.RCPT, 501)
    assert [answer.code for answer in report.recipients if answer] == [501, 501]
    assert b"DATA" not in lines(peer)
    assert not opened.bare


def test_421_ends_it_wherever_it_comes() -> None:
    for answers in ([b"421 bye\r\n"], [b"501 no\r\n", b"421 bye\r\n"]):
        peer = Peer({b"RCPT": list(answers)})
        report = transact(peer, session(dsn=True), ASKING, HELLO)
        assert (report.stage, report.reply and report.reply.code, report.dotted) == (Stage.RCPT, 421, False)


def test_a_relay_hears_what_is_asked() -> None:
    with scripted.Relay(extensions=(*scripted.EXTENSIONS, "DSN")) as relay:
        report = run(send(account(relay), replace(TO_ALL, dsn=EVERYTHING)))
    assert report.stage is Stage.DOT
    assert "RET=HDRS ENVID=order+207+2B8+3D15" in relay.messages[0].parameters
    assert relay.messages[0].sender == SENDER
    asked = [line for line in relay.commands if line.startswith("RCPT")]
    assert asked[1] == "RCPT TO:<bob@example.net> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;bob@example.net"
