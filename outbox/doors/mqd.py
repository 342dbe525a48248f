"""The settings of Mail Queue Dispatcher (``.smtp-dispatcher.settings``), read as what they are here.

    connections{key}                a sender, and the account of its server and username
    mailqueue, badmail, sentmail    a pickup folder in mode mqd, for these senders
    interval                        how often it is looked at

Where it was laxer than Outbox, a note says what is different now. What cannot be taken over is an error of its entry;
the others are not kept up by it. Nothing here knows a database, and no password is in what is said.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path, PureWindowsPath
from typing import Any

from outbox.core.account import Account, Mechanism, Sender, Tls, fold, is_loopback, parse_relay
from outbox.core.address import parse_address
from outbox.core.pickup import Folder, Mode
from outbox.core.secret import Secret
from outbox.errors import ConfigError

FILE = ".smtp-dispatcher.settings"

NAME = "mqd"
"""What its folder is called here."""

LARGEST = 16 * 1024 * 1024

_MECHANISMS = {"plain": Mechanism.PLAIN, "login": Mechanism.LOGIN}


@dataclass(frozen=True, slots=True)
class Entry:
    """One connection. `account` has no sealed password yet. `envelope`: the address that mqd gave as MAIL FROM, where
    it is another than the sender's.
    """

    key: str
    sender: Sender
    envelope: str
    account: Account
    password: Secret


@dataclass(slots=True)
class Setup:
    """What the settings come to. `folder` None: there is none. Notes and errors are sentences."""

    folder: Folder | None = None
    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def read_settings(path: Path, mapped: Mapping[str, str]) -> Setup:
    """`path`: the file, or the directory it is in. `mapped`: beginnings of Windows paths → directories here. Raises
    ConfigError.
    """
    path = path / FILE if path.is_dir() else path
    try:
        with path.open("rb") as opened:
            raw = opened.read(LARGEST)
        found = json.loads(raw.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        where = f": line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ConfigError(f"{path} is not JSON{where}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is no settings file of Mail Queue Dispatcher")
    return of_settings(found, path.absolute().parent, mapped)


def of_settings(found: Mapping[str, Any], beside: Path, mapped: Mapping[str, str]) -> Setup:
    """The same for what has been read. Relative paths are `beside` the file."""
    setup, settings = Setup(), _lower(found)
    connections = settings.get("connections")
    if not isinstance(connections, dict) or not connections:
        setup.errors.append("there are no connections in it")
        connections = {}
    for key, connection in connections.items():
        try:
            setup.entries.append(_entry(str(key), connection, setup.notes))
        except ValueError as error:
            setup.errors.append(f"connection {key!r}: {error}")
    _merge_accounts(setup)
    _merge_senders(setup)
    if not setup.entries:
        setup.errors.append("no connection is taken over, so no folder is: everybody could send through it")
        return setup
    try:
        setup.folder = _folder(settings, setup, beside, mapped)
    except ValueError as error:
        setup.errors.append(f"the folder: {error}")
    return setup


def _entry(key: str, connection: object, notes: list[str]) -> Entry:
    """Raises ValueError."""
    if not isinstance(connection, dict):
        raise ValueError("it is not an object")
    values = {name: _text(name, value) for name, value in _lower(connection).items()}
    owner, name = _address(key)
    mechanism = _MECHANISMS.get(values.get("authtype", "").lower())
    if mechanism is None:
        raise ValueError("its authtype is neither PLAIN nor LOGIN")
    username = values.get("username", "")
    if not username or not values.get("password"):
        raise ValueError("it has no username, or no password")
    host, port, tls = _relay(key, values, notes)
    account = Account("", host, port, tls, mechanism, username)
    envelope = _envelope(key, values.get("sender", ""), owner, notes)
    sender = Sender(owner, "", name, envelope)
    return Entry(key, sender, envelope, account, Secret(values["password"]))


def _relay(key: str, values: Mapping[str, str], notes: list[str]) -> tuple[str, int, Tls]:
    server = values.get("server", "")
    host, port = parse_relay(server, Tls.STARTTLS)
    if not server.strip().endswith(f":{port}"):
        notes.append(f"connection {key!r}: its server has no port, so it is 587")
    other = values.get("host", "")
    if other and other.strip("[]").lower() != host:
        notes.append(f"connection {key!r}: its host {other} is not that of its server; {host} is used")
    if port == 465:
        return host, port, Tls.IMPLICIT
    return host, port, Tls.OPPORTUNISTIC if is_loopback(host) else Tls.STARTTLS


def _envelope(key: str, sender: str, owner: str, notes: list[str]) -> str:
    """Folded; empty where it is the sender's own address."""
    if not sender:
        notes.append(f"connection {key!r}: it has no sender, so its mail's return path is {owner}, not empty")
        return ""
    envelope, _ = _address(sender)
    return "" if envelope == owner else envelope


