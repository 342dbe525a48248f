"""``outbox demo``: the whole program at work on one screen, and then to play with. The performance is `outbox.demo`."""

from __future__ import annotations

import io
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outbox.cli import output
from outbox.cli.phrases import STYLES, Segment, lasting, on_terminal, print_line

if TYPE_CHECKING:
    from outbox.demo.outcome import Outcome
    from outbox.demo.relay import Answer, Received
    from outbox.demo.script import Order
    from outbox.demo.theatre import Stage

app = typer.Typer()


@app.command()
def demo(
    leave: Annotated[
        bool, typer.Option("--exit", help="End by itself: with 0 if everything came out as it should, else 1.")
    ] = False,
) -> None:
    """See it work: a shop, its database, the runner and a relay, all of them temporary."""
    import asyncio

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in a pipe, too, one sees it happen
    print_line(("Outbox demo: an INSERT in a transaction of yours becomes a mail.", "bold"))
    print_line()
    with tempfile.TemporaryDirectory(prefix="outbox-demo-", ignore_cleanup_errors=True) as folder:
        try:
            code = asyncio.run(_perform(Path(folder), stay=not leave))
        except (KeyboardInterrupt, asyncio.CancelledError):
            code = 130 if leave else 0
    if code != 1:
        print_line()
        print_line((f"Ended; everything temporary is removed. Your own: {_program()} init, and docs/.", ""))
        if not leave:
            unset = "set OUTBOX_DATABASE=" if sys.platform == "win32" else "unset OUTBOX_DATABASE"
            print_line((f"In the other terminal: {unset}", ""))
    raise typer.Exit(code)


async def _perform(folder: Path, *, stay: bool) -> int:
    """The exit status."""
    _end_on_signals()
    from outbox.demo import outcome, theatre

    steps = _Steps()
    async with theatre.stage(folder, steps.tell, steps.hear) as here:
        try:
            found = await here.play(steps.tell)
        finally:
            steps.end()
        wrong = outcome.differences(found)
        _show(found)
        print_line()
        for each in wrong:
            output.note(f"error: {each}")
        if wrong:
            return 1
        print_line(("Everything came out as it should.", STYLES["sent"]))
        if stay:
            await _stay(here)
        return 0


def _end_on_signals() -> None:
    """What would kill us ends us as Ctrl-C does, or the temporary folder would stay."""
    import asyncio

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(task.cancel))


class _Steps:
    """Says what is going on, as it goes on: numbered sentences, and what the relay answers on a line that grows."""

    def __init__(self) -> None:
        self._number = 0
        self._answers = 0

    def tell(self, sentence: str) -> None:
        self._number += 1
        print_line((f"  {self._number}. {sentence}", ""))

    def hear(self, answer: Answer) -> None:
        before = ", " if self._answers else f"  {self._number + 1}. The relay says "
        self._answers += 1
        _print_part((before, ""), (str(answer.code), _style_of(answer)), (f" {answer.address.partition('@')[0]}", ""))

    def end(self) -> None:
        if self._answers:
            print_line((".", ""))


