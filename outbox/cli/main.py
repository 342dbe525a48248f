"""The program `outbox`: global options, the groups of verbs, and how errors end."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from outbox.cli import (
    account,
    config,
    demo,
    doctor,
    enqueue,
    events,
    init,
    key,
    limit,
    output,
    queue,
    rule,
    run,
    schema,
    sender,
    stats,
    suppress,
    usage,
)
from outbox.cli.session import Session, session_of
from outbox.errors import OutboxError


class Program(TyperGroup):
    """Ends every failure as one line ``error: …``, one line ``hint: …`` and its exit code (see `outbox.cli`)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        usage.polish(self)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OutboxError as error:
            output.fail(error, verbosity=session_of(ctx).verbosity)
            raise typer.Exit(error.exit_code) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        run = partial(super().main, args, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        try:
            code = run()
        except typer.Abort:
            output.note("interrupted")
            code = 130
        except Exception as error:
            if not hasattr(error, "format_message"):  # not typer's own: a defect
                raise
            code = usage.complain(error, sys.argv[1:] if args is None else args)
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(
    name="outbox",
    cls=Program,
    help="A transactional mail outbox: rows that your transactions commit become mail.",
    rich_markup_mode=None,  # rich costs 100 ms before the first line of help
    pretty_exceptions_enable=False,  # it shows local variables, and among them could be a password
    no_args_is_help=True,
)
app.add_typer(init.app)
app.add_typer(demo.app)
app.add_typer(run.app)
app.add_typer(enqueue.app)
app.add_typer(queue.app)
app.add_typer(events.app)
app.add_typer(stats.app)
app.add_typer(doctor.app)
app.add_typer(account.app, name="account")
app.add_typer(sender.app, name="sender")
app.add_typer(limit.app, name="limit")
app.add_typer(rule.app, name="rule")
app.add_typer(suppress.app, name="suppress")
app.add_typer(key.app, name="key")
app.add_typer(schema.app, name="schema")
app.add_typer(config.app, name="config")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        output.say(f"outbox {version('mail-outbox')}")
        raise typer.Exit


@app.callback()
def program(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            envvar="OUTBOX_CONFIG",
            metavar="FILE",
            help="Else ./outbox.toml, or the machine's.",
        ),
    ] = None,
    database: Annotated[
        str, typer.Option("--database", metavar="URL", help="Instead of the configured one. Also OUTBOX_DATABASE.")
    ] = "",
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, show_default=False, help="Say more; twice: show where an error is from."
        ),
    ] = 0,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours. Also NO_COLOR.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """A transactional mail outbox: rows that your transactions commit become mail."""
    if no_color:
        os.environ["NO_COLOR"] = "1"
    ctx.obj = Session(config, database, verbose)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name in another script must not end a command
    app(prog_name="outbox")
