"""What else people use to send a backlog, each in an environment of its own."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.figures import Bench, Figure


def measure(bench: Bench) -> Iterator[Figure]:
    yield from ()
