"""What a measurement says, and how it is printed and kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


class Unmeasurable(Exception):
    """Something that a measurement needs is not on this machine. The text says what, for people."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. `aim` is what the project asks of itself, as people read it (``"≥ 10 ×"``); `holds`, whether
    this value meets it; None where nothing is asked. `note` says what was compared with what.
    """

    topic: str
    name: str
    value: float
    unit: str
    aim: str = ""
    holds: bool | None = None
    note: str = ""

    @property
    def is_ratio(self) -> bool:
        return self.unit == "×"


def at_least(topic: str, name: str, value: float, unit: str, bound: float, note: str = "") -> Figure:
    """A figure that should be `bound` or more."""
    return Figure(topic, name, value, unit, f"≥ {bound:,g} {unit}", value >= bound, note)


def at_most(topic: str, name: str, value: float, unit: str, bound: float, note: str = "") -> Figure:
    """A figure that should be `bound` or less."""
    return Figure(topic, name, value, unit, f"≤ {bound:,g} {unit}", value <= bound, note)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a measurement is given: a `folder` of its own, and whether it has to be `quick` (all of them together: less
    than a minute). `say` tells whoever waits how far it is. `postgres` is the URL of a server's database that may be
    used, or None.
    """

    folder: Path
    say: Callable[[str], None]
    quick: bool = False
    postgres: str | None = None

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


Measure = Callable[[Bench], Iterator[Figure]]


def lines(figures: Iterable[Figure]) -> Iterator[str]:
    """For people: ratios first."""
    for each in sorted(figures, key=lambda figure: not figure.is_ratio):
        verdict = {True: "ok", False: "MISSED", None: ""}[each.holds]
        line = f"{each.topic:10} {each.name:50} {shown(each.value):>9} {each.unit:8} {each.aim:14} {verdict:6}"
        yield f"{line} {each.note}".rstrip()


def shown(value: float) -> str:
    """Three digits, or all of those before the point."""
    if value and abs(value) < 100:
        return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    return f"{value:,.0f}"


def as_json(figures: Iterable[Figure], machine: Mapping[str, object]) -> str:
    """`machine` says where and how these were measured."""
    kept = {"machine": dict(machine), "figures": [asdict(each) for each in figures]}
    return json.dumps(kept, indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> tuple[list[Figure], dict[str, object]]:
    """What `as_json` has written."""
    kept = json.loads(text)
    return [Figure(**each) for each in kept["figures"]], kept["machine"]
