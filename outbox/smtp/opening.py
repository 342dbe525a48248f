"""From the banner to a session that may send mail: EHLO, STARTTLS as the account says, EHLO again, AUTH."""

from __future__ import annotations

from collections.abc import Generator

from outbox.core.outcome import Report, Stage
from outbox.smtp.auth import authenticate
from outbox.smtp.features import Features, read_features
from outbox.smtp.session import SECURE, Action, Fault, Say, Sent, Session, Steps, ours

_NO_EHLO = frozenset({500, 502, 504})
_NOT_OFFERED = "the relay does not offer STARTTLS, and this account requires it"
_NOT_NOW = "the relay has offered STARTTLS before and does not now"


def opening(session: Session) -> Steps:
    """Everything before the first MAIL. None when the session is ready, else what stood in the way."""
    try:
        return (yield from _opening(session))
    except Fault as fault:
        return session.report(session.stage, fault=str(fault))


def _opening(session: Session) -> Steps:
    relay = session.relay
    if relay.username and relay.tls == "none" and not session.loopback:
        session.broken = True  # nothing at all is said on a line that may be listened to, not even QUIT
        return session.report(Stage.AUTH, ours(538, "5.7.11", "credentials are sent over verified TLS only"))
    if relay.tls == "implicit":
        yield from _secure(session)
    banner = yield from session.ask(b"", Stage.BANNER)
    if banner.code != 220:
        return session.report(Stage.BANNER, banner)
    failure = yield from _hello(session)
    session.starttls_offered = session.features.starttls
    if failure is None and (relay.requires_starttls or (relay.tls == "opportunistic" and session.starttls_offered)):
        failure = yield from _starttls(session)
    if failure is None and relay.username:
        failure = yield from authenticate(session)
    return failure


def _secure(session: Session) -> Generator[Action, Sent, None]:
    session.stage = Stage.TLS
    yield SECURE
    session.encrypted = True


def _hello(session: Session) -> Steps:
    """EHLO. HELO only where the relay does not know EHLO and neither TLS nor AUTH is to come, which HELO has not."""
    name = session.relay.helo.encode("ascii")
    session.stage = Stage.EHLO
    reading = yield Say(b"EHLO " + name + b"\r\n", Stage.EHLO)
    answer = session.hear(reading)
    if answer.positive:
        assert reading is not None
        session.features = read_features(reading.lines[1:])
        return None
    needs_more = bool(session.relay.username) or (session.relay.requires_starttls and not session.encrypted)
    if answer.code in _NO_EHLO and not needs_more:
        answer = yield from session.ask(b"HELO " + name + b"\r\n", Stage.EHLO)
        if answer.positive:
            return None
    return session.report(Stage.EHLO, answer)


def _starttls(session: Session) -> Generator[Action, Sent, Report | None]:
    """From here on there is TLS or nothing (RFC 3207; a stripped STARTTLS must not mean plaintext)."""
    if not session.features.starttls:
        required = session.relay.tls == "starttls"
        why = _NOT_OFFERED if required or not session.relay.starttls_seen else _NOT_NOW
        return session.report(Stage.STARTTLS, fault=why)
    answer = yield from session.ask(b"STARTTLS\r\n", Stage.STARTTLS)
    if answer.code != 220:
        return session.report(Stage.STARTTLS, answer)
    session.features = Features()  # what was said in clear is nobody's word
    yield from _secure(session)
    return (yield from _hello(session))
