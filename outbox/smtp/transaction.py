"""One mail transaction: MAIL, RCPT…, DATA, the body, the dot (RFC 5321 §3.3), and what each answer leads to.

    unfit for this relay ──► a refusal of our own, nothing is said
    MAIL RCPT… DATA          in one write where PIPELINING is offered (RFC 2920), one by one otherwise
    body                     with the dot mark; a reply before its end is definite: not accepted
    dot                      2yz accepted; 4yz and 5yz definite; anything else is a doubt

A small body waits for the mark, and goes out in one write with its dot. Every way out before the dot closes without it,
and a message without its dot is not accepted by anybody.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace
from io import IncrementalNewlineDecoder
from typing import TYPE_CHECKING

from outbox.core.dsn import Dsn, xtext
from outbox.core.outcome import Envelope, Report, Stage
from outbox.core.reply import Reply
from outbox.smtp.session import LISTEN, Action, Body, Fault, Fenced, Say, Sent, Session, Steps, ours

if TYPE_CHECKING:
    from outbox.core.render import Rendered

MAX_UNANSWERED = 4096
"""Octets of pipelined commands without an answer: more could fill both windows and stop both sides (Postfix)."""

WITH_DOT = 16 * 1024
"""Octets of a body that is written together with its dot: an empty socket buffer takes them at once, and a small write
costs more than what is in it.
"""

_LOOK = 1024 * 1024
"""Octets of a content that are looked at together."""

_PARAMETERS_REFUSED = frozenset({501, 504, 555})
_REUSE_REFUSED = frozenset({*range(500, 510), 555})
"""We have said something wrong, and say no more on this connection (Postfix `smtp_check_code`)."""

# What may stand between the angle brackets without ending them: neither a command nor a parameter can be smuggled in.
_PLAIN = r'[^\x00-\x20\x7f<>"\ud800-\udfff]+'
_QUOTED = r'"(?:[^"\\\x00-\x1f\x7f\ud800-\udfff]|\\[ -~])*"'
_ADDRESS = re.compile(f"(?:{_QUOTED}|{_PLAIN})@{_PLAIN}")


def transaction(session: Session, envelope: Envelope, message: Rendered) -> Generator[Action, Sent, Report]:
    """Send one message. Always returns a Report."""
    return _Transaction(session, envelope, message).run()


def reset(session: Session) -> Steps:
    """RSET: the end of a failed transaction, and the question whether a connection is still there. None when it is."""
    try:
        answer = yield from session.ask(b"RSET\r\n", Stage.RSET)
    except Fault as fault:
        return replace(session.report(Stage.RSET, fault=str(fault)), stale=True)
    if answer.code == 250:
        session.dirty = False
        return None
    session.usable = False
    return replace(session.report(Stage.RSET, answer), stale=True)


def leave(session: Session) -> Steps:
    """QUIT. Whatever comes of it changes nothing."""
    session.usable = False
    with suppress(Fault):
        yield from session.ask(b"QUIT\r\n", Stage.QUIT)
    return None


def content_flaw(content: bytes) -> str:
    """Why these octets must not be sent as a message, in words, or ``""``: a bare CR or LF, or a NUL, that some relay
    may take for a line end is how a second message is smuggled into this one (CVE-2023-51764, -51765, -51766).
    """
    line_ends = IncrementalNewlineDecoder(None, translate=False)  # it tells which it has seen, at 2 GB a second
    for start in range(0, len(content), _LOOK):
        line_ends.decode(content[start : start + _LOOK].decode("latin-1"))
    line_ends.decode("", final=True)
    if line_ends.newlines not in (None, "\r\n"):
        return "its lines do not all end in CRLF"
    return "it contains NUL" if b"\0" in content else ""


def stuffed(content: bytes, start: int = 0, stop: int | None = None) -> bytes:
    """`content[start:stop]` with the leading dots of its lines doubled (RFC 5321 §4.5.2), and with CRLF at the end of
    the whole. `start` is 0 or more than 1.
    """
    if start:
        piece = content[start - 2 : stop].replace(b"\r\n.", b"\r\n..")[2:]  # its first line may have begun before it
    else:
        piece = content[:stop].replace(b"\r\n.", b"\r\n..")
        if piece.startswith(b"."):
            piece = b"." + piece
    ends_here = piece and (stop is None or stop >= len(content))
    return piece + b"\r\n" if ends_here and not content.endswith(b"\r\n") else piece


_MAIL, _RCPT, _DATA, _BODY, _DOT = Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.BODY, Stage.DOT
"""Python 3.11 takes 70 ns to find a member of an enum."""

_Command = tuple[bytes, Stage, int]
"""What is said, its stage, and of RCPT, which recipient it is about."""

_DATA_COMMAND = (b"DATA\r\n", _DATA, -1)


class _Transaction:
    """`answers` to RCPT, by position; `mail` and `data`, the answers to those; `dotted` once the dot may be written;
    `notified`: notifications are asked for (RFC 3461).
    """

    __slots__ = ("answers", "data", "dotted", "envelope", "mail", "message", "notified", "reused", "session")

    def __init__(self, session: Session, envelope: Envelope, message: Rendered) -> None:
        self.session, self.envelope, self.message = session, envelope, message
        self.answers: list[Reply | None] = [None] * len(envelope.recipients)
        self.mail: Reply | None = None
        self.data: Reply | None = None
        self.dotted = False
        self.reused = session.transactions > 0
        self.notified = bool(envelope.dsn) and session.features.dsn and not session.bare

    def run(self) -> Generator[Action, Sent, Report]:
        session = self.session
        session.heard = 0
        try:
            report = self._refused_here() or (yield from self._introduction()) or (yield from self._content())
        except Fault as fault:
            session.usable, session.broken = False, True
            report = self._report(session.stage, fault=str(fault), fenced=isinstance(fault, Fenced))
        for reply in (report.reply, *report.recipients):
            if reply is not None and reply.code in _REUSE_REFUSED:
                session.usable = False
        return report

    def _report(self, stage: Stage, reply: Reply | None = None, fault: str = "", *, fenced: bool = False) -> Report:
        session, answers = self.session, tuple(self.answers)
        unheard = session.heard == 0 if fault else session.heard == 1 and reply is not None and reply.code == 421
        stale = self.reused and unheard
        return Report(stage, reply, fault, answers, self.dotted, fenced, session.relay_name, session.tls_name, stale)

    def _refused_here(self) -> Report | None:
        """What this relay cannot take is refused before a word is said."""
        refusal = self._unfit()
        if refusal is not None:
            return self._report(Stage.MAIL, refusal)
        self.answers = [self._unspeakable(address) for address in self.envelope.recipients]
        return None if None in self.answers else self._report(Stage.RCPT, self.answers[0] if self.answers else _NOBODY)

    def _unfit(self) -> Reply | None:
        features, message, return_path = self.session.features, self.message, self.envelope.return_path
        flaw = content_flaw(message.data)
        if flaw:
            return ours(554, "5.6.0", flaw)
        if return_path and not _ADDRESS.fullmatch(return_path):
            return ours(554, "5.1.7", "the return path cannot be said in SMTP")
        if self.notified and self.envelope.dsn.flaw():
            return ours(554, "5.6.0", self.envelope.dsn.flaw())
        if message.eight_bit and not features.eight_bit:
            return ours(554, "5.6.3", "it has 8-bit content, and the relay does not offer 8BITMIME")
        if not features.smtputf8 and (message.smtputf8 or not return_path.isascii()):
            return ours(554, "5.6.7", "it needs SMTPUTF8, and the relay does not offer it")
        if features.size and len(message.data) > features.size:
            return ours(554, "5.3.4", f"it has {len(message.data)} octets, and the relay takes {features.size}")
        return None

    def _unspeakable(self, address: str) -> Reply | None:
        if not _ADDRESS.fullmatch(address):
            return ours(553, "5.1.3", "the address cannot be said in SMTP")
        if not address.isascii() and not self.session.features.smtputf8:
            return ours(553, "5.6.7", "the address needs SMTPUTF8, and the relay does not offer it")
        return None

    def _introduction(self) -> Steps:
        """Up to the 354. None when the relay waits for the body and at least one recipient will get it."""
        session = self.session
        session.transactions += 1
        session.dirty = True
        askable = [position for position, answer in enumerate(self.answers) if answer is None]
        sizable = session.features.size is not None and not session.bare
        report = yield from self._commands(self._mail_command(sized=sizable), askable)
        refused = self.mail is not None and self.mail.code in _PARAMETERS_REFUSED and not session.broken
        if refused and (sizable or self.notified):
            session.bare, self.notified = True, False
            self.mail = self.data = None
            report = yield from self._commands(self._mail_command(sized=False), askable)
        return report

    def _mail_command(self, *, sized: bool) -> bytes:
        message, envelope = self.message, self.envelope
        command = b"MAIL FROM:<" + envelope.return_path.encode() + b">"
        if sized:
            command += b" SIZE=%d" % len(message.data)
        if self.notified:
            command += _mail_parameters(envelope.dsn)
        if message.eight_bit:
            command += b" BODY=8BITMIME"
        if self.session.features.smtputf8 and (
            message.smtputf8 or not "".join((envelope.return_path, *envelope.recipients)).isascii()
        ):
            command += b" SMTPUTF8"
        return command + b"\r\n"

    def _commands(self, mail: bytes, askable: list[int]) -> Steps:
        said = [(mail, _MAIL, -1), *self._rcpt_commands(askable)]
        if not self.notified:
            said.append(_DATA_COMMAND)
            report = yield from self._say(said)
        else:  # DATA waits, for there may be recipients to be asked for once more
            report = yield from self._say(said)
            if report is None:
                report = yield from self._without_parameters(askable)
            if report is None and self._has_recipient():
                report = yield from self._say([_DATA_COMMAND])
        return report or (None if self._is_awaited() else (yield from self._conclusion()))

    def _rcpt_commands(self, positions: list[int]) -> list[_Command]:
        recipients, notify = self.envelope.recipients, self.envelope.dsn.notify
        said = []
        for each in positions:
            parameters = _rcpt_parameters(notify, recipients[each]) if self.notified else b""
            said.append((b"RCPT TO:<%b>%b\r\n" % (recipients[each].encode(), parameters), _RCPT, each))
        return said

    def _without_parameters(self, askable: list[int]) -> Generator[Action, Sent, Report | None]:
        """A recipient may have been refused only for what was asked of its notifications: once more, without."""
        answers = self.answers
        refused = [each for each in askable if (said := answers[each]) is not None and said.code in _PARAMETERS_REFUSED]
        if not refused:
            return None
        self.notified = False
        report = yield from self._say(self._rcpt_commands(refused))
        self.session.bare |= any(said.positive for each in refused if (said := answers[each]) is not None)
        return report

    def _say(self, commands: list[_Command]) -> Generator[Action, Sent, Report | None]:
        """Commands, in groups, and the answers to them. A report when the relay closes the connection."""
        session = self.session
        for octets, group in _writes(commands, MAX_UNANSWERED if session.features.pipelining else 0):
            if group[0] is _DATA_COMMAND and not self._has_recipient():
                break
            said: Say | None = Say(octets, group[0][1])
            for _, stage, position in group:
                session.stage = stage
                answer = session.hear((yield said or LISTEN[stage]))
                said = None
                if stage is _DATA:
                    self.data = answer
                elif 300 <= answer.code < 400:
                    raise self._out_of_step(stage, answer)
                elif stage is _MAIL:
                    self.mail = answer
                elif self._is_mail_accepted():  # else its refusal is only the echo of MAIL's
                    self.answers[position] = answer
                if answer.code == 421:
                    return self._closing(stage, answer)
            if not self._is_mail_accepted():
                break
        return None

    def _is_mail_accepted(self) -> bool:
        return self.mail is not None and self.mail.code < 300

    def _has_recipient(self) -> bool:
        for answer in self.answers:  # noqa: SIM110 (a generator would cost more than the question)
            if answer is not None and answer.code < 300:
                return True
        return False

    def _is_awaited(self) -> bool:
        """The relay waits for the body, and has somebody to give it to."""
        return self.data is not None and self.data.code == 354 and self._is_mail_accepted() and self._has_recipient()

    def _closing(self, stage: Stage, answer: Reply) -> Report:
        if self.mail is not None and not self.mail.positive:
            return self._report(Stage.MAIL, self.mail)
        return self._report(stage, answer)

    def _conclusion(self) -> Steps:
        """What the answers to MAIL, RCPT and DATA come to, where there is nobody to send the body to."""
        session, mail, data = self.session, self.mail, self.data
        waiting = data is not None and data.code == 354
        if mail is None or not mail.positive:
            if waiting:  # for whom? Only closing is certain to deliver nothing
                session.usable, session.broken = False, True
            return self._report(Stage.MAIL, mail)
        if not self._has_recipient():
            if waiting:
                yield from self._nothing()
            return self._report(Stage.RCPT, next(filter(None, self.answers)))
        assert data is not None
        if data.positive or data.intermediate:
            raise self._out_of_step(Stage.DATA, data)
        return self._report(Stage.DATA, data)

    def _out_of_step(self, stage: Stage, answer: Reply) -> Fault:
        """Perhaps there was a reply too many or too few, and a refusal was somebody else's: nobody is refused by it."""
        self.answers = [each if each is not None and each.positive else None for each in self.answers]
        return Fault(f"{answer.code} is no answer to {stage.upper()}: {answer.text}")

    def _nothing(self) -> Generator[Action, Sent, None]:
        """The relay waits for a message to nobody: a lone dot, and its answer means nothing (RFC 2920 §3.1), so it is
        not worth the ten minutes of a real one.
        """
        with suppress(Fault):
            yield from self.session.ask(b".\r\n", Stage.RSET)

    # ---------------------------------------------------------------- the body and the dot

    def _content(self) -> Generator[Action, Sent, Report]:
        session, content = self.session, self.message.data
        session.stage = _BODY
        kept = stuffed(content) if len(content) <= WITH_DOT else b""
        early = yield Body(b"" if kept else content)
        if early is not None:
            answer = session.hear(early)
            session.usable, session.broken = False, True
            if answer.positive or answer.intermediate:  # whatever it answers, it cannot be this message
                raise Fault(f"{answer.code} before the end of the message: {answer.text}")
            return self._report(Stage.BODY, answer)
        self.dotted = True
        session.stage = _DOT
        answer = session.hear((yield Say(kept + b".\r\n", _DOT)))
        if answer.intermediate:
            raise Fault(f"{answer.code} is no answer to the end of the message: {answer.text}")
        session.dirty = not answer.positive
        return self._report(_DOT, answer)


