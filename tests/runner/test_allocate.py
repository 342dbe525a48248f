"""How free places are shared among lanes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from outbox.core.account import Account, Registry, Sender, Tls
from outbox.core.outcome import Scope
from outbox.core.pause import Subject
from outbox.runner.claiming.dispatch import AHEAD, REFUSED_AT_ONCE, allocate, behind, window
from outbox.store import Lane, Pick

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EARLIER, LATER = NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)
MAIN = Account("main", "127.0.0.1", 25, Tls.NONE, max_connections=2)
BULK = Account("bulk", "127.0.0.1", 26, Tls.NONE, max_connections=1)
PLACES = window(MAIN.max_connections)


def registry(*senders: str, account: Account = MAIN) -> Registry:
    return Registry([MAIN, BULK], [Sender(each, account.name) for each in senders])


def lane(sender: str, priority: int = 5, due_at: datetime = EARLIER) -> Lane:
    return Lane(sender, priority, due_at)


def shares(picks: tuple[Pick, ...]) -> dict[str, int]:
    return {each.sender: each.count for each in picks}


def test_a_window_holds_a_few_messages_for_each_connection() -> None:
    assert PLACES == 2 * AHEAD


def test_one_sender_gets_every_free_place() -> None:
    found = allocate([lane("a@x")], registry("a@x"), {"main": 3}, {}, NOW)
    assert found.picks == (Pick("a@x", 5, PLACES - 3),)
    assert not found.crowded


def test_senders_share_equally() -> None:
    lanes = [lane(f"{name}@x") for name in "abcd"]
    assert shares(allocate(lanes, registry(*(each.sender for each in lanes)), {}, {}, NOW).picks) == {
        "a@x": 2,
        "b@x": 2,
        "c@x": 2,
        "d@x": 2,
    }


def test_when_places_are_few_the_next_in_turn_get_them() -> None:
    senders = [f"{name}@x" for name in "abcdefghijkl"]
    found = allocate(map(lane, senders), registry(*senders), {"main": PLACES - 2}, {"main": "c@x"}, NOW)
    assert list(shares(found.picks)) == ["d@x", "e@x"]
    assert found.crowded


def test_after_the_last_sender_comes_the_first() -> None:
    found = allocate(map(lane, ["a@x", "b@x"]), registry("a@x", "b@x"), {"main": PLACES - 1}, {"main": "b@x"}, NOW)
    assert list(shares(found.picks)) == ["a@x"]


def test_urgent_lanes_of_a_sender_come_first() -> None:
    found = allocate([lane("a@x", 0), lane("a@x", 9)], registry("a@x"), {}, {}, NOW)
    assert found.picks == (Pick("a@x", 0, PLACES), Pick("a@x", 9, PLACES))


def test_accounts_do_not_share_places() -> None:
    known = Registry([MAIN, BULK], [Sender("a@x", "main"), Sender("b@x", "bulk")])
    found = allocate([lane("a@x"), lane("b@x")], known, {"bulk": 100}, {}, NOW)
    assert shares(found.picks) == {"a@x": PLACES}
    assert found.crowded


def test_what_is_paused_is_passed_over() -> None:
    paused = replace(MAIN, pause_reason="535 5.7.8")
    found = allocate([lane("a@x")], Registry([paused], [Sender("a@x", "main")]), {}, {}, NOW)
    assert (found.picks, found.blocked) == ((), True)


# ---- half-open


PROBED = replace(MAIN, pause_reason="auth: 535 no", paused_until=EARLIER)
RELAY = Subject(Scope.RELAY, "127.0.0.1", 25)
ACCOUNT = Subject(Scope.ACCOUNT, "main")


def resting(account: Account) -> Account:
    return replace(account, relay_port=25, breaker_failures=5, breaker_until=EARLIER, breaker_reason="connect: no")


def test_of_a_half_open_account_the_message_that_is_due_for_longest_is_tried() -> None:
    known = Registry([PROBED], [Sender(f"{name}@x", "main") for name in "abc"])
    lanes = [lane("a@x"), lane("b@x", 9, EARLIER - timedelta(hours=1)), lane("c@x", 0), lane("c@x", 1, LATER)]
    found = allocate(lanes, known, {}, {}, NOW)
    assert found.picks == ()
    assert found.probes == ((Pick("b@x", 9, 1), (ACCOUNT,)),)
    assert (found.blocked, found.crowded) == (True, False)


def test_lanes_take_turns_in_trying_a_half_open_account() -> None:
    known = Registry([PROBED], [Sender(f"{name}@x", "main") for name in "ab"])
    lanes = [lane("a@x", 5, EARLIER - timedelta(hours=2)), lane("a@x", 0, EARLIER - timedelta(hours=1)), lane("b@x")]
    tried: dict[tuple[str, int], int] = {}
    turns = []
    for number in range(1, 6):
        ((pick, _),) = allocate(lanes, known, {}, {}, NOW, tried=tried).probes
        turns.append((pick.sender, pick.priority))
        tried[turns[-1]] = number
    assert turns == [("a@x", 5), ("a@x", 0), ("b@x", 5), ("a@x", 5), ("a@x", 0)]


def test_what_is_tried_by_somebody_is_left_alone() -> None:
    tried = replace(PROBED, probe_until=LATER)
    found = allocate([lane("a@x")], Registry([tried], [Sender("a@x", "main")]), {}, {}, NOW)
    assert (found.picks, found.probes, found.blocked) == ((), (), True)


def test_a_half_open_account_with_nothing_due_is_not_touched() -> None:
    found = allocate([lane("a@x", due_at=LATER)], Registry([PROBED], [Sender("a@x", "main")]), {}, {}, NOW)
    assert (found.picks, found.probes, found.next_due) == ((), (), LATER)


def test_the_accounts_of_a_half_open_relay_have_one_probe() -> None:
    known = Registry([resting(PROBED), resting(BULK)], [Sender("a@x", "main"), Sender("b@x", "bulk")])
    first = allocate([lane("a@x"), lane("b@x")], known, {}, {}, NOW).probes
    assert first == ((Pick("a@x", 5, 1), (RELAY, ACCOUNT)),)
    other = allocate([lane("a@x"), lane("b@x", due_at=EARLIER - timedelta(minutes=1))], known, {}, {}, NOW).probes
    assert other == ((Pick("b@x", 5, 1), (RELAY,)),)


def test_a_half_open_sender_is_tried_beside_the_others() -> None:
    paused = Sender("a@x", "main", pause_reason="mail: 553 no", paused_until=EARLIER)
    found = allocate([lane("a@x"), lane("b@x")], Registry([MAIN], [paused, Sender("b@x", "main")]), {}, {}, NOW)
    assert shares(found.picks) == {"b@x": PLACES}
    assert found.probes == ((Pick("a@x", 5, 1), (Subject(Scope.SENDER, "a@x"),)),)


def test_what_is_due_later_is_waited_for() -> None:
    found = allocate([lane("a@x", due_at=LATER), lane("b@x", due_at=LATER)], registry("a@x", "b@x"), {}, {}, NOW)
    assert (found.picks, found.next_due) == ((), LATER)


def test_mail_of_unregistered_senders_is_claimed_to_be_refused() -> None:
    found = allocate([lane("a@x")], registry(), {}, {}, NOW)
    assert found.picks == (Pick("a@x", 5, REFUSED_AT_ONCE),)


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,3}@x", fullmatch=True), st.sampled_from(["main", "bulk"]), max_size=30),
    st.fixed_dictionaries({"main": st.integers(0, 10), "bulk": st.integers(0, 10)}),
    st.sampled_from(["", "a@x", "m@x", "zzz@x"]),
)
def test_no_more_is_asked_than_there_are_places_and_no_place_stays_empty(
    senders: dict[str, str], in_flight: dict[str, int], turn: str
) -> None:
    known = Registry([MAIN, BULK], [Sender(address, account) for address, account in senders.items()])
    turns = {"main": turn, "bulk": turn}
    found = allocate([lane(each) for each in sorted(senders)], known, in_flight, turns, NOW)
    for account in (MAIN, BULK):
        mine = [each for each in senders if senders[each] == account.name]
        asked = sum(pick.count for pick in found.picks if pick.sender in mine)
        free = max(0, window(account.max_connections) - in_flight[account.name])
        assert asked == (free if mine else 0)
        if mine and free < len(mine):
            assert found.crowded


def test_the_next_pass_goes_on_behind_the_last_sender_that_was_seen_whole() -> None:
    assert behind([lane("a@x"), lane("b@x", 0), lane("b@x", 1)]) == "a@x"
    assert behind([lane("b@x", 0), lane("b@x", 1)]) == "b@x"
