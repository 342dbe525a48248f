"""The layers of DESIGN.md §5, held: who may import whom, and where libraries, time and chance may be used.

The rules are the tables below. A module is named by its place under `outbox` (`runner.schedule`; the package itself is
`outbox`). In a table, `runner` also means everything in it. Imports under TYPE_CHECKING count like any other, unless a
table says so.
"""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

OUTBOX = Path(__file__).parent.parent / "outbox"

# Room → the rooms of outbox it may import, besides itself. A room that is not here is a violation.
ROOMS = {
    "errors": "",
    "core": "errors",
    "clock": "",
    "configfile": "errors",
    "log": "core",
    "config": "configfile core errors store",  # store: only it can hide the password in a database's URL
    "keys": "core errors",
    "keypair": "core errors",
    "vault": "core errors keys",
    "oauth": "core errors clock",
    # What an application imports.
    "outbox": "drivers enqueue mail core errors",
    "enqueue": "doorbell drivers insert mail core errors",
    "doorbell": "",
    "drivers": "doorbell insert core",
    "insert": "core",
    "mail": "core errors templates",
    "templates": "errors",
    # The runner. A secret is opened in the runner, never in the store.
    "smtp": "core errors clock",
    "store": "core errors clock filelock",
    "filelock": "",
    "runner": "smtp store oauth core errors clock config doorbell doors keys log vault keypair",
    # The other ways in.
    "doors": "outbox log configfile enqueue drivers mail store filelock core errors clock doorbell insert",
    # What people use.
    "cli": "anything",
    "demo": "outbox core errors clock runner store",
    "testing": "core errors clock config keys vault runner smtp store demo",
    "__main__": "cli",
}

# Library → the modules that may import it. A library that is not here is a violation.
LIBRARIES = {
    "aiosmtpd": "doors.smtpd",
    "apscheduler": "runner.schedule",
    "authlib": "oauth.endpoint",
    "cryptography": "vault keypair",
    "django": "doors.django testing.django",
    "fastapi_mail": "doors.fastapi",
    "flask": "doors.flask",
    "flask_mail": "doors.flask",
    "httpx2": "oauth.endpoint runner.telling.webhook",
    "jinja2": "templates",
    "peewee": "store",
    "playhouse": "store",
    "psycopg": "store doors.own",
    "pydantic": "config testing.rehearsal",
    "pydantic_settings": "config",
    "pytest": "testing.plugin",
    "rich": "cli",
    "sqlite3": "store demo doors.own cli.doctor testing.plugin",  # like an application, but for doctor: its version
    "typer": "cli",
    "uvloop": "cli.run",
    "watchfiles": "runner.pickups",
}
# Library → the modules that may import it under TYPE_CHECKING, to name a type.
LIBRARIES_FOR_TYPES = {
    "peewee": "cli",
    "psycopg": "drivers enqueue",
    "sqlite3": "drivers enqueue",
}

# Time and chance → the modules that may use it.
SOURCES = {
    "datetime.date.today": "clock",
    "datetime.datetime.now": "clock",
    "datetime.datetime.today": "clock",
    "datetime.datetime.utcnow": "clock",
    "os.getrandom": "clock",
    "os.urandom": "clock",
    "random": "clock",
    "secrets": "clock keys",  # keys: nothing may ever turn the chance in a new key, not even a test
    "time.monotonic": "clock store",  # store: its short retry of a locked file, before there is a runner
    "time.monotonic_ns": "clock",
    "time.perf_counter": "clock",
    "time.perf_counter_ns": "clock",
    "time.process_time": "clock",
    "time.sleep": "clock store",
    "time.time": "clock",
    "time.time_ns": "clock",
    "uuid.uuid1": "clock",
    "uuid.uuid4": "clock",
}

# Of the standard library, what core does without: it knows no file, socket, process, thread or environment.
NOT_IN_CORE = (
    "asyncio concurrent ctypes http imaplib io locale logging mmap multiprocessing os pathlib pickle platform queue"
    " select selectors shutil signal smtplib socket socketserver sqlite3 ssl subprocess sys tempfile threading urllib"
)


