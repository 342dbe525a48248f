"""A soak of either kind and policy: together more than 2,000 mails and 100 kills on each database, and ten restarts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bench.figures import Unmeasurable
from tests.torture.cruelty import Cruelty
from tests.torture.soak import tortured

SEED = int(os.environ.get("OUTBOX_TEST_SEED", "1"))
MESSAGES, KILLS, RESTARTS = 1050, 52, 5


@pytest.mark.timeout(300)
@pytest.mark.parametrize("policy", ["retry", "hold"])
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_nothing_is_lost_and_every_copy_is_announced_whatever_happens(kind: str, policy: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    goal = Cruelty(tmp_path, print, messages=MESSAGES, kills=KILLS, seed=SEED)
    try:
        with tortured(kind, policy, goal) as soak:
            assert soak.wrong == []
            assert {name: count for name, count in soak.reconciled().items() if count} == {}
            assert soak.done["messages"] >= MESSAGES
            assert soak.done["kill -9"] >= KILLS
            assert kind == "sqlite" or soak.done["restart"] >= RESTARTS
            assert soak.relay.journal.count > MESSAGES // 2, "most of them were sent"
            assert soak.tokens()["-"], "some were rolled back"
    except Unmeasurable as why:
        pytest.skip(f"THE SOAK ON POSTGRESQL IS NOT TESTED: {why}")