_NOBODY = ours(554, "5.1.3", "it has no recipients")


def _mail_parameters(dsn: Dsn) -> bytes:
    """RET and ENVID (RFC 3461 §4.3, §4.4)."""
    parameters = f" RET={dsn.ret.upper()}" if dsn.ret else ""
    return (parameters + (f" ENVID={xtext(dsn.envid)}" if dsn.envid else "")).encode()


def _rcpt_parameters(notify: str, address: str) -> bytes:
    """NOTIFY and ORCPT (RFC 3461 §4.1, §4.2; RFC 6533 §3 for an address that is not ASCII)."""
    original = f"rfc822;{xtext(address)}" if address.isascii() else f"utf-8;{_unitext(address)}"
    return ((f" NOTIFY={notify.upper()}" if notify else "") + f" ORCPT={original}").encode()


def _unitext(address: str) -> str:
    return "".join(
        each if each > "~" or (each >= "!" and each not in "+=\\") else f"\\x{{{ord(each):X}}}" for each in address
    )


def _writes(commands: list[_Command], limit: int) -> list[tuple[bytes, list[_Command]]]:
    """Those that are written together, as one and each: at most `limit` octets, at least one command."""
    octets = b"".join([command for command, _, _ in commands])
    if len(octets) <= limit:
        return [(octets, commands)]
    groups: list[list[_Command]] = []
    room = 0
    for command in commands:
        if len(command[0]) > room:
            groups.append([])
            room = limit
        groups[-1].append(command)
        room -= len(command[0])
    return [(b"".join([command for command, _, _ in group]), group) for group in groups]
