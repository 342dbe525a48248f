"""The fence of every write that ends or marks an attempt: what another claim of the same message has is left alone."""

from __future__ import annotations

from dataclasses import replace

import peewee
import pytest

from outbox.core.lifecycle import State
from outbox.core.settlement import Claim, Result, relinquish
from outbox.store import Mark, Settled, Store, TransientError, changes
from outbox.store.database import dialect
from outbox.store.rows import moment
from tests.contract.stores import (
    ME,
    NOW,
    OTHER,
    SHOP,
    add,
    attempts,
    claim,
    deferred,
    delivery,
    fates,
    sent,
    settle,
    write,
)
from tests.statements import run


@pytest.fixture
def stale(store: Store, second: Store, database: peewee.Database) -> Claim:
    """A claim of ME that was given back behind its back, and taken by OTHER."""
    (message_id,) = add(database)
    (claimed,) = claim(store)
    write(second, lambda: second.reclaim_stray(message_id, 1, 3, NOW))
    (newer,) = write(second, lambda: second.claim_one(OTHER, message_id, NOW))
    assert newer.claim_no == claimed.claim_no + 1
    return claimed


def untouched(database: peewee.Database, claimed: Claim) -> bool:
    held = delivery(database, claimed.message_id, "state", "lease_owner", "claim_no", "doubts")
    (_, newer) = attempts(database, claimed.message_id)
    return held == ("sending", OTHER, 2, 0) and newer == (2, None, None)


def test_a_stale_mark(store: Store, database: peewee.Database, stale: Claim) -> None:
    assert write(store, lambda: store.mark([Mark(stale.message_id, stale.claim_no)], NOW)) == [False]
    assert delivery(database, stale.message_id, "dot_at") == (None,)
    assert untouched(database, stale)


def test_a_stale_mark_among_good_ones(store: Store, database: peewee.Database, stale: Claim) -> None:
    (good,) = add(database)
    (other,) = claim(store)
    earlier = sent(other).fates
    marks = [Mark(stale.message_id, 1, 0, earlier), Mark(good, other.claim_no, 0, earlier)]
    assert write(store, lambda: store.mark(marks, NOW)) == [False, True]
    assert fates(database, stale.message_id) == []
    assert fates(database, good) == [(0, 1, "accepted")]
    assert untouched(database, stale)


@pytest.mark.parametrize("what", [sent, deferred, relinquish])
def test_a_stale_settlement(store: Store, database: peewee.Database, stale: Claim, what: object) -> None:
    assert callable(what)
    assert settle(store, what(stale)) == [Settled.LATE]
    assert fates(database, stale.message_id) == []
    assert untouched(database, stale)


def test_a_stale_settlement_among_good_ones(store: Store, database: peewee.Database, stale: Claim) -> None:
    add(database, 2)
    good = claim(store)
    outcomes = settle(store, sent(good[0]), relinquish(stale), relinquish(good[1]), sent(stale))
    assert outcomes == [Settled.WRITTEN, Settled.LATE, Settled.WRITTEN, Settled.LATE]
    assert [delivery(database, each.message_id, "state") for each in good] == [("sent",), ("queued",)]
    assert untouched(database, stale)


def test_the_note_of_a_stale_result_is_on_its_own_attempt(
    store: Store, database: peewee.Database, stale: Claim
) -> None:
    settle(store, sent(stale))
    assert attempts(database, stale.message_id) == [(1, "lost", "accepted"), (2, None, None)]


def test_a_stray_claim_that_is_no_more(store: Store, database: peewee.Database, stale: Claim) -> None:
    assert write(store, lambda: store.reclaim_stray(stale.message_id, stale.claim_no, 3, NOW)) == []
    assert untouched(database, stale)


def test_what_a_claim_has_written_says_nothing_of_another(
    store: Store, second: Store, database: peewee.Database
) -> None:
    """A stale runner brings home the very result that a later attempt has had."""
    (message_id,) = add(database)
    (claimed,) = claim(store)
    write(second, lambda: second.reclaim_stray(message_id, 1, 3, NOW))
    (newer,) = write(second, lambda: second.claim_one(OTHER, message_id, NOW))
    assert settle(second, deferred(newer)) == [Settled.WRITTEN]
    assert settle(store, deferred(claimed)) == [Settled.LATE]
    assert attempts(database, message_id) == [(1, "lost", "deferred"), (2, "deferred", None)]


def test_what_an_earlier_claim_has_written_says_nothing_of_this_one(
    store: Store, second: Store, database: peewee.Database
) -> None:
    (message_id,) = add(database)
    (first,) = claim(store)
    assert settle(store, replace(deferred(first), due_at=NOW)) == [Settled.WRITTEN]
    (again,) = claim(store)
    write(second, lambda: second.reclaim_stray(message_id, 2, 3, NOW))
    assert settle(store, deferred(again)) == [Settled.LATE]
    assert attempts(database, message_id) == [(1, "deferred", None), (2, "lost", "deferred")]


