"""A hundred hostile rows, no two alike, on either database: `bin/check --torture hostile` has more good ones."""

from __future__ import annotations

from outbox.store.database import dialect
from tests.running import Site
from tests.running import site as site
from tests.torture import hostilities
from tests.torture.hostile import batch

GOOD = 180


def test_each_of_them_fails_with_its_column_and_its_fault(site: Site) -> None:
    found = list(batch(site, dialect(site.db), GOOD))
    assert [f"{each.name}: {each.value:g} ({each.note})" for each in found if not each.holds] == []


def test_there_are_a_hundred_on_either_database() -> None:
    kinds = hostilities.all_of_them()
    assert len(kinds) > 150
    assert sum(hostilities.storable("postgres", each) for each in kinds) > 100
