"""Where the key comes from, and the file it is kept in.

A key is 32 random bytes in urlsafe base64, as `cryptography.fernet` takes it. It is neither in the database nor in the
configuration. It comes from the first of these that is there:

1. the file named by OUTBOX_KEY_FILE or `key_file`: one key a line, the first encrypts, all decrypt, ``#`` begins a
comment 2. the systemd credential ``outbox-key`` (`LoadCredential=`, `LoadCredentialEncrypted=`), with the same content
3. OUTBOX_KEYS, separated by commas. Weaker: child processes inherit it, and it shows in /proc and in crash dumps. It is
   taken out of the environment as soon as it is read, so it can be read once in a process.

It is never made silently, because a second host would make a second key. Errors name the file and the line, never what
is in it.

LIMITS: on Windows the permissions of the file are not checked; give it an access list of its own.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from outbox.errors import Refused, VaultError

CREDENTIAL = "outbox-key"
KEYS_VARIABLE = "OUTBOX_KEYS"

_KEY = re.compile(r"[A-Za-z0-9_-]{43}=", re.ASCII)
_MAX_BYTES = 64 * 1024
_HEADER = """\
# Keys of Outbox: the first encrypts, all of them decrypt. Whoever has this file and the database has the passwords,
# so keep copies of the two apart.
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `id` is safe to show and to store: the first 8 hex digits of the SHA-256 of its 32 bytes."""

    text: str = field(repr=False)
    id: str


class Origin(Enum):
    FILE = "file"
    CREDENTIAL = "systemd credential"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that are loaded, and from where. `path` is None when they came from the environment."""

    keys: tuple[Key, ...]
    origin: Origin
    path: Path | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(key.id for key in self.keys)

    @property
    def source(self) -> str:
        """For people: ``file /etc/outbox/outbox.key``, ``systemd credential outbox-key``, ``OUTBOX_KEYS``."""
        if self.origin is Origin.FILE:
            return f"file {self.path}"
        return f"systemd credential {CREDENTIAL}" if self.origin is Origin.CREDENTIAL else KEYS_VARIABLE


def load(key_file: Path | None, environ: MutableMapping[str, str] = os.environ) -> Keys:
    """The keys, from the first source that is there. VaultError when there is none, or when it is unreadable or
    malformed.

    A `key_file` that is named and missing is an error, not a reason to look further: falling through to another key is
    how one ends up with passwords sealed by two.
    """
    if key_file is not None:
        return Keys(_parse(_read(key_file, private=True), f"key file {key_file}"), Origin.FILE, key_file)
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if directory and (credential := Path(directory) / CREDENTIAL).exists():
        # The directory is systemd's and closed to others; the mode of the file itself may show the mask of an ACL.
        text = _read(credential, private=False)
        return Keys(_parse(text, f"systemd credential {CREDENTIAL}"), Origin.CREDENTIAL, credential)
    variable = environ.pop(KEYS_VARIABLE, "")
    if variable.strip():
        return Keys(_parse(variable.replace(",", "\n"), KEYS_VARIABLE, part="key"), Origin.ENVIRONMENT)
    raise VaultError(
        "there is no key to seal or open passwords with",
        hint="`outbox init` makes one; or set OUTBOX_KEY_FILE, key_file in outbox.toml, or OUTBOX_KEYS",
    )


def new() -> Key:
    """A fresh key from the system's secure source."""
    text = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii")
    return Key(text, _identify(text))


def create(path: Path) -> Key:
    """Make the key file, 0600, with one fresh key. Refused when it is there already."""
    key = new()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    except FileExistsError:
        raise Refused(f"{path} exists already", hint="`outbox key add` puts a new key beside the old one") from None
    except OSError as error:
        raise VaultError(f"cannot make the key file {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(f"{_HEADER}{key.text}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    return key


def add(path: Path) -> Key:
    """Put a fresh key before the others: it encrypts from now on, the others still decrypt. Comments stay."""
    key = new()

    def change(lines: list[str]) -> list[str]:
        first = next(index for index, line in enumerate(lines) if _strip(line))
        return [*lines[:first], key.text, *lines[first:]]

    _rewrite(path, change)
    return key


def retire(path: Path, key_id: str) -> None:
    """Take one key out of the file. Refused when it is not in it, or is the only one. Whether anything still needs it
    is for the caller to find out first.
    """

    def change(lines: list[str]) -> list[str]:
        rest = [line for line in lines if not _strip(line) or _identify(_strip(line)) != key_id]
        if len(rest) == len(lines):
            raise Refused(f"{path} holds no key {key_id}", hint="`outbox key status` lists them")
        if not any(_strip(line) for line in rest):
            raise Refused(f"{key_id} is the only key in {path}", hint="`outbox key add` and `outbox key rotate` first")
        return rest

    _rewrite(path, change)


def _strip(line: str) -> str:
    return line.partition("#")[0].strip()


def _identify(text: str) -> str:
    return hashlib.sha256(base64.urlsafe_b64decode(text)).hexdigest()[:8]


def _parse(text: str, source: str, *, part: str = "line") -> tuple[Key, ...]:
    keys: dict[str, Key] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        word = _strip(line)
        if not word:
            continue
        # b64decode skips letters it does not know, so a damaged key would quietly be a different one.
        if not _KEY.fullmatch(word):
            raise VaultError(f"{source}, {part} {number}: not a key", hint="a key is 43 letters and a =")
        key = Key(word, _identify(word))
        keys.setdefault(key.id, key)
    if not keys:
        raise VaultError(f"{source} holds no key", hint="`outbox key generate --print` shows a fresh one")
    return tuple(keys.values())


def _read(path: Path, *, private: bool) -> str:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise VaultError(
            f"key file {path} does not exist",
            hint="`outbox key generate` makes it; if passwords are stored already, copy it from where they were sealed",
        ) from None
    except OSError as error:
        raise VaultError(f"cannot read key file {path}: {error.strerror}") from error
    # Only root can read the private file of somebody else, so there is no owner to check beyond this.
    if private and sys.platform != "win32" and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(status.st_mode)
        raise VaultError(f"key file {path} is open to other users (mode {mode:04o})", hint=f"chmod 600 {path}")
    if len(content) > _MAX_BYTES:
        raise VaultError(f"key file {path} is larger than {_MAX_BYTES} bytes: it is something else")
    return content.decode("utf-8-sig", "replace")


def _rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Replace the file in one step, so that a crash leaves the old or the new one, with its owner and 0600 as they
    were.
    """
    target = path.resolve()  # a link stays a link
    text = _read(target, private=True)
    _parse(text, f"key file {path}")
    content = "\n".join(change(text.splitlines())) + "\n"
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if sys.platform != "win32":
                # Changed by root, the file must stay readable for the runner's user.
                owner = target.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(content.encode())
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink()
        raise VaultError(f"cannot change key file {path}: {error.strerror}") from error