def _address(text: str) -> tuple[str, str]:
    """As it is registered, and its display name. Raises ValueError."""
    found = parse_address(text)
    return fold(found.email), found.name


def _merge_accounts(setup: Setup) -> None:
    """One account for each server and username; two passwords for one are nobody's guess."""
    first: dict[tuple[str, str], Entry] = {}
    torn: dict[tuple[str, str], set[str]] = {}
    for each in setup.entries:
        login = (each.account.relay, each.account.username)
        other = first.setdefault(login, each)
        if other.password != each.password:
            torn.setdefault(login, {other.key}).add(each.key)
        elif other.account.mechanism is not each.account.mechanism:
            first[login] = replace(other, account=replace(other.account, mechanism=Mechanism.AUTO))
    for (relay, username), keys in torn.items():
        setup.errors.append(f"{_listed(keys)}: different passwords for {username} at {relay}")
    logins = [((each.account.relay, each.account.username), each) for each in setup.entries]
    setup.entries = [replace(each, account=first[login].account) for login, each in logins if login not in torn]


def _merge_senders(setup: Setup) -> None:
    """One sender for each address; two accounts or return paths for one are nobody's guess."""
    by_address: dict[str, list[Entry]] = {}
    for each in setup.entries:
        by_address.setdefault(each.sender.address, []).append(each)
    setup.entries = []
    for address, same in by_address.items():
        if len({(each.account, each.envelope) for each in same}) > 1:
            setup.errors.append(f"{_listed({each.key for each in same})}: different connections for {address}")
            continue
        named = next((each.sender for each in same if each.sender.display_name), same[0].sender)
        setup.entries.append(replace(same[0], sender=named))


def _folder(settings: Mapping[str, Any], setup: Setup, beside: Path, mapped: Mapping[str, str]) -> Folder:
    """Raises ValueError."""
    paths = {name: _text(name, settings.get(name)) for name in ("mailqueue", "badmail", "sentmail")}
    for name in ("mailqueue", "badmail"):
        if not paths[name]:
            raise ValueError(f"{name} is empty")
    if not paths["sentmail"]:
        setup.notes.append("sentmail is empty: what was sent is deleted, as before")
    places = {name: local_path(text, beside, mapped) if text else "" for name, text in paths.items()}
    interval = settings.get("interval")
    if not isinstance(interval, (int, float)) or isinstance(interval, bool) or not 5 <= interval <= 3600:
        setup.notes.append("interval is not 5 to 3600, so it is 30 s, as before")
        interval = 30
    senders = tuple(dict.fromkeys(each.sender.address for each in setup.entries))
    return Folder(
        NAME,
        places["mailqueue"],
        places["badmail"],
        places["sentmail"],
        Mode.MQD,
        senders,
        poll=timedelta(seconds=interval),
    )


def local_path(text: str, beside: Path, mapped: Mapping[str, str]) -> str:
    """A path of the settings as one of this machine. Raises ValueError for one of Windows that nothing is said about.

    ``C:\\Mail\\queue`` with ``C:\\ → /srv`` is ``/srv/Mail/queue``; upper and lower case do not matter, the longest
    beginning wins.
    """
    windows = PureWindowsPath(text)
    for beginning in sorted(mapped, key=len, reverse=True):
        if windows.is_relative_to(PureWindowsPath(beginning)):
            rest = windows.relative_to(PureWindowsPath(beginning))
            return str(Path(mapped[beginning], *rest.parts).absolute())
    if (windows.drive or "\\" in text) and os.name != "nt":
        raise ValueError(f"{text} is a path of Windows: say where it is here, --map-path '{windows.anchor}=/srv'")
    return str(beside / text)


def _text(name: str, value: object) -> str:
    """Raises ValueError, without the value: it could be a password."""
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{name} is not a text")
    return value


def _lower(values: Mapping[str, Any]) -> dict[str, Any]:
    """Names in lower case: it read them without regard to case."""
    return {str(name).lower(): value for name, value in values.items()}


def _listed(keys: Iterable[str]) -> str:
    return "connections " + " and ".join(repr(key) for key in sorted(keys))
