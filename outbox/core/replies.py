"""What Outbox makes of a relay's answers, as a table: the first row that fits decides. `judge` asks it, and
docs/replies.md shows it.

The principles: RFC 5321 §4.2.1 and §4.5, RFC 3463, Postfix `smtp_trouble.c`, the providers' own pages.

- The first digit decides whether to try again. How far the fault reaches is a separate question, answered by the stage
  and by the few codes, statuses and words with which providers say that the login, the sender address or a quota is at
  fault.
- What happens before MAIL is never the message's fault: connect, banner, EHLO and TLS are the relay's, AUTH is the
  account's.
- 421 closes the connection, whatever it was the answer to: the relay's.
- No answer before the dot: certainly not accepted, try again. No answer after the dot: a doubt (RFC 1047).
- A refused RCPT is that recipient's alone, unless it says otherwise.

LIMITS: providers reword their replies. Words that are not listed fall back to the plain meaning of their code, which
fails or defers one message, and is never taken for an acceptance. An operator's rule (`rules`) comes before this table.
"""

from __future__ import annotations

from datetime import timedelta

from outbox.core.meaning import ANSWER, INTERMEDIATE, LATER, NEVER, POSITIVE, REFUSAL, SILENCE, Meaning
from outbox.core.outcome import Scope, Stage, Verdict

ACCEPT, DEFER, BOUNCE, DOUBT = Verdict.ACCEPT, Verdict.DEFER, Verdict.BOUNCE, Verdict.DOUBT
RELAY, ACCOUNT, SENDER, MESSAGE, RECIPIENT = Scope.RELAY, Scope.ACCOUNT, Scope.SENDER, Scope.MESSAGE, Scope.RECIPIENT

OURS = frozenset({Stage.RENDER, Stage.POLICY})
OPENING = frozenset({Stage.DNS, Stage.CONNECT, Stage.BANNER, Stage.EHLO, Stage.STARTTLS, Stage.TLS})
AUTH = frozenset({Stage.AUTH})
MAIL, RCPT, DOT = frozenset({Stage.MAIL}), frozenset({Stage.RCPT}), frozenset({Stage.DOT})
CONTENT = frozenset({Stage.DATA, Stage.BODY, Stage.DOT})
WHOLE = MAIL | CONTENT
"""The stages that are about the whole message."""
TRANSACTION = WHOLE | RCPT
AFTERWARDS = frozenset({Stage.RSET, Stage.QUIT})

MISUNDERSTOOD = frozenset({500, 502, 503, 504})
_MINUTES, _HOUR = timedelta(minutes=1), timedelta(hours=1)
_GREYLIST = ("greylist", "graylist", "grey-list", "grey list")

_SILENCE = (
    Meaning(
        "doubt", frozenset(Stage), SILENCE, DOUBT, MESSAGE, "",
        "The relay may have accepted it, and no program can know (RFC 1047).", dotted=True,
    ),
    Meaning(
        "unreachable", OPENING | AUTH, SILENCE, DEFER, RELAY, "",
        "It could not be reached, broke off, or does not speak SMTP or TLS as it should: no mail was tried.",
    ),
    Meaning(
        "cut-off", OURS | {Stage.LOCAL} | TRANSACTION | AFTERWARDS, SILENCE, DEFER, MESSAGE, "",
        "Before the dot it was certainly not accepted.", dotted=False,
    ),
)  # fmt: skip

_OURS = (
    Meaning(
        "not-sendable", OURS, ANSWER, BOUNCE, MESSAGE, "554 5.6.0 it cannot be composed",
        "No relay was asked: it cannot be composed, or its sender is not registered.",
    ),
    Meaning(
        "unsigned", frozenset({Stage.LOCAL}), NEVER, BOUNCE, SENDER, "554 5.7.5 the DKIM key does not open",
        "Mail that is meant to be signed does not go out unsigned.", statuses=("5.7.5",),
    ),
    Meaning(
        "no-token", frozenset({Stage.LOCAL}), LATER, DEFER, ACCOUNT, "454 4.7.0 the token endpoint does not answer",
        "Without an access token the account cannot log in now.", statuses=("4.7.0",),
    ),
    Meaning(
        "sealed-secret", frozenset({Stage.LOCAL}), NEVER, BOUNCE, ACCOUNT, "554 5.7.8 the password does not open",
        "Without its key the account cannot log in; its mail waits until somebody repairs that.",
    ),
    Meaning(
        "our-own-trouble", frozenset({Stage.LOCAL}), ANSWER, DEFER, MESSAGE, "451 4.3.0 internal error",
        "Something on this machine stood in the way, and may pass.",
    ),
)  # fmt: skip

