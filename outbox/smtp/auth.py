"""Signing in (RFC 4954): the lines, base64 and replies around one SASL exchange, one attempt per connection.

One mechanism and one attempt, because a client that goes through all mechanisms with a wrong password locks the account
out three times as fast. Credentials are UTF-8, and nothing of them is left in what is reported, should the relay echo
them.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace

from outbox.core.outcome import Report, Stage
from outbox.core.reply import Reading, Reply, sanitise
from outbox.core.secret import Secret
from outbox.smtp.sasl import BY_DEFAULT, OAUTH, Unacceptable, choose, exchange, oauth_error
from outbox.smtp.session import Action, Derive, Fault, Say, Sent, Session, Steps, ours

MAX_LINE = 512
"""Octets of a command line with CRLF. A longer initial response goes into a line of its own (RFC 4954 §4)."""

_WORDS = (re.compile(r"[A-Za-z0-9+/._~-]{7,}[A-Za-z0-9+/_~-]"), re.compile(r"[A-Za-z0-9+/=]{8,}"))
"""Of what a token is made (RFC 6750 §2.1), and of base64 alone, which a full stop may follow."""
_PROOF = re.compile(rb"(?:,p=| )([A-Za-z0-9+/=]{32,})\Z")
_DEAF = frozenset({"PLAIN", "LOGIN"})
"""Whose challenges are prompts for people, and now and then not even base64."""
_TOKEN_LENGTH = 40
_SAYABLE = 8
"""Characters of a secret that is looked for in every reply."""
_SHORTEST = 4
"""Octets of a blob that is looked for."""


def authenticate(session: Session) -> Steps:
    """Sign in as the relay's account says. None when it worked."""
    if not (session.encrypted or session.loopback):
        return session.report(Stage.AUTH, ours(538, "5.7.11", "credentials are sent over verified TLS only"))
    relay = session.relay
    mechanism = choose(relay.mechanism, session.features.mechanisms)
    if mechanism is None:
        return session.report(Stage.AUTH, ours(504, "5.5.4", _nothing_fits(session)))
    attempt = _Attempt(session, mechanism)
    session.stage = Stage.AUTH
    try:
        answer = yield from attempt.run()
        if answer is None:
            session.unsayable = _unsayable(relay.username, relay.password, attempt.said)
            return None
        report = session.report(Stage.AUTH, answer)
    except Fault as fault:
        session.usable, session.broken = False, True
        report = session.report(Stage.AUTH, fault=str(fault))
    return scrub(report, relay.username, relay.password, attempt.said)


def _nothing_fits(session: Session) -> str:
    wanted, offered = session.relay.mechanism, sorted(session.features.mechanisms)
    words = f"{', '.join(BY_DEFAULT[:-1])} or {BY_DEFAULT[-1]}" if wanted == "auto" else wanted.upper()
    return sanitise(f"the relay does not offer AUTH {words}, but {', '.join(offered) or 'no AUTH at all'}")


