"""What operators do to messages, over both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import peewee
import pytest

from outbox.core.account import Account, Sender, Tls
from outbox.core.lifecycle import ALLOWED_FROM, BECOMES, State, Verb
from outbox.core.settlement import DOUBT_HELD, Policy
from outbox.store import accounts, audit, operate
from outbox.store.filters import Filter
from outbox.store.journal import Act
from outbox.store.operate import Answer
from outbox.store.senders import add_sender
from tests.stories import GREYLISTED, NO_SUCH_USER, OK, SPAM, Stories

IMPATIENT = Policy(max_age=timedelta(0))
WHO = "olga"


def test_a_failed_message_is_retried_for_its_bounced_recipients_only(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(recipients="ann@example.net, bob@example.net")
    stories.attempt(message_id, OK, [OK, NO_SUCH_USER])
    assert stories.states(message_id) == ["failed"]

    answers = operate.retry(db, [message_id], who=WHO)

    assert answers == [Answer(message_id, True, "is queued, due now")]
    assert _fates(db, message_id) == {"ann@example.net": "accepted", "bob@example.net": "pending"}
    row = _delivery(stories, message_id)
    assert row["state"] == "queued"
    assert row["claim_no"] == 2
    assert (row["failures"], row["crashes"], row["final_at"], row["first_attempt_at"]) == (0, 0, None, None)
    stories.attempt(message_id, OK)
    assert stories.states(message_id) == ["sent"]
    assert [each.claim_no for each in audit.show(db, message_id).attempts] == [1, 3]


def test_a_retry_keeps_what_was_learnt_of_every_attempt(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail()
    stories.attempt(message_id, OK, [NO_SUCH_USER])
    operate.retry(db, [message_id], who=WHO)
    rows = stories.sql("SELECT claim_no, fate FROM outbox_recipient WHERE message_id = ? ORDER BY claim_no", message_id)
    assert rows == [(1, "bounced"), (2, "pending")]


def test_a_retry_of_an_unregistered_sender_tries_everybody(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(recipients="ann@example.net, bob@example.net")
    stories.refused(message_id)
    operate.retry(db, [message_id], who=WHO)
    stories.attempt(message_id, OK)
    assert stories.states(message_id) == ["sent"]


def test_what_expired_by_its_age_gets_a_new_life(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail()
    stories.attempt(message_id, GREYLISTED, policy=IMPATIENT)
    assert stories.states(message_id) == ["expired"]
    operate.retry(db, [message_id], who=WHO)
    stories.attempt(message_id, GREYLISTED, policy=Policy(max_age=timedelta(hours=1)))
    assert stories.states(message_id) == ["queued"]


def test_a_retry_drops_an_expiry_that_has_passed_and_keeps_one_to_come(stories: Stories, db: peewee.Database) -> None:
    later = _moment(timedelta(days=1))
    passed, coming = stories.mail(expires_at=_moment(timedelta(days=-1))), stories.mail(expires_at=later)
    for message_id in (passed, coming):
        stories.attempt(message_id, SPAM)
    operate.retry(db, [passed, coming], who=WHO)
    assert _delivery(stories, passed)["expires_at"] is None
    assert _delivery(stories, coming)["expires_at"] is not None


def test_what_waits_for_its_next_attempt_is_sent_now_and_keeps_its_age(stories: Stories, db: peewee.Database) -> None:
    deferred, scheduled = stories.mail(), stories.mail(due_at="2199-01-01")
    stories.attempt(deferred, GREYLISTED)
    before = [_delivery(stories, each) for each in (deferred, scheduled)]
    answers = operate.retry(db, [deferred, scheduled], who=WHO)
    assert answers == [Answer(each, True, "is queued, due now") for each in (deferred, scheduled)]
    after = [_delivery(stories, each) for each in (deferred, scheduled)]
    assert all(new["due_at"] < old["due_at"] for new, old in zip(after, before, strict=True))
    assert [old | {"due_at": new["due_at"]} for new, old in zip(after, before, strict=True)] == after
    assert (after[0]["failures"], after[0]["claim_no"]) == (1, 1)
    assert stories.sql("SELECT verb, count FROM outbox_journal WHERE verb = 'retry'") == [("retry", 2)]
    assert stories.sql("SELECT count(*) FROM outbox_recipient WHERE fate = 'pending'") == [(0,)]
    stories.attempt(deferred, OK)
    assert stories.states(deferred) == ["sent"]


def test_a_filter_that_names_them_makes_what_is_deferred_due_now(stories: Stories, db: peewee.Database) -> None:
    deferred, due = stories.mail(), stories.mail()
    stories.attempt(deferred, GREYLISTED)
    assert operate.matching(db, Verb.RETRY, Filter()) == []
    assert operate.matching(db, Verb.RETRY, Filter(states=("deferred",))) == [deferred]
    assert operate.matching(db, Verb.RETRY, Filter(states=("queued",))) == [deferred]
    assert operate.retry(db, [due], who=WHO) == [
        Answer(due, False, "is queued and due already: a runner takes it as soon as it may")
    ]


def test_a_retry_says_that_the_account_is_paused(stories: Stories, db: peewee.Database) -> None:
    accounts.add_account(db, Account("main", "relay.example", 25, Tls.NONE), Act(WHO, datetime.now(UTC)))
    add_sender(db, Sender("shop@example.com", "main"), Act(WHO, datetime.now(UTC)))
    accounts.pause_account(db, "main", "relay moves", None, Act(WHO, datetime.now(UTC)))
    message_id = stories.mail()
    stories.attempt(message_id, GREYLISTED)
    (answer,) = operate.retry(db, [message_id], who=WHO)
    assert answer.done
    assert answer.words.startswith("is queued, due now, but it waits: account main is paused")


def test_a_refusal_calls_a_message_what_the_list_calls_it(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail()
    stories.attempt(message_id, GREYLISTED)
    (answer,) = operate.release(db, [message_id], who=WHO)
    assert answer.words == "is deferred: only held messages can be released"


def test_an_erased_message_cannot_be_retried(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail()
    stories.attempt(message_id, SPAM)
    stories.sql("UPDATE outbox SET erased_at = created_at, text_body = NULL WHERE id = ?", message_id)
    answers = operate.retry(db, [message_id], who=WHO)
    assert answers == [Answer(message_id, False, "has been erased: there is nothing left to send")]
    assert stories.states(message_id) == ["failed"]


def test_each_message_of_a_batch_gets_its_own_answer(stories: Stories, db: peewee.Database) -> None:
    sent, failed, sending = stories.mail(), stories.mail(), stories.mail()
    stories.attempt(sent, OK)
    stories.attempt(failed, SPAM)
    stories.claim(sending)
    answers = operate.retry(db, [sent, failed, sending, 4711], who=WHO)
    assert answers == [
        Answer(sent, False, "is sent: only queued, failed, expired or held messages can be retried"),
        Answer(failed, True, "is queued, due now"),
        Answer(sending, False, "is being sent right now: try again in a moment"),
        Answer(4711, False, "does not exist"),
    ]
    assert stories.states(sent, failed, sending) == ["sent", "queued", "sending"]


@pytest.mark.parametrize("strange", [0, -1, 2**63, 10**30])
def test_a_number_that_no_message_can_have_does_not_exist(db: peewee.Database, strange: int) -> None:
    assert operate.cancel(db, [strange], who=WHO) == [Answer(strange, False, "does not exist")]


def test_an_id_given_twice_is_answered_once(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail()
    assert len(operate.cancel(db, [message_id, message_id], who=WHO)) == 1


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb not in (Verb.RESOLVE_SENT, Verb.RESOLVE_RESEND)])
@pytest.mark.parametrize("state", list(State))
def test_every_verb_moves_what_the_life_cycle_allows_and_nothing_else(
    stories: Stories, db: peewee.Database, verb: Verb, state: State
) -> None:
    message_id = _in_state(stories, db, state)
    if (verb, state) == (Verb.RETRY, State.QUEUED):  # what is due already needs none
        stories.sql("UPDATE outbox_delivery SET due_at = '2199-01-01T00:00:00.000Z' WHERE message_id = ?", message_id)
    before = _delivery(stories, message_id)
    (answer,) = _do(db, verb, message_id)
    allowed = state in ALLOWED_FROM[verb]
    assert answer.done is allowed
    after = _delivery(stories, message_id)
    if allowed:
        assert after["state"] == BECOMES[verb]
    else:
        assert after == before


def test_a_held_message_waits_with_its_reason_until_it_is_released(stories: Stories, db: peewee.Database) -> None:
    due_at = datetime.now(UTC) + timedelta(days=1)
    message_id = stories.mail(due_at=due_at.isoformat())
    answers = operate.hold(db, [message_id], who=WHO, reason="wrong price")
    assert answers == [Answer(message_id, True, "is held: wrong price")]
    assert _delivery(stories, message_id)["hold_reason"] == "wrong price"
    (answer,) = operate.release(db, [message_id], who=WHO)
    assert answer.words.startswith("is queued, due 20")
    record = audit.show(db, message_id)
    assert (record.state, record.hold_reason) == (State.QUEUED, None)
    assert abs(record.due_at - due_at) < timedelta(milliseconds=1)


def test_a_hold_without_a_reason_says_who_did_it(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail()
    operate.hold(db, [message_id], who=WHO)
    assert _delivery(stories, message_id)["hold_reason"] == "held by olga"


def test_a_message_that_crashed_its_runner_is_released_with_a_clean_slate(
    stories: Stories, db: peewee.Database
) -> None:
    message_id = stories.mail()
    for _ in range(3):
        stories.crashed(message_id, dotted=False)
    assert stories.states(message_id) == ["held"]
    operate.release(db, [message_id], who=WHO)
    row = _delivery(stories, message_id)
    assert (row["state"], row["crashes"]) == ("queued", 0)


def test_a_release_does_not_send_a_second_copy_by_accident(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(on_doubt="hold")
    stories.attempt(message_id, None)
    assert _delivery(stories, message_id)["hold_reason"] == DOUBT_HELD
    (answer,) = operate.release(db, [message_id], who=WHO)
    assert not answer.done
    assert f"outbox resolve {message_id} --sent" in answer.words
    assert stories.states(message_id) == ["held"]


def test_cancelling_says_who_has_it_already(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(recipients="ann@example.net, bob@example.net, cy@example.net")
    stories.attempt(message_id, OK, [OK, GREYLISTED, OK])
    (answer,) = operate.cancel(db, [message_id], who=WHO)
    assert answer == Answer(message_id, True, "is cancelled; 2 recipients already have it")
    assert _delivery(stories, message_id)["final_at"] is not None


def test_cancelling_a_doubt_says_that_it_may_have_arrived(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail()
    stories.attempt(message_id, None)
    (answer,) = operate.cancel(db, [message_id], who=WHO)
    assert answer.words == "is cancelled; 1 recipient may have it: it was in doubt"


def test_a_doubt_resolved_as_sent_is_sent_in_the_name_of_who_said_so(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(recipients="ann@example.net, bob@example.net", on_doubt="hold")
    stories.attempt(message_id, None)
    assert operate.resolve(db, [message_id], sent=True, who=WHO) == [Answer(message_id, True, "is sent")]
    record = audit.show(db, message_id)
    assert (record.state, record.hold_reason, record.last_reply) == (State.SENT, None, "resolved by olga")
    assert record.claim_no == 2
    assert {(each.fate, each.reply) for each in record.recipients} == {("accepted", "resolved by olga")}
    assert record.doubts == 1


def test_a_doubt_beside_a_refused_recipient_resolves_to_failed(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(recipients="ann@example.net, bob@example.net", on_doubt="hold")
    stories.attempt(message_id, None, [OK, NO_SUCH_USER])
    (answer,) = operate.resolve(db, [message_id], sent=True, who=WHO)
    assert answer.words == "is failed: other recipients were refused"
    assert _fates(db, message_id) == {"ann@example.net": "accepted", "bob@example.net": "bounced"}
    assert stories.states(message_id) == ["failed"]


def test_a_doubt_before_untried_recipients_resolves_to_queued(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(recipients="ann@example.net, bob@example.net", on_doubt="hold")
    stories.crashed(message_id, through=0)
    assert _fates(db, message_id) == {"ann@example.net": "doubt", "bob@example.net": "pending"}
    (answer,) = operate.resolve(db, [message_id], sent=True, who=WHO)
    assert answer.words == "is queued, due now, for the recipients that nobody has tried yet"
    stories.attempt(message_id, OK)
    assert _fates(db, message_id) == {"ann@example.net": "accepted", "bob@example.net": "accepted"}
    assert stories.states(message_id) == ["sent"]


def test_a_resend_announces_the_second_copy_and_is_due_now(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(on_doubt="hold")
    stories.attempt(message_id, None)
    (answer,) = operate.resolve(db, [message_id], sent=False, who=WHO)
    assert answer == Answer(message_id, True, "is queued, due now; 1 recipient may get a second copy")
    stories.attempt(message_id, OK)
    record = audit.show(db, message_id)
    assert (record.state, record.doubts) == (State.SENT, 1)


@pytest.mark.parametrize("sent", [True, False])
def test_only_what_is_in_doubt_can_be_resolved(stories: Stories, db: peewee.Database, *, sent: bool) -> None:
    held, queued = stories.mail(), stories.mail()
    operate.hold(db, [held], who=WHO)
    answers = operate.resolve(db, [held, queued], sent=sent, who=WHO)
    assert [each.words for each in answers] == [
        "is held, but nothing is in doubt: use release, retry or cancel",
        "is queued: only held messages can be resolved",
    ]


def test_what_waits_can_be_given_another_due_time(stories: Stories, db: peewee.Database) -> None:
    queued, sent = stories.mail(), stories.mail()
    stories.attempt(sent, OK)
    due_at = datetime(2199, 1, 1, tzinfo=UTC)
    answers = operate.reschedule(db, [queued, sent], due_at, who=WHO)
    assert answers[0] == Answer(queued, True, "is queued, due 2199-01-01T00:00:00.000Z")
    assert answers[1].words == "is sent: only queued or held messages can be rescheduled"
    assert audit.show(db, queued).due_at == due_at


def test_a_due_time_that_has_passed_means_now(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(due_at="2199-01-01")
    (answer,) = operate.reschedule(db, [message_id], datetime(2001, 1, 1, tzinfo=UTC), who=WHO)
    assert answer.words == "is queued, due now"
    assert audit.show(db, message_id).due_at.year >= 2026


def test_a_retry_and_a_runner_that_settles_do_not_overwrite_each_other(stories: Stories, db: peewee.Database) -> None:
    """The operator read `failed` on the screen; meanwhile somebody else retried it and a runner has it."""
    message_id = stories.mail()
    stories.attempt(message_id, SPAM)
    operate.retry(db, [message_id], who=WHO)
    stories.claim(message_id)
    (answer,) = operate.retry(db, [message_id], who=WHO)
    assert answer.words == "is being sent right now: try again in a moment"


def test_a_late_2xx_settles_what_was_queued_again_by_a_resend(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(on_doubt="hold")
    stories.crashed(message_id)
    operate.resolve(db, [message_id], sent=False, who=WHO)
    assert _delivery(stories, message_id)["claim_no"] == 1  # the fence of the lost attempt still holds


# -- telling and reading


def _do(db: peewee.Database, verb: Verb, message_id: int) -> list[Answer]:
    calls = {
        Verb.RETRY: operate.retry,
        Verb.HOLD: operate.hold,
        Verb.RELEASE: operate.release,
        Verb.CANCEL: operate.cancel,
    }
    return calls[verb](db, [message_id], who=WHO)


def _in_state(stories: Stories, db: peewee.Database, state: State) -> int:
    message_id = stories.mail()
    if state is State.SENDING:
        stories.claim(message_id)
    elif state is State.SENT:
        stories.attempt(message_id, OK)
    elif state is State.FAILED:
        stories.attempt(message_id, SPAM)
    elif state is State.EXPIRED:
        stories.attempt(message_id, GREYLISTED, policy=IMPATIENT)
    elif state is State.HELD:
        operate.hold(db, [message_id], who=WHO)
    elif state is State.CANCELLED:
        operate.cancel(db, [message_id], who=WHO)
    assert stories.states(message_id) == [state]
    return message_id


def _delivery(stories: Stories, message_id: int) -> dict[str, Any]:
    columns = "state claim_no failures crashes doubts due_at final_at first_attempt_at expires_at hold_reason"
    names = columns.split()
    (row,) = stories.sql(f"SELECT {', '.join(names)} FROM outbox_delivery WHERE message_id = ?", message_id)
    return dict(zip(names, row, strict=True))


def _fates(db: peewee.Database, message_id: int) -> dict[str, str]:
    return {each.address: str(each.fate) for each in audit.show(db, message_id).recipients}


def _moment(ahead: timedelta) -> str:
    return (datetime.now(UTC) + ahead).isoformat()
