"""How commands print: data on stdout, everything else on stderr.

A table is plain aligned text; on a terminal its last column is folded between words, in a pipe every row is one line.
`--json` prints the same facts under stable names. Control characters in what is shown (a relay's words, a name that
somebody wrote into the database) become spaces, so that nothing shown can drive the terminal. NO_COLOR and `--no-color`
are respected.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
import textwrap
import traceback
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from outbox.errors import OutboxError
from outbox.log import one_line

_LEAST_ROOM = 30
"""Characters for the last column of a table beside the others; with fewer, it is below them."""

_LEAST_WIDTH = 10
"""No other column is folded to fewer characters."""


def say(text: str = "") -> None:
    """A line of data on stdout."""
    print(text)


def note(text: str) -> None:
    """A line for the person at the terminal, on stderr; there, one that is too long is folded between words."""
    width = shutil.get_terminal_size((100, 24)).columns
    if sys.stderr.isatty() and len(text) > width:
        label = re.match(r"[a-z]+: |\s*", text)
        indent = " " * len(label[0] if label else "")
        fold = textwrap.TextWrapper(width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        text = fold.fill(text)
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
    from outbox.cli.phrases import print_hanging

    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        print_hanging([(f"{name.ljust(width)}  ", "")], cell(value))


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


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The last column is folded between words beside the others. Where those leave too little room for it, each of its
    cells is below its row, and the widest of the others are folded until they fit.
    """
    from outbox.cli.phrases import print_hanging, print_line, terminal_width

    *widths, last = (max(len(text) for text in column) for column in zip(columns, *rows, strict=True))
    below = sum(widths) + 2 * len(widths) + min(last, _LEAST_ROOM) > terminal_width()
    while below and sum(widths) + 2 * (len(widths) - 1) > terminal_width() and max(widths) > _LEAST_WIDTH:
        widths[widths.index(max(widths))] -= 1
    for row, style in [([column.upper() for column in columns], "bold"), *((row, "") for row in rows)]:
        if not below:
            head = [(f"{text:<{width}}  ", style) for text, width in zip(row[:-1], widths, strict=True)]
            print_hanging(head, row[-1], style)
            continue
        folded = [textwrap.wrap(text, width, break_on_hyphens=False) for text, width in zip(row, widths, strict=False)]
        for line in zip_longest(*folded, fillvalue=""):
            padded = "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
            print_line((padded.rstrip(), style))
        if row[-1] != "-":
            print_hanging([("    ", "")], row[-1], style)
