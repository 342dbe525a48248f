"""The command line in an empty directory, without the environment of whoever runs the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.program import Program


@pytest.fixture
def program(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Program:
    """`outbox` before `outbox init`, over a database of each dialect in turn."""
    return _alone(tmp_path, database_url, monkeypatch)


@pytest.fixture
def sqlite_program(tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Program:
    """The same over SQLite only, for what does not depend on the database."""
    return _alone(tmp_path, sqlite_url, monkeypatch)


def _alone(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Program:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    for name in [*os.environ, "OUTBOX_CONFIG", "NO_COLOR", "CREDENTIALS_DIRECTORY"]:
        if name.upper().startswith("OUTBOX_") or name in ("NO_COLOR", "CREDENTIALS_DIRECTORY"):
            monkeypatch.setenv(name, "")  # so that it is put back, also where the program itself sets it
            monkeypatch.delenv(name)
    return Program(home, url)