@dataclass(frozen=True, slots=True)
class Use:
    """One thing a module takes from elsewhere, by its full dotted name."""

    line: int
    name: str
    is_import: bool = False
    for_types: bool = False


def uses(path: Path, package: str) -> Iterator[Use]:
    """What the module at `path` imports and, of what it imported, every attribute it mentions. `package` is its own,
    for relative imports.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    types_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                yield Use(node.lineno, alias.name, True, id(node) in types_only)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                names[alias.asname or alias.name] = name
                # `from outbox import enqueue` is the function that the package exports, not the module of that name.
                yield Use(node.lineno, base if name == "outbox.enqueue" else name, True, id(node) in types_only)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            if first in names:
                yield Use(node.lineno, f"{names[first]}.{rest}")


def is_in(name: str, allowed: str) -> bool:
    """Whether the dotted `name` is one of the words of `allowed`, or inside one of them."""
    return any(name == word or name.startswith(word + ".") for word in allowed.split())


def violations(outbox: Path, path: Path) -> list[str]:
    """Every breach of the tables above by the module at `path` in the package at `outbox`, such as
    ``store/queue.py:12: store may not import cli``.
    """
    place = path.relative_to(outbox)
    parts = [part for part in place.with_suffix("").parts if part != "__init__"]
    module = ".".join(parts) or "outbox"
    room = parts[0] if parts else "outbox"
    if room not in ROOMS:
        return [f"{place.as_posix()}: {room} has no line in ROOMS"]
    rooms = {entry.stem for entry in outbox.iterdir() if entry.is_dir() or entry.suffix == ".py"}
    return [
        f"{place.as_posix()}:{use.line}: {complaint}"
        for use in uses(path, ".".join(["outbox", *place.parts[:-1]]))
        for complaint in complaints(module, room, use, rooms)
    ]


def complaints(module: str, room: str, use: Use, rooms: set[str]) -> Iterator[str]:
    """What is wrong with `use` in `module` of `room`; `rooms` are the rooms that exist."""
    top = use.name.partition(".")[0]
    for source, allowed in SOURCES.items():
        if is_in(use.name, source) and not is_in(module, allowed):
            yield f"{module} may not use {source}"
    if not use.is_import:
        return
    if top == "outbox":
        second = [*use.name.split("."), ""][1]
        target = second if second in rooms else "outbox"  # what is no module lives in the package itself
        if target != room and ROOMS[room] != "anything" and not is_in(target, ROOMS[room]):
            yield f"{room} may not import {target}"
    elif top in LIBRARIES or top not in sys.stdlib_module_names:
        allowed = LIBRARIES.get(top, "") + " " + (LIBRARIES_FOR_TYPES.get(top, "") if use.for_types else "")
        if not is_in(module, allowed):
            yield f"{module} may not import {top}"
    elif room == "core" and is_in(top, NOT_IN_CORE) and use.name != "io.BytesIO":  # which is memory alone
        yield f"core may not import {top}"


def plant(copy: Path, planted_in: str, lines: str) -> set[str]:
    """The violations that appear in a copy of the package, made at `copy`, when `lines` are added to a module."""
    shutil.copytree(OUTBOX, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / planted_in
    before = violations(copy, path) if path.exists() else []
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{lines}\n")
    return set(violations(copy, path)) - set(before)


def test_every_module_keeps_to_its_layer() -> None:
    assert [found for path in sorted(OUTBOX.rglob("*.py")) for found in violations(OUTBOX, path)] == []


@pytest.mark.parametrize(
    ("planted_in", "lines", "complaint"),
    [
        ("core/judge.py", "from outbox.store import Store", "core may not import store"),
        ("core/judge.py", "from ..store import queue", "core may not import store"),
        ("core/judge.py", "from outbox import clock", "core may not import clock"),
        ("core/judge.py", "import outbox.config", "core may not import config"),
        ("core/judge.py", "def look():\n    import socket", "core may not import socket"),
        ("core/judge.py", "import peewee", "core.judge may not import peewee"),
        ("core/judge.py", "import dkim", "core.judge may not import dkim"),
        ("errors.py", "from outbox.core.reply import Reply", "errors may not import core"),
        ("smtp/__init__.py", "from outbox.store import Store", "smtp may not import store"),
        ("smtp/__init__.py", "from outbox import vault", "smtp may not import vault"),
        ("store/__init__.py", "from outbox.vault import Vault", "store may not import vault"),
        ("store/__init__.py", "from outbox.runner.writing.clerk import Clerk", "store may not import runner"),
        ("store/__init__.py", "import cryptography.fernet", "store may not import cryptography"),
        ("runner/writing/clerk.py", "from outbox.cli import main", "runner may not import cli"),
        ("runner/writing/clerk.py", "import apscheduler", "runner.writing.clerk may not import apscheduler"),
        ("runner/writing/clerk.py", "from peewee import fn", "runner.writing.clerk may not import peewee"),
        ("runner/writing/clerk.py", "import sqlite3", "runner.writing.clerk may not import sqlite3"),
        ("runner/writing/clerk.py", "import typer", "runner.writing.clerk may not import typer"),
        ("mail.py", "from outbox.store import connect", "mail may not import store"),
        ("mail.py", "from outbox.config import load", "mail may not import config"),
        ("enqueue.py", "import sqlite3", "enqueue may not import sqlite3"),
        ("enqueue.py", "if TYPE_CHECKING:\n    import peewee", "enqueue may not import peewee"),
        (
            "drivers/held.py",
            "if TYPE_CHECKING:\n    pass\nelse:\n    import psycopg",
            "drivers.held may not import psycopg",
        ),
        ("__init__.py", "from outbox.cli.main import main", "outbox may not import cli"),
        ("runner/writing/clerk.py", "import time\ntime.sleep(1)", "runner.writing.clerk may not use time.sleep"),
        ("store/__init__.py", "import time as t\nt.time()", "store may not use time.time"),
        (
            "runner/writing/clerk.py",
            "from time import monotonic as m",
            "runner.writing.clerk may not use time.monotonic",
        ),
        ("runner/writing/clerk.py", "import datetime as d\nd.datetime.now(d.UTC)", "may not use datetime.datetime.now"),
        (
            "runner/writing/clerk.py",
            "from datetime import datetime\nnow = datetime.utcnow",
            "may not use datetime.datetime.utcnow",
        ),
        ("core/judge.py", "import random", "core.judge may not use random"),
        ("store/__init__.py", "from secrets import token_hex", "store may not use secrets"),
        ("store/__init__.py", "import os\nos.urandom(8)", "store may not use os.urandom"),
        ("store/__init__.py", "from uuid import uuid4", "store may not use uuid.uuid4"),
        ("demo/shop.py", "import outbox.enqueue", "demo may not import enqueue"),
        ("attic.py", "", "attic has no line in ROOMS"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, planted_in: str, lines: str, complaint: str) -> None:
    found = plant(tmp_path / "outbox", planted_in, lines)

    assert found
    assert all(line.startswith(f"{planted_in}:") and complaint in line for line in found), found


@pytest.mark.parametrize(
    ("planted_in", "lines"),
    [
        ("core/judge.py", "import json, re\nfrom outbox.core.reply import Reply\nfrom . import outcome"),
        ("core/judge.py", "def f(time, random):\n    return time.time() + random.random()"),
        ("drivers/held.py", "if TYPE_CHECKING:\n    import sqlite3"),
        ("demo/shop.py", "from outbox import enqueue"),
        ("runner/writing/clerk.py", "from datetime import datetime\nz = datetime.fromisoformat"),
    ],
)
def test_what_is_allowed_is_not_reported(tmp_path: Path, planted_in: str, lines: str) -> None:
    assert plant(tmp_path / "outbox", planted_in, lines) == set()
