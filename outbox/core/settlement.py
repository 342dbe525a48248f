"""What becomes of a message after an attempt: the whole delivery policy, as one function of its arguments.

    attempt's trials ──fates──► one fate a recipient ──decide──► Settlement: state, due time, pause, what to record

Only `decide` decides. It is told what the relay did (reports), never asks, and never raises for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial

from outbox.core.backoff import wait
from outbox.core.judge import classify
from outbox.core.lifecycle import State
from outbox.core.message import Recipient
from outbox.core.outcome import Outcome, Report, Scope, Stage, Verdict
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


class Result(StrEnum):
    """How an attempt ended, as `outbox_attempt.outcome` says it."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    DOUBT = "doubt"
    LOST = "lost"
    RELINQUISHED = "relinquished"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Policy:
    """The knobs of the delivery policy, with their defaults."""

    floor: timedelta = timedelta(minutes=1)
    ceiling: timedelta = timedelta(hours=4)
    max_age: timedelta = timedelta(days=2)
    max_doubts: int = 3
    doubt_delay: timedelta = timedelta(minutes=15)
    auth_pause: timedelta = timedelta(hours=1)
    throttle_pause: timedelta = timedelta(minutes=15)
    sender_pause: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Claim:
    """A message that a runner holds: the narrow row of `outbox_delivery` as the claim returned it. `claim_no` is
    the fence.
    """

    message_id: int
    claim_no: int
    sender: str
    priority: int = 5
    failures: int = 0
    doubts: int = 0
    crashes: int = 0
    on_doubt: str = "retry"
    expires_at: datetime | None = None
    first_attempt_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One SMTP transaction of an attempt: whom it was for, and what happened."""

    recipients: tuple[Recipient, ...]
    report: Report


@dataclass(frozen=True, slots=True)
class RecipientFate:
    recipient: Recipient
    fate: Fate
    reply: Reply | None
    outcome: Outcome
    stage: Stage


@dataclass(frozen=True, slots=True)
class Pause:
    """A fault that reaches beyond the message. SENDER and ACCOUNT are paused until `until`; a RELAY fault counts
    in its breaker.
    """

    scope: Scope
    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is written, fenced by `claim_no`, in one transaction: the delivery, its attempt, its recipients, and a
    pause.

    `fates` holds only what an earlier dot mark of the same attempt has not already committed.
    """

    message_id: int
    claim_no: int
    state: State
    result: Result
    due_at: datetime | None = None
    failures: int = 0
    doubted: bool = False
    hold_reason: str = ""
    stage: Stage | None = None
    reply: Reply | None = None
    fates: tuple[RecipientFate, ...] = ()
    pause: Pause | None = None
    sender: str = ""
    relay: str = ""
    tls: str = ""
    sha256: str = ""
    account: str = ""
    credential_version: int = 0
    dot_at: datetime | None = None
    rule: int = 0


def fates_of(trial: Trial, rules: Rules = ()) -> tuple[RecipientFate, ...]:
    """The fate of every recipient of one transaction. A refused RCPT keeps its own reply; the others share the end
    of the transaction.
    """
    report = trial.report
    end = classify(report.stage, report.reply, dotted=report.dotted, rules=rules)
    if end.verdict is Verdict.ACCEPT and not report.dotted:
        end = Outcome(Verdict.DEFER, Scope.MESSAGE)  # `sent` is a 2xx to the dot, and nothing else
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


@dataclass(frozen=True, slots=True)
class Attempt:
    """Everything `decide` needs to know about an attempt that reached the relay, or tried to.

    fates           of the recipients tried in it, over all its transactions
    committed       how many of those an earlier dot mark of this attempt has already written
    untried         how many recipients were not reached
    bounced_before  how many earlier attempts had seen refused for good
    """

    claim: Claim
    fates: tuple[RecipientFate, ...]
    committed: int = 0
    untried: int = 0
    bounced_before: int = 0

    @property
    def deciding(self) -> RecipientFate:
        """The fate that explains the attempt: the worst, and of those the first."""
        return min(self.fates, key=lambda each: _WORST.index(each.fate))

    @property
    def left(self) -> int:
        return self.untried + sum(each.fate not in SETTLED_FATES for each in self.fates)

    @property
    def bounced(self) -> int:
        return self.bounced_before + sum(each.fate is Fate.BOUNCED for each in self.fates)


_WORST = (Fate.DOUBT, Fate.DEFERRED, Fate.BOUNCED, Fate.ACCEPTED, Fate.PENDING)

_RESULT = {
    Fate.ACCEPTED: Result.ACCEPTED,
    Fate.BOUNCED: Result.BOUNCED,
    Fate.DEFERRED: Result.DEFERRED,
    Fate.DOUBT: Result.DOUBT,
}


