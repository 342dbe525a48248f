"""What an answer means: `classify` gives a verdict and how far the fault reaches. The one place to read or change
either.

The policy in prose (RFC 5321 §4.2.1, §4.5; RFC 3463; Postfix `smtp_trouble.c`; the providers' own pages):

- The first digit decides whether to try again. How far the fault reaches is a separate question, answered by the
  stage and by the few codes and phrases with which providers say that the login, the sender address or a quota is at
  fault.
- What happens before MAIL is never the message's fault: connect, banner, EHLO and TLS are the relay's, AUTH is the
  account's.
- 421 closes the connection, whatever it was the answer to: the relay's.
- No answer before the dot: certainly not accepted, try again. No answer after the dot: a doubt (RFC 1047).
- A refused RCPT is that recipient's alone.

BUGS: providers reword their replies. A phrase that is not listed falls back to the plain meaning of its code, which
fails or defers one message, and is never taken for an acceptance.
"""

from __future__ import annotations

import re

from outbox.core.outcome import Outcome, Scope, Stage, Verdict
from outbox.core.reply import Reply
from outbox.core.rules import Rules

_BEFORE_MAIL = frozenset({Stage.DNS, Stage.CONNECT, Stage.BANNER, Stage.EHLO, Stage.STARTTLS, Stage.TLS})
_OURS = frozenset({Stage.RENDER, Stage.POLICY})

_LOGIN_CODES = frozenset({530, 534, 535, 538})
_LOGIN_STATUS = frozenset({"5.7.30", "5.7.57", "5.7.139"})
# We are not let in, whoever the mail is from or for. Postfix says so at RCPT: it delays its refusals until then.
_NOT_ADMITTED = re.compile(
    r"relay(ing)? (access )?(is )?(denied|not (permitted|allowed))|unable to relay|not permitted to relay"
    r"|client (host|was)\b.*\b(blocked|rejected|not authenticated)|authentication (is )?required",
    re.I,
)
_THROTTLED_CODES = frozenset({432})
_THROTTLED_STATUS = frozenset({"4.7.12", "4.7.66", "5.4.5"})
_THROTTLED = re.compile(r"throttl|daily (user )?sending (limit|quota)|too many login|rate limit|sending limit", re.I)
_SENDER_STATUS = frozenset({"5.1.8", "5.7.60"})
_NOT_OURS = re.compile(r"sender address rejected: not (owned|logged)|not owned by user", re.I)
_SENDER = re.compile(
    r"sendasdenied|send as|email address is not verified|sender (address )?(is )?not (allowed|authori[sz]ed|permitted)",
    re.I,
)
_PROTOCOL_CODES = frozenset({500, 502, 503, 504})


def classify(stage: Stage, reply: Reply | None, *, dotted: bool = False, rules: Rules = ()) -> Outcome:
    """The meaning of `reply` to `stage`; of silence (timeout, lost connection, nonsense) when it is None.

    `dotted`: the final dot was, or may have been, written. Total: every stage and reply has an outcome.
    """
    if reply is None:
        return _silence(stage, dotted=dotted)
    if stage in _OURS:
        return Outcome(Verdict.BOUNCE, Scope.MESSAGE)
    if stage is Stage.LOCAL:
        # Our own side: a secret that cannot be opened is the account's fault, anything passing is tried again.
        return Outcome(Verdict.BOUNCE, Scope.ACCOUNT) if reply.permanent else Outcome(Verdict.DEFER, Scope.MESSAGE)
    if stage in _BEFORE_MAIL:
        return Outcome(Verdict.DEFER, Scope.RELAY)
    if stage is Stage.AUTH:
        return Outcome(Verdict.BOUNCE if reply.permanent else Verdict.DEFER, Scope.ACCOUNT)
    return _transaction(stage, reply, dotted=dotted)


