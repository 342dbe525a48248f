"""What `outbox doctor` is shown: an installation that is well, and what is found in its report."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from outbox.store.database import sqlite_path
from outbox.store.filters import written
from outbox.store.listener import advisory_key
from outbox.store.sqlite import SqliteStore
from tests.cli.program import Program
from tests.stories import Stories


def well(program: Program) -> Program:
    """An installation with an account, a sender and private files, but no runner."""
    program.init()
    if program.url.startswith("sqlite") and os.name != "nt":
        Path(sqlite_path(program.url)).chmod(0o600)
    program.add_account()
    program.run("sender", "add", "*@example.com", "--account", "shop")
    return program


def runner(
    stories: Stories,
    name: str = "fedcba9876543210",
    *,
    lease: timedelta = timedelta(minutes=1),
    lock: bool = True,
) -> None:
    """A runner. `lock`: it holds the lock of those who live (on SQLite: has no file)."""
    if lock and not isinstance(stories.store, SqliteStore):
        stories.sql("SELECT pg_advisory_lock(?)", advisory_key(name))
    now = datetime.now(UTC)
    stories.sql(
        "INSERT INTO outbox_runner (id, host, pid, version, started_at, lease_until)"
        " VALUES (?, 'web1', 7, '0.1.0', ?, ?)",
        name,
        written(now - timedelta(hours=1)),
        written(now + lease),
    )


def found(report: dict[str, Any], name: str) -> Any:
    """The first check of that name."""
    return next(each for each in report["checks"] if each["check"] == name)


def checks(report: dict[str, Any], name: str, result: str) -> list[Any]:
    """All checks of that name and result."""
    return [each for each in report["checks"] if (each["check"], each["result"]) == (name, result)]


def words_of(report: dict[str, Any], name: str, result: str) -> list[str]:
    """What they say."""
    return [each["words"] for each in checks(report, name, result)]
