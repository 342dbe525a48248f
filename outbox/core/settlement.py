"""What becomes of a message after an attempt: the whole delivery policy, as one function of its arguments.

    attempt's trials ──fates──► one fate a recipient ──decide──► Settlement: state, due time, pause, what to record

Only `decide` decides. It is told what the relay did (reports), never asks, and never raises for it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from outbox.core.backoff import wait
from outbox.core.brake import Streaks, signature_of
from outbox.core.fate import SETTLED_FATES as SETTLED_FATES
from outbox.core.fate import Fate as Fate
from outbox.core.fate import RecipientFate as RecipientFate
from outbox.core.fate import Trial as Trial
from outbox.core.fate import fates_of as fates_of
from outbox.core.lifecycle import State
from outbox.core.outcome import Outcome, Scope, Stage
from outbox.core.pause import Pause as Pause
from outbox.core.pause import Probe, Probed, pause_for, probed
from outbox.core.policy import Policy as Policy
from outbox.core.record import record
from outbox.core.reply import Reply


class Result(StrEnum):
    """How an attempt ended, as `outbox_attempt.outcome` says it."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    DOUBT = "doubt"
    LOST = "lost"
    RELINQUISHED = "relinquished"
    PAUSED = "paused"


@record
class Claim:
    """A message that a runner holds: the narrow row of `outbox_delivery` as the claim returned it. `claim_no` is
    the fence. `probe`: what this message tries for all the others, where something is half-open.
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
    probe: Probe | None = None

    def is_late(self, now: datetime) -> bool:
        """Its time is over: it must not reach anybody any more."""
        return self.expires_at is not None and self.expires_at <= now


@record
class Settlement:
    """What is written, fenced by `claim_no`, in one transaction: the delivery, its attempt, its recipients, a pause,
    and what a probe has shown.

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
    probed: Probed | None = None


class Sent(NamedTuple):
    """How a message was sent: to which relay (``host[address]:port``), over which TLS, through which account with
    which version of its credentials, which bytes, and when its latest dot mark was committed.
    """

    relay: str = ""
    tls: str = ""
    sha256: str = ""
    account: str = ""
    credential_version: int = 0
    dot_at: datetime | None = None


NOT_SENT = Sent()


@record
class Attempt:
    """Everything `decide` needs to know about an attempt that reached the relay, or tried to.

    fates           of the recipients tried in it, over all its transactions
    committed       how many of those an earlier dot mark of this attempt has already written
    untried         how many recipients were not reached
    bounced_before  how many earlier attempts had seen refused for good
    sent            how it was sent, for the record
    """

    claim: Claim
    fates: tuple[RecipientFate, ...]
    committed: int = 0
    untried: int = 0
    bounced_before: int = 0
    sent: Sent = NOT_SENT

    @property
    def is_accepted(self) -> bool:
        """By everybody it was still for: as almost every mail."""
        if self.untried:
            return False
        for each in self.fates:  # noqa: SIM110 -- a generator would cost more than the question
            if each.fate is not Fate.ACCEPTED:
                return False
        return True

    @property
    def deciding(self) -> RecipientFate:
        """The fate that explains the attempt: the worst, and of those the first."""
        return self.fates[0] if len(self.fates) == 1 else min(self.fates, key=lambda each: _WORST.index(each.fate))

    @property
    def left(self) -> int:
        return self.untried + sum(each.fate not in SETTLED_FATES for each in self.fates)

    @property
    def bounced(self) -> int:
        return self.bounced_before + sum(each.fate is Fate.BOUNCED for each in self.fates)


NO_STREAKS = Streaks()

_WORST = (Fate.DOUBT, Fate.DEFERRED, Fate.BOUNCED, Fate.ACCEPTED, Fate.PENDING)

_RESULT = {
    Fate.ACCEPTED: Result.ACCEPTED,
    Fate.BOUNCED: Result.BOUNCED,
    Fate.DEFERRED: Result.DEFERRED,
    Fate.DOUBT: Result.DOUBT,
}


def decide(attempt: Attempt, policy: Policy, now: datetime, jitter: float, streaks: Streaks = NO_STREAKS) -> Settlement:
    """The whole delivery policy. `jitter` is uniform in −1…1; `now` is aware; `streaks` are those before this attempt.

    - one more that is refused like those before it: back to the queue, uncounted, and a pause (`outbox.core.brake`);
      it fails all the same when it is older than `max_age`, or one that is refused alike for ever would never end
    - nobody left to try: sent, or failed when somebody was refused
    - a doubt: try again after `doubt_delay`, or hold, as `on_doubt` and `max_doubts` say
    - a fault of the account, the sender or the relay: back to the queue, uncounted, and a pause; but it waits for its
      age, and expires, where its content may have been what the relay closes the connection for
    - otherwise the message waits for its age, and expires when it is older than `max_age`

    Whatever would go back to the queue after its `expires_at` expires.
    """
    if attempt.is_accepted:
        state = State.FAILED if attempt.bounced_before else State.SENT
        return _settle(attempt, state, now=now, pause=None, streaks=streaks)
    brake, age = _brake(attempt, policy, streaks), now - (attempt.claim.first_attempt_at or now)
    if brake is not None and age >= policy.max_age:
        brake = replace(brake, failed=(*brake.failed, attempt.claim.message_id))
    elif brake is not None:
        attempt = replace(attempt, fates=tuple(_spared(each) for each in attempt.fates))
    pause = brake or pause_for(attempt.fates, policy)
    settled = partial(_settle, attempt, now=now, pause=pause, streaks=streaks)
    if attempt.left == 0:
        return settled(State.FAILED if attempt.bounced else State.SENT)
    if any(each.fate is Fate.DOUBT for each in attempt.fates):
        if holds(attempt.claim.on_doubt, attempt.claim.doubts, policy.max_doubts):
            return settled(State.HELD, doubted=True, hold_reason=DOUBT_HELD)
        return settled(State.QUEUED, doubted=True, due_at=now + policy.doubt_delay)
    if pause is not None and not (pause.ages and age >= policy.max_age):
        # The pause keeps the message back. A relay that has not tripped its breaker yet does not, so the message waits
        # a little; and a braked one lets the others go first, so that the next probe is another message.
        later = age if pause.ages else timedelta(0) if pause.scope is Scope.RELAY else None
        due = None if later is None else now + max(pause.at_least, wait(later, policy.floor, policy.ceiling, jitter))
        return settled(State.QUEUED, result=Result.PAUSED, due_at=due)
    if all(each.fate in SETTLED_FATES for each in attempt.fates):
        # A stop came between two parts: nobody who was tried is left, and the others were not.
        return settled(State.QUEUED)
    if age >= policy.max_age:
        return settled(State.EXPIRED, failures=attempt.claim.failures + 1)
    asked = max(_asked(each.outcome, policy) for each in attempt.fates if each.fate is Fate.DEFERRED)
    due = now + max(asked, wait(age, policy.floor, policy.ceiling, jitter))
    return settled(State.QUEUED, failures=attempt.claim.failures + 1, due_at=due)


