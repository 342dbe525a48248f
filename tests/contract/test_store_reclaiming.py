"""The store's verbs, over SQLite and PostgreSQL: what the dead held, and what stale runners bring home."""

from __future__ import annotations

from typing import Any

import peewee

from outbox.core.lifecycle import State
from outbox.core.settlement import Claim, Fate, Result
from outbox.store import Mark, Settled, Store
from tests.contract.stores import (
    LATER,
    ME,
    NOW,
    OTHER,
    SURVIVOR,
    add,
    attempts,
    bury,
    claim,
    deferred,
    delivery,
    fates,
    register,
    sent,
    settle,
    write,
)
from tests.statements import one, run


def lose(store: Store, database: peewee.Database, *, dotted: bool, **columns: Any) -> Claim:
    """A message whose runner died, before or after its dot mark."""
    (message_id,) = add(database, recipients="ann@example.net, bob@example.net", **columns)
    (claimed,) = claim(store)
    if dotted:
        write(store, lambda: store.mark([Mark(message_id, 1)], NOW))
    bury(store, ME)
    register(store, SURVIVOR)
    return claimed


def reclaim(store: Store, max_doubts: int = 3) -> list[tuple[bool, bool]]:
    return [(each.dotted, each.held) for each in write(store, lambda: store.reclaim(max_doubts, NOW))]


def test_a_message_lost_before_its_dot_is_queued_again(store: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=False)
    assert reclaim(store) == [(False, False)]
    columns = ("state", "doubts", "crashes", "claim_no")
    assert delivery(database, claimed.message_id, *columns) == ("queued", 0, 1, 1)
    assert attempts(database, claimed.message_id) == [(1, "lost", None)]
    assert fates(database, claimed.message_id) == []
    assert reclaim(store) == []


def test_a_message_lost_after_its_dot_mark_is_a_doubt_for_each_recipient(
    store: Store, database: peewee.Database
) -> None:
    claimed = lose(store, database, dotted=True)
    assert reclaim(store) == [(True, False)]
    assert delivery(database, claimed.message_id, "state", "doubts") == ("queued", 1)
    assert attempts(database, claimed.message_id) == [(1, "doubt", None)]
    assert fates(database, claimed.message_id) == [(0, 1, "doubt"), (1, 1, "doubt")]


def test_a_doubt_holds_a_message_that_says_so(store: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=True, on_doubt="hold")
    assert reclaim(store) == [(True, True)]
    state, reason = delivery(database, claimed.message_id, "state", "hold_reason")
    assert state == "held"
    assert "resolve" in reason


def test_too_many_doubts_hold_any_message(store: Store, database: peewee.Database) -> None:
    lose(store, database, dotted=True)
    assert reclaim(store, max_doubts=0) == [(True, True)]


def test_a_message_that_ended_three_runners_is_held(store: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=False)
    run(database, "UPDATE outbox_delivery SET crashes = 2")
    assert reclaim(store) == [(False, True)]
    assert "three attempts" in delivery(database, claimed.message_id, "hold_reason")[0]


def test_only_the_part_that_the_dot_covered_is_in_doubt(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database, recipients="ann@example.net, bob@example.net, carl@example.net")
    (claimed,) = claim(store)
    accepted = sent(claimed).fates
    write(store, lambda: store.mark([Mark(message_id, 1, 0)], NOW))
    write(store, lambda: store.mark([Mark(message_id, 1, 1, accepted)], NOW))
    bury(store, ME)
    reclaim(store)
    assert fates(database, message_id) == [(0, 1, "accepted"), (1, 1, "doubt")]


def test_what_a_living_runner_sends_is_left_to_it(store: Store, database: peewee.Database) -> None:
    add(database)
    claim(store)
    assert reclaim(store) == []


def test_a_stray_claim_is_taken_back_alone(store: Store, database: peewee.Database) -> None:
    stray, known = add(database, 2)
    claim(store)
    write(store, lambda: store.mark([Mark(stray, 1)], NOW))
    (taken,) = write(store, lambda: store.reclaim_stray(stray, 1, 3, NOW))
    assert (taken.message_id, taken.dotted) == (stray, True)
    assert delivery(database, known, "state") == ("sending",)
    assert store.my_claims(ME) == [(known, 1)]


# ---- after the claim was lost


def test_after_the_claim_is_lost_a_mark_is_refused(store: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=False)
    reclaim(store)
    assert write(store, lambda: store.mark([Mark(claimed.message_id, 1)], NOW)) == [False]


def test_a_late_acceptance_settles_a_message_that_nobody_has_claimed_since(
    store: Store, database: peewee.Database
) -> None:
    claimed = lose(store, database, dotted=True, on_doubt="hold")
    reclaim(store)
    assert settle(store, sent(claimed)) == [Settled.LATE]
    columns = ("state", "claim_no", "doubts", "hold_reason")
    assert delivery(database, claimed.message_id, *columns) == ("sent", 2, 1, None)
    assert attempts(database, claimed.message_id) == [(1, "doubt", "accepted")]
    latest = "SELECT fate FROM outbox_fate WHERE message_id = ? AND position = 0"
    assert one(database, latest, claimed.message_id) == "accepted"


def test_a_late_acceptance_does_not_touch_a_newer_claim(store: Store, second: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=True)
    reclaim(store)
    (newer,) = write(second, lambda: second.claim_one(OTHER, claimed.message_id, NOW))
    assert settle(store, sent(claimed)) == [Settled.LATE]
    assert delivery(database, claimed.message_id, "state", "claim_no", "lease_owner") == ("sending", 2, OTHER)
    assert attempts(database, claimed.message_id) == [(1, "doubt", "accepted"), (2, None, None)]
    assert settle(second, sent(newer)) == [Settled.WRITTEN]


def test_a_late_refusal_is_noted_and_changes_nothing(store: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=False)
    reclaim(store)
    assert settle(store, deferred(claimed)) == [Settled.LATE]
    assert delivery(database, claimed.message_id, "state", "failures", "claim_no") == ("queued", 0, 1)
    assert attempts(database, claimed.message_id) == [(1, "lost", "deferred")]


def test_a_late_acceptance_of_some_spares_them_a_second_copy(store: Store, database: peewee.Database) -> None:
    claimed = lose(store, database, dotted=True)
    reclaim(store)
    partial = sent(claimed, state=State.QUEUED, result=Result.DEFERRED, due_at=LATER)
    settle(store, partial)
    assert delivery(database, claimed.message_id, "state") == ("queued",)
    (again,) = write(store, lambda: store.claim_one(SURVIVOR, claimed.message_id, NOW))
    assert store.content(again).fates == {0: Fate.ACCEPTED, 1: Fate.DOUBT}
