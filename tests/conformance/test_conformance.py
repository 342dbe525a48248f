"""Every driver that is here finds what the cases say. See the package."""

from __future__ import annotations

import pytest

from tests.conformance.cases import FILES, Case, cases
from tests.conformance.drivers import POSTGRES, SQLITE, Driver, Place


def check(driver: Driver, place: Place, dialect: str) -> None:
    asked = cases(dialect)
    found = driver(place, asked)
    assert len(found) == len(asked)
    assert [fault for case, outcomes in zip(asked, found, strict=True) for fault in case.faults(outcomes)] == []


@pytest.mark.parametrize("name", SQLITE)
def test_sqlite_keeps_its_promises_to(name: str, sqlite_place: Place) -> None:
    check(SQLITE[name], sqlite_place, "sqlite")


@pytest.mark.parametrize("name", POSTGRES)
def test_postgres_keeps_its_promises_to(name: str, postgres_place: Place) -> None:
    check(POSTGRES[name], postgres_place, "postgres")


def test_names_of_cases_are_unique_and_every_file_has_some() -> None:
    for dialect in ("sqlite", "postgres"):
        names = [case.name for case in cases(dialect)]
        assert len(names) == len(set(names)) >= 40
    assert len(FILES) == 9


def test_a_fault_would_be_noticed() -> None:
    insert = {"run": "INSERT", "with": []}
    case = Case("x", (insert, insert, insert), ({}, {"rows": [["7", None]]}, {"refused": "body"}))
    assert case.faults([{"rows": []}, {"rows": [[7, None]]}, {"refused": "no body"}]) == []
    assert len(case.faults([{"refused": "no body"}, {"rows": [["7", ""]]}, {"rows": []}])) == 3
