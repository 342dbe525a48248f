"""Signing in: AUTH PLAIN (RFC 4616) and AUTH LOGIN, one mechanism and one attempt per connection.

One attempt, because a client that goes through all mechanisms with a wrong password locks the account out three times
as fast. The credentials are UTF-8, and nothing of them is left in what is reported, should the relay echo them.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Generator
from dataclasses import replace

from outbox.core.outcome import Report, Stage
from outbox.core.reply import Reply, sanitise
from outbox.core.secret import Secret
from outbox.smtp.session import Action, Fault, Sent, Session, Steps, ours

MAX_LINE = 512
"""Octets of a command line with CRLF. A longer initial response goes into a line of its own (RFC 4954 §4)."""

_WORD = re.compile(r"[A-Za-z0-9+/=]{8,}")


def authenticate(session: Session) -> Steps:
    """Sign in as the relay's account says. None when it worked."""
    if not (session.encrypted or session.loopback):
        return session.report(Stage.AUTH, ours(538, "5.7.11", "credentials are sent over verified TLS only"))
    wanted, offered = session.relay.mechanism, session.features.mechanisms
    mechanism = choose(wanted, offered)
    if mechanism is None:
        words = "AUTH PLAIN or LOGIN" if wanted == "auto" else f"AUTH {wanted.upper()}"
        has = ", ".join(sorted(offered)) or "no AUTH at all"
        return session.report(Stage.AUTH, ours(504, "5.5.4", sanitise(f"the relay does not offer {words}, but {has}")))
    username, password = session.relay.username.encode(), session.relay.password
    exchange = _plain if mechanism == "PLAIN" else _login
    try:
        answer = yield from exchange(session, username, password.reveal().encode())
        if answer.intermediate:  # it wants more than the mechanism has: call it off (RFC 4954 §4)
            answer = yield from session.ask(b"*\r\n", Stage.AUTH)
        if answer.positive:
            return None
        report = session.report(Stage.AUTH, answer)
    except Fault as fault:
        report = session.report(Stage.AUTH, fault=str(fault))
    return scrub(report, session.relay.username, password)


def choose(wanted: str, offered: frozenset[str]) -> str | None:
    """The mechanism to use: PLAIN before LOGIN where ``auto`` is wanted; None where nothing fits."""
    for mechanism in ("PLAIN", "LOGIN"):
        if mechanism in offered and wanted in ("auto", mechanism.lower()):
            return mechanism
    return None


def _plain(session: Session, username: bytes, password: bytes) -> Generator[Action, Sent, Reply]:
    blob = b64encode(b"\0" + username + b"\0" + password)
    line = b"AUTH PLAIN " + blob + b"\r\n"
    if len(line) <= MAX_LINE:
        return (yield from session.ask(line, Stage.AUTH))
    answer = yield from session.ask(b"AUTH PLAIN\r\n", Stage.AUTH)
    if answer.code == 334:
        answer = yield from session.ask(blob + b"\r\n", Stage.AUTH)
    return answer


def _login(session: Session, username: bytes, password: bytes) -> Generator[Action, Sent, Reply]:
    answer = yield from session.ask(b"AUTH LOGIN\r\n", Stage.AUTH)
    for credential in (username, password):
        if answer.code != 334:
            break
        answer = yield from session.ask(b64encode(credential) + b"\r\n", Stage.AUTH)
    return answer


def scrub(report: Report, username: str, password: Secret) -> Report:
    """`report` without the password, plain or in any of the forms in which it was sent, whole or in pieces."""
    secret = password.reveal()
    forms = [f"\0{username}\0{secret}", secret]
    blobs = [b64encode(form.encode()).decode() for form in forms]

    def without(text: str) -> str:
        for plain in {secret, sanitise(secret)}:
            if len(plain) >= 4:  # a shorter one would be betrayed by the holes
                text = text.replace(plain, "<secret>")
        return _WORD.sub(lambda found: "<secret>" if _is_part(found[0], blobs) else found[0], text)

    reply = report.reply and Reply(report.reply.code, report.reply.status, without(report.reply.text))
    return replace(report, reply=reply, fault=without(report.fault))


def _is_part(word: str, blobs: list[str]) -> bool:
    return any(word in blob or blob in word for blob in blobs if blob)