_BEFORE_MAIL = (
    Meaning(
        "no-service", frozenset({Stage.BANNER}), NEVER, DEFER, RELAY, "554 5.7.1 no service for you",
        "Nobody was introduced yet, so it is not about our mail (Postfix: smtp_skip_5xx_greeting).",
    ),
    Meaning(
        "no-tls", frozenset({Stage.STARTTLS, Stage.TLS}), ANSWER, DEFER, RELAY, "454 4.7.0 TLS not available",
        "Nothing is ever sent in clear instead.",
    ),
    Meaning(
        "no-session", OPENING, ANSWER, DEFER, RELAY, "421 4.3.2 shutting down",
        "What happens before MAIL is never a message's fault.",
    ),
    Meaning(
        "too-many-logins", AUTH, LATER, DEFER, ACCOUNT, "454 4.7.0 Too many login attempts, please try again later",
        "More attempts now would prolong it.", words=("too many login", "too many auth"), delay=15 * _MINUTES,
    ),
    Meaning(
        "login-later", AUTH, LATER | POSITIVE | INTERMEDIATE, DEFER, ACCOUNT,
        "454 4.7.0 Temporary authentication failure", "The login is not wrong; it is only not taken now.",
    ),
    Meaning(
        "wrong-password", AUTH, frozenset({535}), BOUNCE, ACCOUNT, "535 5.7.8 Username and Password not accepted",
        "Trying on with it would lock the account out.",
    ),
    Meaning(
        "another-password", AUTH, frozenset({534}), BOUNCE, ACCOUNT,
        "534 5.7.9 Application-specific password required", "The provider wants another kind of password or login.",
    ),
    Meaning(
        "login-unprotected", AUTH, frozenset({530, 538}), BOUNCE, ACCOUNT, "538 5.7.11 Encryption required",
        "The account's TLS mode does not suit its relay.",
    ),
    Meaning(
        "login-method", AUTH, NEVER, BOUNCE, ACCOUNT,
        "550 5.7.30 Basic authentication is not supported for Client Submission",
        "The relay does not take this way to log in (Microsoft 365 takes OAuth only).",
        statuses=("5.7.30", "5.7.4", "5.5.4"),
    ),
    Meaning(
        "login-refused", AUTH, NEVER, BOUNCE, ACCOUNT, "550 5.7.0 Account suspended",
        "A login that is refused is refused for every message.",
    ),
)  # fmt: skip

_ANSWERED = (
    Meaning(
        "closing", TRANSACTION | AFTERWARDS, frozenset({421}), DEFER, RELAY, "421 4.3.2 closing transmission channel",
        "It closes the connection, whatever it was the answer to; nothing of this transaction was delivered.",
    ),
    Meaning(
        "accepted", DOT, POSITIVE, ACCEPT, MESSAGE, "250 2.0.0 Ok: queued as 4XyZ",
        "The relay has taken responsibility.", dotted=True,
    ),
    Meaning(
        "nonsense", TRANSACTION, POSITIVE | INTERMEDIATE, DOUBT, MESSAGE, "354 go on",
        "That is no answer to the dot, so the relay may have accepted it.", dotted=True,
    ),
    Meaning(
        "so-far-good", RCPT, POSITIVE | INTERMEDIATE, DEFER, RECIPIENT, "250 2.1.5 Ok",
        "Without a dot nobody has it.", dotted=False,
    ),
    Meaning(
        "no-dot", WHOLE, POSITIVE | INTERMEDIATE, DEFER, MESSAGE, "250 2.0.0 Ok",
        "Whatever the relay meant, without a dot it has not got the message.", dotted=False,
    ),
    Meaning(
        "goodbye", AFTERWARDS, ANSWER, DEFER, MESSAGE, "500 what?",
        "RSET and QUIT change nothing of what was settled before.",
    ),
)  # fmt: skip

_MAILBOX = ("x.1.x", "x.2.x")
_OF_THE_SENDER = ("x.1.7", "x.1.8")

