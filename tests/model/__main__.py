"""Explore more than the tests do, and print what was found: `python -m tests.model`."""

from __future__ import annotations

import sys

from tests.model.explorer import explore
from tests.model.protocol import Bounds
from tests.model.variants import VARIANTS

LARGE = Bounds(claims=3, born=2, buried=1, unheard=0)
SMALL = Bounds(claims=2, born=2, buried=1, unheard=0)


def figures() -> dict[str, str]:
    """What was explored, and what each variant broke. Raises AssertionError when the protocol breaks a promise, or a
    variant does not.
    """
    found = explore(LARGE)
    assert not found.broken, "\n".join((found.broken, *found.steps))
    told = {
        "the protocol, with the production SQL": f"{found.states:,} states, {found.transitions:,} transitions,"
        f" {found.seconds:.0f} s CPU: every promise holds in each"
    }
    for name, (store, protocol) in VARIANTS.items():
        variant = explore(SMALL, store, protocol)
        assert variant.broken, f"{name}: nothing was broken in {variant.states} states"
        told[f"… if {name}"] = f"broken after {len(variant.steps)} steps: {variant.broken}"
    return told


if __name__ == "__main__":
    for name, words in figures().items():
        sys.stdout.write(f"{name}: {words}\n")
        sys.stdout.flush()
