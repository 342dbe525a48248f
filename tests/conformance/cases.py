"""The cases, as one dialect has them. See the package for their form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Step = str | dict[str, Any]
"""A word about the transaction, or a statement with `run` and `with`."""
Outcome = dict[str, Any]
"""`rows`, or `refused` with the driver's own words."""

FILES = sorted((Path(__file__).parent / "cases").glob("*.json"))


@dataclass(frozen=True, slots=True)
class Case:
    """`expected` has an entry for each of `steps`: `rows`, `refused` (words), or nothing of both."""

    name: str
    steps: tuple[Step, ...]
    expected: tuple[Outcome, ...]

    def faults(self, outcomes: list[Outcome]) -> list[str]:
        """What is not as expected, one line each."""
        assert len(outcomes) == len(self.steps), f"{self.name}: {len(outcomes)} outcomes of {len(self.steps)} steps"
        return [
            f"{self.name}: {step} was to be {expected or 'taken'}, but gave {outcome}"
            for step, expected, outcome in zip(self.steps, self.expected, outcomes, strict=True)
            if not _is_as(expected, outcome)
        ]


def _is_as(expected: Outcome, outcome: Outcome) -> bool:
    if "refused" in expected:
        return expected["refused"] in outcome.get("refused", "")
    return "refused" not in outcome and ("rows" not in expected or _texts(outcome["rows"]) == expected["rows"])


def _texts(rows: list[list[Any]]) -> list[list[str | None]]:
    return [[None if cell is None else str(cell) for cell in row] for row in rows]


def cases(dialect: str) -> list[Case]:
    return [
        _case(each, dialect)
        for file in FILES
        for each in json.loads(file.read_text(encoding="utf-8"))
        if each.get("only", dialect) == dialect
    ]


def _case(given: dict[str, Any], dialect: str) -> Case:
    steps = [{name: _of(value, dialect) for name, value in _whole(step).items()} for step in given["steps"]]
    expected: list[Outcome] = [{name: step[name] for name in ("rows", "refused") if name in step} for step in steps]
    asked = [step["word"] if "word" in step else {"run": step["run"], "with": step.get("with", [])} for step in steps]
    return Case(given["name"], tuple(asked), tuple(expected))


def _whole(step: Step) -> dict[str, Any]:
    return {"word": step} if isinstance(step, str) else step


def _of(value: Any, dialect: str) -> Any:
    return value[dialect] if isinstance(value, dict) else value