_OF_THE_RECIPIENT = (
    Meaning(
        "greylisted", RCPT, LATER, DEFER, RECIPIENT, "450 4.2.0 Greylisted, see the postmaster's page",
        "It wants to see us again, but not at once.", words=_GREYLIST, delay=5 * _MINUTES,
    ),
    Meaning(
        "mailbox-later", RCPT, LATER | MISUNDERSTOOD, DEFER, RECIPIENT, "452 4.2.2 The mailbox is over its quota",
        "Said of this mailbox, whatever words come with it (RFC 3463 §3.2, §3.3).",
        statuses=_MAILBOX, unless=_OF_THE_SENDER,
    ),
    Meaning(
        "no-mailbox", RCPT, NEVER, BOUNCE, RECIPIENT, "550 5.1.1 no such user",
        "Said of this mailbox, whatever words come with it (RFC 3463 §3.2, §3.3).",
        statuses=_MAILBOX, unless=_OF_THE_SENDER,
    ),
)  # fmt: skip

_OF_THE_ACCOUNT = (
    Meaning(
        "not-logged-in", TRANSACTION, frozenset({530, 534, 535, 538}), BOUNCE, ACCOUNT,
        "530 5.7.57 Client not authenticated to send mail", "The relay wants a login, or another one.",
    ),
    Meaning(
        "login-not-taken", TRANSACTION, NEVER, BOUNCE, ACCOUNT,
        "550 5.7.30 Basic authentication is not supported for Client Submission",
        "The relay wants a login, or another one.", statuses=("5.7.30", "5.7.57", "5.7.139"),
    ),
    Meaning(
        "not-admitted", TRANSACTION, NEVER, BOUNCE, ACCOUNT, "554 5.7.1 Relay access denied",
        "We are not let in, whoever the mail is from or for. Postfix says so at RCPT: it keeps refusals until then.",
        words=(
            "relay[ing] [access ][is ]denied", "relay[ing] [access ][is ]not permitted",
            "relay[ing] [access ][is ]not allowed", "unable to relay", "not permitted to relay",
            "list of allowed rcpthosts", "client host…blocked", "client host…rejected", "client was…rejected",
            "client was…not authenticated", "authentication [is ]required",
        ),
    ),
    Meaning(
        "account-blocked", TRANSACTION, NEVER, BOUNCE, ACCOUNT,
        "550 5.7.705 Access denied, tenant has exceeded threshold",
        "The provider has barred the account or its tenant.",
        statuses=("5.7.501", "5.7.502", "5.7.503", "5.7.705", "5.7.708"),
    ),
    Meaning(
        "daily-limit", TRANSACTION, REFUSAL, DEFER, ACCOUNT, "550 5.4.5 Daily user sending limit exceeded",
        "All it has to send must wait for the next window, and none of it is at fault.",
        statuses=("5.4.5", "x.7.232", "x.7.233"), words=("daily…limit", "daily…quota"), delay=_HOUR,
    ),
    Meaning(
        "own-mailbox-full", CONTENT, frozenset({554}), DEFER, ACCOUNT,
        "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException",
        "Microsoft 365 keeps a copy in the sender's own mailbox, or counts its recipients: that is full.",
        statuses=("5.2.2",),
        words=("storedrv.submission…quota", "submissionquota", "recipient rate", "recipientrate", "recipient limit"),
        delay=_HOUR,
    ),
    Meaning(
        "too-many-connections", TRANSACTION, frozenset({432}), DEFER, ACCOUNT,
        "432 4.3.2 Concurrent connections limit exceeded", "Fewer, and later.",
    ),
    Meaning(
        "throttled", TRANSACTION, REFUSAL, DEFER, ACCOUNT, "454 Throttling failure: Maximum sending rate exceeded.",
        "Too much at a time is not this message's fault.", statuses=("x.7.12", "x.7.66"),
        words=(
            "throttl", "too many login", "rate limit", "sending limit", "sending rate", "sending quota",
            "emails per hour", "connection frequency limited",
        ),
    ),
)  # fmt: skip

_OF_THE_SENDER_ADDRESS = (
    Meaning(
        "not-our-sender", TRANSACTION, NEVER, BOUNCE, SENDER,
        "550 5.7.60 Client does not have permissions to send as this sender",
        "The login may not send from this address; it may from others.", statuses=("5.1.8", "5.7.60"),
        words=(
            "sender address rejected: not owned", "sender address rejected: not logged", "not owned by user",
        ),
    ),
    Meaning(
        "sender-refused", MAIL, frozenset({553}), BOUNCE, SENDER, "553 5.7.0 not yours to send from",
        "At MAIL only the sender has been named.",
    ),
    Meaning(
        "sender-unauthorised", MAIL, frozenset({550}), BOUNCE, SENDER, "550 5.7.1 not authorised",
        "At MAIL only the sender has been named.", statuses=("5.7.1",),
    ),
    Meaning(
        "sender-not-verified", WHOLE, NEVER, BOUNCE, SENDER, "554 Message rejected: Email address is not verified.",
        "The login may not send from this address. At RCPT the same words may mean one closed list only.",
        words=(
            "sendasdenied", "send as", "email address is not verified", "sender [address ][is ]not allowed",
            "sender [address ][is ]not authorized", "sender [address ][is ]not authorised",
            "sender [address ][is ]not permitted",
        ),
    ),
)  # fmt: skip

