"""How commands print: data on stdout, everything else on stderr.

A table is drawn by rich on a terminal, and is plain aligned text, one line a row and never truncated, in a pipe.
`--json` prints the same facts under stable names. Control characters in what is shown (a relay's words, a name that
somebody wrote into the database) become spaces, so that nothing shown can drive the terminal. NO_COLOR and `--no-color`
are respected.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from outbox.errors import OutboxError
from outbox.log import one_line


def say(text: str = "") -> None:
    """A line of data on stdout."""
    print(text)


def note(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    print(text, file=sys.stderr)


def fail(error: OutboxError, *, verbosity: int = 0) -> None:
    """``error: …`` and, where there is one, ``hint: …``, on stderr; the traceback only at ``-vv``."""
    if verbosity > 1:
        traceback.print_exception(error)
    note(f"error: {one_line(str(error))}")
    if error.hint:
        note(f"hint: {one_line(error.hint)}")


def show_json(value: object) -> None:
    """`value` as JSON. Moments are ISO 8601 in UTC with a Z; records are objects."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(value, indent=2, ensure_ascii=ascii_only, default=_for_json))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
    """Rows under their columns. `empty` says on stderr what to do when there are none."""
    cells = [[cell(value) for value in row] for row in rows]
    if not cells:
        note(empty or "nothing to show")
    elif sys.stdout.isatty():
        _draw(columns, cells)
    else:
        lines = [[column.upper() for column in columns], *cells]
        widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
        for line in lines:
            print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def show_record(pairs: Mapping[str, object]) -> None:
    """One thing: a line for each of its facts, names aligned."""
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        print(f"{name.ljust(width)}  {cell(value)}")


def cell(value: object) -> str:
    """One value for people: ``-`` for nothing, yes and no, moments to the second, lists with commas."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(each) for each in value) or "-"
    return one_line(str(value))


def iso(moment: datetime) -> str:
    """A moment as JSON and the database have it: milliseconds and a Z."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _for_json(value: object) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")  # a Secret among others: nothing is shown by accident


def _draw(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*(column.capitalize() for column in columns), box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*(Text(text) for text in row))  # Text: what is shown is never markup
    Console().print(table)
