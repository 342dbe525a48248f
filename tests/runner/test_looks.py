"""When the clerk looks whether somebody else has committed: arithmetic of times."""

from __future__ import annotations

from outbox.runner.writing.looks import BURST, CLOSELY, OFTEN, RARELY, Looks


def test_an_expected_commit_is_looked_for_closely_and_then_ever_more_rarely() -> None:
    looks = Looks()
    looks.every = RARELY
    assert looks.pause(100.0) == RARELY

    looks.expect(100.0, committed_at=0.0)

    pauses, now = [], 100.0
    while (pause := looks.pause(now)) < RARELY:
        pauses.append(pause)
        now += pause
    assert pauses[0] == CLOSELY
    assert pauses == sorted(pauses)
    assert len(pauses) < 70
    assert all(pause <= max(CLOSELY, (now - 100.0) / 8) for pause in pauses)


def test_what_may_be_our_own_commit_is_worth_a_few_looks() -> None:
    looks = Looks()
    looks.expect(100.0, committed_at=99.9995)

    now, count = 100.0, 0
    while (pause := looks.pause(now)) < OFTEN:
        now, count = now + pause, count + 1
    assert 3 < count < 10


def test_an_application_that_commits_all_the_time_is_looked_after_as_often_as_ever() -> None:
    looks = Looks()
    now, found = 100.0, 0
    while now < 110:
        looks.expect(now, committed_at=0.0)
        now += looks.pause(now)
        looks.found(now)
        found += 1
    assert found <= 10 * 51 + BURST

    assert looks.pause(now) <= OFTEN
    looks.expect(now + 1, committed_at=0.0)
    assert looks.pause(now + 1) == CLOSELY, "after a second of silence it is prompt again"
