"""The program `outbox`: global options, the groups of verbs, and how errors end."""

from __future__ import annotations

import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from outbox.cli import commands, output, usage
from outbox.cli.session import Session, session_of
from outbox.errors import OutboxError

CONTENTS = {
    "init": ("init", "Make outbox.toml, outbox.key and the tables in the database"),
    "demo": ("demo", "See it work"),
    "run": ("run", "Send what is due, and go on until stopped"),
    "enqueue": ("enqueue", "Enqueue a mail and print its id"),
    "list": ("queue", "List messages, the newest first"),
    "ls": ("queue", ""),
    "show": ("queue", "Show a message"),
    "retry": ("queue", "Send again, now, what failed, expired or is held, to those who do not have it"),
    "release": ("queue", "Let held messages go, at their own due time"),
    "cancel": ("queue", "Withdraw messages that wait"),
    "hold": ("queue", "Keep messages that wait from being sent, until they are released"),
    "resolve": ("queue", "Say what became of messages that are held in doubt"),
    "events": ("events", "Show events"),
    "stats": ("stats", "Show how much waits, what became of the rest, and how long mail takes"),
    "doctor": ("doctor", "Check configuration, key, database, accounts, runners and the queue"),
    "account": ("account", "Relays and logins, and the pauses of each"),
    "sender": ("sender", "The addresses that may send, and the account of each"),
    "limit": ("limit", "How much may be sent in a minute, an hour, a day"),
    "rule": ("rule", "What to make of a relay's refusals, where its codes say something else"),
    "suppress": ("suppress", "Addresses and domains that nothing is sent to"),
    "pickup": ("pickup", "Folders in which programs drop their mail as files"),
    "import-mqd": ("import_mqd", "Take over accounts, senders and folders of a Mail Queue Dispatcher"),
    "smtpd": ("smtpd", "Take mail by SMTP, until stopped"),
    "user": ("user", "Who may hand over mail to outbox smtpd"),
    "key": ("key", "The keys that seal passwords, OAuth tokens and DKIM keys"),
    "schema": ("schema", "Create the tables in a database, and keep them up to date"),
    "config": ("config", "What is configured, and where it came from"),
}
"""Every verb and group: the module that has it, and what its own help begins with, so that neither a list of them nor
the completion of a word imports anything. Without a help it is hidden.
"""


def _load(name: str, module: str) -> Any:
    return commands.of_module(importlib.import_module(f"outbox.cli.{module}").app, name)


class Program(commands.Group):
    """Ends every failure as one line ``error: …``, one line ``hint: …`` and its exit code (see `outbox.cli`)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        usage.polish(self)
        loaders = {name: partial(_load, name, module) for name, (module, _) in CONTENTS.items()}
        self.commands = commands.Commands(loaders)  # type: ignore[assignment]  # nobody changes them

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Its line in a list of all; `resolve_command` finds the command itself."""
        if cmd_name not in CONTENTS:
            return None
        line = CONTENTS[cmd_name][1]
        return TyperCommand(cmd_name, short_help=line, hidden=not line)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, self.commands[name] if name else None, rest

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
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for some takes 20 ms, and we have no use
    gc.set_threshold(50_000, 20, 20)  # what is loaded is no garbage: looking for some takes a tenth of a short command
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name in another script must not end a command
    app(prog_name="outbox")
