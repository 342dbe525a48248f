"""A little of each torture of the system under a runner: `bin/check --torture` has all of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.bench.figures import Figure, Unmeasurable
from tests.running import Site
from tests.torture import clocks, corpora, power, storage
from tests.torture.shim import FULL, SYNC_ERROR, WRITE_ERROR, Shim


def hold(figures: Iterable[Figure]) -> None:
    broken = [
        f"{each.name}: {each.value:g} {each.unit}, not {each.aim} ({each.note})" for each in figures if not each.holds
    ]
    assert broken == []


@pytest.fixture
def shim(tmp_path: Path) -> Shim:
    try:
        return Shim(tmp_path / "shim")
    except Unmeasurable as why:
        pytest.skip(str(why))


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (FULL, "claim"),
        (FULL, "mark"),
        (FULL, "settlement"),
        (SYNC_ERROR, "mark"),
        (SYNC_ERROR, "settlement"),
        (WRITE_ERROR, "mark"),
    ],
)
def test_a_disk_that_fails_for_a_moment_costs_nobody_a_mail(
    sqlite_site: Site, shim: Shim, fault: int, where: str
) -> None:
    hold(storage.failing(sqlite_site, shim, "fault", fault, where))


@pytest.mark.parametrize("torture", [storage.full_at_the_end, storage.read_only])
def test_a_disk_that_is_full_at_the_end_or_read_only(
    sqlite_site: Site, torture: Callable[[Site], Iterable[Figure]]
) -> None:
    """What cannot be written is rescued elsewhere; where nothing can be written, that is said at the start."""
    try:
        hold(torture(sqlite_site))
    except Unmeasurable as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("name", ["−1 h", "+30 d"])
def test_a_clock_that_jumps_stops_nothing_and_ends_nothing(sqlite_site: Site, shim: Shim, name: str) -> None:
    found = clocks.jumped(sqlite_site, shim, name, clocks.JUMPS[name], seconds=1.5)
    hold(each for each in found if each.unit != "s")  # timings belong to the torture


def test_what_was_acknowledged_survives_a_cut_of_the_power(sqlite_site: Site, shim: Shim) -> None:
    first, records = power.recorded(sqlite_site, 20)
    hold(power.cut(sqlite_site.folder, first, records, 20, random.Random(7), "FULL"))


def test_the_cut_of_the_power_can_tell(sqlite_site: Site, shim: Shim) -> None:
    first, records = power.enqueued(sqlite_site, 30, "NORMAL")
    losing, sound = power.cut(sqlite_site.folder, first, records, 20, random.Random(7), "NORMAL")
    assert losing.value > 0
    assert sound.value == 0


def test_collected_mail_goes_out_as_it_came(sqlite_site: Site) -> None:
    hold(corpora.through(sqlite_site, "all", {**corpora.standard(), **corpora.OWN}))
