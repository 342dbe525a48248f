"""Mistakes in a statement: on the source text of a string that holds SQL.

A condition is not cut out but made to hold always, so that its parameters stay where they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

ALWAYS = "({} OR 1 = 1)"


class Change(NamedTuple):
    """Replace `start:stop` of a text."""

    start: int
    stop: int
    text: str
    what: str


_IS_SQL = re.compile(
    r"\b(SELECT .*\bFROM|UPDATE \w+|INSERT INTO|DELETE FROM|WHERE|AND|RETURNING|EXISTS|ORDER BY|UNION ALL)\b", re.DOTALL
)
_CONDITION = re.compile(r"\b(?:WHERE|AND|OR)\s+(?=\S)")
_END = re.compile(r"\s*(?:\b(?:AND|OR|ORDER BY|GROUP BY|LIMIT|RETURNING|FOR UPDATE|UNION|THEN|END|WHERE)\b|;|\"|--)")

_SWAPS = (
    (r"(?<=\s)AND(?=\s)", "OR"),
    (r"(?<=\s)OR(?=\s)", "AND"),
    (r"(?<=[\w)?] )<=(?= )", "<"),
    (r"(?<=[\w)?] )>=(?= )", ">"),
    (r"(?<=[\w)?] )<(?= )", "<="),
    (r"(?<=[\w)?] )>(?= )", ">="),
    (r"\bIS NOT NULL\b", "IS NULL"),
    (r"\bIS NULL\b", "IS NOT NULL"),
    (r"(?<!NOT )\bEXISTS(?= ?\()", "NOT EXISTS"),
    (r"\bNOT EXISTS\b", "EXISTS"),
    (r"(?<!NOT )\bIN(?= \()", "NOT IN"),
    (r"(?<=[\w)] )\+(?= \d)", "-"),
    (r"(?<=[=<>,(] )\d+\b", "{}1"),
    (r" FOR UPDATE(?: OF \w+)?(?: SKIP LOCKED)?", ""),
    (r" SKIP LOCKED", ""),
    (r"\bSELECT DISTINCT\b", "SELECT"),
    (r" ORDER BY [\w., ]+?(?= LIMIT|\)|\"|\n| FOR)", ""),
    (r"'(?:queued|sending|held|sent|failed|expired|cancelled)'", "'nowhere'"),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
    (r"\bUNION ALL\b", "EXCEPT"),
)
_RESET = re.compile(r"\b(\w+) = (?:NULL|\d+)(?=[,\s])")


def is_sql(text: str) -> bool:
    return _IS_SQL.search(text) is not None and ("=" in text or " IN " in text or "SELECT" in text or "INSERT" in text)


def changes(text: str) -> Iterator[Change]:
    """Every single mistake in `text`."""
    yield from conditions(text)
    for pattern, put in _SWAPS:
        for found in re.finditer(pattern, text):
            yield Change(
                *found.span(), put.format(found[0]), f"{found[0].strip()} -> {put.format(found[0]) or '(gone)'}"
            )
    for found in _RESET.finditer(text.partition("WHERE")[0]):
        if "SET" in text:
            yield Change(*found.span(), f"{found[1]} = {found[1]}", f"{found[0]} -> (kept)")


def conditions(text: str) -> Iterator[Change]:
    """Every condition made to hold always."""
    for found in _CONDITION.finditer(text):
        stop = _end_of(text, found.end())
        condition = text[found.end() : stop]
        if condition and not condition.startswith("{"):
            yield Change(found.end(), stop, ALWAYS.format(condition), f"{condition} -> (always)")


def _end_of(text: str, start: int) -> int:
    """Where the condition that begins there ends: at the next word that cannot belong to it."""
    depth, place = 0, start
    while place < len(text):
        if depth == 0 and (text[place] == ")" or _END.match(text, place)):
            return place
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        place += 1
    return place