def decide(attempt: Attempt, policy: Policy, now: datetime, jitter: float) -> Settlement:
    """The whole delivery policy. `jitter` is uniform in −1…1; `now` is aware.

    - nobody left to try: sent, or failed when somebody was refused
    - a doubt: try again after `doubt_delay`, or hold, as `on_doubt` and `max_doubts` say
    - a fault of the account, the sender or the relay: back to the queue, uncounted, and a pause
    - otherwise the message waits for its age, and expires when it is older than `max_age`
    """
    pause = _pause(attempt.fates, policy, now)
    settled = partial(_settle, attempt, pause=pause)
    if attempt.left == 0:
        return settled(State.FAILED if attempt.bounced else State.SENT)
    if any(each.fate is Fate.DOUBT for each in attempt.fates):
        if holds(attempt.claim.on_doubt, attempt.claim.doubts, policy.max_doubts):
            return settled(State.HELD, doubted=True, hold_reason=DOUBT_HELD)
        return settled(State.QUEUED, doubted=True, due_at=now + policy.doubt_delay)
    if pause is not None:
        # The pause keeps the message back; a relay that has not tripped its breaker yet does not, so the message
        # waits a little.
        later = now + wait(timedelta(0), policy.floor, policy.ceiling, jitter) if pause.scope is Scope.RELAY else None
        return settled(State.QUEUED, result=Result.PAUSED, due_at=later)
    if all(each.fate in SETTLED_FATES for each in attempt.fates):
        # A stop came between two parts: nobody who was tried is left, and the others were not.
        return settled(State.QUEUED)
    age = now - (attempt.claim.first_attempt_at or now)
    if age >= policy.max_age:
        return settled(State.EXPIRED, failures=attempt.claim.failures + 1)
    due = now + wait(age, policy.floor, policy.ceiling, jitter)
    return settled(State.QUEUED, failures=attempt.claim.failures + 1, due_at=due)


DOUBT_HELD = "the relay may have accepted it; say which with `outbox resolve ID --sent` or `--resend`"


def holds(on_doubt: str, doubts: int, max_doubts: int) -> bool:
    """Whether one more doubt on top of `doubts` holds the message. The reclaim's SQL says the same."""
    return on_doubt == "hold" or doubts >= max_doubts


def _settle(
    attempt: Attempt,
    state: State,
    *,
    pause: Pause | None,
    result: Result | None = None,
    due_at: datetime | None = None,
    failures: int | None = None,
    doubted: bool = False,
    hold_reason: str = "",
) -> Settlement:
    deciding = attempt.deciding
    return Settlement(
        message_id=attempt.claim.message_id,
        claim_no=attempt.claim.claim_no,
        state=state,
        result=result or _RESULT[deciding.fate],
        due_at=due_at,
        failures=attempt.claim.failures if failures is None else failures,
        doubted=doubted,
        hold_reason=hold_reason,
        stage=deciding.stage,
        reply=deciding.reply,
        fates=attempt.fates[attempt.committed :],
        pause=pause,
        sender=attempt.claim.sender,
        rule=deciding.outcome.rule,
    )


def _pause(fates: Sequence[RecipientFate], policy: Policy, now: datetime) -> Pause | None:
    """The widest fault among the fates, as a pause; None when all of them are the message's own."""
    for scope in (Scope.RELAY, Scope.ACCOUNT, Scope.SENDER):
        for each in fates:
            if each.outcome.scope is scope and each.outcome.verdict is not Verdict.ACCEPT:
                reason = f"{each.stage}: {each.reply}"
                return Pause(scope, reason, _until(each.outcome, policy, now))
    return None


def _until(outcome: Outcome, policy: Policy, now: datetime) -> datetime | None:
    if outcome.scope is Scope.RELAY:
        return None
    if outcome.scope is Scope.SENDER:
        return now + policy.sender_pause
    return now + (policy.auth_pause if outcome.verdict is Verdict.BOUNCE else policy.throttle_pause)


def refuse(claim: Claim, stage: Stage, status: str, reason: str) -> Settlement:
    """This message fails without having met a relay: it cannot be composed, or its sender is not registered."""
    return Settlement(
        message_id=claim.message_id,
        claim_no=claim.claim_no,
        state=State.FAILED,
        result=Result.BOUNCED,
        failures=claim.failures,
        stage=stage,
        reply=Reply(0, status, reason),
    )


def expire(claim: Claim) -> Settlement:
    """The message was claimed after its `expires_at`: it ends untried, with the reply of its last attempt still
    beside it.
    """
    return Settlement(
        message_id=claim.message_id,
        claim_no=claim.claim_no,
        state=State.EXPIRED,
        result=Result.RELINQUISHED,
        failures=claim.failures,
    )


def nothing_left(claim: Claim, *, bounced: bool) -> Settlement:
    """Earlier attempts, one of them late, have settled every recipient: the message is what they made of it."""
    return Settlement(
        message_id=claim.message_id,
        claim_no=claim.claim_no,
        state=State.FAILED if bounced else State.SENT,
        result=Result.RELINQUISHED,
        failures=claim.failures,
    )


def relinquish(claim: Claim) -> Settlement:
    """Give the message back untried: still due, nothing counted."""
    return Settlement(
        message_id=claim.message_id,
        claim_no=claim.claim_no,
        state=State.QUEUED,
        result=Result.RELINQUISHED,
        failures=claim.failures,
    )
