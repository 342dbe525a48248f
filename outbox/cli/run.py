"""``outbox run``: the runner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from outbox.cli import origin, output
from outbox.cli.session import Session, session_of
from outbox.errors import ConfigError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from datetime import timedelta

    from peewee import Database

    from outbox.config import Config
    from outbox.runner.service import Errand, Remainder
    from outbox.vault import Vault

app = typer.Typer()


@app.command()
def run(
    ctx: typer.Context,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when nothing that could go now is left; say what stays, and why.")
    ] = False,
    wait: Annotated[
        str, typer.Option("--wait", metavar="TIME", help="With --until-empty: also do what comes due within this time.")
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Send what is due now, and end.")] = False,
    processes: Annotated[
        int, typer.Option("--processes", min=1, max=64, metavar="N", help="This many runners, each in its own process.")
    ] = 1,
    grace: Annotated[
        str, typer.Option("--grace", metavar="TIME", help="At a stop, what is past DATA may take this long.")
    ] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Log warnings only.")] = False,
) -> None:
    """Send what is due, and go on until stopped. Ctrl-C or SIGTERM drains and ends; a second one ends at once."""
    import asyncio

    from outbox import log
    from outbox.runner.service import Errand

    session = session_of(ctx)
    if once and until_empty:
        raise typer.BadParameter("give one of --once and --until-empty")
    if wait and not until_empty:
        raise typer.BadParameter("needs --until-empty", param_hint="--wait")
    log.set_up(-1 if quiet else session.verbosity)
    with session.database() as db:  # an old or missing schema is said before anything is started
        _refuse_copy(session.config, db)
    if processes > 1:
        from outbox.runner.supervise import supervise

        raise typer.Exit(supervise(processes, _child_arguments(ctx, session)))
    config = _with_grace(session.config, _duration("--grace", grace) if grace else None)
    errand = Errand(once, until_empty, _duration("--wait", wait or "0s"))
    with asyncio.Runner(loop_factory=_loop_factory(config)) as runner:
        raise typer.Exit(runner.run(_serve(session, config, errand, quiet=quiet)))


def _loop_factory(config: Config) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if config.run.event_loop == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        hint = "pip install 'mail-outbox[uvloop]' (not on Windows), or set run.event_loop to asyncio"
        raise ConfigError("run.event_loop is uvloop, which is not installed", hint=hint) from None
    return uvloop.new_event_loop


def _refuse_copy(config: Config, db: Database) -> None:
    """A copied production database, started with the configuration of another, mails nobody."""
    from outbox.store.migrate import status

    another = origin.another_database(config, status(db).database_uuid)
    if another is not None:
        raise another


async def _serve(session: Session, config: Config, errand: Errand, *, quiet: bool) -> int:
    import gc
    from importlib.metadata import version

    from outbox.runner import rescue
    from outbox.runner.service import Service
    from outbox.runner.supervise import watch_parent

    service = Service(
        config,
        lambda: _open_vault(config),
        session.clock,
        version=version("mail-outbox"),
        rescue_files=rescue.places(config),
    )
    # What is loaded stays: never look through it again. And what a mail needs is no garbage: look for that seldom.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    service.listen_for_signals()
    watch_parent(service.stop)
    return await service.run(errand, lambda remainder: _report(remainder, quiet=quiet))


def _open_vault(config: Config) -> Vault:
    from outbox import keys
    from outbox.vault import Vault

    return Vault(keys.load(config.key_file))


def _report(remainder: Remainder, *, quiet: bool) -> None:
    done = ", ".join(f"{count} {state}" for state, count in sorted(remainder.done.items()))
    if not quiet:
        output.note(f"done: {done or 'nothing was due'}")
    for each in remainder.waiting:
        due = f"{'the next ' if each.count > 1 else ''}due {each.due_at:%Y-%m-%dT%H:%M:%SZ}"
        output.note(f"stays: {each.count} from {each.sender}: {each.reason or due}")
    if remainder.held:
        output.note(f"stays: {remainder.held} held; `outbox list --state held` shows them")


def _duration(option: str, text: str) -> timedelta:
    from outbox.core.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _with_grace(config: Config, grace: timedelta | None) -> Config:
    if grace is None:
        return config
    return config.model_copy(update={"run": config.run.model_copy(update={"grace": grace})})


def _child_arguments(ctx: typer.Context, session: Session) -> list[str]:
    """The command line of each process: ours, but for --processes."""
    arguments = ["-v"] * session.verbosity
    if session.database_url:
        arguments += ["--database", session.database_url]
    arguments.append("run")
    for name, value in ctx.params.items():
        option = "--" + name.replace("_", "-")
        if name == "processes" or value in (False, "", None):
            continue
        arguments += [option] if value is True else [option, str(value)]
    return arguments
