"""Somebody who follows a page of the manual word by word, in an empty directory with a shop's database.

Python runs in this process, SQL through sqlite3 or psycopg, commands through the command line; what a page shows as
output is compared with what came out, without what differs from run to run. The relay of every account is a scripted
one: smtp.example.com lets nobody in.
"""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from outbox.cli.main import app
from outbox.store.database import connect
from outbox.store.migrate import apply
from tests.pages import Block, commands
from tests.relay import Relay

ORDERS = "CREATE TABLE orders (id integer PRIMARY KEY, customer text NOT NULL)"
POSTGRES = "postgresql:///shop"
"""How the manual writes the URL of a PostgreSQL database."""

_DIFFERENT = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "MOMENT"),
    (re.compile(r"\+?(\b\d+m )?\b\d+(\.\d+)?m?s\b( ago)?"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8,}\b"), "HEX"),
    (re.compile(r"127\.0\.0\.1\[127\.0\.0\.1\]:\d+|[\w.]+\[[\d.]+\]:\d+"), "RELAY"),
    (re.compile(r"\S*(?=outbox\.key)"), ""),
)


class Reader:
    """See above. `home` is where they sit; `postgres_url` is empty for one who has only SQLite.

    What a page takes for granted is there: the tables, unless it begins with `outbox init`, and a configuration, unless
    it makes one later.
    """

    def __init__(self, home: Path, relay: Relay, page: Sequence[Block], *, postgres_url: str = "") -> None:
        self.home, self.relay, self.postgres_url = home, relay, postgres_url
        self.shop = home / "shop.db"
        self._page = page
        self._names: dict[str, Any] = {}
        self._printed: list[str] = []
        if postgres_url:
            with psycopg.connect(postgres_url) as connection:
                connection.execute(ORDERS)
        inits = [block for block in page if "outbox init" in block.text and block.language == "sh"]
        code = [block for block in page if block.language in ("python", "sql", "sh") and "elsewhere" not in block.words]
        if not inits or code[0] is not inits[0]:
            self._make_tables()
        if not inits:
            self._run(["outbox", "init", "--database", "sqlite:///shop.db"])

    def _make_tables(self) -> None:
        database = connect(str(self.shop))
        apply(database)
        database.execute_sql(ORDERS)
        database.close()

    def close(self) -> None:
        """Leave no connection open that a page did not close."""
        for each in self._names.values():
            if isinstance(each, sqlite3.Connection):
                each.close()

    def follow(self) -> list[str]:
        """Do what each block says. Returns the places of those that were followed."""
        return [block.place for block in self._page if self._follow(block)]

    def _follow(self, block: Block) -> bool:
        on_postgres = "postgres" in block.words
        if "elsewhere" in block.words or (on_postgres and not self.postgres_url):
            return False
        if block.language == "text":
            return self._compare(block)
        self._printed = []
        if block.language == "python":
            text = block.text.replace(POSTGRES, self.postgres_url)
            exec(compile(text, block.place, "exec"), self._names)
        elif block.language == "sql":
            self._printed = self._postgres(block.text) if on_postgres else self._sqlite(block.text)
        elif block.language == "sh":
            for command in commands(block):
                self._run(command)
        else:
            return False
        return True

    def _compare(self, block: Block) -> bool:
        """Whether the block follows something that printed: else it is a picture."""
        if not self._printed:
            return False
        assert plain(block.text.splitlines()) == plain(self._printed), block.place
        self._printed = []
        return True

    # -- SQL

    def _sqlite(self, text: str) -> list[str]:
        with closing(sqlite3.connect(self.shop, isolation_level=None)) as connection:
            cursor = None
            for statement in statements(text):
                cursor = connection.execute(statement)
            return [] if cursor is None else table(cursor.description, cursor.fetchall())

    def _postgres(self, text: str) -> list[str]:
        with psycopg.connect(self.postgres_url, autocommit=True) as connection:
            cursor = connection.execute(text)
            while cursor.nextset():
                pass
            return table(cursor.description, cursor.fetchall() if cursor.description else [])

    # -- commands

    def _run(self, command: list[str]) -> None:
        program, *arguments = command
        if program != "outbox":
            return
        if arguments[:1] == ["run"]:
            self._run_runner(arguments)
            return
        given = None
        if "--username" in arguments:
            arguments, given = [*arguments, "--password-stdin"], "a password\n"
        result = CliRunner().invoke(app, arguments, input=given, prog_name="outbox", catch_exceptions=False)
        assert result.exit_code == 0, f"{command}: {result.exit_code}\n{result.output}"
        self._printed += result.output.splitlines()

    def _run_runner(self, arguments: list[str]) -> None:
        """The real one, as a process; whatever relay the page gave its accounts, they get ours."""
        with closing(sqlite3.connect(self.shop, isolation_level=None)) as connection:
            connection.execute(
                "UPDATE outbox_account SET relay_host = '127.0.0.1', relay_port = ?, tls = 'none', username = NULL,"
                " secret = NULL, key_id = NULL",
                (self.relay.port,),
            )
        until = [] if {"--until-empty", "--once"} & set(arguments) else ["--until-empty"]
        whole = [sys.executable, "-m", "outbox", *arguments, *until]
        subprocess.run(whole, cwd=self.home, check=True, capture_output=True, timeout=60)


def statements(text: str) -> Iterator[str]:
    """The SQL statements of a text, one by one."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert not statement.strip(), f"a statement without its semicolon: {statement}"


def table(description: Any, rows: Sequence[Sequence[object]]) -> list[str]:
    """What a SELECT prints: its columns, then its rows. Nothing for a statement without columns."""
    if not description:
        return []
    return ["  ".join(str(cell) for cell in row) for row in [[column[0] for column in description], *rows]]


def plain(lines: Sequence[str]) -> list[str]:
    """Lines without what differs from run to run, and without how they are aligned."""
    found = []
    for line in lines:
        for pattern, word in _DIFFERENT:
            line = pattern.sub(word, line)
        found.append(" ".join(line.split()))
    return found


def alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sit down in `home`, without the environment of whoever runs the tests."""
    import os

    home.mkdir()
    monkeypatch.chdir(home)
    for name in list(os.environ):
        if name.upper().startswith("OUTBOX_") or name == "CREDENTIALS_DIRECTORY":
            monkeypatch.delenv(name)
    return home
