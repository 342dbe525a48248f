"""The configuration file: where it is, and what is written in it. What the settings mean is said in `outbox.config`.

Apart from there so that a short command, which needs the database's URL only, need not load the library that checks
them all: 200 ms.
"""

from __future__ import annotations

import os
import stat
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from outbox.errors import ConfigError

FILE_NAME = "outbox.toml"
FILE_VARIABLE = "OUTBOX_CONFIG"

PATHS = frozenset(("sendmail.spool",))
"""Settings read here that name a file or a folder."""


def find_file(path: Path | None = None) -> Path | None:
    """The file to read: the one named, which must exist, else the first that does. None: everything is default."""
    named = path or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
    if named is not None:
        if not named.exists():
            raise ConfigError(f"there is no configuration file {named}", hint="`outbox init` makes one")
        return named
    return next((each for each in (Path(FILE_NAME), machine_file()) if each.is_file()), None)


def machine_file() -> Path:
    """Where the configuration of a whole machine is."""
    if sys.platform == "win32":
        return Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData")) / "outbox" / FILE_NAME
    return Path("/usr/local/etc/outbox" if sys.platform == "darwin" else "/etc/outbox") / FILE_NAME


def anchor_url(url: str, base: Path) -> str:
    """`url`, with the path of a SQLite file made absolute; any other URL as it is."""
    scheme, separator, rest = url.partition(":///")
    if separator and scheme.lower().partition("+")[0] == "sqlite":
        if not rest or Path(unquote(rest)).is_absolute():
            return url
        return f"{scheme}:///{quote(base.as_posix(), safe='/:')}/{rest}"
    return str(base / url) if url.endswith((".db", ".sqlite", ".sqlite3")) and "://" not in url else url


def read_file(file: Path) -> dict[str, Any]:
    """What is in it, by section and name. Raises ConfigError."""
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            values = tomllib.loads(opened.read().decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{file}: {error}", hint='text is written in quotes, and so are durations: floor = "1m"'
        ) from None
    if sys.platform != "win32" and mode & stat.S_IWOTH:
        raise ConfigError(f"{file} can be changed by every user of this machine", hint=f"chmod o-w {file}")
    return values


def setting(key: str, path: Path | None = None) -> str:
    """One setting of text, such as ``database`` or ``sendmail.spool``, by itself: from the environment, else from the
    file; a path or a URL of one is made absolute. Empty when it is nowhere. Raises ConfigError.
    """
    text = os.environ.get(f"OUTBOX_{key.replace('.', '_').upper()}", "")
    if text:
        return _anchored(key, text, Path.cwd())
    file = find_file(path)
    if file == Path(FILE_NAME) and _is_strangers(file):
        file = machine_file() if machine_file().is_file() else None
    if file is None:
        return ""
    found: Any = read_file(file)
    for part in key.split("."):
        found = found.get(part, "") if isinstance(found, dict) else ""
    if not isinstance(found, str):
        raise ConfigError(f"{file}: {key} must be text")
    return _anchored(key, found, file.absolute().parent) if found else ""


def _is_strangers(file: Path) -> bool:
    """Whether a file that happens to be where a command is run belongs to neither its user nor root. Who calls sendmail
    in a folder of somebody else's must not have their mail written where that one likes.
    """
    return hasattr(os, "getuid") and file.lstat().st_uid not in (0, os.getuid())


def _anchored(key: str, text: str, base: Path) -> str:
    if key == "database":
        return anchor_url(text, base)
    return str(base / Path(text).expanduser()) if key in PATHS else text
