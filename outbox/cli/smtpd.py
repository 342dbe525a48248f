"""``outbox smtpd``: take mail by SMTP, from software that speaks nothing else."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outbox.cli import output
from outbox.cli.session import session_of
from outbox.errors import ConfigError, OutboxError

if TYPE_CHECKING:
    from outbox.doors.smtpd.server import Submission

app = typer.Typer()


@app.command()
def smtpd(
    ctx: typer.Context,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = "127.0.0.1:2525",
    tls_cert: Annotated[Path | None, typer.Option(help="A certificate (PEM), for STARTTLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, if it is not in the same file.")] = None,
    without_login: Annotated[
        bool, typer.Option("--without-login", help="Take mail from everybody on this machine (loopback only).")
    ] = False,
) -> None:
    """Take mail by SMTP, until stopped. Clients log in as users (outbox user add), and send from registered senders."""
    from outbox import log
    from outbox.cli import origin

    try:
        from outbox.doors.smtpd.server import Listen, Submission, tls_context
    except ImportError:
        raise ConfigError("smtpd needs aiosmtpd", hint="pip install 'mail-outbox[smtpd]'") from None
    session = session_of(ctx)
    if not session.config.database:
        raise origin.none_configured(session.config)
    log.set_up(session.verbosity)
    host, port = _address(listen)
    secured = tls_context(str(tls_cert), str(tls_key) if tls_key else None) if tls_cert else None
    with session.database():  # it is there, and has its tables
        pass
    submission = Submission(session.config.database, Listen(host, port, secured, without_login))
    try:
        asyncio.run(_serve(submission, host))
    except OSError as error:
        raise OutboxError(f"cannot listen at {listen}: {error.strerror}") from None


async def _serve(submission: Submission, host: str) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for name in ("SIGTERM", "SIGINT"):
        try:
            loop.add_signal_handler(getattr(signal, name), stop.set)
        except NotImplementedError:  # Windows
            signal.signal(getattr(signal, name), lambda *_: loop.call_soon_threadsafe(stop.set))

    def started(port: int) -> None:
        output.say(f"listening at {host}:{port}")
        output.note("a mail is kept when 250 is said; it is not part of any transaction of its client")

    await submission.run(stop, started)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise typer.BadParameter("write HOST:PORT, as 127.0.0.1:2525 or [::1]:2525", param_hint="--listen")
    return host.strip("[]"), int(port)
