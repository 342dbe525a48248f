"""Sliding windows and shares, as arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.limits import Limit, Limited, Span, Window, aligned, free, next_free, returned, share, taken

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TICK = timedelta(milliseconds=1)

SPANS = st.sampled_from(Span)
MOSTS = st.integers(1, 500)
MOMENTS = st.integers(0, 10**9).map(lambda ticks: NOON + ticks * TICK)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Span, int, list[tuple[datetime, int]]]:
    """A span, a limit, and when how many ask to go."""
    span = draw(SPANS)
    length = span.length // TICK
    now = NOON
    asked = []
    for wait, count in draw(st.lists(st.tuples(st.integers(0, length), st.integers(1, 20)), max_size=40)):
        now += TICK * (wait // draw(st.integers(1, 20)))
        asked.append((now, count))
    return span, draw(st.integers(1, 60)), asked


def went(span: Span, most: int, asked: list[tuple[datetime, int]]) -> list[tuple[datetime, int]]:
    """Who goes, when everybody goes who may."""
    window = Window(aligned(span, NOON))
    gone = []
    for now, count in asked:
        if count <= free(window, span, most, now):
            window = taken(window, span, count, now)
            gone.append((now, count))
    return gone


@given(histories())
def test_never_more_than_the_limit_goes_in_an_aligned_span(
    history: tuple[Span, int, list[tuple[datetime, int]]],
) -> None:
    span, most, asked = history
    totals: dict[datetime, int] = {}
    for now, count in went(span, most, asked):
        totals[aligned(span, now)] = totals.get(aligned(span, now), 0) + count
    assert all(total <= most for total in totals.values())


@given(histories())
def test_in_a_sliding_span_the_excess_is_no_more_than_the_error_of_the_estimate(
    history: tuple[Span, int, list[tuple[datetime, int]]],
) -> None:
    span, most, asked = history
    gone = went(span, most, asked)
    for end, _ in gone:
        began = aligned(span, end)
        inside = sum(count for at, count in gone if end - span.length < at <= end)
        before = [(at, count) for at, count in gone if began - span.length <= at < began]
        evenly = sum(count for _, count in before) * (1 - (end - began) / span.length)
        really = sum(count for at, count in before if at > end - span.length)
        assert inside <= most + max(0.0, really - evenly) + 0.5 + 1e-6
        assert inside <= 2 * most


@given(SPANS, MOSTS, MOMENTS, st.integers(0, 10**9), st.integers(0, 700), st.integers(0, 700), st.integers(1, 900))
def test_what_is_said_to_be_free_next_is_free_then_and_not_earlier(
    span: Span, most: int, began: datetime, wait: int, used: int, before: int, count: int
) -> None:
    window, now = Window(aligned(span, began), used, before), began + wait * TICK
    at = next_free(window, span, most, count, now)
    wanted = min(count, most)
    assert at >= now
    assert free(window, span, most, at) >= wanted
    assert at == now or free(window, span, most, at - TICK) < wanted


@given(SPANS, MOSTS, MOMENTS, st.integers(0, 700), st.integers(0, 700), st.integers(0, 10**8), st.integers(1, 400))
def test_waiting_frees_and_asking_for_more_waits_longer(
    span: Span, most: int, now: datetime, used: int, before: int, wait: int, count: int
) -> None:
    window = Window(aligned(span, now), used, before)
    assert free(window, span, most, now + wait * TICK) >= free(window, span, most, now)
    assert next_free(window, span, most, count + 1, now) >= next_free(window, span, most, count, now)
    assert next_free(window, span, most, count, now) <= now + 2 * span.length


@given(SPANS, MOSTS, MOMENTS, st.integers(0, 700), st.integers(0, 700), st.integers(1, 50))
def test_what_is_taken_is_not_free_any_more_and_comes_back_when_it_is_given_back(
    span: Span, most: int, now: datetime, used: int, before: int, count: int
) -> None:
    window = Window(aligned(span, now), used, before)
    after = taken(window, span, count, now)
    assert free(after, span, most, now) == max(0, free(window, span, most + 10**6, now) - 10**6 - count)
    assert returned(after, span, count, now, now) == window
    in_the_next = returned(after, span, count, now, now + span.length)
    assert in_the_next == Window(window.began_at + span.length, 0, used)
    assert returned(after, span, count, now, now + 2 * span.length) == Window(window.began_at + 2 * span.length)


def test_a_beginning_in_the_future_neither_counts_twice_nor_lasts() -> None:
    window = Window(NOON + timedelta(days=3650), 30, 0)
    assert free(window, Span.MINUTE, 30, NOON) == 0
    assert next_free(window, Span.MINUTE, 30, 1, NOON) <= NOON + timedelta(minutes=2)
    assert window.at(Span.MINUTE, NOON) == Window(NOON, 30, 0)


def test_one_minute_of_thirty_frees_one_every_two_seconds_in_the_next() -> None:
    full = Window(NOON, 30)
    assert next_free(full, Span.MINUTE, 30, 1, NOON + timedelta(seconds=10)) == NOON + timedelta(seconds=61)
    assert next_free(full, Span.MINUTE, 30, 2, NOON + timedelta(seconds=10)) == NOON + timedelta(seconds=63)
    assert free(full, Span.MINUTE, 30, NOON + timedelta(seconds=90)) == 15
    assert free(full, Span.MINUTE, 30, NOON + timedelta(seconds=120)) == 30


@pytest.mark.parametrize("most", [1, 2, 5, 30])
def test_whoever_takes_all_he_may_gets_the_limit_in_the_long_run(most: int) -> None:
    window, now, gone = Window(NOON), NOON, 0
    while now < NOON + timedelta(days=20):
        now = next_free(window, Span.DAY, most, 1, now)
        window = taken(window, Span.DAY, 1, now)
        gone += 1
    assert 20 * most <= gone <= 21 * most


@given(st.integers(1, 1000), st.integers(1, 50))
def test_shares_add_up_to_the_limit_and_differ_by_one_at_most(most: int, runners: int) -> None:
    shares = [share(most, rank, runners) for rank in range(runners)]
    assert sum(shares) == most
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(
    ("limit", "rates"),
    [
        (Limit(Limited.ACCOUNT, "main", connections=3), []),
        (Limit(Limited.DOMAIN, "example.net", per_minute=5, per_day=7), [(Span.MINUTE, 5), (Span.DAY, 7)]),
        (Limit(Limited.SENDER, "*@example.com", per_hour=1), [(Span.HOUR, 1)]),
    ],
)
def test_a_limit_names_the_spans_that_it_limits(limit: Limit, rates: list[tuple[Span, int]]) -> None:
    assert list(limit.rates()) == rates
