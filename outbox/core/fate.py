"""What has become of each recipient, told from what the relay did in one SMTP transaction."""

from __future__ import annotations

from enum import StrEnum

from outbox.core.judge import classify
from outbox.core.message import Recipient
from outbox.core.outcome import Outcome, Report, Scope, Stage, Verdict
from outbox.core.record import record
from outbox.core.reply import Reply
from outbox.core.rules import Rules


class Fate(StrEnum):
    """What has become of one recipient. No row yet means PENDING."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    DOUBT = "doubt"


SETTLED_FATES = frozenset({Fate.ACCEPTED, Fate.BOUNCED})
"""Recipients that are not tried again: one was delivered, the other refused for good."""


@record
class Trial:
    """One SMTP transaction of an attempt: whom it was for, and what happened."""

    recipients: tuple[Recipient, ...]
    report: Report


@record
class RecipientFate:
    recipient: Recipient
    fate: Fate
    reply: Reply | None
    outcome: Outcome
    stage: Stage


def fates_of(trial: Trial, rules: Rules = ()) -> tuple[RecipientFate, ...]:
    """The fate of every recipient of one transaction. A refused RCPT keeps its own reply; the others share the end
    of the transaction.
    """
    report = trial.report
    end = classify(report.stage, report.reply, dotted=report.dotted, rules=rules)
    shared = report.reply if report.reply is not None else Reply(0, "", report.fault)
    answers: tuple[Reply | None, ...] = report.recipients or (None,) * len(trial.recipients)
    fates = []
    for recipient, answer in zip(trial.recipients, answers, strict=True):
        if answer is not None and not answer.positive:
            outcome, reply, stage = classify(Stage.RCPT, answer, rules=rules), answer, Stage.RCPT
        else:
            outcome, reply, stage = end, shared, report.stage
        fates.append(RecipientFate(recipient, _fate(outcome), reply, outcome, stage))
    return tuple(fates)


def _fate(outcome: Outcome) -> Fate:
    if outcome.verdict is Verdict.ACCEPT:
        return Fate.ACCEPTED
    if outcome.verdict is Verdict.DOUBT:
        return Fate.DOUBT
    # A fault beyond the message never bounces it, however permanent it sounds.
    if outcome.verdict is Verdict.BOUNCE and outcome.scope in (Scope.MESSAGE, Scope.RECIPIENT):
        return Fate.BOUNCED
    return Fate.DEFERRED
