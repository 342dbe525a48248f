"""From where on a lane is read: never above what may still come to wait there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from outbox.store.floors import LAG, LOOK_EVERY, WALK_EVERY, Floors

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
LANE, OTHER = ("shop@example.com", 5), ("shop@example.com", 9)
SECOND, TICK = timedelta(seconds=1), timedelta(milliseconds=1)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def safe(seconds: float = 3600) -> Floors:
    """Nobody who wrote to `outbox` then does so now."""
    floors = Floors()
    floors.look(at(seconds), [])
    floors.look(at(seconds) + LOOK_EVERY, [])
    return floors


def test_a_floor_is_below_the_last_claims_of_its_lane() -> None:
    floors = safe()
    floors.claimed(LANE, LAG, (at(1), 1))
    assert floors[LANE] is None  # LAG of it are above: nothing is far enough behind
    floors.claimed(LANE, LAG - 1, (at(2), 2))
    assert floors[LANE] is None
    floors.claimed(LANE, 1, (at(3), 3))
    assert floors[LANE] == (at(1), 1)
    floors.claimed(LANE, LAG, (at(4), 4))
    assert floors[LANE] == (at(3), 3)
    assert floors[OTHER] is None


def test_a_floor_does_not_rise_above_what_was_claimed_last() -> None:
    """Mail with an earlier due time came, and was claimed by itself."""
    floors = safe()
    floors.claimed(LANE, LAG, (at(9), 1))
    floors.claimed(LANE, LAG, (at(2), 2))
    assert floors[LANE] == (at(2), 2)


def test_a_floor_is_not_above_whoever_has_written_and_is_still_open() -> None:
    floors = Floors()
    for place in (1, 2):
        floors.claimed(LANE, LAG, (at(place), place))
    assert floors[LANE] is None  # it was never asked who writes
    floors.look(at(0.5), [])
    floors.look(at(10), [])
    floors.claimed(LANE, LAG, (at(3), 3))
    assert floors[LANE] == (at(0.5), 0)


def test_who_wrote_before_must_have_ended() -> None:
    floors = Floors()
    floors.look(at(1), ["7/1", "7/2"])
    floors.look(at(2), ["7/2", "8/1"])  # one of them is still there
    floors.look(at(3), ["8/1"])
    floors.claimed(LANE, LAG, (at(60), 1))
    floors.claimed(LANE, LAG, (at(61), 2))
    assert floors[LANE] == (at(1), 0)
    floors.look(at(4), [])  # of the look at 3, none is left
    floors.claimed(LANE, LAG, (at(62), 3))
    assert floors[LANE] == (at(3), 0)


def test_it_is_looked_when_a_floor_could_be_higher_and_not_too_often() -> None:
    floors = Floors()
    assert floors.wants_to_look(T0)
    floors.look(T0, [])
    assert not floors.wants_to_look(T0 + LOOK_EVERY - TICK)
    assert floors.wants_to_look(T0 + LOOK_EVERY)
    assert floors.wants_to_look(T0 - LOOK_EVERY)  # the clock was set back
    assert not floors.wants_to_look(T0 - LOOK_EVERY + TICK)
    floors.look(T0 + SECOND, [])  # now T0 is safe
    later = T0 + 2 * SECOND
    assert not floors.wants_to_look(later)  # nothing was claimed
    floors.claimed(LANE, 1, (T0 - TICK, 1))
    assert not floors.wants_to_look(later)  # what was claimed is below
    floors.claimed(OTHER, 1, (T0, 1))
    assert floors.wants_to_look(later)


def test_floors_are_forgotten_every_half_minute_and_when_asked() -> None:
    floors = safe()
    assert floors.is_time_to_walk(100.0)
    assert not floors.is_time_to_walk(100.0 + WALK_EVERY - 0.001)
    for place in (1, 2):
        floors.claimed(LANE, LAG, (at(place), place))
    floors.unexpired_at = T0
    assert floors.known(("", 0)) == [(LANE, (at(1), 1))]
    assert floors.is_time_to_walk(100.0 + WALK_EVERY)
    assert floors[LANE] is None
    assert floors.known(("", 0)) == []
    found: object = floors.unexpired_at
    assert found is None


def test_the_known_floors_behind_a_lane_come_in_the_order_of_lanes() -> None:
    floors = safe()
    lanes = [("b@example.com", 5), ("a@example.com", 9), ("a@example.com", 5)]
    for lane in lanes:
        for place in (1, 2):
            floors.claimed(lane, LAG, (at(place), place))
    floors.claimed(("c@example.com", 5), 1, (at(1), 1))  # it has none yet
    assert [lane for lane, _ in floors.known(("", 0))] == sorted(lanes)
    assert [lane for lane, _ in floors.known(("a@example.com", 5))] == sorted(lanes)[1:]
    assert WALK_EVERY == 30
