"""Pauses, brakes, probes and the end of a message's time, as `decide` sees them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from outbox.core.brake import Streak, Streaks
from outbox.core.lifecycle import State
from outbox.core.outcome import Scope, Stage
from outbox.core.pause import Probe, Probed, Subject
from outbox.core.reply import Reply
from outbox.core.settlement import (
    Attempt,
    Claim,
    Fate,
    Result,
    Settlement,
    Trial,
    decide,
    expire,
    fates_of,
    nothing_left,
    refuse,
    relinquish,
)
from outbox.core.suppression import Suppression, withheld
from tests.core.test_settlement import (
    CARL,
    CLAIM,
    GREY,
    NOW,
    OK,
    POLICY,
    QUEUED,
    UNKNOWN,
    answered,
    ended,
    fates,
    settle,
    silent,
)

# ---- how long a pause lasts


MINUTES = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("stage", "reply", "schedule", "at_least"),
    [
        (Stage.AUTH, Reply(535, "5.7.8", "no"), POLICY.auth_pauses, 0),
        (Stage.LOCAL, Reply(554, "5.7.8", "does not open"), POLICY.auth_pauses, 0),
        (Stage.MAIL, Reply(530, "5.7.57", "not authenticated"), POLICY.auth_pauses, 0),
        (Stage.AUTH, Reply(454, "4.7.0", "temporary failure"), POLICY.throttle_pauses, 15),
        (Stage.AUTH, Reply(432, "4.3.2", "too many connections"), POLICY.throttle_pauses, 15),
        (Stage.MAIL, Reply(432, "4.3.2", "too many connections"), POLICY.throttle_pauses, 0),
        (Stage.MAIL, Reply(553, "5.7.1", "not owned"), POLICY.sender_pauses, 0),
    ],
)
def test_a_pause_has_the_schedule_of_its_fault(
    stage: Stage, reply: Reply, schedule: tuple[timedelta, ...], at_least: int
) -> None:
    pause = settle(ended(stage, reply)).pause
    assert pause is not None
    assert pause.schedule == schedule
    assert pause.at_least >= at_least * MINUTES
    assert pause.lasting(0) == max(schedule[0], pause.at_least)
    assert pause.lasting(99) == max(schedule[-1], pause.at_least)


def delayed(stage: Stage, reply: Reply, delay: timedelta) -> Settlement:
    fates = tuple(replace(each, outcome=replace(each.outcome, delay=delay)) for each in fates_of(ended(stage, reply)))
    return decide(Attempt(CLAIM, fates), POLICY, NOW, -1.0)


def test_what_the_relay_asks_for_is_waited_for() -> None:
    assert delayed(Stage.RCPT, GREY, 5 * MINUTES).due_at == NOW + 5 * MINUTES
    assert delayed(Stage.RCPT, GREY, timedelta(seconds=1)).due_at == NOW + 0.8 * POLICY.floor
    throttled = delayed(Stage.MAIL, Reply(432, "4.3.2", "too many connections"), 7 * MINUTES).pause
    assert throttled is not None
    assert throttled.lasting(0) == 7 * MINUTES
    assert delayed(Stage.CONNECT, Reply(421, "4.3.2", "bye"), 7 * MINUTES).due_at == NOW + 7 * MINUTES


# ---- the brake


SPAM = Reply(554, "5.7.1", "message content rejected")
TWO = Streak("dot 554 5.7.1", (1, 2))


def braking(*trials: Trial, streaks: Streaks, claim: Claim = CLAIM, committed: int = 0) -> Settlement:
    fates = tuple(fate for trial in trials for fate in fates_of(trial))
    return decide(Attempt(claim, fates, committed), POLICY, NOW, 0.0, streaks)


def test_the_third_message_that_is_refused_alike_goes_back_to_the_queue() -> None:
    settlement = braking(answered(SPAM, OK, OK), streaks=Streaks(TWO, TWO))
    assert (settlement.state, settlement.result, settlement.failures) == (State.QUEUED, Result.PAUSED, 0)
    assert fates(settlement) == [Fate.DEFERRED, Fate.DEFERRED]
    assert settlement.due_at == NOW + POLICY.floor, "the next probe is another message"
    pause = settlement.pause
    assert pause is not None
    assert (pause.scope, pause.brake, pause.failed) == (Scope.ACCOUNT, "dot 554 5.7.1", (1, 2))
    assert pause.schedule == POLICY.brake_pauses
    assert pause.reason.startswith("brake: ")
    assert "dot: 554 5.7.1 message content rejected" in pause.reason


def test_a_recipient_that_our_policy_withheld_does_not_keep_the_brake_from_working() -> None:
    withheld_fate = withheld(CARL, Suppression("carl@example.net", "asked"))
    refused = fates_of(answered(SPAM, OK, OK))
    for committed in (0, 1):  # by the dot mark of the one transaction
        attempt = Attempt(CLAIM, (withheld_fate, *refused), committed=committed)
        settlement = decide(attempt, POLICY, NOW, 0.0, Streaks(TWO, TWO))
        assert (settlement.state, settlement.result) == (State.QUEUED, Result.PAUSED)
        assert fates(settlement) == [Fate.BOUNCED, Fate.DEFERRED, Fate.DEFERRED][committed:]
        assert settlement.pause is not None
        assert "dot: 554 5.7.1 message content rejected" in settlement.pause.reason
    only = decide(Attempt(CLAIM, (withheld_fate,)), POLICY, NOW, 0.0, Streaks(TWO, TWO))
    assert (only.state, only.pause) == (State.FAILED, None)


def test_where_others_mail_gets_through_only_the_sender_is_braked() -> None:
    pause = braking(answered(SPAM, OK), streaks=Streaks(Streak(), TWO)).pause
    assert pause is not None
    assert pause.scope is Scope.SENDER


@pytest.mark.parametrize(
    ("trial", "streaks"),
    [
        (answered(SPAM, OK), Streaks()),
        (answered(SPAM, OK), Streaks(replace(TWO, failed=(1, 7)), Streak())),
        (answered(Reply(552, "5.2.0", "no"), OK), Streaks(TWO, TWO)),
        (answered(SPAM, OK, UNKNOWN), Streaks(TWO, TWO)),
    ],
    ids=["the first", "itself before", "another refusal", "a recipient's own"],
)
def test_anything_else_fails_as_ever(trial: Trial, streaks: Streaks) -> None:
    settlement = braking(trial, streaks=streaks)
    assert (settlement.state, settlement.pause) == (State.FAILED, None)


def test_a_brake_that_is_on_spares_whatever_gets_the_same() -> None:
    settlement = braking(answered(SPAM, OK), streaks=Streaks(Streak("dot 554 5.7.1", braked=True)))
    assert settlement.state is State.QUEUED
    claim = replace(CLAIM, first_attempt_at=NOW - timedelta(minutes=30))
    later = braking(answered(SPAM, OK), streaks=Streaks(TWO), claim=claim)
    assert later.due_at == NOW + timedelta(minutes=30)


def test_what_is_refused_alike_for_longer_than_its_age_fails_and_the_brake_stays_on() -> None:
    for younger, state in ((timedelta(milliseconds=1), State.QUEUED), (timedelta(0), State.FAILED)):
        claim = replace(CLAIM, first_attempt_at=NOW - POLICY.max_age + younger)
        settlement = braking(answered(SPAM, OK, OK), streaks=Streaks(replace(TWO, braked=True)), claim=claim)
        assert settlement.state is state
        assert settlement.pause is not None
        assert settlement.pause.brake == "dot 554 5.7.1"
        assert settlement.pause.failed == ((1, 2, CLAIM.message_id) if state is State.FAILED else (1, 2))
        assert fates(settlement) == [Fate.BOUNCED if state is State.FAILED else Fate.DEFERRED] * 2


def test_without_a_brake_every_message_fails() -> None:
    attempt = Attempt(CLAIM, fates_of(answered(SPAM, OK)))
    assert decide(attempt, replace(POLICY, brake_after=0), NOW, 0.0, Streaks(TWO, TWO)).state is State.FAILED


# ---- its time


@pytest.mark.parametrize("reply", [Reply(421, "4.3.0", "bye"), Reply(421, "", "content filter crashed")])
def test_what_closes_every_connection_with_its_content_waits_for_its_age_and_expires(reply: Reply) -> None:
    for age, state in ((timedelta(hours=1), State.QUEUED), (POLICY.max_age, State.EXPIRED)):
        claim = replace(CLAIM, first_attempt_at=NOW - age)
        settlement = settle(answered(reply, OK), claim=claim)
        assert settlement.state is state
        assert settlement.due_at == (NOW + age if state is State.QUEUED else None)
        assert settlement.pause is not None
        assert settlement.pause.scope is Scope.RELAY
        earlier = settle(ended(Stage.RCPT, reply), claim=claim)
        assert (earlier.state, earlier.due_at) == (State.QUEUED, NOW + POLICY.floor), "nobody has seen its content"


def test_what_would_come_back_after_its_time_expires() -> None:
    for expires_at, state in ((NOW, State.EXPIRED), (NOW + timedelta(milliseconds=1), State.QUEUED)):
        claim = replace(CLAIM, expires_at=expires_at)
        for trial in (ended(Stage.RCPT, GREY), ended(Stage.CONNECT, None), ended(Stage.AUTH, Reply(535))):
            settlement = settle(trial, claim=claim)
            assert settlement.state is state
            assert settlement.reply is not None
        braked = braking(answered(SPAM, OK), streaks=Streaks(TWO), claim=claim)
        assert (braked.state, braked.pause is None) == (state, False)
    late = replace(CLAIM, expires_at=NOW)
    assert settle(answered(QUEUED, OK), claim=late).state is State.SENT
    assert silent(late).state is State.QUEUED


# ---- what a probe has shown


THE_RELAY, THE_ACCOUNT = Subject(Scope.RELAY, "smtp.example.com", 587), Subject(Scope.ACCOUNT, "main")
THE_SENDER = Subject(Scope.SENDER, "shop@example.com")
PROBE = Probe((THE_RELAY, THE_ACCOUNT, THE_SENDER), NOW + timedelta(minutes=5))
PROBING = replace(CLAIM, probe=PROBE)


@pytest.mark.parametrize(
    ("trial", "recovered"),
    [
        (answered(QUEUED, OK), (THE_RELAY, THE_ACCOUNT, THE_SENDER)),
        (answered(QUEUED, OK, UNKNOWN), (THE_RELAY, THE_ACCOUNT, THE_SENDER)),
        (answered(Reply(451, "4.3.0", "later"), OK), (THE_RELAY, THE_ACCOUNT)),
        (ended(Stage.RCPT, UNKNOWN), (THE_RELAY, THE_ACCOUNT)),
        (ended(Stage.MAIL, None), (THE_RELAY, THE_ACCOUNT)),
        (ended(Stage.MAIL, Reply(553, "5.7.1", "not owned")), (THE_RELAY, THE_ACCOUNT)),
        (ended(Stage.MAIL, Reply(530, "5.7.0", "log in first")), (THE_RELAY,)),
        (ended(Stage.DATA, Reply(421, "4.3.2", "bye")), (THE_ACCOUNT,)),
        (ended(Stage.AUTH, Reply(535, "5.7.8", "no")), ()),
        (ended(Stage.CONNECT, None), ()),
        (ended(Stage.LOCAL, Reply(554, "5.7.8", "does not open")), ()),
    ],
)
def test_a_probe_shows_how_far_the_message_got(trial: Trial, recovered: tuple[Subject, ...]) -> None:
    probed = settle(trial, claim=PROBING).probed
    assert probed is not None
    assert probed.probe == PROBE
    assert set(probed.recovered) == set(recovered)
    assert settle(trial).probed is None


@pytest.mark.parametrize(
    ("trial", "over"),
    [
        (answered(QUEUED, OK), True),
        (answered(Reply(451, "4.7.1", "later"), OK), True),
        (answered(Reply(552, "5.2.0", "another"), OK), True),
        (answered(SPAM, OK), False),
        (ended(Stage.RCPT, UNKNOWN), False),
        (ended(Stage.MAIL, Reply(451, "4.3.0", "later")), False),
    ],
)
def test_a_brake_is_over_when_the_relay_says_something_else(trial: Trial, over: bool) -> None:
    on = Streak("dot 554 5.7.1", braked=True)
    for subject, streaks in ((THE_ACCOUNT, Streaks(on, Streak())), (THE_SENDER, Streaks(Streak(), on))):
        claim = replace(CLAIM, probe=replace(PROBE, subjects=(subject,)))
        probed = braking(trial, streaks=streaks, claim=claim).probed
        assert probed is not None
        assert (probed.recovered == (subject,)) is over


def test_a_probe_that_met_no_relay_tells_nothing() -> None:
    for settlement in (
        relinquish(PROBING),
        expire(PROBING),
        nothing_left(PROBING, bounced=False),
        refuse(PROBING, Stage.RENDER, "5.6.0", "cannot be composed"),
    ):
        assert settlement.probed == Probed(PROBE)
