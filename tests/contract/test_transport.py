"""Whatever a relay does is a report: the table of its faults, and what the transport says of each.

Each row runs twice, with PIPELINING and without: the report must be the same. Whatever the row, nothing is raised, the
mark is asked for at most once, a report without a dot means that nothing was accepted, and every message accepted had
its dot reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from outbox.core.outcome import Envelope, Report, Stage
from outbox.core.render import Rendered
from tests.relay import DROP, EXTENSIONS, GARBAGE, HANG, RST, Accept, Drip, Relay, Session
from tests.smtp.sending import BIG, BOB, CYD, HELLO, TO_ALL, Mark, account, deadlines, run, send

SHORT = 0.2
OK = (250, 250, 250)
NONE = (None, None, None)

ENDLESS = b"250-again\r\n" * 101
WIDE = b"250 " + b"x" * 70_000 + b"\r\n"
TWO_CODES = b"250-yes\r\n251 or no\r\n"


def json_then_535(session: Session, line: str) -> str:
    session.send("334 eyJzdGF0dXMiOiI0MDEifQ==")
    assert session.line() == "*"
    return "535 5.7.8 no"


@dataclass(frozen=True)
class Row:
    """A script, and the report it must lead to. `fault` is part of its words; `short` the stage that times out soon."""

    name: str
    script: Mapping[str, Any]
    stage: Stage
    code: int | None = None
    fault: str = ""
    recipients: tuple[int | None, ...] = ()
    dotted: bool = False
    short: str = ""
    message: Rendered = field(default=HELLO, repr=False)
    envelope: Envelope = TO_ALL
    username: str = ""
    receive_buffer: int = 0


BANNER = [
    Row("says nothing", {"banner": HANG}, Stage.BANNER, None, "no answer to BANNER within 0.2 s", short="banner"),
    Row("closes", {"banner": DROP}, Stage.BANNER, None, "the relay closed the connection"),
    Row("is busy", {"banner": "421 4.3.2 later"}, Stage.BANNER, 421),
    Row("rejects", {"banner": "554 5.3.2 go away"}, Stage.BANNER, 554),
    Row("says 250", {"banner": "250 hello"}, Stage.BANNER, 250),
    Row("is no SMTP", {"banner": "SSH-2.0-OpenSSH_9.2"}, Stage.BANNER, None, "not an SMTP reply"),
    Row("is garbage", {"banner": GARBAGE}, Stage.BANNER, None, "not an SMTP reply"),
    Row("is endless", {"banner": b"220-x\r\n" * 101}, Stage.BANNER, None, "more than 100 lines"),
    Row("is one long line", {"banner": b"220 " + b"x" * 70_000}, Stage.BANNER, None, "more than 65536 octets"),
    Row("drips", {"banner": Drip("220 hello", 0.05)}, Stage.BANNER, None, "no answer to BANNER", short="banner"),
]
EHLO = [
    Row("is refused, and HELO too", {"ehlo": "500 what?", "helo": "500 what?"}, Stage.EHLO, 500),
    Row("is refused for policy", {"ehlo": "550 5.7.1 no"}, Stage.EHLO, 550),
    Row("meets 421", {"ehlo": "421 4.7.0 no"}, Stage.EHLO, 421),
    Row("meets silence", {"ehlo": HANG}, Stage.EHLO, None, "no answer to EHLO", short="ehlo"),
    Row("meets two codes", {"ehlo": TWO_CODES}, Stage.EHLO, None, "two codes, 250 and 251"),
    Row("drips", {"ehlo": Drip("250-relay.example", 0.05)}, Stage.EHLO, None, "no answer to EHLO", short="ehlo"),
    Row("is refused where a login is needed", {"ehlo": "502 what?"}, Stage.EHLO, 502, username="ann"),
]
AUTH = [
    Row("wrong password", {"auth": "535 5.7.8 no"}, Stage.AUTH, 535, username="ann"),
    Row("needs an application password", {"auth": "534 5.7.9 no"}, Stage.AUTH, 534, username="ann"),
    Row("temporarily not", {"auth": "454 4.7.0 later"}, Stage.AUTH, 454, username="ann"),
    Row("closes", {"auth": "421 4.7.0 too many"}, Stage.AUTH, 421, username="ann"),
    Row("drops", {"auth": DROP}, Stage.AUTH, None, "the relay closed", username="ann"),
    Row("garbage", {"auth": GARBAGE}, Stage.AUTH, None, "not an SMTP reply", username="ann"),
    Row("silence", {"auth": HANG}, Stage.AUTH, None, "no answer to AUTH", username="ann", short="auth"),
    Row("an error in a challenge", {"auth": json_then_535}, Stage.AUTH, 535, username="ann"),
]
MAIL = [
    Row("421", {"mail": "421 4.3.2 bye"}, Stage.MAIL, 421, recipients=NONE),
    Row("452", {"mail": "452 4.3.1 full"}, Stage.MAIL, 452, recipients=NONE),
    Row("530", {"mail": "530 5.7.57 sign in"}, Stage.MAIL, 530, recipients=NONE),
    Row("550", {"mail": "550 5.1.8 no"}, Stage.MAIL, 550, recipients=NONE),
    Row("501 twice", {"mail": "501 5.5.4 what?"}, Stage.MAIL, 501, recipients=NONE),
    Row("silence", {"mail": HANG}, Stage.MAIL, None, "no answer to MAIL", NONE, short="mail"),
    Row("closed", {"mail": DROP}, Stage.MAIL, None, "the relay closed", NONE),
    Row("reset", {"mail": RST}, Stage.MAIL, None, "connection", NONE),
    Row("garbage", {"mail": GARBAGE}, Stage.MAIL, None, "not an SMTP reply", NONE),
    Row("354", {"mail": "354 go on"}, Stage.MAIL, None, "354 is no answer to MAIL", NONE),
    Row("endless", {"mail": ENDLESS}, Stage.MAIL, None, "more than 100 lines", NONE),
]
RCPT = [
    Row(
        "one of three is refused",
        {f"rcpt:{BOB}": "550 5.1.1 unknown"},
        Stage.DOT,
        250,
        recipients=(250, 550, 250),
        dotted=True,
    ),
    Row(
        "one later, one too many",
        {f"rcpt:{BOB}": "450 4.2.0 greylisted", f"rcpt:{CYD}": "452 4.5.3 too many"},
        Stage.DOT,
        250,
        recipients=(250, 450, 452),
        dotted=True,
    ),
    Row("552 alone", {f"rcpt:{CYD}": "552 full"}, Stage.DOT, 250, recipients=(250, 250, 552), dotted=True),
    Row("251", {f"rcpt:{BOB}": "251 forwards"}, Stage.DOT, 250, recipients=(250, 251, 250), dotted=True),
    Row("501", {f"rcpt:{BOB}": "501 5.1.3 syntax"}, Stage.DOT, 250, recipients=(250, 501, 250), dotted=True),
    Row("all refused", {"rcpt": "550 5.1.1 unknown"}, Stage.RCPT, 550, recipients=(550, 550, 550)),
    Row(
        "all refused, each its way",
        {"rcpt": ["450 4.2.0 later", "550 5.1.1 no", "452 4.5.3 many"]},
        Stage.RCPT,
        450,
        recipients=(450, 550, 452),
    ),
    Row("421 in the middle", {f"rcpt:{BOB}": "421 4.3.2 bye"}, Stage.RCPT, 421, recipients=(250, 421, None)),
    Row("silence", {f"rcpt:{BOB}": HANG}, Stage.RCPT, None, "no answer to RCPT", (250, None, None), short="rcpt"),
    Row("closed", {f"rcpt:{BOB}": DROP}, Stage.RCPT, None, "the relay closed", (250, None, None)),
    Row("garbage", {f"rcpt:{BOB}": GARBAGE}, Stage.RCPT, None, "not an SMTP reply", (250, None, None)),
    Row("354", {f"rcpt:{BOB}": "354 go on"}, Stage.RCPT, None, "354 is no answer to RCPT", (250, None, None)),
]
DATA = [
    Row("451", {"data": "451 4.3.0 later"}, Stage.DATA, 451, recipients=OK),
    Row("554", {"data": "554 5.7.1 no"}, Stage.DATA, 554, recipients=OK),
    Row("421", {"data": "421 4.3.2 bye"}, Stage.DATA, 421, recipients=OK),
    Row("250", {"data": "250 ok"}, Stage.DATA, None, "250 is no answer to DATA", OK),
    Row("silence", {"data": HANG}, Stage.DATA, None, "no answer to DATA", OK, short="data"),
    Row("closed", {"data": DROP}, Stage.DATA, None, "the relay closed", OK),
    Row("garbage", {"data": GARBAGE}, Stage.DATA, None, "not an SMTP reply", OK),
    Row("354 and 250 at once", {"data": "354 go on\r\n250 done"}, Stage.BODY, None, "250 before the end", OK),
    Row("354 and 554 at once", {"data": "354 go on\r\n554 no"}, Stage.BODY, 554, recipients=OK),
]
BODY = [
    Row("closed", {"body": DROP}, Stage.BODY, None, "connection", OK, message=BIG),
    Row("reset", {"body": RST}, Stage.BODY, None, "connection", OK, message=BIG),
    Row("552 before its end", {"body": "552 5.3.4 too big"}, Stage.BODY, 552, recipients=OK, message=BIG),
    Row("552 and closed", {"body": ("552 5.3.4 too big", DROP)}, Stage.BODY, 552, recipients=OK, message=BIG),
    Row("421 before its end", {"body": "421 4.3.2 bye"}, Stage.BODY, 421, recipients=OK, message=BIG),
    Row("250 before its end", {"body": "250 enough"}, Stage.BODY, None, "250 before the end", OK, message=BIG),
    Row("garbage before its end", {"body": GARBAGE}, Stage.BODY, None, "not an SMTP reply", OK, message=BIG),
    Row(
        "not read",
        {"body": HANG},
        Stage.BODY,
        None,
        "the relay took no data within 0.2 s",
        OK,
        message=BIG,
        short="body",
        receive_buffer=4096,
    ),
]
DOT = [
    Row("250", {}, Stage.DOT, 250, recipients=OK, dotted=True),
    Row("451", {"dot": "451 4.3.0 later"}, Stage.DOT, 451, recipients=OK, dotted=True),
    Row("554", {"dot": "554 5.7.1 spam"}, Stage.DOT, 554, recipients=OK, dotted=True),
    Row("421", {"dot": "421 4.3.2 bye"}, Stage.DOT, 421, recipients=OK, dotted=True),
    Row("250 and reset", {"dot": ("250 2.0.0 ok", RST)}, Stage.DOT, 250, recipients=OK, dotted=True),
    Row("250 and QUIT 500", {"quit": "500 what?"}, Stage.DOT, 250, recipients=OK, dotted=True),
    Row("250 and no answer to QUIT", {"quit": DROP}, Stage.DOT, 250, recipients=OK, dotted=True),
    Row("250 by LF", {"dot": b"250 2.0.0 ok\n"}, Stage.DOT, 250, recipients=OK, dotted=True),
    Row("a big one", {}, Stage.DOT, 250, recipients=OK, dotted=True, message=BIG),
    Row("silence", {"dot": HANG}, Stage.DOT, None, "no answer to DOT", OK, dotted=True, short="dot"),
    Row("taken, then silence", {"dot": Accept(HANG)}, Stage.DOT, None, "no answer", OK, dotted=True, short="dot"),
    Row("closed", {"dot": DROP}, Stage.DOT, None, "the relay closed", OK, dotted=True),
    Row("taken, then closed", {"dot": Accept(DROP)}, Stage.DOT, None, "the relay closed", OK, dotted=True),
    Row("taken, then reset", {"dot": Accept(RST)}, Stage.DOT, None, "connection", OK, dotted=True),
    Row("garbage", {"dot": Accept(GARBAGE)}, Stage.DOT, None, "not an SMTP reply", OK, dotted=True),
    Row("half a reply", {"dot": Accept((b"250 o", DROP))}, Stage.DOT, None, "the relay closed", OK, dotted=True),
    Row("354", {"dot": Accept("354 more")}, Stage.DOT, None, "354 is no answer", OK, dotted=True),
    Row("two codes", {"dot": Accept(TWO_CODES)}, Stage.DOT, None, "two codes", OK, dotted=True),
    Row("endless", {"dot": Accept(ENDLESS)}, Stage.DOT, None, "more than 100 lines", OK, dotted=True),
    Row("one long line", {"dot": Accept(WIDE)}, Stage.DOT, None, "more than 65536", OK, dotted=True),
    Row("drips", {"dot": Drip("250 ok", 0.05)}, Stage.DOT, None, "no answer", OK, dotted=True, short="dot"),
]
TABLE = [
    pytest.param(row, id=f"{stage}: {row.name}")
    for stage, rows in {
        "banner": BANNER,
        "EHLO": EHLO,
        "AUTH": AUTH,
        "MAIL": MAIL,
        "RCPT": RCPT,
        "DATA": DATA,
        "body": BODY,
        "dot": DOT,
    }.items()
    for row in rows
]


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "one by one"])
@pytest.mark.parametrize("row", TABLE)
def test_whatever_the_relay_does_is_a_report(row: Row, pipelining: bool) -> None:
    extensions = tuple(each for each in EXTENSIONS if pipelining or each != "PIPELINING")
    credentials = {row.username: "secret"} if row.username else None
    mark = Mark()
    with Relay(row.script, extensions=extensions, credentials=credentials, receive_buffer=row.receive_buffer) as relay:
        settings = account(relay, username=row.username, password="secret" if row.username else "")
        limits = deadlines(**({row.short: SHORT} if row.short else {}))
        report = run(send(settings, row.envelope, row.message, mark=mark, limits=limits))
        accepted, commands = len(relay.messages), relay.commands

    assert summary(report) == (row.stage, row.code, row.recipients, row.dotted)
    assert row.fault in report.fault
    assert bool(report.fault) == (report.reply is None)
    assert not report.fenced
    assert not report.stale
    assert report.relay == f"127.0.0.1[127.0.0.1]:{relay.port}"
    assert mark.asked <= 1
    assert mark.asked == 1 or not report.dotted
    assert not accepted or report.dotted
    assert not report.dotted or "." in commands


def test_silence_after_a_lone_dot_costs_neither_the_verdicts_nor_ten_minutes() -> None:
    script = {"rcpt": "550 5.1.1 unknown", "data": "354 go on", "dot": HANG}
    with Relay(script) as relay:
        report = run(send(account(relay), TO_ALL, limits=deadlines(rset=SHORT)))
    assert summary(report) == (Stage.RCPT, 550, (550, 550, 550), False)
    assert relay.messages == []


def summary(report: Report) -> tuple[Stage, int | None, tuple[int | None, ...], bool]:
    codes = tuple(answer.code if answer else None for answer in report.recipients)
    return report.stage, report.reply.code if report.reply else None, codes, report.dotted


def test_a_reset_instead_of_a_banner_is_a_report() -> None:
    with Relay({"banner": RST}) as relay:
        report = run(send(account(relay)))
    assert report.stage in (Stage.CONNECT, Stage.BANNER)  # whichever side of the handshake it is noticed on
    assert report.fault


def test_nobody_listening_is_a_report() -> None:
    with Relay() as relay:
        settings = account(relay)
    report = run(send(settings))
    assert summary(report) == (Stage.CONNECT, None, (), False)
    assert "refused" in report.fault.lower()


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "one by one"])
@pytest.mark.parametrize("answer", [False, RuntimeError("database is locked")], ids=["refused", "raised"])
@pytest.mark.parametrize("message", [HELLO, BIG], ids=["small", "big"])
def test_without_its_mark_there_is_no_dot(answer: bool | Exception, message: Rendered, pipelining: bool) -> None:
    extensions = tuple(each for each in EXTENSIONS if pipelining or each != "PIPELINING")
    mark = Mark(answer)
    with Relay(extensions=extensions) as relay:
        report = run(send(account(relay), TO_ALL, message, mark=mark))
        commands = relay.commands
    assert summary(report) == (Stage.BODY, None, OK, False)
    assert report.fenced
    assert "the dot mark" in report.fault
    assert "." not in commands
    assert commands[-1] == "DATA"  # nothing was said after it, not even QUIT
