"""What becomes of a message: the delivery policy, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.lifecycle import FINAL, State
from outbox.core.message import Recipient
from outbox.core.outcome import Report, Scope, Stage
from outbox.core.reply import Reply
from outbox.core.settlement import (
    Attempt,
    Claim,
    Fate,
    Policy,
    Result,
    Settlement,
    Trial,
    decide,
    expire,
    fates_of,
    refuse,
    relinquish,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
POLICY = Policy()
CLAIM = Claim(7, 1, "shop@example.com")
ANN, BOB, CARL = (Recipient(place, f"{name}@example.net", "to") for place, name in enumerate(("ann", "bob", "carl")))
OK = Reply(250, "2.1.5", "ok")
QUEUED = Reply(250, "2.0.0", "queued as 4X")
UNKNOWN = Reply(550, "5.1.1", "no such user")
GREY = Reply(450, "4.2.0", "greylisted")


def settle(*trials: Trial, claim: Claim = CLAIM, untried: int = 0, bounced_before: int = 0) -> Settlement:
    fates = tuple(fate for trial in trials for fate in fates_of(trial))
    attempt = Attempt(claim, fates, untried=untried, bounced_before=bounced_before)
    return decide(attempt, POLICY, NOW, 0.0)


def answered(reply: Reply, *rcpt: Reply) -> Trial:
    """A transaction whose dot was answered."""
    recipients = (ANN, BOB, CARL)[: len(rcpt)]
    return Trial(recipients, Report(Stage.DOT, reply, recipients=rcpt, dotted=True))


def ended(stage: Stage, reply: Reply | None, recipients: tuple[Recipient, ...] = (ANN,)) -> Trial:
    return Trial(recipients, Report(stage, reply))


def fates(settlement: Settlement) -> list[Fate]:
    return [each.fate for each in settlement.fates]


def test_accepted_by_all_is_sent() -> None:
    settlement = settle(answered(QUEUED, OK, OK))
    assert (settlement.state, settlement.result) == (State.SENT, Result.ACCEPTED)
    assert [each.reply for each in settlement.fates] == [QUEUED, QUEUED]
    assert settlement.pause is None


def test_one_refused_recipient_does_not_sink_the_others() -> None:
    settlement = settle(answered(QUEUED, OK, UNKNOWN))
    assert (settlement.state, settlement.result) == (State.FAILED, Result.BOUNCED)
    assert fates(settlement) == [Fate.ACCEPTED, Fate.BOUNCED]
    assert settlement.reply == UNKNOWN


def test_a_deferred_recipient_is_tried_again_alone() -> None:
    settlement = settle(answered(QUEUED, OK, GREY))
    assert (settlement.state, settlement.result, settlement.failures) == (State.QUEUED, Result.DEFERRED, 1)
    assert fates(settlement) == [Fate.ACCEPTED, Fate.DEFERRED]
    assert settlement.due_at == NOW + timedelta(minutes=5)


def test_a_message_that_had_a_refusal_before_ends_failed_when_the_rest_is_accepted() -> None:
    assert settle(answered(QUEUED, OK), bounced_before=1).state is State.FAILED


def test_the_wait_is_the_age() -> None:
    claim = replace(CLAIM, first_attempt_at=NOW - timedelta(minutes=30), failures=5)
    settlement = settle(ended(Stage.DATA, Reply(451, "4.3.0", "later")), claim=claim)
    assert (settlement.due_at, settlement.failures) == (NOW + timedelta(minutes=30), 6)


def test_we_give_up_by_age() -> None:
    claim = replace(CLAIM, first_attempt_at=NOW - POLICY.max_age)
    settlement = settle(ended(Stage.RCPT, GREY), claim=claim)
    assert settlement.state is State.EXPIRED
    assert settlement.reply == GREY


@pytest.mark.parametrize(
    ("stage", "reply", "scope"),
    [
        (Stage.CONNECT, None, Scope.RELAY),
        (Stage.BANNER, Reply(554, "", "no"), Scope.RELAY),
        (Stage.TLS, None, Scope.RELAY),
        (Stage.AUTH, Reply(535, "5.7.8", "no"), Scope.ACCOUNT),
        (Stage.MAIL, Reply(553, "5.7.1", "not owned"), Scope.SENDER),
        (Stage.DATA, Reply(421, "4.3.2", "bye"), Scope.RELAY),
        (Stage.LOCAL, Reply(554, "5.7.8", "does not open"), Scope.ACCOUNT),
    ],
)
def test_a_fault_beyond_the_message_pauses_and_does_not_count(stage: Stage, reply: Reply | None, scope: Scope) -> None:
    claim = replace(CLAIM, first_attempt_at=NOW - 2 * POLICY.max_age, failures=3)
    settlement = settle(ended(stage, reply), claim=claim)
    assert (settlement.state, settlement.result, settlement.failures) == (State.QUEUED, Result.PAUSED, 3)
    assert settlement.pause is not None
    assert settlement.pause.scope is scope
    assert str(stage) in settlement.pause.reason


def test_a_relay_fault_keeps_the_message_back_a_little_until_the_breaker_trips() -> None:
    assert settle(ended(Stage.CONNECT, None)).due_at == NOW + POLICY.floor
    assert settle(ended(Stage.AUTH, Reply(535))).due_at is None


def silent(claim: Claim = CLAIM, *rcpt: Reply) -> Settlement:
    recipients = (ANN, BOB, CARL)[: len(rcpt) or 1]
    report = Report(Stage.DOT, None, "timeout after 600 s", recipients=rcpt or (OK,), dotted=True)
    return settle(Trial(recipients, report), claim=claim)


def test_silence_after_the_dot_is_a_doubt_and_tried_again_later() -> None:
    settlement = silent()
    assert (settlement.state, settlement.result, settlement.doubted) == (State.QUEUED, Result.DOUBT, True)
    assert settlement.due_at == NOW + POLICY.doubt_delay
    assert settlement.failures == 0
    assert settlement.reply is not None
    assert "timeout" in settlement.reply.text


def test_only_those_whose_rcpt_was_accepted_are_in_doubt() -> None:
    assert fates(silent(CLAIM, OK, UNKNOWN, GREY)) == [Fate.DOUBT, Fate.BOUNCED, Fate.DEFERRED]


def test_a_doubt_holds_a_message_that_says_so() -> None:
    settlement = silent(replace(CLAIM, on_doubt="hold"))
    assert (settlement.state, settlement.doubted) == (State.HELD, True)
    assert "resolve" in settlement.hold_reason


@pytest.mark.parametrize(("doubts", "state"), [(0, State.QUEUED), (2, State.QUEUED), (3, State.HELD)])
def test_too_many_doubts_hold_any_message(doubts: int, state: State) -> None:
    assert silent(replace(CLAIM, doubts=doubts)).state is state


def test_a_doubt_about_one_part_keeps_what_the_other_part_is_sure_of() -> None:
    sure = Trial((ANN,), Report(Stage.DOT, QUEUED, recipients=(OK,), dotted=True))
    unsure = Trial((BOB,), Report(Stage.DOT, None, "closed", recipients=(OK,), dotted=True))
    assert fates(settle(sure, unsure)) == [Fate.ACCEPTED, Fate.DOUBT]


def test_recipients_that_were_not_reached_keep_the_message_in_the_queue() -> None:
    first = Trial((ANN,), Report(Stage.DOT, QUEUED, recipients=(OK,), dotted=True))
    gone = Trial((BOB,), Report(Stage.MAIL, Reply(421, "4.3.2", "bye")))
    settlement = settle(first, gone, untried=5)
    assert settlement.state is State.QUEUED
    assert settlement.pause is not None


def test_a_stop_between_two_parts_counts_nothing_and_delays_nobody() -> None:
    settlement = settle(answered(QUEUED, OK), untried=5)
    assert (settlement.state, settlement.failures, settlement.due_at) == (State.QUEUED, 0, None)


def test_fates_that_a_dot_mark_has_written_are_not_written_again() -> None:
    trials = [Trial((each,), Report(Stage.DOT, QUEUED, recipients=(OK,), dotted=True)) for each in (ANN, BOB)]
    everyone = tuple(fate for trial in trials for fate in fates_of(trial))
    settlement = decide(Attempt(CLAIM, everyone, committed=1), POLICY, NOW, 0.0)
    assert settlement.state is State.SENT
    assert [each.recipient for each in settlement.fates] == [BOB]


def test_a_refusal_of_ours_fails_the_message_with_its_reason() -> None:
    settlement = refuse(CLAIM, Stage.POLICY, "5.7.1", "sender not registered")
    assert (settlement.state, settlement.result, settlement.failures) == (State.FAILED, Result.BOUNCED, 0)
    assert settlement.reply == Reply(0, "5.7.1", "sender not registered")


def test_to_relinquish_is_to_change_nothing() -> None:
    settlement = relinquish(replace(CLAIM, failures=4))
    assert (settlement.state, settlement.failures, settlement.due_at) == (State.QUEUED, 4, None)
    assert settlement.reply is None


def test_an_expired_claim_ends_untried() -> None:
    assert (expire(CLAIM).state, expire(CLAIM).result) == (State.EXPIRED, Result.RELINQUISHED)


codes = st.sampled_from([250, 251, 354, 421, 432, 450, 451, 452, 454, 500, 503, 530, 535, 550, 552, 553, 554])
replies = st.builds(Reply, codes, st.just(""), st.just("words"))
sessions = [stage for stage in Stage if stage not in (Stage.RENDER, Stage.POLICY, Stage.RSET, Stage.QUIT)]


@st.composite
def trials(draw: st.DrawFn) -> Trial:
    stage = draw(st.sampled_from(sessions))
    reply = draw(st.none() | replies)
    rcpt = draw(st.tuples(replies, replies, replies))
    return Trial((ANN, BOB, CARL), Report(stage, reply, "gone" if reply is None else "", rcpt, stage is Stage.DOT))


@given(
    trials(),
    st.integers(0, 5),
    st.sampled_from(["retry", "hold"]),
    st.floats(-1, 1),
    st.timedeltas(timedelta(0), timedelta(days=9)),
)
def test_whatever_happens_the_settlement_makes_sense(
    trial: Trial, doubts: int, on_doubt: str, jitter: float, age: timedelta
) -> None:
    claim = replace(CLAIM, doubts=doubts, on_doubt=on_doubt, first_attempt_at=NOW - age)
    attempt = Attempt(claim, fates_of(trial))
    settlement = decide(attempt, POLICY, NOW, jitter)
    known = fates(settlement)
    assert (settlement.state is State.SENT) == (set(known) == {Fate.ACCEPTED})
    assert settlement.doubted == (Fate.DOUBT in known)
    if Fate.ACCEPTED in known:
        assert trial.report.reply is not None
        assert trial.report.reply.positive
        assert trial.report.dotted
    if settlement.state in FINAL and settlement.state is not State.EXPIRED:
        assert not {Fate.DEFERRED, Fate.DOUBT} & set(known)
    if settlement.pause is not None:
        assert settlement.failures == claim.failures
    if settlement.state is State.QUEUED and settlement.due_at is not None:
        assert settlement.due_at > NOW