def test_a_late_acceptance_does_not_end_what_another_claim_has_put_off(
    store: Store, second: Store, database: peewee.Database, stale: Claim
) -> None:
    newer = replace(stale, claim_no=2)
    assert settle(second, deferred(newer)) == [Settled.WRITTEN]
    assert settle(store, sent(stale)) == [Settled.LATE]
    assert delivery(database, stale.message_id, "state", "claim_no") == ("queued", 2)
    assert fates(database, stale.message_id) == [(0, 2, "deferred")]


def test_an_operator_changes_all_of_the_rows_or_none(database: peewee.Database) -> None:
    """What a row has become since it was judged: it cannot be while it is locked, and if it is, nothing is written."""
    waiting, gone = add(database, 2)
    run(database, "UPDATE outbox_delivery SET state = 'cancelled', final_at = due_at WHERE message_id = ?", gone)
    judged = [changes.Row(each, State.QUEUED, "queued", SHOP, 0, NOW, "", False) for each in (waiting, gone)]
    with pytest.raises(RuntimeError, match="1 of 2"), database.atomic():
        changes.hold("a look first", database, judged, NOW)
    assert delivery(database, waiting, "state") == ("queued",)


def other_attempt(database: peewee.Database, message_id: int) -> None:
    """One that is open for whatever reason."""
    sql = "INSERT INTO outbox_attempt (message_id, claim_no, runner_id, started_at) SELECT message_id, 7, ?, due_at"
    run(database, f"{sql} FROM outbox_delivery WHERE message_id = ?", OTHER, message_id)


def test_a_settlement_ends_its_own_attempt(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    (claimed,) = claim(store)
    other_attempt(database, message_id)
    settle(store, sent(claimed))
    assert attempts(database, message_id) == [(1, "accepted", None), (7, None, None)]


def test_a_reclaim_ends_its_own_attempt(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    claim(store)
    other_attempt(database, message_id)
    write(store, lambda: store.reclaim_stray(message_id, 1, 3, NOW))
    assert attempts(database, message_id) == [(1, "lost", None), (7, None, None)]


def test_a_doubt_is_about_those_whom_no_attempt_has_settled(store: Store, database: peewee.Database) -> None:
    """Deferred before, and covered by the dot of the attempt that was lost."""
    (message_id,) = add(database, recipients="ann@example.net, bob@example.net")
    (first,) = claim(store)
    settle(store, deferred(first))
    run(database, "UPDATE outbox_delivery SET due_at = ? WHERE message_id = ?", moment(NOW), message_id)
    (again,) = claim(store)
    write(store, lambda: store.mark([Mark(message_id, again.claim_no)], NOW))
    write(store, lambda: store.reclaim_stray(message_id, again.claim_no, 3, NOW))
    assert fates(database, message_id) == [(0, 1, "deferred"), (0, 2, "doubt"), (1, 2, "doubt")]


def test_a_settlement_is_written_once_though_it_comes_twice(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    (claimed,) = claim(store)
    assert settle(store, deferred(claimed), sent(claimed)) == [Settled.WRITTEN, Settled.LATE]
    state, failures = delivery(database, message_id, "state", "failures")
    assert (state, failures) == (State.SENT, 1)  # the late 2xx settles it
    assert attempts(database, message_id) == [(1, Result.DEFERRED, Result.ACCEPTED)]


def test_a_commit_that_rolled_back_is_none(store: Store, database: peewee.Database) -> None:
    """PostgreSQL answers COMMIT of a failed transaction with ROLLBACK, and not with an error."""
    if dialect(store.db) == "sqlite":
        pytest.skip("SQLite says so")
    (message_id,) = add(database)
    with pytest.raises(TransientError), store.transaction():  # noqa: PT012 -- the COMMIT at its end raises
        store.claim_one(ME, message_id, NOW)
        with pytest.raises(peewee.DatabaseError):
            store.db.execute_sql("SELECT 1 / 0")
    assert delivery(database, message_id, "state") == ("queued",)


def test_what_was_taken_back_and_held_is_not_given_back_by_whoever_had_it(
    store: Store, database: peewee.Database
) -> None:
    """At the same claim: nobody has claimed it since."""
    (message_id,) = add(database)
    (claimed,) = claim(store)
    run(database, "UPDATE outbox_delivery SET crashes = 2")
    write(store, lambda: store.reclaim_stray(message_id, 1, 3, NOW))
    assert delivery(database, message_id, "state", "claim_no") == ("held", 1)
    assert settle(store, relinquish(claimed)) == [Settled.LATE]
    assert settle(store, deferred(claimed)) == [Settled.LATE]
    assert delivery(database, message_id, "state", "claim_no", "failures") == ("held", 1, 0)
