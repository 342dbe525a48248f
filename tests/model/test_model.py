"""The protocol keeps its promises in every state it can reach, and every precaution that it takes is needed."""

from __future__ import annotations

import pytest

from tests.model.explorer import explore
from tests.model.protocol import Bounds
from tests.model.variants import VARIANTS

WHOLE = Bounds(claims=2, born=2, buried=1, unheard=1)
SMALL = Bounds(claims=2, born=2, buried=1, unheard=0)
"""Enough to find every variant out."""


@pytest.mark.timeout(300)
def test_the_promises_hold_in_every_state() -> None:
    found = explore(WHOLE)
    assert found.broken == "", "\n".join((found.broken, *found.steps))
    assert found.transitions >= 100_000
    assert set(found.ends) >= {("sent", "sent"), ("sent", "held")}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("left_out", VARIANTS)
def test_without_this_precaution_a_promise_is_broken(left_out: str) -> None:
    """A model that cannot fail would prove nothing."""
    store, protocol = VARIANTS[left_out]
    found = explore(SMALL, store, protocol)
    assert found.broken, f"{found.states} states, and nothing found"
    print(f"{found.broken}, after {found.transitions} transitions:", *found.steps, sep="\n  ")