class _Attempt:
    """`said`: every response of ours, as octets. `asked`: the relay waits for one."""

    def __init__(self, session: Session, mechanism: str) -> None:
        self.session, self.mechanism = session, mechanism
        self.said: list[bytes] = []
        self.asked = False
        self._exchange = exchange(mechanism, session.relay)
        self._challenge = b""

    def run(self) -> Generator[Action, Sent, Reply | None]:
        """None when we are signed in, else the answer that says why not."""
        try:
            answer = yield from self._begin()
            while self.asked:
                response = (yield from self._next(self._decoded())) if answer.code == 334 else None
                if response is None:  # it wants more than the mechanism has
                    return (yield from self._call_off())
                answer = yield from self._respond(response)
            if answer.positive:
                yield from self._next(None)
                return None
        except Unacceptable as veto:
            with suppress(Fault):
                if self.asked:
                    yield from self._say(b"*\r\n")
            return ours(554, "5.7.0", f"the login was broken off: {sanitise(str(veto))}")
        return self._with_details(answer)

    def _begin(self) -> Generator[Action, Sent, Reply]:
        command = f"AUTH {self.mechanism}".encode()
        initial = yield from self._next(None)
        if initial is not None:
            line = command + b" " + b64encode(initial) + b"\r\n"
            if len(line) <= MAX_LINE:
                self.said.append(initial)
                return (yield from self._say(line))
        answer = yield from self._say(command + b"\r\n")
        if initial is not None and answer.code == 334:
            answer = yield from self._respond(initial)
        return answer

    def _next(self, challenge: bytes | None) -> Generator[Action, Sent, bytes | None]:
        """What the mechanism says next, with its keys worked out on the way; None where it has nothing to say."""
        try:
            step = self._exchange.send(challenge)
            while isinstance(step, Derive):
                yield step
                step = next(self._exchange)
        except StopIteration:
            return None
        return step

    def _respond(self, response: bytes) -> Generator[Action, Sent, Reply]:
        self.said.append(response)
        return (yield from self._say(b64encode(response) + b"\r\n"))

    def _call_off(self) -> Generator[Action, Sent, Reply]:
        """RFC 4954 §4: the relay must answer 501, and may have said its reason in another refusal."""
        answer = yield from self._say(b"*\r\n")
        if answer.positive or answer.intermediate:
            raise Fault(f"{answer.code} is no answer to a login that is called off: {answer.text}")
        return answer

    def _say(self, line: bytes) -> Generator[Action, Sent, Reply]:
        reading = yield Say(line, Stage.AUTH)
        answer = self.session.hear(reading)
        self.asked = answer.intermediate
        if self.asked:
            assert isinstance(reading, Reading)
            self._challenge = b"".join(reading.lines)
        return answer

    def _decoded(self) -> bytes:
        """The challenge. Raises Fault where the mechanism would read it, and it is none."""
        if self.mechanism in _DEAF:
            return b""
        try:
            return b64decode(self._challenge, validate=True)
        except ValueError:
            raise Fault(f"the relay's challenge for {self.mechanism} is not base64") from None

    def _with_details(self, answer: Reply) -> Reply:
        """OAuth says what is wrong with the token in its challenge, and only that it is wrong in its reply."""
        details = oauth_error(self._decoded()) if self.mechanism in OAUTH else ""
        return replace(answer, text=sanitise(f"{answer.text} ({details})")) if details else answer


def _unsayable(username: str, password: Secret, said: Sequence[bytes]) -> tuple[str, ...]:
    """The whole forms of a password or token that worked. The relay has it, but the record is for others to read. What
    is short may be a word that relays say of themselves, and its hole would tell it.
    """
    secret = password.reveal()
    forms = {b64encode(form).decode() for form in (f"\0{username}\0{secret}".encode(), secret.encode(), *said)}
    return tuple(sorted(each for each in {secret, sanitise(secret), *forms} if len(each) >= _SAYABLE))


def scrub(report: Report, username: str, password: Secret, said: Sequence[bytes] = ()) -> Report:
    """`report` without the password or access token, plain or in any of the forms in which it was sent, whole or in
    pieces. `said`: our responses, from which it could be worked out.
    """
    secret = password.reveal()
    blobs = [b64encode(form).decode() for form in (f"\0{username}\0{secret}".encode(), secret.encode(), *said)]
    blobs += [found[1].decode() for each in said if (found := _PROOF.search(each))]
    if len(secret) >= _TOKEN_LENGTH:  # not one of those passwords that are made of words
        blobs.append(secret)

    def without(text: str) -> str:
        for plain in {secret, sanitise(secret)}:
            if len(plain) >= 4:  # a shorter one would be betrayed by the holes
                text = text.replace(plain, "<secret>")
        for words in _WORDS:
            text = words.sub(lambda found: "<secret>" if _is_part(found[0], blobs) else found[0], text)
        return text

    reply = report.reply and Reply(report.reply.code, report.reply.status, without(report.reply.text))
    return replace(report, reply=reply, fault=without(report.fault))


def _is_part(word: str, blobs: list[str]) -> bool:
    return any(word in blob or blob in word for blob in blobs if len(blob) >= _SHORTEST)
