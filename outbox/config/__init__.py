"""Reading and writing the configuration, a frozen `Config` whose settings are described in `outbox.config.settings`.

The file is the one named (`--config`, OUTBOX_CONFIG), else ``outbox.toml`` in the current directory, else the machine's
(`machine_file`). A value comes from the command line, else from the environment (``OUTBOX_`` and the name:
OUTBOX_DATABASE, OUTBOX_RETRY_FLOOR), else from the file, else it is the default; `Config.origin` says which. What is
wrong is a ConfigError that names file and key; a key that does not exist is wrong, and the message suggests the one
that was probably meant.

There are no secrets in it but, perhaps, the password in a database URL: that is why `write_config` makes the file
private, and why no `repr` shows `database`. The key and the passwords of accounts are elsewhere (`outbox.keys`,
`outbox.vault`).
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from outbox.config.settings import SECTIONS, Config, RetryConfig, RunConfig, fields
from outbox.configfile import FILE_NAME, FILE_VARIABLE, anchor_url, find_file, machine_file, read_file
from outbox.core.units import format_duration, format_size
from outbox.errors import ConfigError

__all__ = [
    "FILE_NAME",
    "FILE_VARIABLE",
    "Config",
    "RetryConfig",
    "RunConfig",
    "anchor_url",
    "find_file",
    "load",
    "machine_file",
    "shown",
    "write_config",
]

PREFIX = "OUTBOX_"


def load(path: Path | None = None, *, database: str | None = None) -> Config:
    """Read the configuration. `path`: the file, instead of the one found by itself; `database`: from the command
    line.
    """
    file = find_file(path)
    layers = [(_read(file), str(file))] if file is not None else []
    layers.append((_environment(), "environment"))
    if database:
        layers.append(({"database": database}, "command line"))
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for values, origin in layers:
        base = file.absolute().parent if file is not None and origin == str(file) else Path.cwd()
        for key, value in _flat(_anchored(values, base)):
            section, _, name = key.rpartition(".")
            (merged.setdefault(section, {}) if section else merged)[name] = value
            origins[key] = f"environment {_variable(key)}" if origin == "environment" else origin
    try:
        config = Config(**merged)
    except ValidationError as error:
        raise ConfigError("; ".join(_in_words(each, origins) for each in error.errors())) from None
    config._file, config._origins = file, origins
    return config


def write_config(path: Path, *, database: str, key_file: str = "", database_uuid: str = "") -> None:
    """Make the file, 0600, with these values and all others as comments. ConfigError when it cannot be made, or is
    there.
    """
    given = {"database": database, "database_uuid": database_uuid, "key_file": key_file}
    default, lines, section = Config(), ["# Configuration of Outbox. What is commented out is the default."], ""
    for key, field in fields():
        into, _, name = key.rpartition(".")
        if into != section:
            lines += ["", f"[{into}]  # {SECTIONS[into].__doc__}"]
            section = into
        value, sign = given.get(key, ""), ""
        if not value:
            value, sign = shown(key, default), "# "
        bare = isinstance(field.default, int) and (value.isdigit() or value in ("true", "false"))
        literal = value if bare else _quoted(value)
        lines += ["", f"# {field.description}", f"{sign}{name} = {literal}"]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write("\n".join([*lines, ""]).encode())
    except OSError as error:
        raise ConfigError(f"cannot make {path}: {error.strerror}") from error


def _quoted(text: str) -> str:
    """A TOML basic string. It is JSON's, but for one more character that has to be escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def shown(key: str, config: Config) -> str:
    """The value of ``"database"`` or ``"retry.floor"`` as it is written in the file; empty for none. A database URL may
    have a password in it.
    """
    section, _, name = key.rpartition(".")
    value = getattr(getattr(config, section) if section else config, name)
    if isinstance(value, timedelta):
        return format_duration(value)
    if key == "run.byte_budget":
        return format_size(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


# ---- reading


def _read(file: Path) -> dict[str, Any]:
    values = read_file(file)
    _refuse_unknown(values, str(file))
    return values


def _environment() -> dict[str, Any]:
    if not any(name.upper().startswith(PREFIX) and name.upper() != FILE_VARIABLE for name in os.environ):
        return {}
    from outbox.config.environment import environment

    values = environment()
    for section, content in values.items():
        if isinstance(content, Mapping):
            _refuse_unknown({section: content}, "environment")
    return values


def _refuse_unknown(values: Mapping[str, Any], source: str) -> None:
    """ConfigError for the first key that does not exist."""
    known = [key for key, _ in fields()]
    for key, _ in _flat(values):
        if key in SECTIONS:
            raise ConfigError(f"{source}: {key} is a section, not a value", hint=f"write [{key}] above its keys")
        if key not in known:
            write = _variable if source == "environment" else _written
            close = _close_to(key, known)
            hint = f"did you mean {write(close)}?" if close else "`outbox config show` lists all of them"
            raise ConfigError(f"{source}: there is no setting {write(key)}", hint=hint)


def _close_to(key: str, known: Iterable[str]) -> str:
    """The setting that was probably meant: the same name elsewhere, or a similar one; empty when nothing is near."""
    name = key.rpartition(".")[2]
    names = {each.rpartition(".")[2]: each for each in known}
    if name in names:
        return names[name]
    whole = difflib.get_close_matches(key, known, n=1)
    return whole[0] if whole else next((names[each] for each in difflib.get_close_matches(name, names, n=1)), "")


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", each) for inner, each in value.items())
        else:
            yield name, value


def _variable(key: str) -> str:
    return PREFIX + key.replace(".", "_").upper()


def _written(key: str) -> str:
    section, _, name = key.rpartition(".")
    return f"{name} in [{section}]" if section else name


def _anchored(values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Relative paths made absolute: those of a file mean its own directory, wherever the program is started."""
    anchored = dict(values)
    if isinstance(values.get("database"), str):
        anchored["database"] = anchor_url(values["database"], base)
    if isinstance(values.get("key_file"), str) and values["key_file"]:
        anchored["key_file"] = base / Path(values["key_file"]).expanduser()
    webhook = values.get("webhook")
    if isinstance(webhook, Mapping) and isinstance(webhook.get("secret_file"), str) and webhook["secret_file"]:
        anchored["webhook"] = {**webhook, "secret_file": base / Path(webhook["secret_file"]).expanduser()}
    return anchored


def _in_words(error: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    origin = origins.get(key) or next((origins[each] for each in origins if each.startswith(key + ".")), "")
    if error["type"] == "greater_than_equal":
        message = f"must be at least {_limit(key, 'ge')}"
    elif error["type"] == "less_than_equal":
        message = f"must be at most {_limit(key, 'le')}"
    else:
        message = str(error["msg"]).removeprefix("Value error, ")
    where = origin if origin.endswith(_variable(key)) else f"{origin}: {key}"
    return f"{where.removeprefix('environment ')}: {message}"


def _limit(key: str, side: str) -> str:
    """A bound of a setting, as people write it; pydantic's own messages say "1 minute"."""
    bounds = [getattr(each, side) for each in dict(fields())[key].metadata if hasattr(each, side)]
    return format_duration(bounds[0]) if isinstance(bounds[0], timedelta) else str(bounds[0])
