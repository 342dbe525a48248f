"""What a topic of torture is given, and the figures it says. A figure that misses its aim is a broken promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import Figure

DATABASES = ("sqlite", "postgres")
POLICIES = ("retry", "hold")


@dataclass(frozen=True, slots=True)
class Cruelty:
    """`folder`: its own. `say` tells whoever waits how far it is. `postgres`: the URL of a database of a server whose
    role may do everything, or None. `quick`: a tenth. `messages`, `kills` and `policies`: for the soak. `deaths`: for
    recovery. `databases`: "sqlite", "postgres", or both, where a topic has both. `seed`: for the dice.
    """

    folder: Path
    say: Callable[[str], None]
    postgres: str | None = None
    quick: bool = False
    messages: int = 2000
    kills: int = 100
    seed: int = 1
    deaths: int = 100
    databases: tuple[str, ...] = DATABASES
    policies: tuple[str, ...] = POLICIES

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


Measure = Callable[[Cruelty], Iterator[Figure]]


def none_of(topic: str, name: str, count: int, note: str = "") -> Figure:
    """What must not happen at all."""
    return Figure(topic, name, count, "", "0", count == 0, note)