def _silence(stage: Stage, *, dotted: bool) -> Outcome:
    if dotted:
        return Outcome(Verdict.DOUBT, Scope.MESSAGE)
    if stage in _BEFORE_MAIL or stage is Stage.AUTH:
        return Outcome(Verdict.DEFER, Scope.RELAY)
    return Outcome(Verdict.DEFER, Scope.MESSAGE)


def _transaction(stage: Stage, reply: Reply, *, dotted: bool) -> Outcome:
    """The answer to MAIL, RCPT, DATA, the body or the dot."""
    beyond = _beyond_the_message(stage, reply)
    if beyond is not None:
        return beyond
    if stage is Stage.RCPT:
        return Outcome(_verdict(reply), Scope.RECIPIENT)
    if stage is Stage.MAIL and reply.code == 452:
        return Outcome(Verdict.DEFER, Scope.RELAY)
    if reply.intermediate and dotted:
        return Outcome(Verdict.DOUBT, Scope.MESSAGE)
    if reply.positive and not dotted:
        # 2xx to DATA, or before the dot: whatever the relay meant, it has not got the message.
        return Outcome(Verdict.DEFER, Scope.MESSAGE)
    return Outcome(_verdict(reply), Scope.MESSAGE)


def _beyond_the_message(stage: Stage, reply: Reply) -> Outcome | None:
    """The fault of the relay, the account or the sender, where the answer says so."""
    if reply.code == 421:
        return Outcome(Verdict.DEFER, Scope.RELAY)
    if reply.positive or reply.intermediate or (stage is Stage.RCPT and _is_about_the_mailbox(reply)):
        return None
    if reply.code in _LOGIN_CODES or reply.status in _LOGIN_STATUS:
        return Outcome(Verdict.BOUNCE, Scope.ACCOUNT)
    if reply.permanent and _NOT_ADMITTED.search(reply.text):
        return Outcome(Verdict.BOUNCE, Scope.ACCOUNT)
    if reply.code in _THROTTLED_CODES or reply.status in _THROTTLED_STATUS or _THROTTLED.search(reply.text):
        return Outcome(Verdict.DEFER, Scope.ACCOUNT)
    if reply.permanent and _is_sender(stage, reply):
        return Outcome(Verdict.BOUNCE, Scope.SENDER)
    return None


def _is_about_the_mailbox(reply: Reply) -> bool:
    """X.1.x (addressing) and X.2.x (mailbox) are said of the recipient, whatever words come with them (RFC 3463 §3.2,
    §3.3); but for 5.1.7 and 5.1.8, which are said of the sender.
    """
    subject = reply.status[1:4]
    return subject in (".1.", ".2.") and reply.status not in ("5.1.7", "5.1.8")


def _is_sender(stage: Stage, reply: Reply) -> bool:
    if reply.status in _SENDER_STATUS or _NOT_OURS.search(reply.text):
        return True
    # At RCPT "sender not authorized" may be said of this one recipient: a closed list, a mailbox with a filter.
    if stage is Stage.RCPT:
        return False
    # At MAIL only the sender has been named, so 553 and "delivery not authorized" can be about nothing else.
    plain = stage is Stage.MAIL and (reply.code == 553 or (reply.code == 550 and reply.status == "5.7.1"))
    return plain or bool(_SENDER.search(reply.text))


def _verdict(reply: Reply) -> Verdict:
    if reply.positive:
        return Verdict.ACCEPT
    # "I do not understand you" says something about this session, not about the mail: try again.
    if reply.permanent and reply.code not in _PROTOCOL_CODES:
        return Verdict.BOUNCE
    return Verdict.DEFER


def is_too_many(reply: Reply, *, accepted_before: int) -> bool:
    """Whether an answer to RCPT only says that this transaction has enough recipients: the rest go into the next one,
    at once.

    452 4.5.3 says so in words. A bare 452 or 552 is taken to say so (RFC 5321 §4.5.3.1.10) when the same transaction
    already has a recipient; never for the first one, so that a mailbox that is full is not tried for ever.
    """
    if accepted_before == 0 or reply.code not in (452, 552):
        return False
    return reply.status in ("", "4.5.3", "5.5.3")
