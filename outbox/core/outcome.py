"""What a relay did (a report), and what it means: a verdict, and how far it reaches.

Permanence and reach are separate questions (Postfix `smtp_trouble.c`). `classify` answers both, and nothing else in
the program does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from outbox.core.dsn import NO_DSN, Dsn
from outbox.core.record import record
from outbox.core.reply import Reply


class Stage(StrEnum):
    """The step being answered when something happened. The first three are ours, the rest are the SMTP session in
    order.
    """

    RENDER = "render"
    POLICY = "policy"
    LOCAL = "local"
    DNS = "dns"
    CONNECT = "connect"
    BANNER = "banner"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    DOT = "dot"
    RSET = "rset"
    QUIT = "quit"


class Verdict(StrEnum):
    ACCEPT = "accept"
    DEFER = "defer"
    BOUNCE = "bounce"
    DOUBT = "doubt"


class Scope(StrEnum):
    """How far a fault reaches. Only the last two count against a message."""

    RELAY = "relay"
    ACCOUNT = "account"
    SENDER = "sender"
    MESSAGE = "message"
    RECIPIENT = "recipient"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`delay`: not again before that, by what the relay asked for or a rule says. `rule`: of the operator's rules, the
    one that decided; 0 when none did.
    """

    verdict: Verdict
    scope: Scope
    delay: timedelta = timedelta(0)
    rule: int = 0


@record
class Envelope:
    """What MAIL and RCPT say: a return path (``""`` is the null one) and bare addresses, each with ASCII (IDNA)
    domain; and what is asked of notifications.
    """

    return_path: str
    recipients: tuple[str, ...]
    dsn: Dsn = NO_DSN


@record
class Report:
    """What happened in one SMTP transaction, or in the attempt to begin one. The transport returns it and never raises.

    stage       where it ended: DOT when the end of data was answered (or was met with silence)
    reply       the deciding reply; None when there was none, and then `fault` says in words what happened instead
    recipients  the answer to each RCPT, in the order of the envelope; None where none was read
    dotted      the final dot was, or may have been, written: without a reply to it this is a doubt
    fenced      the dot mark was refused (the claim was lost, or the database did not confirm it): no dot was written
    relay, tls  the peer as ``host[address]:port`` and ``"TLSv1.3 TLS_AES_256_GCM_SHA384"``, or empty
    stale       a reused connection turned out to be gone before the relay answered anything: nothing was tried, and a
                new connection may take the message at once
    starttls_offered  where no transaction was begun: the relay's first answer to EHLO had STARTTLS
    """

    stage: Stage
    reply: Reply | None = None
    fault: str = ""
    recipients: tuple[Reply | None, ...] = ()
    dotted: bool = False
    fenced: bool = False
    relay: str = ""
    tls: str = ""
    stale: bool = False
    starttls_offered: bool = False

    @property
    def is_clean(self) -> bool:
        """Accepted, by everybody who was asked."""
        if self.stage is not Stage.DOT or not self.dotted or self.reply is None or not self.reply.positive:
            return False
        for each in self.recipients:  # noqa: SIM110 -- a generator would cost more than the question
            if each is None or not each.positive:
                return False
        return True
