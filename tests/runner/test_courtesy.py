"""How long the lock is left to others: longer than SQLite's busy handler sleeps between two looks."""

from __future__ import annotations

import pytest

from outbox.runner.writing.courtesy import LONGEST, OTHERS_ACTIVE, SHORTEST, SPARED, Courtesy

LOOKS = (0.0, 0.001, 0.003, 0.008, 0.018, 0.033)
"""When SQLite's busy handler looks whether the lock is free, in seconds after the first look."""


def test_alone_nothing_is_left() -> None:
    courtesy = Courtesy()
    courtesy.had_it(100.0, 100.004)
    assert courtesy.left(100.004) == 0.0


def test_others_are_remembered_for_a_moment() -> None:
    courtesy = Courtesy()
    courtesy.met_others(100.0)
    courtesy.had_it(100.9, 100.95)
    assert courtesy.left(100.95) > 0.0
    courtesy.had_it(101.1, 101.15)
    assert courtesy.left(100.0 + OTHERS_ACTIVE + 0.15) == 0.0


def test_what_is_left_has_an_end_and_runs_out() -> None:
    courtesy = Courtesy()
    courtesy.met_others(100.0)
    courtesy.had_it(100.0, 100.0001)
    assert courtesy.left(100.0001) == pytest.approx(SHORTEST)
    assert courtesy.left(100.0001 + SHORTEST) == pytest.approx(0.0)
    courtesy.had_it(100.0, 100.5)
    assert courtesy.left(100.5) == pytest.approx(LONGEST)


@pytest.mark.parametrize("hold", [0.0003, 0.001, 0.002, 0.004, 0.008])
def test_who_meets_us_once_does_not_meet_us_again(hold: float) -> None:
    """Whenever in a hold the application came: at its first look after the hold, the lock is still free."""
    courtesy = Courtesy()
    courtesy.met_others(100.0)
    courtesy.had_it(100.0, 100.0 + hold)
    end = 100.0 + hold + courtesy.left(100.0 + hold)
    for part in range(100):
        came = 100.0 + hold * part / 100
        look = next(came + each for each in LOOKS if came + each >= 100.0 + hold)
        assert look < end


def test_a_mail_alone_does_not_wait() -> None:
    """Claim, mark and settlement, twenty times a second, while the application that sends these mails writes."""
    courtesy = Courtesy()
    courtesy.had_it(99.0, 99.001)
    for mail in range(100):
        now = 100.0 + mail / 20
        courtesy.met_others(now)
        for hold in (0.0005, 0.0003, 0.001):
            courtesy.had_it(now, now + hold)
            now += hold
            assert courtesy.left(now) == 0.0


def test_who_has_much_to_do_is_spared_no_more_than_a_few_milliseconds() -> None:
    courtesy, now = Courtesy(), 100.0
    courtesy.had_it(0.0, 0.001)
    began = now
    held = 0.0
    while now < 110.0:
        courtesy.met_others(now)
        courtesy.had_it(now, now + 0.004)
        held += 0.004
        now += 0.004 + courtesy.left(now + 0.004)
    assert held <= SPARED + (now - began) / 4 + 0.004
