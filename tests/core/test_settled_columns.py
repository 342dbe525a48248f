"""What a settlement says, column by column, however the message came to it; and the policy where nobody set it."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outbox.core.brake import Streaks
from outbox.core.lifecycle import State
from outbox.core.message import Recipient
from outbox.core.outcome import Outcome, Report, Scope, Stage, Verdict
from outbox.core.pause import Probe, Probed, Subject, pause_for, probed
from outbox.core.policy import Policy
from outbox.core.reply import Reply
from outbox.core.settlement import (
    DOUBT_HELD,
    Attempt,
    Claim,
    Fate,
    RecipientFate,
    Result,
    Sent,
    Settlement,
    Trial,
    decide,
    expire,
    fates_of,
    holds,
    nothing_left,
    postpone,
    refuse,
    relinquish,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(milliseconds=1)
PROBE = Probe((Subject(Scope.ACCOUNT, "main"),), NOW)
CLAIM = Claim(7, 3, "shop@example.com", failures=2, doubts=1, probe=PROBE)
ANN, BOB = Recipient(0, "ann@example.net", "to"), Recipient(1, "bob@example.net", "cc")
QUEUED = Reply(250, "2.0.0", "queued")
GREY = Reply(450, "4.2.0", "greylisted")
SENT = Sent("mx.example.net[192.0.2.1]:25", "TLSv1.3", "0" * 64, "main", 4, NOW)
UNSAID = {
    each.name: each.default
    for each in fields(Settlement)
    if each.name not in ("message_id", "claim_no", "state", "result")
}


def said(settlement: Settlement) -> dict[str, Any]:
    """The columns that say anything."""
    found = {each.name: getattr(settlement, each.name) for each in fields(settlement)}
    return {name: value for name, value in found.items() if name not in UNSAID or value != UNSAID[name]}


COMMON = {"message_id": 7, "claim_no": 3, "failures": 2, "probed": Probed(PROBE)}


@pytest.mark.parametrize(
    ("settlement", "columns"),
    [
        (
            refuse(CLAIM, Stage.POLICY, "5.7.1", "not registered"),
            {
                "state": State.FAILED,
                "result": Result.BOUNCED,
                "stage": Stage.POLICY,
                "reply": Reply(0, "5.7.1", "not registered"),
            },
        ),
        (expire(CLAIM), {"state": State.EXPIRED, "result": Result.RELINQUISHED}),
        (nothing_left(CLAIM, bounced=True), {"state": State.FAILED, "result": Result.RELINQUISHED}),
        (nothing_left(CLAIM, bounced=False), {"state": State.SENT, "result": Result.RELINQUISHED}),
        (relinquish(CLAIM), {"state": State.QUEUED, "result": Result.RELINQUISHED}),
        (
            postpone(CLAIM, NOW, "the limit"),
            {"state": State.QUEUED, "result": Result.RELINQUISHED, "due_at": NOW, "reply": Reply(0, "", "the limit")},
        ),
        (
            postpone(CLAIM, None, "the limit"),
            {"state": State.QUEUED, "result": Result.RELINQUISHED, "reply": Reply(0, "", "the limit")},
        ),
    ],
    ids=["refuse", "expire", "bounced", "accepted", "relinquish", "postpone", "keep"],
)
def test_what_was_not_tried_says(settlement: Settlement, columns: dict[str, Any]) -> None:
    assert said(settlement) == {**COMMON, **columns}


@pytest.mark.parametrize("verb", [expire, relinquish, lambda claim: nothing_left(claim, bounced=False)])
def test_without_a_probe_nothing_was_probed(verb: Any) -> None:
    assert verb(replace(CLAIM, probe=None)).probed is None


def attempt(reply: Reply | None, *, claim: Claim = CLAIM, **more: Any) -> Attempt:
    fates = fates_of(Trial((ANN,), Report(Stage.DOT, reply, "" if reply else "gone", dotted=True)))
    return Attempt(claim, fates, sent=SENT, **more)


def test_what_was_accepted_says_how_it_was_sent() -> None:
    settlement = decide(attempt(QUEUED), Policy(), NOW, 0.0)
    columns = said(settlement)
    assert columns.pop("probed").recovered == (Subject(Scope.ACCOUNT, "main"),)
    assert columns == {
        "message_id": 7,
        "claim_no": 3,
        "failures": 2,
        "state": State.SENT,
        "result": Result.ACCEPTED,
        "stage": Stage.DOT,
        "reply": QUEUED,
        "fates": settlement.fates,
        "sender": "shop@example.com",
        "relay": SENT.relay,
        "tls": SENT.tls,
        "sha256": SENT.sha256,
        "account": "main",
        "credential_version": 4,
        "dot_at": NOW,
    }
    assert [each.fate for each in settlement.fates] == [Fate.ACCEPTED]


def test_of_what_was_committed_with_a_mark_nothing_is_said_again() -> None:
    two = replace(attempt(QUEUED), fates=attempt(QUEUED).fates * 2, committed=1)
    assert len(decide(two, Policy(), NOW, 0.0).fates) == 1


def test_accepted_at_last_by_all_but_those_who_had_refused_it_has_failed() -> None:
    settlement = decide(attempt(QUEUED, bounced_before=1), Policy(), NOW, 0.0)
    assert (settlement.state, settlement.result) == (State.FAILED, Result.ACCEPTED)


def test_with_some_untried_it_is_queued_as_it_was() -> None:
    settlement = decide(attempt(QUEUED, untried=1), Policy(), NOW, 0.0)
    assert (settlement.state, settlement.due_at, settlement.failures) == (State.QUEUED, None, 2)


@pytest.mark.parametrize(
    ("on_doubt", "doubts", "held"),
    [("retry", 2, False), ("retry", 3, True), ("retry", 4, True), ("hold", 0, True)],
)
def test_when_a_doubt_holds(on_doubt: str, doubts: int, held: bool) -> None:
    assert holds(on_doubt, doubts, 3) is held
    claim = replace(CLAIM, on_doubt=on_doubt, doubts=doubts)
    settlement = decide(attempt(None, claim=claim), Policy(max_doubts=3), NOW, 0.0)
    assert (settlement.state is State.HELD, settlement.doubted, settlement.result) == (held, True, Result.DOUBT)
    assert settlement.hold_reason == (DOUBT_HELD if held else "")
    assert settlement.due_at == (None if held else NOW + Policy().doubt_delay)
    assert settlement.failures == 2


def test_a_doubt_does_not_expire_and_anything_else_that_is_late_does() -> None:
    for expires_at, late in ((NOW, True), (NOW + TICK, False)):
        claim = replace(CLAIM, expires_at=expires_at)
        assert claim.is_late(NOW) is late
        assert decide(attempt(None, claim=claim), Policy(), NOW, 0.0).state is State.QUEUED
        settlement = decide(attempt(GREY, claim=claim), Policy(), NOW, 0.0)
        assert (settlement.state is State.EXPIRED, settlement.due_at is None) == (late, late)


def test_a_message_is_given_up_at_its_age_and_not_before() -> None:
    policy = Policy(max_age=timedelta(hours=1))
    for age, state in ((timedelta(hours=1) - TICK, State.QUEUED), (timedelta(hours=1), State.EXPIRED)):
        settlement = decide(attempt(GREY, claim=replace(CLAIM, first_attempt_at=NOW - age)), policy, NOW, 0.0)
        assert (settlement.state, settlement.failures) == (state, 3)


@pytest.mark.parametrize(("rule", "hours"), [(0, 4), (9, 8)])
def test_a_rules_delay_is_kept_and_a_relays_is_bounded(rule: int, hours: int) -> None:
    outcome = Outcome(Verdict.DEFER, Scope.RECIPIENT, timedelta(hours=8), rule)
    fate = RecipientFate(ANN, Fate.DEFERRED, GREY, outcome, Stage.RCPT)
    settlement = decide(Attempt(CLAIM, (fate,)), Policy(ceiling=timedelta(hours=4)), NOW, 0.0)
    assert (settlement.due_at, settlement.rule) == (NOW + timedelta(hours=hours), rule)


def test_the_worst_fate_explains_the_attempt_and_of_those_the_first() -> None:
    outcome = Outcome(Verdict.DEFER, Scope.RECIPIENT)
    order = [Fate.DOUBT, Fate.DEFERRED, Fate.BOUNCED, Fate.ACCEPTED]
    fates = [RecipientFate(BOB, each, GREY, outcome, Stage.RCPT) for each in order]
    for place in range(len(order)):
        reverse = tuple(reversed(fates[place:]))
        assert Attempt(CLAIM, reverse).deciding is fates[place]
    twice = (fates[2], replace(fates[2], recipient=ANN))
    assert Attempt(CLAIM, twice).deciding is twice[0]
    assert (Attempt(CLAIM, tuple(fates), untried=2).left, Attempt(CLAIM, tuple(fates), bounced_before=2).bounced) == (
        4,
        3,
    )


def test_the_policy_where_nobody_set_it() -> None:
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    policy = Policy()
    assert {each.name: getattr(policy, each.name) for each in fields(policy)} == {
        "floor": minute,
        "ceiling": 4 * hour,
        "max_age": 48 * hour,
        "max_doubts": 3,
        "doubt_delay": 15 * minute,
        "brake_after": 3,
        "auth_pauses": (15 * minute, hour, 4 * hour, 24 * hour),
        "throttle_pauses": (minute, 5 * minute, 15 * minute),
        "throttled_login": 15 * minute,
        "sender_pauses": (hour, 4 * hour, 24 * hour),
        "brake_pauses": (5 * minute, 15 * minute, hour, 4 * hour),
    }


@pytest.mark.parametrize(
    ("stage", "reply", "scope", "first", "last", "ages"),
    [
        (Stage.AUTH, Reply(535, "5.7.8", "no"), Scope.ACCOUNT, 15, 24 * 60, False),
        (Stage.AUTH, Reply(432, "4.3.2", "concurrent"), Scope.ACCOUNT, 15, 15, False),
        (Stage.MAIL, Reply(432, "4.3.2", "Concurrent connections"), Scope.ACCOUNT, 1, 15, False),
        (Stage.DOT, Reply(550, "5.4.5", "Daily limit"), Scope.ACCOUNT, 60, 60, False),
        (Stage.MAIL, Reply(553, "5.7.1", "not owned"), Scope.SENDER, 60, 24 * 60, False),
        (Stage.MAIL, Reply(421, "4.3.2", "closing"), Scope.RELAY, 1, 15, False),
        (Stage.BODY, Reply(421, "4.3.2", "closing"), Scope.RELAY, 1, 15, True),
        (Stage.DOT, Reply(421, "4.3.2", "closing"), Scope.RELAY, 1, 15, True),
        (Stage.DATA, Reply(421, "4.3.2", "closing"), Scope.RELAY, 1, 15, False),
    ],
)
def test_how_long_a_fault_pauses(stage: Stage, reply: Reply, scope: Scope, first: int, last: int, ages: bool) -> None:
    fates = fates_of(Trial((ANN,), Report(stage, reply, dotted=stage is Stage.DOT)))
    pause = pause_for(fates, Policy())
    assert pause is not None
    minutes = [pause.lasting(before) // timedelta(minutes=1) for before in (0, 99)]
    assert (pause.scope, minutes, pause.ages) == (scope, [first, last], ages)
    assert pause.reason == f"{stage}: {reply}"


def test_a_fault_of_the_message_pauses_nothing_and_the_widest_of_several_counts() -> None:
    refused = fates_of(Trial((ANN,), Report(Stage.RCPT, Reply(550, "5.1.1", "no"))))
    relay = fates_of(Trial((ANN,), Report(Stage.MAIL, Reply(421, "4.3.2", "closing"))))
    sender = fates_of(Trial((ANN,), Report(Stage.MAIL, Reply(553, "5.7.1", "not owned"))))
    assert pause_for(refused, Policy()) is None
    assert pause_for(attempt(QUEUED).fates, Policy()) is None
    for fates in (refused + sender + relay, relay + sender + refused):
        found = pause_for(fates, Policy())
        assert found is not None
        assert found.scope is Scope.RELAY


def test_a_probe_covers_what_it_tries() -> None:
    relay, sender = Subject(Scope.RELAY, "h", 25), Subject(Scope.SENDER, "a@b.example")
    both = Probe((relay, sender), NOW)
    assert [both.covers(each) for each in ((), (relay,), (sender, relay), (relay, Subject(Scope.RELAY, "h", 26)))] == [
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("stage", "reply", "recovered"),
    [
        (Stage.CONNECT, None, []),
        (Stage.AUTH, Reply(454, "4.7.0", "later"), []),
        (Stage.MAIL, Reply(451, "4.3.0", "later"), [Scope.RELAY, Scope.ACCOUNT]),
        (Stage.RCPT, Reply(550, "5.1.1", "no"), [Scope.RELAY, Scope.ACCOUNT]),
        (Stage.DOT, QUEUED, [Scope.RELAY, Scope.ACCOUNT, Scope.SENDER]),
    ],
)
def test_what_a_probe_has_shown(stage: Stage, reply: Reply | None, recovered: list[Scope]) -> None:
    subjects = (
        Subject(Scope.RELAY, "h", 25),
        Subject(Scope.ACCOUNT, "main"),
        Subject(Scope.SENDER, "shop@example.com"),
    )
    fates = fates_of(Trial((ANN,), Report(stage, reply, "" if reply else "gone", dotted=stage is Stage.DOT)))
    shown = probed(Probe(subjects, NOW), fates, None, Streaks())
    assert shown is not None
    assert [each.scope for each in shown.recovered] == recovered
    pause = pause_for(fates, Policy())
    again = probed(Probe(subjects, NOW), fates, pause, Streaks())
    assert again is not None
    assert all(pause is None or each.scope is not pause.scope for each in again.recovered)
    assert probed(None, fates, None, Streaks()) is None
