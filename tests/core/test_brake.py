"""The correlation brake: what counts, what ends a row, and when a message is spared."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.brake import OWN_REFUSAL, Streak, Streaks, Telling, signature_of, tells
from outbox.core.fate import RecipientFate, Trial, fates_of
from outbox.core.message import Recipient
from outbox.core.outcome import Report, Scope, Stage
from outbox.core.reply import Reply
from outbox.smtp.session import ours

ANN, BOB = (Recipient(place, f"{name}@example.net", "to") for place, name in enumerate(("ann", "bob")))
OK = Reply(250, "2.1.5", "ok")
BLOCKED = Reply(554, "5.7.1", "message content rejected")
SPAM = "dot 554 5.7.1"

Fates = tuple[RecipientFate, ...]


def dot(reply: Reply | None, *rcpt: Reply) -> Fates:
    rcpt = rcpt or (OK,)
    return fates_of(Trial((ANN, BOB)[: len(rcpt)], Report(Stage.DOT, reply, recipients=rcpt, dotted=True)))


def rcpt(*answers: Reply) -> Fates:
    return fates_of(Trial((ANN, BOB)[: len(answers)], Report(Stage.RCPT, answers[0], recipients=answers)))


def at(stage: Stage, reply: Reply | None) -> Fates:
    return fates_of(Trial((ANN,), Report(stage, reply, "" if reply else "gone")))


# ---- what counts


@pytest.mark.parametrize(
    ("fates", "signature"),
    [
        (dot(BLOCKED), SPAM),
        (dot(BLOCKED, OK, OK), SPAM),
        (dot(Reply(554, "", "no")), "dot 554"),
        (at(Stage.DATA, BLOCKED), "data 554 5.7.1"),
        (at(Stage.BODY, Reply(552, "5.3.4", "too big")), "body 552 5.3.4"),
        (at(Stage.MAIL, Reply(550, "5.7.0", "go away")), "mail 550 5.7.0"),
        (rcpt(Reply(550, "5.7.1", "service refused")), "rcpt 550 5.7.1"),
        (rcpt(Reply(550, "", "no"), Reply(550, "", "no")), "rcpt 550"),
    ],
)
def test_a_refusal_of_the_whole_message_has_a_signature(fates: Fates, signature: str) -> None:
    assert signature_of(fates) == signature


@pytest.mark.parametrize(
    "fates",
    [
        dot(OK),
        dot(None),
        dot(Reply(451, "4.7.1", "later")),
        dot(BLOCKED, OK, Reply(550, "5.7.1", "not you")),
        dot(OK, OK, Reply(550, "5.7.1", "not you")),
        at(Stage.AUTH, Reply(535, "5.7.8", "no")),
        at(Stage.CONNECT, None),
        at(Stage.MAIL, Reply(553, "5.7.1", "sender address rejected: not owned by user")),
        rcpt(Reply(550, "5.1.1", "no")),
        rcpt(Reply(550, "5.2.1", "no")),
        rcpt(Reply(550, "", "User unknown")),
        rcpt(Reply(550, "", "no such recipient here")),
        rcpt(Reply(550, "", "The mailbox does not exist")),
        rcpt(Reply(550, "", "Unrouteable address")),
        rcpt(Reply(550, "", "No such domain at this location")),
        rcpt(Reply(550, "", "not a valid recipient")),
        rcpt(Reply(550, "", "User not known")),
        rcpt(Reply(552, "", "Mailbox is over quota")),
        rcpt(Reply(554, "", "This user doesn't have a mailbox here")),
        rcpt(Reply(550, "5.7.1", "refused"), Reply(550, "5.7.2", "refused")),
        at(Stage.POLICY, Reply(550, "5.7.1", "not registered")),
        at(Stage.RENDER, Reply(554, "5.6.0", "cannot be composed")),
        at(Stage.MAIL, ours(554, "5.3.4", "it is too large")),
    ],
)
def test_everything_else_has_none(fates: Fates) -> None:
    assert signature_of(fates) == ""


def test_a_refusal_by_an_operators_rule_is_meant() -> None:
    fates = tuple(replace(each, outcome=replace(each.outcome, rule=7)) for each in dot(BLOCKED))
    assert signature_of(fates) == ""


def test_our_own_refusals_are_known_by_their_words() -> None:
    assert ours(554, "5.6.0", "why").text.startswith(OWN_REFUSAL)


# ---- what ends a row


@pytest.mark.parametrize(
    ("fates", "telling"),
    [
        (dot(BLOCKED), Telling.SAME),
        (dot(OK), Telling.OTHER),
        (dot(OK, OK, Reply(550, "5.1.1", "no such user")), Telling.OTHER),
        (dot(Reply(554, "5.6.0", "another reason")), Telling.OTHER),
        (dot(Reply(451, "4.7.1", "later")), Telling.OTHER),
        (at(Stage.MAIL, Reply(550, "5.7.0", "go away")), Telling.OTHER),
        (at(Stage.MAIL, Reply(451, "4.3.0", "later")), Telling.NOTHING),
        (rcpt(Reply(450, "4.7.1", "greylisted")), Telling.NOTHING),
        (rcpt(Reply(550, "5.1.1", "no such user")), Telling.NOTHING),
        (at(Stage.DATA, Reply(421, "4.3.2", "bye")), Telling.NOTHING),
        (at(Stage.AUTH, Reply(535, "5.7.8", "no")), Telling.NOTHING),
        (at(Stage.CONNECT, None), Telling.NOTHING),
        (at(Stage.MAIL, ours(554, "5.3.4", "it is too large")), Telling.NOTHING),
        (dot(None), Telling.NOTHING),
    ],
)
def test_what_an_answer_tells_of_a_refusal_at_the_dot(fates: Fates, telling: Telling) -> None:
    assert tells(SPAM, fates) is telling


def test_what_an_answer_tells_of_a_refusal_at_rcpt() -> None:
    refused = "rcpt 550 5.7.1"
    assert tells(refused, rcpt(Reply(450, "4.7.1", "greylisted"))) is Telling.OTHER
    assert tells(refused, rcpt(Reply(550, "5.1.1", "no such user"))) is Telling.NOTHING
    assert tells(refused, dot(Reply(451, "4.3.0", "later"))) is Telling.OTHER


def after(*attempts: tuple[int, Fates], brake_after: int = 3) -> Streak:
    streak = Streak()
    for message_id, fates in attempts:
        spared = streak.spares(message_id, signature_of(fates), brake_after)
        streak = streak.then(message_id, fates, spared=spared)
    return streak


def test_the_third_different_message_in_a_row_is_spared_and_all_that_follow() -> None:
    streak = Streak()
    for message_id, spared in ((1, False), (2, False), (3, True), (4, True), (5, True)):
        assert streak.spares(message_id, SPAM, 3) is spared
        streak = streak.then(message_id, dot(BLOCKED), spared=spared)
    assert streak.failed == (1, 2)


def test_the_same_message_again_does_not_make_a_row() -> None:
    streak = after((1, dot(BLOCKED)), (1, dot(BLOCKED)), (1, dot(BLOCKED)))
    assert streak == Streak(SPAM, (1,))
    assert not streak.spares(1, SPAM, 2)
    assert streak.spares(2, SPAM, 2)


def test_an_acceptance_ends_the_row_and_what_tells_nothing_does_not() -> None:
    assert after((1, dot(BLOCKED)), (2, dot(OK)), (3, dot(BLOCKED))) == Streak(SPAM, (3,))
    assert after((1, dot(BLOCKED)), (2, dot(OK))) == Streak()
    unknown = rcpt(Reply(550, "5.1.1", "no such user"))
    assert after((1, dot(BLOCKED)), (2, unknown), (3, dot(BLOCKED))) == Streak(SPAM, (1, 3))


def test_another_refusal_begins_another_row() -> None:
    assert after((1, dot(BLOCKED)), (2, dot(Reply(552, "5.2.0", "no")))) == Streak("dot 552 5.2.0", (2,))


@pytest.mark.parametrize("brake_after", [0, 1, 2, 5])
def test_how_many_it_takes_is_a_setting(brake_after: int) -> None:
    streak, spared = Streak(), []
    for message_id in range(1, 8):
        spared.append(streak.spares(message_id, SPAM, brake_after))
        streak = streak.then(message_id, dot(BLOCKED), spared=spared[-1])
    assert spared == [brake_after > 0 and message_id >= brake_after for message_id in range(1, 8)]


# ---- whose row it is


FULL, HALF = Streak(SPAM, (1, 2)), Streak(SPAM, (1,))
BRAKED = Streak(SPAM, braked=True)


@pytest.mark.parametrize(
    ("streaks", "scope"),
    [
        (Streaks(FULL, FULL), Scope.ACCOUNT),
        (Streaks(FULL, HALF), Scope.ACCOUNT),
        (Streaks(HALF, FULL), Scope.SENDER),
        (Streaks(HALF, HALF), None),
        (Streaks(BRAKED, Streak()), Scope.ACCOUNT),
        (Streaks(FULL, BRAKED), Scope.SENDER),
        (Streaks(replace(BRAKED, signature="dot 552"), Streak()), None),
    ],
)
def test_an_account_is_braked_where_nothing_of_it_gets_through_else_the_sender(
    streaks: Streaks, scope: Scope | None
) -> None:
    found = streaks.brakes(9, SPAM, 3)
    assert (found and found[0]) == scope


codes = st.builds(
    Reply, st.sampled_from([250, 421, 450, 550, 552, 554]), st.sampled_from(["", "5.7.1", "4.7.1"]), st.just("words")
)
attempts = st.lists(st.tuples(st.integers(1, 6), codes.map(dot) | codes.map(lambda reply: rcpt(reply))), max_size=30)


@given(attempts, st.integers(1, 4))
def test_whatever_comes_a_row_fails_fewer_messages_than_the_brake_allows(
    done: list[tuple[int, Fates]], brake_after: int
) -> None:
    streak = Streak()
    for message_id, fates in done:
        signature = signature_of(fates)
        spared = streak.spares(message_id, signature, brake_after)
        if spared:
            assert signature
        streak = streak.then(message_id, fates, spared=spared)
        assert len(set(streak.failed)) == len(streak.failed) < max(brake_after, 1) + 1
        assert len(streak.failed) <= max(brake_after - 1, 1)
        assert bool(streak.signature) or not streak.failed
