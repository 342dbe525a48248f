"""A transaction against a relay without sockets: what is refused here, how much is written together, what ends it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from outbox.core.dsn import Dsn
from outbox.core.outcome import Envelope, Stage
from outbox.core.render import Rendered
from outbox.smtp.dialogue import Dialogue
from outbox.smtp.session import Session
from outbox.smtp.transaction import MAX_UNANSWERED, WITH_DOT, content_flaw, leave, reset
from tests.smtp.peer import Peer, session, transact
from tests.smtp.sending import ANN, BOB, HELLO, SENDER, TO_ANN

TEXT = Rendered(b"Subject: x\r\n\r\nx\r\n", False, False)
EIGHT, INTERNATIONAL = replace(TEXT, eight_bit=True), replace(TEXT, smtputf8=True)


@pytest.mark.parametrize(
    ("features", "envelope", "message", "refused"),
    [
        ({}, TO_ANN, TEXT, None),
        ({}, TO_ANN, replace(TEXT, data=b"a\nb\r\n"), (Stage.MAIL, 554, "5.6.0")),
        ({}, TO_ANN, replace(TEXT, data=b"a\0b\r\n"), (Stage.MAIL, 554, "5.6.0")),
        ({}, TO_ANN, EIGHT, (Stage.MAIL, 554, "5.6.3")),
        ({"eight_bit": True}, TO_ANN, EIGHT, None),
        ({}, TO_ANN, INTERNATIONAL, (Stage.MAIL, 554, "5.6.7")),
        ({"smtputf8": True}, TO_ANN, INTERNATIONAL, None),
        ({}, replace(TO_ANN, return_path="j\u00f6rg@example.com"), TEXT, (Stage.MAIL, 554, "5.6.7")),
        ({"smtputf8": True}, replace(TO_ANN, return_path="j\u00f6rg@example.com"), TEXT, None),
        ({}, replace(TO_ANN, return_path=""), TEXT, None),
        ({}, replace(TO_ANN, return_path="shop"), TEXT, (Stage.MAIL, 554, "5.1.7")),
        ({}, replace(TO_ANN, return_path="a@b> SIZE=1"), TEXT, (Stage.MAIL, 554, "5.1.7")),
        ({"size": 0}, TO_ANN, TEXT, None),
        ({"size": len(TEXT.data)}, TO_ANN, TEXT, None),
        ({"size": len(TEXT.data) - 1}, TO_ANN, TEXT, (Stage.MAIL, 554, "5.3.4")),
        ({}, Envelope(SENDER, ()), TEXT, (Stage.RCPT, 554, "5.1.3")),
        ({}, Envelope(SENDER, ("ann",)), TEXT, (Stage.RCPT, 553, "5.1.3")),
        ({}, Envelope(SENDER, ("a\r\nb@example.net",)), TEXT, (Stage.RCPT, 553, "5.1.3")),
        ({}, Envelope(SENDER, ("a b@example.net",)), TEXT, (Stage.RCPT, 553, "5.1.3")),
        ({}, Envelope(SENDER, ('"a b"@example.net',)), TEXT, None),
        ({}, Envelope(SENDER, ('"a\\"b"@example.net',)), TEXT, None),
        ({}, Envelope(SENDER, ('"a"b"@example.net',)), TEXT, (Stage.RCPT, 553, "5.1.3")),
        ({}, Envelope(SENDER, ("a\ud800@example.net",)), TEXT, (Stage.RCPT, 553, "5.1.3")),
        ({}, Envelope(SENDER, ("j\u00f6rg@example.net",)), TEXT, (Stage.RCPT, 553, "5.6.7")),
        ({"smtputf8": True}, Envelope(SENDER, ("j\u00f6rg@example.net",)), TEXT, None),
    ],
)
def test_what_a_relay_cannot_take_is_refused_before_a_word_is_said(
    features: dict[str, Any], envelope: Envelope, message: Rendered, refused: tuple[Stage, int, str] | None
) -> None:
    peer, opened = Peer(), session(**features)
    report = transact(peer, opened, envelope, message)
    if refused is None:
        assert (report.stage, report.reply and report.reply.code) == (Stage.DOT, 250)
        return
    assert report.reply is not None
    assert (report.stage, report.reply.code, report.reply.status) == refused
    assert report.reply.text.startswith("not sent, says Outbox: ")
    assert (peer.said, opened.transactions, opened.dirty, opened.usable) == ([], 0, False, True)


def test_notifications_that_cannot_be_asked_for_are_refused_as_ours() -> None:
    report = transact(Peer(), session(dsn=True), replace(TO_ANN, dsn=Dsn("sometimes")), TEXT)
    assert (report.stage, report.reply and report.reply.code) == (Stage.MAIL, 554)


def test_who_cannot_be_named_is_left_out_and_the_others_get_it() -> None:
    peer = Peer()
    report = transact(peer, session(), Envelope(SENDER, ("no address", ANN)), TEXT)
    assert report.stage is Stage.DOT
    assert [each and each.code for each in report.recipients] == [553, 250]
    assert b"".join(peer.said).count(b"RCPT") == 1


@pytest.mark.parametrize(
    ("features", "message", "recipient", "command"),
    [
        ({}, TEXT, ANN, b"MAIL FROM:<shop@example.com>"),
        ({"size": 0}, TEXT, ANN, b"MAIL FROM:<shop@example.com> SIZE=%d" % len(TEXT.data)),
        ({"eight_bit": True}, TEXT, ANN, b"MAIL FROM:<shop@example.com>"),
        ({"eight_bit": True}, EIGHT, ANN, b"MAIL FROM:<shop@example.com> BODY=8BITMIME"),
        ({"smtputf8": True}, TEXT, ANN, b"MAIL FROM:<shop@example.com>"),
        ({"smtputf8": True}, INTERNATIONAL, ANN, b"MAIL FROM:<shop@example.com> SMTPUTF8"),
        ({"smtputf8": True}, TEXT, "j\u00f6rg@example.net", b"MAIL FROM:<shop@example.com> SMTPUTF8"),
        (
            {"smtputf8": True, "eight_bit": True, "size": 10_000},
            replace(EIGHT, smtputf8=True),
            ANN,
            b"MAIL FROM:<shop@example.com> SIZE=%d BODY=8BITMIME SMTPUTF8" % len(TEXT.data),
        ),
    ],
)
def test_what_is_offered_and_needed_is_said_at_mail(
    features: dict[str, Any], message: Rendered, recipient: str, command: bytes
) -> None:
    peer = Peer()
    transact(peer, session(pipelining=False, **features), Envelope(SENDER, (recipient,)), message)
    assert peer.said[0] == command + b"\r\n"


@pytest.mark.parametrize(("code", "again"), [(501, True), (504, True), (555, True), (500, False), (550, False)])
def test_a_size_that_is_refused_is_left_out_once_and_for_all(code: int, again: bool) -> None:
    peer, opened = Peer({b"MAIL": [b"%d no\r\n" % code]}), session(size=0, pipelining=False)
    report = transact(peer, opened, TO_ANN, TEXT)
    sizes = [b"SIZE" in each for each in peer.said if each.startswith(b"MAIL")]
    assert sizes == ([True, False] if again else [True])
    assert (report.stage is Stage.DOT, opened.bare) == (again, again)
    if again:
        peer = Peer()
        transact(peer, opened, TO_ANN, TEXT)
        assert peer.said[0] == b"MAIL FROM:<shop@example.com>\r\n"


def test_no_more_commands_are_written_together_than_may_stay_unanswered() -> None:
    """The first group is filled to the last octet, and the next begins with what had no room."""
    recipients = tuple(f"{number:03}{'x' * 40}@example.net" for number in range(100))
    peer = Peer()
    report = transact(peer, session(), Envelope(SENDER, recipients), TEXT)
    assert report.stage is Stage.DOT
    assert len([each for each in report.recipients if each]) == 100
    one = len(b"RCPT TO:<>\r\n") + len(recipients[0])
    groups = [each for each in peer.said if b"RCPT" in each]
    assert all(MAX_UNANSWERED - one < len(each) <= MAX_UNANSWERED for each in groups[:-1])
    assert b"".join(peer.said).count(b"RCPT") == 100
    assert (MAX_UNANSWERED, WITH_DOT) == (4096, 16384)


@pytest.mark.parametrize(("extra", "groups"), [(0, 1), (1, 2)])
def test_one_octet_more_is_a_write_more(extra: int, groups: int) -> None:
    fixed = len(f"MAIL FROM:<{SENDER}>\r\n") + len("DATA\r\n")
    address = len("@example.net") + len("RCPT TO:<>\r\n")
    room = MAX_UNANSWERED - fixed
    first = (f"{'x' * (2000 - address)}@example.net", f"{'y' * (room - 2000 - address + extra)}@example.net")
    peer = Peer()
    assert transact(peer, session(), Envelope(SENDER, first), TEXT).stage is Stage.DOT
    assert len([each for each in peer.said if not each.endswith(b".\r\n")]) == groups


def test_without_pipelining_each_command_waits_for_its_answer() -> None:
    peer = Peer()
    transact(peer, session(pipelining=False), Envelope(SENDER, (ANN, BOB)), TEXT)
    assert [each.split()[0] for each in peer.said] == [b"MAIL", b"RCPT", b"RCPT", b"DATA", b"."]


@pytest.mark.parametrize("pipelining", [True, False])
def test_data_is_not_said_where_nobody_would_get_it(pipelining: bool) -> None:
    peer, opened = Peer({b"RCPT": b"550 5.1.1 no\r\n"}), session(pipelining=pipelining)
    report = transact(peer, opened, TO_ANN, TEXT)
    assert report.stage is Stage.RCPT
    asked = b"DATA" in b"".join(peer.said)
    assert asked is pipelining  # there it was said before the answer
    assert (peer.body, opened.usable, opened.dirty) == (None, True, True)


def test_after_mail_is_refused_nobody_is_named() -> None:
    peer = Peer({b"MAIL": b"550 5.7.1 no\r\n"})
    report = transact(peer, session(pipelining=False), TO_ANN, TEXT)
    assert (report.stage, report.recipients) == (Stage.MAIL, (None,))
    assert [each.split()[0] for each in peer.said] == [b"MAIL"]


@pytest.mark.parametrize(
    ("code", "usable"), [(499, True), (500, False), (509, False), (510, True), (554, True), (555, False), (556, True)]
)
def test_who_does_not_understand_us_is_not_spoken_to_again(code: int, usable: bool) -> None:
    for answers in ({b"MAIL": b"%d no\r\n" % code}, {b"RCPT": b"%d no\r\n" % code}, {b".": b"%d no\r\n" % code}):
        opened = session(pipelining=False)
        transact(Peer(answers), opened, TO_ANN, TEXT)
        assert opened.usable is usable


def test_of_two_recipients_one_that_is_not_understood_is_enough() -> None:
    opened = session()
    report = transact(Peer({b"RCPT": [b"500 what\r\n", b"250 ok\r\n"]}), opened, Envelope(SENDER, (ANN, BOB)), TEXT)
    assert (report.stage, opened.usable) == (Stage.DOT, False)


@pytest.mark.parametrize("size", [WITH_DOT, WITH_DOT + 1])
def test_a_small_body_is_written_with_its_dot_and_a_larger_one_before(size: int) -> None:
    peer = Peer()
    message = Rendered(b"x" * (size - 2) + b"\r\n", False, False)
    report = transact(peer, session(), TO_ANN, message)
    assert report.stage is Stage.DOT
    assert peer.body == message.data
    assert peer.said[-1] == b".\r\n"


@pytest.mark.parametrize(
    ("answers", "reused", "stale"),
    [
        ({b"MAIL": b""}, True, True),
        ({b"MAIL": b""}, False, False),
        ({b"MAIL": b"421 4.4.2 timeout\r\n"}, True, True),
        ({b"MAIL": b"421 4.4.2 timeout\r\n"}, False, False),
        ({b"MAIL": b"450 busy\r\n"}, True, False),
        ({b"RCPT": b"421 4.4.2 timeout\r\n"}, True, False),
        ({b"RCPT": b""}, True, False),
    ],
)
def test_a_connection_that_was_gone_before_its_first_answer_is_stale(
    answers: dict[bytes, bytes], reused: bool, stale: bool
) -> None:
    report = transact(Peer(answers), session(reused=reused, pipelining=False), TO_ANN, TEXT)
    assert report.stale is stale


@pytest.mark.parametrize("octet", range(-3, 2))
def test_a_bare_line_end_is_found_wherever_it_is(octet: int) -> None:
    """Also where two of the pieces meet in which a content is looked at."""
    piece = 1024 * 1024
    good = b"x" * (piece + octet) + b"\r\n" + b"y" * 10 + b"\r\n"
    assert content_flaw(good) == ""
    for bare in (b"\n", b"\r"):
        flaw = content_flaw(b"x" * (piece + octet) + bare + b"y" * 10 + b"\r\n")
        assert flaw == "its lines do not all end in CRLF"
    assert content_flaw(good[:-2] + b"\r") == "its lines do not all end in CRLF"
    assert content_flaw(b"\0" + good) == "it contains NUL"
    assert content_flaw(b"") == content_flaw(b"x") == ""


@pytest.mark.parametrize(
    ("answer", "dirty", "usable", "stale"),
    [(b"250 ok\r\n", False, True, None), (b"251 ok\r\n", True, False, True), (b"", True, False, True)],
)
def test_reset_is_answered_with_250_or_the_connection_is_no_more(
    answer: bytes, dirty: bool, usable: bool, stale: bool | None
) -> None:
    opened = session()
    opened.dirty = True
    report = Peer({b"RSET": answer}).play(Dialogue(opened), reset(opened))
    assert (opened.dirty, opened.usable) == (dirty, usable)
    assert (None if report is None else report.stale) is stale
    assert report is None or report.stage is Stage.RSET


def test_after_quit_nothing_is_said() -> None:
    opened: Session = session()
    peer = Peer({b"QUIT": b""})
    assert peer.play(Dialogue(opened), leave(opened)) is None
    assert (peer.said, opened.usable) == ([b"QUIT\r\n"], False)


@pytest.mark.parametrize(
    ("answers", "stage", "words"),
    [
        ({b"MAIL": b"354 go on\r\n"}, Stage.MAIL, "354 is no answer to MAIL: go on"),
        ({b"RCPT": b"354 go on\r\n"}, Stage.RCPT, "354 is no answer to RCPT: go on"),
        ({b"DATA": b"250 ok\r\n"}, Stage.DATA, "250 is no answer to DATA: ok"),
        ({b"DATA": b"334 ok\r\n"}, Stage.DATA, "334 is no answer to DATA: ok"),
        ({b".": b"354 go on\r\n"}, Stage.DOT, "354 is no answer to the end of the message: go on"),
    ],
)
def test_an_answer_to_another_question_ends_the_connection(
    answers: dict[bytes, bytes], stage: Stage, words: str
) -> None:
    opened = session(pipelining=False)
    report = transact(Peer(answers), opened, TO_ANN, HELLO)
    assert (report.stage, report.fault, report.reply) == (stage, words, None)
    assert (opened.usable, opened.broken, report.dotted) == (False, True, stage is Stage.DOT)


def test_a_refusal_before_an_answer_out_of_step_is_nobodys() -> None:
    peer = Peer({b"RCPT": [b"550 5.1.1 no\r\n", b"250 ok\r\n"], b"DATA": b"250 ok\r\n"})
    report = transact(peer, session(), Envelope(SENDER, (ANN, BOB)), TEXT)
    assert [each and each.code for each in report.recipients] == [None, 250]


def test_a_session_is_clean_after_a_2yz_to_its_dot_only() -> None:
    for answer, dirty in ((b"250 ok\r\n", False), (b"451 later\r\n", True), (b"554 no\r\n", True)):
        opened = session()
        transact(Peer({b".": answer}), opened, TO_ANN, TEXT)
        assert opened.dirty is dirty
        assert opened.transactions == 1
