"""Every mistake that would break the promise is noticed: `critical.py`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest

from tests.mutants.critical import Critical, critical
from tests.mutants.workshop import Seen, Verdict, Workshop

CRITICAL = critical()
AT_ONCE = 3
SECONDS = 90.0


@pytest.fixture(scope="module")
def verdicts(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Verdict]]:
    """All of them, some at the same time."""
    free: SimpleQueue[Workshop] = SimpleQueue()
    for number in range(AT_ONCE):
        free.put(Workshop(tmp_path_factory.mktemp("workshop") / str(number), postgres_server))

    def test(mistake: Critical) -> Verdict:
        workshop = free.get()
        try:
            return workshop.test(mistake, [Seen(mistake.tests, SECONDS)])
        finally:
            free.put(workshop)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield dict(zip([each.name for each in CRITICAL], pool.map(test, CRITICAL), strict=True))
    for _ in range(AT_ONCE):
        free.get().close()


@pytest.mark.parametrize("name", [each.name for each in CRITICAL])
def test_it_is_noticed(verdicts: dict[str, Verdict], name: str) -> None:
    verdict = verdicts[name]
    assert verdict.killed, "no test fails"
    assert "::" in verdict.by, f"it is not a test that notices it: {verdict.by}"


def test_the_fence_of_every_statement_is_among_them() -> None:
    fenced = [each for each in CRITICAL if each.name.startswith("no fence")]
    assert len(fenced) >= 12
    assert {each.module for each in fenced} >= {f"outbox/store/{name}.py" for name in ("postgres", "queue", "reclaim")}
