"""Recovery after a kill -9. A few deaths: how long it takes is measured by `bin/check --torture recovery`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture import recovery
from tests.torture.cruelty import Cruelty

DEATHS = 3


@pytest.fixture(params=["sqlite", "postgres"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Cruelty, str]:
    server = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    return Cruelty(tmp_path, print, server, quick=True), request.param


def test_another_runner_finishes_what_a_dead_one_had_begun(scene: tuple[Cruelty, str]) -> None:
    """Each death leaves one doubt, and the message is sent once more and settled."""
    cruelty, kind = scene
    with recovery.scene(cruelty, kind) as at:
        took = recovery.recoveries(at, DEATHS, lambda: at.runner(), lambda life: None)
        assert len(took) == DEATHS
        assert at.site.states() == {"sent": DEATHS}
        assert at.site.query("SELECT sum(doubts), max(claim_no) FROM outbox_delivery") == [(DEATHS, 2)]
        at.site.audit(at.relay.messages)


def test_where_only_the_lease_tells_it_tells(scene: tuple[Cruelty, str]) -> None:
    found = list(recovery.by_the_lease(*scene, recovery.KINDS[scene[1]]))
    assert [each.holds for each in found] == [True]
