"""Every state that two runners and two messages can reach, with the production SQL; and without each precaution."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.figures import Figure, at_least, at_most
from tests.model.__main__ import LARGE, SMALL
from tests.model.explorer import explore
from tests.model.test_model import WHOLE
from tests.model.variants import VARIANTS
from tests.torture.cruelty import Cruelty


def measure(cruelty: Cruelty) -> Iterator[Figure]:
    bounds = WHOLE if cruelty.quick else LARGE
    found = explore(bounds)
    yield at_most("model", "promises broken", bool(found.broken), "", 0, found.broken or str(bounds))
    yield at_least("model", "transitions", found.transitions, "", 100_000, f"{found.states:,} states")
    yield at_most("model", "CPU", found.seconds, "s", 60)
    broken = [name for name, (store, protocol) in VARIANTS.items() if explore(SMALL, store, protocol).broken]
    words = "; ".join(broken)
    yield at_least("model", "precautions that are needed", len(broken), "", len(VARIANTS), words)