def _asked(outcome: Outcome, policy: Policy) -> timedelta:
    """How long to leave it alone: what the relay asks for, within our longest wait; what an operator's rule says."""
    return outcome.delay if outcome.rule else min(outcome.delay, policy.ceiling)


def _brake(attempt: Attempt, policy: Policy, streaks: Streaks) -> Pause | None:
    """The pause of what this refusal does not fail the message for; None where it does, or it is none."""
    signature = signature_of(attempt.fates)
    found = streaks.brakes(attempt.claim.message_id, signature, policy.brake_after)
    asked = [each for each in attempt.fates if each.stage is not Stage.POLICY]
    if found is None or attempt.committed > len(attempt.fates) - len(asked):
        return None
    scope, streak = found
    reason = f"brake: refused like the messages before it: {asked[0].stage}: {asked[0].reply}"
    return Pause(scope, reason, policy.brake_pauses, asked[0].outcome.delay, signature, streak.failed, ages=True)


def _spared(fate: RecipientFate) -> RecipientFate:
    """Not failed after all; unless it is our own policy that it was not tried."""
    return fate if fate.stage is Stage.POLICY else replace(fate, fate=Fate.DEFERRED)


DOUBT_HELD = "the relay may have accepted it; say which with `outbox resolve ID --sent` or `--resend`"


def holds(on_doubt: str, doubts: int, max_doubts: int) -> bool:
    """Whether one more doubt on top of `doubts` holds the message. The reclaim's SQL says the same."""
    return on_doubt == "hold" or doubts >= max_doubts


def _settle(
    attempt: Attempt,
    state: State,
    *,
    now: datetime,
    pause: Pause | None,
    streaks: Streaks,
    result: Result | None = None,
    due_at: datetime | None = None,
    failures: int | None = None,
    doubted: bool = False,
    hold_reason: str = "",
) -> Settlement:
    deciding, claim = attempt.deciding, attempt.claim
    if state is State.QUEUED and claim.is_late(now) and not doubted:
        state, due_at = State.EXPIRED, None
    return Settlement(
        message_id=claim.message_id,
        claim_no=claim.claim_no,
        state=state,
        result=result or _RESULT[deciding.fate],
        due_at=due_at,
        failures=claim.failures if failures is None else failures,
        doubted=doubted,
        hold_reason=hold_reason,
        stage=deciding.stage,
        reply=deciding.reply,
        fates=attempt.fates[attempt.committed :],
        pause=pause,
        sender=claim.sender,
        relay=attempt.sent.relay,
        tls=attempt.sent.tls,
        sha256=attempt.sent.sha256,
        account=attempt.sent.account,
        credential_version=attempt.sent.credential_version,
        dot_at=attempt.sent.dot_at,
        rule=deciding.outcome.rule,
        probed=probed(claim.probe, attempt.fates, pause, streaks),
    )


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
        probed=_untold(claim),
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
        probed=_untold(claim),
    )


def nothing_left(claim: Claim, *, bounced: bool) -> Settlement:
    """Earlier attempts, one of them late, have settled every recipient: the message is what they made of it."""
    return Settlement(
        message_id=claim.message_id,
        claim_no=claim.claim_no,
        state=State.FAILED if bounced else State.SENT,
        result=Result.RELINQUISHED,
        failures=claim.failures,
        probed=_untold(claim),
    )


def relinquish(claim: Claim) -> Settlement:
    """Give the message back untried: still due, nothing counted."""
    return Settlement(
        message_id=claim.message_id,
        claim_no=claim.claim_no,
        state=State.QUEUED,
        result=Result.RELINQUISHED,
        failures=claim.failures,
        probed=_untold(claim),
    )


def postpone(claim: Claim, until: datetime | None, reason: str) -> Settlement:
    """Give the message back untried, for a limit is used up; nothing counted. None keeps its due time."""
    return replace(relinquish(claim), due_at=until, reply=Reply(0, "", reason))


def _untold(claim: Claim) -> Probed | None:
    """A probe that has told nothing: another message tries."""
    return Probed(claim.probe) if claim.probe is not None else None
