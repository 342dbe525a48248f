"""What the commands of one call share: the configuration, the database, the vault, and who is acting."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outbox.cli import output
from outbox.clock import Clock
from outbox.core.secret import Secret
from outbox.errors import DatabaseError

if TYPE_CHECKING:
    from outbox.config import Config
    from outbox.store.journal import Act
    from outbox.store.opened import Database
    from outbox.vault import Vault


@dataclass(slots=True)
class Session:
    """The global options, and what follows from them, each found when it is first asked for.

    config_path   the file named by --config, or None
    database_url  given by --database, or empty
    verbosity     how often -v was given
    """

    config_path: Path | None = None
    database_url: str = ""
    verbosity: int = 0
    clock: Clock = field(default_factory=Clock)
    _config: Config | None = None
    _vault: Vault | None = None

    @property
    def config(self) -> Config:
        """Raises ConfigError."""
        if self._config is None:
            from outbox.config import load

            self._config = load(self.config_path, database=self.database_url or None)
        return self._config

    @property
    def vault(self) -> Vault:
        """Raises VaultError when there is no key, ConfigError."""
        if self._vault is None:
            from outbox import keys
            from outbox.vault import Vault

            self._vault = Vault(keys.load(self.config.key_file))
        return self._vault

    @contextmanager
    def database(self) -> Iterator[Database]:
        """The database, open, with the tables that this program needs. Raises DatabaseError, SchemaError, ConfigError;
        also for whatever the database refuses inside the block.
        """
        from outbox.cli import origin

        if not self.config.database:
            raise origin.none_configured(self.config)
        from outbox.store.opened import opened

        usable = False
        try:
            with opened(self.config.database) as db:
                usable = True
                yield db
        except DatabaseError as error:
            if usable:
                raise
            raise origin.located(error, self.config, self.database_url) from error

    def act(self) -> Act:
        """Who does what this call does, and when, for the journal; and of which events it leaves."""
        from outbox.runner.telling.feedback import recording_of
        from outbox.store.journal import Act

        return Act(operator(), self.clock.now(), recording_of(self.config))


def session_of(ctx: typer.Context) -> Session:
    """The session of this call."""
    return ctx.ensure_object(Session)


def operator() -> str:
    """The person at the keyboard, as ``ann@web1``; under sudo ``root@web1 (sudo by ann)``. The system's word, not
    USER's.
    """
    if sys.platform == "win32":
        name = getpass.getuser()
    else:
        import pwd

        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:  # a container often has no entry for its user
            name = str(os.getuid())
    by = os.environ.get("SUDO_USER", "")
    return f"{name}@{socket.gethostname()}" + (f" (sudo by {by})" if by and by != name else "")


def password(prompt: str, from_stdin: bool, from_file: Path | None, *, what: str = "password") -> Secret:
    """A password, or `what` it is, from standard input, a file, or asked for; never from the command line, where `ps`
    shows it.

    One newline at the end is taken off. Ends the command with a usage error when it is empty, has more lines than one,
    is not UTF-8, or cannot be asked for.
    """
    option = "--" + what.replace(" ", "-")
    if from_stdin and from_file:
        raise typer.BadParameter(f"give one of {option}-stdin and {option}-file")
    if not from_stdin and from_file is None:
        if not sys.stdin.isatty():
            raise typer.BadParameter(f"no terminal to ask for the {what}: use {option}-stdin or {option}-file")
        twice = what == "password"  # the others are pasted
        return Secret(str(typer.prompt(prompt, hide_input=True, confirmation_prompt=twice, err=True)))
    try:
        content = sys.stdin.buffer.read(_MAX_PASSWORD + 1) if from_file is None else _read(from_file)
        text = content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise typer.BadParameter(f"the {what} is not UTF-8 text") from None
    if not text or len(content) > _MAX_PASSWORD or any(letter in text for letter in "\r\n\0"):
        raise typer.BadParameter(f"a {what} is one line, and not empty")
    return Secret(text)


_MAX_PASSWORD = 4096


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_MAX_PASSWORD + 1)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror}") from None


def confirm(question: str, *, yes: bool, default: bool = False, declined: str = "nothing was done") -> None:
    """Go on only if a person agrees, or `--yes` was given. Without a terminal to ask on, --yes is needed. `default` is
    what Return says. Ends with 1, and the word `declined`, when the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} Say so with --yes, for there is no terminal to ask on.")
    if not typer.confirm(question, default=default, err=True):
        output.note(declined)
        raise typer.Exit(1)
