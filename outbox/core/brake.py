"""The correlation brake: many messages in a row that are refused alike are not at fault, all of them.

A provider that has blocked us answers ``554 5.7.1`` to every dot; without a brake, an hour of that fails the backlog.
So the third message in a row with the same code and status at the same stage goes back to the queue, and what has sent
them is paused, and then probed with one message at a time.

*In a row* is: without an answer between them that tells of something else. A message whose recipients are unknown, or
that never got so far, tells nothing; one that was accepted ends the row. An account's row is of all its senders; a
sender's row goes on while others' mail is accepted. So where nothing of an account gets through, the account is
braked, and where only one sender's mail does not, the sender.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from outbox.core.fate import RecipientFate
from outbox.core.outcome import Scope, Stage, Verdict
from outbox.core.reply import Reply

OWN_REFUSAL = "not sent, says Outbox:"
"""How the text of a refusal begins that no relay said (`outbox.smtp.session.ours`)."""

_ORDER = (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.BODY, Stage.DOT)
_WHOM = r"(user|mailbox|recipient|address|account|inbox|alias)s?"
_WHAT = (
    r"(unknown|not known|no such|invalid|not (?:a )?valid|bad|not found|unavailable|disabled|inactive|full|over quota"
    r"|does ?n[o']t exist|not exist|does ?n[o']t have)"
)
_NOWHERE = r"unroute?able|no such domain"
"""Exim says so, without a status, of an address whose domain does not exist."""
_ABOUT_THE_MAILBOX = re.compile(rf"\b{_WHAT}\b.*\b{_WHOM}\b|\b{_WHOM}\b.*\b{_WHAT}\b|\b(?:{_NOWHERE})\b", re.IGNORECASE)


class Telling(Enum):
    """What an attempt tells of a refusal that others got: the same, something else, or nothing."""

    SAME = auto()
    OTHER = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class Streak:
    """Different messages in a row that were refused alike: `failed` by that. `braked`: the database says that this
    refusal has braked the account, or the sender, already.
    """

    signature: str = ""
    failed: tuple[int, ...] = ()
    braked: bool = False

    def spares(self, message_id: int, signature: str, brake_after: int) -> bool:
        """Whether this message, refused with that signature, is one too many to be failed. 0: never."""
        if not signature or brake_after < 1:
            return False
        before = len({*self.failed} - {message_id}) if signature == self.signature else 0
        return before + 1 >= brake_after or (self.braked and signature == self.signature)

    def then(self, message_id: int, fates: Sequence[RecipientFate], *, spared: bool) -> Streak:
        """The streak after one attempt more."""
        signature = signature_of(fates)
        telling = tells(self.signature, fates) if self.signature else Telling.OTHER
        if telling is Telling.NOTHING or (telling is Telling.SAME and (spared or message_id in self.failed)):
            return self
        failed = () if spared or not signature else (message_id,)
        before = self.failed if telling is Telling.SAME else ()
        return Streak(signature, before + failed)


@dataclass(frozen=True, slots=True)
class Streaks:
    """Of the account that an attempt goes through, and of its sender."""

    account: Streak = Streak()
    sender: Streak = Streak()

    def brakes(self, message_id: int, signature: str, brake_after: int) -> tuple[Scope, Streak] | None:
        """Which of them does not let this refusal fail the message; None when it does fail."""
        if not signature:
            return None
        ordered = [(Scope.ACCOUNT, self.account), (Scope.SENDER, self.sender)]
        if self.sender.braked:
            ordered.reverse()
        spares = (each for each in ordered if each[1].spares(message_id, signature, brake_after))
        return next(spares, None)


def signature_of(fates: Sequence[RecipientFate]) -> str:
    """``"dot 554 5.7.1"``: the refusal of a whole message that may be about others as well; empty when it is not one.

    It is a relay's own, by the built-in meaning of its reply, and the same for every recipient that it was asked for.
    At RCPT it says nothing of a mailbox.
    """
    found = ""
    for each in fates:
        if each.stage is Stage.POLICY:
            continue
        signature = _signature(each)
        if not signature or (found and signature != found):
            return ""
        found = signature
    return found


def _signature(fate: RecipientFate) -> str:
    reply, outcome = fate.reply, fate.outcome
    if outcome.verdict is not Verdict.BOUNCE or outcome.rule or reply is None or not reply.permanent:
        return ""
    if fate.stage not in _ORDER or reply.text.startswith(OWN_REFUSAL):
        return ""
    if fate.stage is Stage.RCPT:
        if outcome.scope is not Scope.RECIPIENT or is_about_the_mailbox(reply):
            return ""
    elif outcome.scope is not Scope.MESSAGE:
        return ""
    return f"{fate.stage} {reply.code} {reply.status}".rstrip()


def is_about_the_mailbox(reply: Reply) -> bool:
    """X.1.x (addressing) and X.2.x (mailbox) are (RFC 3463 §3.2, §3.3), and so are the usual words."""
    return reply.status[1:4] in (".1.", ".2.") or _ABOUT_THE_MAILBOX.search(reply.text) is not None


def tells(signature: str, fates: Sequence[RecipientFate]) -> Telling:
    """What an attempt tells of `signature`. An answer at an earlier stage tells nothing, unless it is itself a refusal
    of the whole message; nor does a fault of the account, the sender or the relay, nor silence.
    """
    own = signature_of(fates)
    if own:
        return Telling.SAME if own == signature else Telling.OTHER
    if any(each.outcome.verdict is Verdict.ACCEPT for each in fates):
        return Telling.OTHER
    at = _ORDER.index(Stage(signature.partition(" ")[0]))
    answered = (each for each in fates if each.stage in _ORDER and each.reply is not None and each.reply.code)
    own_faults = (each for each in answered if each.outcome.scope in (Scope.MESSAGE, Scope.RECIPIENT))
    later = any(_ORDER.index(each.stage) >= at and not _is_ours(each) for each in own_faults if not _of_mailbox(each))
    return Telling.OTHER if later else Telling.NOTHING


def _is_ours(fate: RecipientFate) -> bool:
    return fate.reply is not None and fate.reply.text.startswith(OWN_REFUSAL)


def _of_mailbox(fate: RecipientFate) -> bool:
    return fate.stage is Stage.RCPT and fate.reply is not None and is_about_the_mailbox(fate.reply)