_PLAIN = (
    Meaning(
        "no-room", MAIL, frozenset({452}), DEFER, RELAY, "452 4.3.1 insufficient system storage",
        "The relay has no room for anybody's mail.",
    ),
    Meaning(
        "too-many-recipients", RCPT, frozenset({452}), DEFER, RECIPIENT, "452 4.5.3 too many recipients",
        "The rest go into the next transaction at once, and the number is remembered. Only said to the very first"
        " recipient it is a deferral.", statuses=("4.5.3",),
    ),
    Meaning(
        "greylisted-perhaps", RCPT, frozenset({450, 451}), DEFER, RECIPIENT, "451 4.7.1 please try again later",
        "That is how many say that they greylist.", statuses=("4.7.1",), delay=5 * _MINUTES,
    ),
    Meaning(
        "message-greylisted", CONTENT, LATER, DEFER, MESSAGE, "451 4.7.1 Greylisting in action, please come back later",
        "It wants to see us again, but not at once.", words=_GREYLIST, delay=5 * _MINUTES,
    ),
    Meaning(
        "too-big", WHOLE, NEVER, BOUNCE, MESSAGE, "552 5.3.4 Message size exceeds fixed limit",
        "It will not be smaller next time.", statuses=("5.3.4", "5.2.3"),
    ),
    Meaning(
        "recipient-misunderstood", RCPT, MISUNDERSTOOD, DEFER, RECIPIENT, "503 5.5.1 bad sequence of commands",
        "“I do not understand you” is said of this session, not of the mail.",
    ),
    Meaning(
        "misunderstood", WHOLE, MISUNDERSTOOD, DEFER, MESSAGE, "503 5.5.1 bad sequence of commands",
        "“I do not understand you” is said of this session, not of the mail.",
    ),
    Meaning(
        "recipient-later", RCPT, LATER, DEFER, RECIPIENT, "450 4.3.0 try later",
        "A refused recipient says nothing about the others.",
    ),
    Meaning(
        "recipient-refused", RCPT, NEVER, BOUNCE, RECIPIENT, "550 5.7.1 not here",
        "A refused recipient says nothing about the others.",
    ),
    Meaning("later", WHOLE, LATER, DEFER, MESSAGE, "451 4.3.0 local error", "The plain meaning of 4yz."),
    Meaning("refused", WHOLE, NEVER, BOUNCE, MESSAGE, "554 5.7.1 looks like spam", "The plain meaning of 5yz."),
)  # fmt: skip

CONSEQUENCES = {
    (ACCEPT, MESSAGE): "delivered to the relay",
    (DOUBT, MESSAGE): "in doubt: sent again or held, as `on_doubt` says",
    (DEFER, RECIPIENT): "this recipient is tried again; the others go on",
    (BOUNCE, RECIPIENT): "this recipient has bounced; the others go on",
    (DEFER, MESSAGE): "the message is tried again",
    (BOUNCE, MESSAGE): "the message fails",
    (DEFER, SENDER): "the sender address is paused for a while; its mail waits",
    (BOUNCE, SENDER): "the sender address is paused until a probe gets through; its mail waits",
    (DEFER, ACCOUNT): "the account is paused for a while; its mail waits",
    (BOUNCE, ACCOUNT): "the account is paused until a probe gets through; its mail waits",
    (DEFER, RELAY): "counts in the relay's breaker; its mail waits",
    (BOUNCE, RELAY): "counts in the relay's breaker; its mail waits",
}
"""What happens to the mail, in a few words."""

MEANINGS: tuple[Meaning, ...] = (
    *_SILENCE, *_OURS, *_BEFORE_MAIL, *_ANSWERED,
    *_OF_THE_RECIPIENT, *_OF_THE_ACCOUNT, *_OF_THE_SENDER_ADDRESS, *_PLAIN,
)  # fmt: skip
"""In the order in which they are asked."""