def _style_of(answer: Answer) -> str:
    return STYLES[{2: "accepted", 4: "deferred"}.get(answer.code // 100, "bounced")]


def _show(found: Outcome) -> None:
    """What became of the orders, and the SQL that says so."""
    from outbox.demo.outcome import AUDIT
    from outbox.demo.script import ORDERS

    print_line()
    rows = [row for order in ORDERS for row in _rows(order, found)]
    _table(("order", "transaction", "outcome", "mail"), rows)
    print_line()
    print_line(("Every attempt and every answer is in the database. From the view outbox_audit:", "bold"))
    print_line()
    for line in f"{AUDIT};".splitlines():
        print_line((f"  {line}", "cyan"))
    print_line()
    _table(found.columns, [tuple((str(value), STYLES.get(str(value), "")) for value in row) for row in found.audit])


def _rows(order: Order, found: Outcome) -> list[tuple[Segment, ...]]:
    """An order's lines of the table: one for each recipient of its mail, from what was found."""
    from outbox.demo.script import NEVER

    fates: dict[str, list[str]] = {}
    for address, fate, _ in found.tries.get(order.number, ()):
        fates.setdefault(str(address), []).append(str(fate))
    cells = [_outcome(order, address, tuple(each), found) for address, each in fates.items()]
    if not cells:
        cells = [(("never existed", "bright_black"), (f"for {NEVER}: no row, no mail", ""))]
    start: tuple[Segment, ...] = ((str(order.number), ""), (order.transaction, ""))
    return [(*(start if place == 0 else (("", ""), ("", ""))), *each) for place, each in enumerate(cells)]


def _outcome(order: Order, address: str, fates: tuple[str, ...], found: Outcome) -> tuple[Segment, Segment]:
    """What became of one recipient, in a word and in a few."""
    if fates == ("bounced",):
        return ("refused", STYLES["bounced"]), (f"for {address}, so mail {order.number} is {order.state}", "")
    if fates == ("deferred", "accepted"):
        first, *_, last = found.started[order.number]
        return ("deferred, sent", STYLES["deferred"]), (f"to {address}, {lasting(last - first)} later", "")
    word = "sent" if fates == ("accepted",) else ", ".join(fates)
    return (word, STYLES.get(word, "")), (f"to {address}" + (f", {order.remark}" if order.remark else ""), "")


def _table(columns: Sequence[str], rows: Sequence[Sequence[Segment]]) -> None:
    """Aligned text, whole, on a terminal as in a pipe."""
    widths = [max(len(column), *(len(row[place][0]) for row in rows)) for place, column in enumerate(columns)]
    heading = "  ".join(column.upper().ljust(width) for column, width in zip(columns, widths, strict=True))
    print_line((f"  {heading}".rstrip(), "bold"))
    for row in rows:
        cells = [(f"  {text:<{width}}", style) for (text, style), width in zip(row, widths, strict=True)]
        text, style = cells[-1]
        print_line(*cells[:-1], (text.rstrip(), style))


def _print_part(*segments: Segment) -> None:
    """As `print_line`, without the end of the line."""
    from rich.console import Console
    from rich.text import Text

    if on_terminal():
        Console().print(Text.assemble(*segments), end="", soft_wrap=True)
    else:
        print("".join(text for text, _ in segments), end="", flush=True)


async def _stay(here: Stage) -> None:
    """Until Ctrl-C: how to look around, and a line for each mail that arrives."""
    from outbox.demo.shop import SENDER

    program, database = _program(), str(here.database)
    setting, value = f"set OUTBOX_DATABASE={database}", "%OUTBOX_DATABASE%"
    if sys.platform != "win32":
        setting, value = f"export OUTBOX_DATABASE={shlex.quote(database)}", "$OUTBOX_DATABASE"
    query = '"SELECT id, state, subject, last_reply FROM outbox_status"'
    print_line(("The runner and the relay go on until Ctrl-C. In another terminal:", "bold"))
    for command in (
        setting,
        f"{program} list",
        f"{program} show 3",
        f"{program} enqueue --from {SENDER} --to you@example.net --text Hello",
        f'sqlite3 -box "{value}" {query}',
    ):
        print_line((f"  {command}", "cyan"))
    print_line()
    print_line(("Mail that arrives at the relay:", "bold"))
    here.relay.on_mail, here.relay.on_answer = _announce, _announce_no
    await here.runner.until(lambda: False, patience=None)


def _announce(mail: Received) -> None:
    subject = repr(mail.subject) if mail.subject else "a mail"
    print_line(("  arrived  ", STYLES["sent"]), (f"{subject} for {', '.join(mail.recipients)}", ""))


def _announce_no(answer: Answer) -> None:
    if answer.code // 100 != 2:
        code, _, words = answer.reply.partition(" ")
        print_line((f"  {code}      ", _style_of(answer)), (f"{words}: {answer.address}", ""))


def _program() -> str:
    """How to type this program in another terminal."""
    if shutil.which("outbox"):
        return "outbox"
    checkout = Path(__file__).parents[2] / "bin" / "outbox"
    if not checkout.is_file():
        return f"{sys.executable} -m outbox"
    return str(checkout.relative_to(Path.cwd()) if checkout.is_relative_to(Path.cwd()) else checkout)
