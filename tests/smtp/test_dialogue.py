"""The dialogue, without sockets: what is said, in which order, and that fragmentation changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.core.outcome import Envelope, Stage
from outbox.core.render import Rendered
from outbox.smtp.dialogue import Dialogue
from outbox.smtp.opening import opening
from outbox.smtp.relay import Relay
from outbox.smtp.session import SECURE, Body, Done, Say, Session
from outbox.smtp.transaction import MAX_UNANSWERED, WITH_DOT, reset, stuffed, transaction
from tests.smtp.peer import HONEST, Peer, at, session, singly, transact, whole
from tests.smtp.sending import ANN, BOB, CYD, HELLO, SENDER, TO_ALL, TO_ANN

MAIL = b"MAIL FROM:<shop@example.com>\r\n"


def test_pipelined_commands_are_one_write_and_the_dot_is_alone() -> None:
    peer = Peer()
    assert transact(peer, session(), TO_ALL, HELLO).reply is not None
    rcpts = b"".join(b"RCPT TO:<%b>\r\n" % each.encode() for each in (ANN, BOB, CYD))
    assert peer.said == [MAIL + rcpts + b"DATA\r\n", b".\r\n"]


def test_without_pipelining_each_command_waits_for_its_answer() -> None:
    peer = Peer()
    transact(peer, session(pipelining=False), TO_ANN, HELLO)
    assert peer.said == [MAIL, b"RCPT TO:<ann@example.net>\r\n", b"DATA\r\n", b".\r\n"]


def test_never_more_than_4_kib_are_unanswered() -> None:
    many = Envelope(SENDER, tuple(f"{'x' * 50}{number}@example.net" for number in range(100)))
    peer = Peer()
    report = transact(peer, session(), many, HELLO)
    assert [answer.code for answer in report.recipients if answer] == [250] * 100
    assert len(peer.said) == 3
    assert all(len(octets) <= MAX_UNANSWERED for octets in peer.said)


def test_an_overlong_command_still_goes() -> None:
    long = Envelope(SENDER, ("x" * 5000 + "@example.net",))
    assert transact(Peer(), session(), long, HELLO).stage is Stage.DOT


def test_parameters_are_sent_where_offered_and_needed() -> None:
    def mail(opened: Session, message: Rendered = HELLO, envelope: Envelope = TO_ANN) -> bytes:
        peer = Peer()
        transact(peer, opened, envelope, message)
        return peer.said[0].partition(b"\r\n")[0].removeprefix(b"MAIL FROM:")

    def everything() -> Session:
        return session(size=0, eight_bit=True, smtputf8=True)

    size = b" SIZE=%d" % len(HELLO.data)
    assert mail(session()) == b"<shop@example.com>"
    assert mail(everything()) == b"<shop@example.com>" + size
    assert mail(session(size=99999), envelope=Envelope("", (ANN,))) == b"<>" + size
    assert mail(everything(), Rendered(HELLO.data, True, True)).endswith(size + b" BODY=8BITMIME SMTPUTF8")
    # The header is ASCII, but a Bcc recipient is not.
    assert mail(everything(), envelope=Envelope(SENDER, ("jörg@example.net",))).endswith(size + b" SMTPUTF8")


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("code", [b"501", b"504", b"555"])
def test_a_refused_size_is_left_out_from_then_on(pipelining: bool, code: bytes) -> None:
    peer = Peer(
        {b"MAIL": [code + b" what?\r\n"], b"RCPT": [b"503 no\r\n"] * pipelining, b"DATA": [b"503 no\r\n"] * pipelining}
    )
    opened = session(pipelining=pipelining, size=0)
    for _ in range(2):
        report = transact(peer, opened, TO_ANN, HELLO)
        assert (report.stage, report.reply and report.reply.code) == (Stage.DOT, 250)
    assert [b"SIZE" in octets for octets in peer.said if octets.startswith(b"MAIL")] == [True, False, False]
    assert opened.usable


def test_parameters_that_are_needed_are_not_left_out() -> None:
    peer = Peer({b"MAIL": b"555 5.5.4 no\r\n"})
    report = transact(
        peer, session(pipelining=False, size=0, eight_bit=True), TO_ANN, Rendered(b"\xff\r\n", False, True)
    )
    assert report.stage is Stage.MAIL
    assert [octets.partition(b"> ")[2] for octets in peer.said] == [b"SIZE=3 BODY=8BITMIME\r\n", b"BODY=8BITMIME\r\n"]


LOCAL = {
    "5.3.4": (HELLO, TO_ANN, session(size=10), f"{len(HELLO.data)} octets, and the relay takes 10"),
    "5.6.3": (Rendered(b"\xff\r\n", False, True), TO_ANN, session(smtputf8=True), "8BITMIME"),
    "5.6.7": (Rendered(b"Subject: \xc3\xbc\r\n\r\n", True, False), TO_ANN, session(eight_bit=True), "SMTPUTF8"),
    "5.1.7": (HELLO, Envelope("a@b> SIZE=1", (ANN,)), session(), "return path"),
    "5.6.0": (Rendered(b"a\nb\r\n", False, False), TO_ANN, session(), "CRLF"),
}


@pytest.mark.parametrize("status", LOCAL)
def test_what_the_relay_cannot_take_is_refused_by_ourselves(status: str) -> None:
    message, envelope, opened, words = LOCAL[status]
    peer = Peer()
    report = transact(peer, opened, envelope, message)
    assert report.reply is not None
    assert (report.stage, report.reply.code, report.reply.status) == (Stage.MAIL, 554, status)
    assert report.reply.text.startswith("not sent, says Outbox: ")
    assert words in report.reply.text
    assert peer.said == []
    assert opened.usable
    assert not opened.dirty


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("jörg@example.net", "5.6.7"),
        ("a@b>\r\nRSET", "5.1.3"),
        ("a b@example.net", "5.1.3"),
        ("a@example.net> NOTIFY=NEVER", "5.1.3"),
        ('"a\r\n"@example.net', "5.1.3"),
        ("\ud800@example.net", "5.1.3"),
        ("nobody", "5.1.3"),
        ("", "5.1.3"),
    ],
)
def test_a_recipient_that_cannot_be_said_does_not_keep_the_others_back(address: str, status: str) -> None:
    peer = Peer()
    report = transact(peer, session(), Envelope(SENDER, (address, ANN)), HELLO)
    ours, theirs = report.recipients
    assert (report.stage, ours and ours.code, ours and ours.status, theirs and theirs.code) == (
        Stage.DOT,
        553,
        status,
        250,
    )
    assert peer.said[0] == MAIL + b"RCPT TO:<ann@example.net>\r\nDATA\r\n"


def test_if_no_recipient_can_be_said_nothing_is() -> None:
    peer = Peer()
    report = transact(peer, session(), Envelope(SENDER, ("jörg@example.net",)), HELLO)
    assert (report.stage, report.reply) == (Stage.RCPT, report.recipients[0])
    assert transact(peer, session(), Envelope(SENDER, ()), HELLO).stage is Stage.RCPT
    assert peer.said == []


def test_quoted_and_international_addresses_can_be_said() -> None:
    peer = Peer()
    to = ('"a b>\\""@example.net', "jörg@bücher.example", "a@[IPv6:::1]")
    report = transact(peer, session(pipelining=False, smtputf8=True), Envelope(SENDER, to), HELLO)
    assert [answer and answer.code for answer in report.recipients] == [250, 250, 250]
    assert peer.said[2] == "RCPT TO:<jörg@bücher.example>\r\n".encode()


def test_all_refused_and_yet_354_is_answered_with_a_lone_dot_that_means_nothing() -> None:
    peer = Peer({b"RCPT": b"550 5.1.1 no\r\n", b".": b"250 2.0.0 queued, they say\r\n"})
    opened = session()
    report = transact(peer, opened, TO_ALL, HELLO)
    assert (report.stage, report.reply and report.reply.code, report.dotted) == (Stage.RCPT, 550, False)
    assert (peer.said[-1], peer.body) == (b".\r\n", None)
    assert opened.usable
    assert opened.dirty


def test_without_pipelining_a_refused_message_gets_no_data_command() -> None:
    peer = Peer({b"RCPT": b"550 5.1.1 no\r\n"})
    transact(peer, session(pipelining=False), TO_ALL, HELLO)
    assert b"DATA\r\n" not in peer.said


def test_mail_refused_and_yet_354_is_never_answered() -> None:
    peer, opened = Peer({b"MAIL": b"550 5.1.8 no\r\n"}), session()
    report = transact(peer, opened, TO_ALL, HELLO)
    assert (report.stage, report.reply and report.reply.code, report.recipients) == (Stage.MAIL, 550, (None,) * 3)
    assert len(peer.said) == 1
    assert opened.broken  # only closing delivers nothing for certain


def test_the_echo_of_a_refused_mail_is_not_the_recipients_fault() -> None:
    peer, opened = Peer({b"MAIL": b"550 5.1.8 no\r\n", b"RCPT": b"503 no\r\n", b"DATA": b"503 no\r\n"}), session()
    report = transact(peer, opened, TO_ALL, HELLO)
    assert report.recipients == (None, None, None)
    assert opened.usable  # the 503 were expected
    assert opened.dirty


@pytest.mark.parametrize("code", ["500", "501", "503", "504", "509", "555"])
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "."])
def test_after_a_protocol_error_the_connection_is_not_used_again(verb: str, code: str) -> None:
    opened = session(pipelining=False)
    transact(Peer({verb.encode(): f"{code} what?\r\n".encode()}), opened, TO_ANN, HELLO)
    assert not opened.usable
    assert not opened.broken  # QUIT can still be said


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "."])
def test_after_421_nothing_more_is_said(verb: str) -> None:
    opened = session()
    transact(Peer({verb.encode(): b"421 4.3.2 bye\r\n"}), opened, TO_ANN, HELLO)
    assert (opened.usable, opened.broken) == (False, True)


def test_only_a_clean_acceptance_needs_no_reset() -> None:
    for answers, dirty in [({}, False), ({b".": b"451 later\r\n"}, True), ({b"RCPT": b"550 no\r\n"}, True)]:
        opened = session()
        transact(Peer(answers), opened, TO_ANN, HELLO)
        assert opened.dirty is dirty
        assert Peer().play(Dialogue(opened), reset(opened)) is None
        assert not opened.dirty


@pytest.mark.parametrize("answer", [b"503 no\r\n", b"421 bye\r\n", b"251 ok\r\n", b"", b"\xff\r\n"])
def test_a_reset_that_fails_ends_the_connection(answer: bytes) -> None:
    opened = session()
    report = Peer({b"RSET": answer}).play(Dialogue(opened), reset(opened))
    assert report is not None
    assert (report.stage, report.stale, opened.usable) == (Stage.RSET, True, False)


@pytest.mark.parametrize("answer", [b"", b"421 4.4.2 idle\r\n"])
def test_a_reused_connection_that_was_gone_is_stale_and_a_new_one_is_not(answer: bytes) -> None:
    assert transact(Peer({b"MAIL": answer}), session(reused=True), TO_ANN, HELLO).stale
    assert not transact(Peer({b"MAIL": answer}), session(), TO_ANN, HELLO).stale
    assert not transact(Peer({b"RCPT": answer}), session(reused=True), TO_ANN, HELLO).stale
    assert not transact(Peer({b"MAIL": b"451 later\r\n"}), session(reused=True), TO_ANN, HELLO).stale


@pytest.mark.parametrize("octets", [0, 1, WITH_DOT, WITH_DOT + 1, 5 * WITH_DOT])
def test_a_small_body_waits_for_the_mark_and_comes_with_its_dot(octets: int) -> None:
    content = (b".23\r\n" * (octets // 5 + 1))[:octets]
    if content[-1:] == b"\r":
        content = content[:-1] + b"!"
    wire = stuffed(content)
    dialogue = Dialogue(session())
    dialogue.begin(transaction(dialogue.session, TO_ANN, Rendered(content, False, False)))
    before = dialogue.received(b"250 ok\r\n250 ok\r\n354 go\r\n")
    stages = [dialogue.session.stage]
    after = dialogue.resume()
    stages.append(dialogue.session.stage)
    assert before == Body(content if octets > WITH_DOT else b"")
    assert after == Say((b"" if octets > WITH_DOT else wire) + b".\r\n", Stage.DOT)
    assert stages == [Stage.BODY, Stage.DOT]


def test_a_fault_before_the_mark_is_no_doubt_and_one_after_it_is() -> None:
    for marked in (False, True):
        dialogue = Dialogue(session())
        dialogue.begin(transaction(dialogue.session, TO_ANN, HELLO))
        dialogue.received(b"250 ok\r\n250 ok\r\n354 go\r\n")
        if marked:
            dialogue.resume()
        report = dialogue.failed("closed").report
        assert report is not None
        assert (report.stage, report.dotted) == ((Stage.DOT, True) if marked else (Stage.BODY, False))


def test_an_answer_too_many_is_not_taken_for_the_answer_to_the_dot() -> None:
    dialogue = Dialogue(session())
    dialogue.begin(transaction(dialogue.session, TO_ANN, HELLO))
    action = dialogue.received(b"250 ok\r\n250 ok\r\n354 go\r\n250 too early\r\n")
    assert isinstance(action, Done)
    assert action.report is not None
    assert (action.report.stage, action.report.reply, action.report.dotted) == (Stage.BODY, None, False)


def test_while_a_reply_is_arriving_the_dot_is_not_written() -> None:
    dialogue = Dialogue(session())
    dialogue.begin(transaction(dialogue.session, TO_ANN, HELLO))
    assert isinstance(dialogue.received(b"250 ok\r\n250 ok\r\n354 go\r\n"), Body)
    assert dialogue.received(b"552 5.3") is None
    assert dialogue.resume() is None
    action = dialogue.received(b".4 too big\r\n")
    assert isinstance(action, Done)
    assert action.report is not None
    assert str(action.report.reply) == "552 5.3.4 too big"
    assert not action.report.dotted


def test_words_nobody_asked_for_end_the_session() -> None:
    dialogue = Dialogue(session())
    assert dialogue.received(b"421 4.4.2 idle for too long\r\n") is None
    assert not dialogue.session.usable


def test_more_words_after_the_acceptance_change_nothing_but_end_the_session() -> None:
    dialogue = Dialogue(session())
    dialogue.begin(transaction(dialogue.session, TO_ANN, HELLO))
    dialogue.received(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert dialogue.resume() == Say(stuffed(HELLO.data) + b".\r\n", Stage.DOT)
    action = dialogue.received(b"250 queued\r\n250 queued\r\n")
    assert isinstance(action, Done)
    assert action.report is not None
    assert str(action.report.reply) == "250 queued"
    assert not dialogue.session.usable


def test_tls_does_not_begin_on_words_that_came_in_clear() -> None:
    dialogue = Dialogue(Session(Relay("relay.example", 587, "starttls")))
    dialogue.begin(opening(dialogue.session))
    dialogue.received(b"220 hello\r\n")
    dialogue.received(b"250-relay\r\n250 STARTTLS\r\n")
    action = dialogue.received(b"220 go\r\n250-relay\r\n250 AUTH PLAIN\r\n")
    assert isinstance(action, Done)
    assert action.report is not None
    assert (action.report.stage, action.report.reply) == (Stage.TLS, None)
    assert "injected" in action.report.fault


def test_what_was_offered_in_clear_is_forgotten_under_tls() -> None:
    dialogue = Dialogue(Session(Relay("relay.example", 587, "starttls")))
    dialogue.begin(opening(dialogue.session))
    dialogue.received(b"220 hello\r\n")
    dialogue.received(b"250-relay\r\n250-PIPELINING\r\n250 STARTTLS\r\n")
    assert dialogue.received(b"220 go\r\n") is SECURE
    assert dialogue.resume() == Say(b"EHLO localhost\r\n", Stage.EHLO)
    assert dialogue.received(b"250-relay\r\n250 8BITMIME\r\n") == Done(None)
    assert (dialogue.session.features.pipelining, dialogue.session.features.eight_bit) == (False, True)


@pytest.mark.parametrize("code", [b"500", b"502", b"504"])
def test_helo_is_for_relays_without_ehlo(code: bytes) -> None:
    plain = Session(Relay("relay.example", 25, "none", helo="client.example"), loopback=True)
    peer = Peer({b"EHLO": code + b" what?\r\n", b"HELO": b"250 hello\r\n"})
    assert peer.play(Dialogue(plain), opening(plain)) is None
    assert peer.said == [b"EHLO client.example\r\n", b"HELO client.example\r\n"]
    assert not plain.features.pipelining


@pytest.mark.parametrize(
    "needy", [Relay("relay.example", 25, "starttls"), Relay("127.0.0.1", 25, "none", username="ann")]
)
def test_helo_is_not_said_where_tls_or_a_login_is_needed(needy: Relay) -> None:
    opened, peer = Session(needy, loopback=True), Peer({b"EHLO": b"502 what?\r\n", b"HELO": b"250 hello\r\n"})
    report = peer.play(Dialogue(opened), opening(opened))
    assert report is not None
    assert (report.stage, report.reply and report.reply.code) == (Stage.EHLO, 502)
    assert len(peer.said) == 1


replies = st.sampled_from(
    [
        b"250 2.1.0 ok\r\n",
        b"250-a\r\n250 b\r\n",
        b"250 by lf\n",
        b"354 go on\r\n",
        b"421 4.3.2 bye\r\n",
        b"450 4.2.0 later\r\n",
        b"501 5.5.4 what?\r\n",
        b"550-5.1.1 no\r\n550 5.1.1 such user\r\n",
        b"250-yes\r\n550 no\r\n",
        b"2_0 what\r\n",
        b"25",
        b"",
        b"\xff\x00\r\n",
        b"250-x\r\n" * 101,
    ]
)
scripts = st.fixed_dictionaries(
    {},
    optional={
        b"MAIL": replies,
        b"RCPT": st.lists(replies, max_size=3),
        b"DATA": replies | st.sampled_from([b"354 go\r\n552 5.3.4 big\r\n", b"354 go\r\n55", b"354 go\r\n250 ok\r\n"]),
        b".": replies,
    },
)


@settings(deadline=None, max_examples=300)
@given(scripts, st.booleans(), st.lists(st.integers(1, 300)))
def test_fragmentation_never_changes_a_report(
    script: dict[bytes, bytes | list[bytes]], pipelining: bool, edges: list[int]
) -> None:
    outcomes = []
    for cut in (whole, singly, at(edges)):
        opened, peer = session(pipelining=pipelining, size=0), Peer(script, cut)
        report = transact(peer, opened, TO_ALL, HELLO)
        outcomes.append((report, peer.said, opened.usable, opened.broken, opened.dirty))
        assert report.dotted <= (peer.body is not None)
        assert (report.reply is None) == bool(report.fault)
    assert outcomes[0] == outcomes[1] == outcomes[2]


@settings(deadline=None)
@given(
    st.fixed_dictionaries({}, optional={b"": replies, b"EHLO": replies, b"HELO": replies}), st.lists(st.integers(1, 99))
)
def test_fragmentation_never_changes_an_opening(script: dict[bytes, bytes], edges: list[int]) -> None:
    outcomes = []
    for cut in (whole, singly, at(edges)):
        opened = Session(Relay("relay.example", 25, "none"), loopback=True)
        peer = Peer({b"HELO": HONEST[b"MAIL"]} | script, cut)
        outcomes.append((peer.play(Dialogue(opened), opening(opened)), peer.said, opened.features))
    assert outcomes[0] == outcomes[1] == outcomes[2]
