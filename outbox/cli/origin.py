"""What is said of the database that a command uses, or does not find: which it is, and where that was read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from outbox.errors import ConfigError, DatabaseError

if TYPE_CHECKING:
    from outbox.config import Config

VARIABLE = "OUTBOX_DATABASE"
UNSET = f"unset {VARIABLE}, if it is left from elsewhere"


def source(config: Config, key: str = "database") -> str:
    """Where a setting was read: ``--database``, ``the environment variable OUTBOX_DATABASE``, or the file's name."""
    found = config.origin(key)
    if found == "command line":
        return f"--{key}"
    name = found.removeprefix("environment ")
    return f"the environment variable {name}" if name != found else nearby(found)


def from_environment(config: Config) -> bool:
    return config.origin("database").startswith("environment")


def nearby(path: str | Path) -> str:
    """A path as short as it can be said: relative to the current directory where it is below that."""
    here, whole = Path.cwd(), Path(path).absolute()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(path)


def none_configured(config: Config) -> ConfigError:
    """That no database is configured, and where it was looked for."""
    if config.file is not None:
        words = f"no database is configured: {nearby(config.file)} names none"
        return ConfigError(words, hint='write database = "sqlite:///outbox.db" into it, or set OUTBOX_DATABASE')
    from outbox.config import FILE_NAME, machine_file

    return ConfigError(
        f"no database is configured: there is no ./{FILE_NAME}, no {machine_file()} and no {VARIABLE}",
        hint="`outbox init` writes a configuration; or name one: outbox --database FILE-OR-URL COMMAND",
    )


def located(error: DatabaseError, config: Config, typed: str = "") -> DatabaseError:
    """A complaint about opening the database, with its name and where that was read. `typed`: what --database said."""
    from outbox.store.database import safe_url

    words, hint, here = str(error), error.hint, source(config)
    lacking = "has no tables of Outbox" in words
    if lacking or words.startswith("the tables are at version"):
        name = f"{safe_url(config.database)} (from {here})"
        words = f"{name} has no tables of Outbox" if lacking else f"{name}: {words}"
    else:
        words = f"{words} (from {here})"
    if lacking or words.startswith("there is no database"):
        hint = f"{_making(config, safe_url(typed))}; or is it another file?"
    if from_environment(config) and words.startswith("there is no directory"):
        hint = UNSET
    elif from_environment(config) and (lacking or words.startswith(("there is no database", "cannot reach"))):
        hint = f"{UNSET}; else: {hint.removesuffix('; or is it another file?')}"
    return type(error)(words, hint=hint)


def _making(config: Config, typed: str) -> str:
    """The command that makes the tables; init, where there is no configuration yet, makes that and the key too."""
    command = "outbox init" if config.file is None else "outbox schema apply"
    return f"{command} --database {typed}" if config.origin("database") == "command line" and typed else command


def another_database(config: Config, uuid: str | None) -> ConfigError | None:
    """What is wrong when the database is not the one that `database_uuid` names; None when it is, or none is named."""
    expected = config.database_uuid
    if not expected or expected == uuid:
        return None
    change = "if it is to send mail, change database_uuid in the configuration"
    return ConfigError(
        f"this is database {uuid} (from {source(config)}), and the configuration is for {expected}"
        f" (from {source(config, 'database_uuid')}): a copy?",
        hint=f"{UNSET}; {change}" if from_environment(config) else change,
    )
