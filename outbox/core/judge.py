"""What an answer means: `classify` gives a verdict and how far the fault reaches.

    reply ──► the operator's rules, first fit ──► the table in `replies`, first fit ──► Outcome

An operator's rule decides instead of the table, for refusals (4yz, 5yz) only: it can neither make an acceptance of
one, nor touch a doubt. Where the outcome is to try again, and the relay said when ("try again in 300 seconds"), that
is its delay.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import NamedTuple

from outbox.core.meaning import Meaning
from outbox.core.outcome import Outcome, Scope, Stage, Verdict
from outbox.core.replies import MEANINGS, OPENING, OURS
from outbox.core.reply import MAX_TEXT, Reply
from outbox.core.rules import Rule, Rules

_WITHOUT_RULES = OURS | {Stage.LOCAL, Stage.RSET, Stage.QUIT}
_BEFORE_MAIL = OPENING | {Stage.AUTH}
_WIDE = frozenset({Scope.RELAY, Scope.ACCOUNT})

_BY_STAGE = {stage: tuple(each for each in MEANINGS if stage in each.stages) for stage in Stage}


class Judgement(NamedTuple):
    """An outcome, and what led to it: a row of the table, or a rule of the operator's."""

    outcome: Outcome
    by: Meaning | Rule


def classify(stage: Stage, reply: Reply | None, *, dotted: bool = False, rules: Rules = ()) -> Outcome:
    """The meaning of `reply` to `stage`; of silence (timeout, lost connection, nonsense) when it is None.

    `dotted`: the final dot was, or may have been, written. `rules`: the operator's, for this relay. Total: every stage
    and reply has an outcome.
    """
    if reply is not None and 200 <= reply.code < 300:
        return _POSITIVE[dotted][stage]  # nearly always
    return judge(stage, reply, dotted=dotted, rules=rules).outcome


def judge(stage: Stage, reply: Reply | None, *, dotted: bool = False, rules: Rules = ()) -> Judgement:
    """The same, with what led to it."""
    code, status, text = _said(reply)
    if reply is not None and code >= 400 and rules and stage not in _WITHOUT_RULES:
        for rule in rules:
            # Before MAIL nobody was named yet: no rule makes one message or sender answer for the relay's mood.
            if (rule.scope in _WIDE or stage not in _BEFORE_MAIL) and rule.fits(reply):
                return Judgement(_delayed(rule.outcome, code, text), rule)
    meaning = next(each for each in _BY_STAGE[stage] if each.fits(code, status, text, dotted=dotted))
    return Judgement(_delayed(meaning.outcome, code, text), meaning)


def _said(reply: Reply | None) -> tuple[int, str, str]:
    """Code, status and words as the table knows them. A code that SMTP does not have is nonsense, like a 3yz, or a
    refusal; a status of another class than the code is none, for the code decides.
    """
    if reply is None:
        return 0, "", ""
    code = 399 if reply.code < 200 else min(reply.code, 599)
    status = reply.status if reply.status[:1] == str(code // 100) else ""
    return code, status, reply.text[:MAX_TEXT]


# ---- delay hints


_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_HINT = re.compile(
    r"\b(?:again|back|retry|try|wait|resend|delay|(?:gr[ae]y|de)-?listed|deferred)\b[^0-9]{0,40}"
    r"(?:([0-9]{1,2}):([0-9]{2}):([0-9]{2})\b"
    r"|([0-9]{1,6}) ?(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)\b)",
    re.IGNORECASE,
)
_MARGIN = timedelta(seconds=10)
"""The relay's clock and ours need not agree to the second."""
_LONGEST = timedelta(hours=4)
_LONGEST_OF_ACCOUNT = timedelta(hours=24)


def hinted(text: str) -> timedelta:
    """For how long the relay asks to be left alone: ``"try again in 300 seconds"``. Zero when it does not say."""
    found = _HINT.search(text[:MAX_TEXT])
    if found is None:
        return timedelta(0)
    hours, minutes, seconds, count, unit = found.groups()
    if count is None:
        return timedelta(hours=int(hours), minutes=int(minutes), seconds=int(seconds))
    return int(count) * _UNITS[unit[0].lower()]


def _delayed(outcome: Outcome, code: int, text: str) -> Outcome:
    if code < 400 or outcome.verdict is not Verdict.DEFER or not (wanted := hinted(text)):
        return outcome
    longest = _LONGEST_OF_ACCOUNT if outcome.scope is Scope.ACCOUNT else _LONGEST
    delay = max(outcome.delay, min(wanted + _MARGIN, longest))
    return Outcome(outcome.verdict, outcome.scope, delay, outcome.rule)


_POSITIVE = {
    dotted: {stage: judge(stage, Reply(250), dotted=dotted).outcome for stage in Stage} for dotted in (False, True)
}


# ---- too many recipients


def is_too_many(reply: Reply, *, accepted_before: int) -> bool:
    """Whether an answer to RCPT only says that this transaction has enough recipients: the rest go into the next one,
    at once.

    452 4.5.3 says so in words. A bare 452 or 552 is taken to say so (RFC 5321 §4.5.3.1.10) when the same transaction
    already has a recipient; never for the first one, so that a mailbox that is full is not tried for ever.
    """
    if accepted_before == 0 or reply.code not in (452, 552):
        return False
    return reply.status in ("", "4.5.3", "5.5.3")
