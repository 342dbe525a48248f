"""The crash matrix. Here is a quarter of its cells, others of each kind; `bin/check --torture matrix` is all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.lives import Zygote
from tests.torture.matrix import played
from tests.torture.places import Places
from tests.torture.points import cells

WAYS = [("sqlite", "kill"), ("postgres", "stop"), ("sqlite", "stop"), ("postgres", "kill")]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("kind", "act"), WAYS)
def test_nothing_is_lost_wherever_a_runner_dies_or_stands_still(
    kind: str, act: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("postgres_server") if kind == "postgres" else None
    wanted = cells(kind, act)[WAYS.index((kind, act)) :: 4]
    with Places(tmp_path, server) as places, Zygote(tmp_path) as zygote:
        verdicts = list(played(wanted, places, zygote))
    wrong = {str(each.cell): each.wrong for each in verdicts if each.wrong}
    assert wrong == {}
    assert len(verdicts) > 60
