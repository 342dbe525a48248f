"""Fresh, migrated databases for torture, of either kind, by the hundred.

with Places(folder, postgres) as places, places.fresh("sqlite") as site:
    …
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType

import peewee

from outbox.store.database import connect
from outbox.store.migrate import apply
from tests.bench.figures import Unmeasurable
from tests.running import Site


class Places:
    """`postgres`: the URL of a server's database whose role may create others, or None. For any thread."""

    def __init__(self, folder: Path, postgres: str | None) -> None:
        self.folder = folder
        self.postgres = postgres
        self._template = f"outbox_torture_{uuid.uuid4().hex[:12]}"
        self._lock = threading.Lock()
        self._administrator: peewee.Database | None = None

    def __enter__(self) -> Places:
        self._sqlite = self.folder / "template.db"
        with closing(connect(f"sqlite:///{self._sqlite.as_posix()}")) as database:
            apply(database)
        if self.postgres is not None:
            self._administer(f"CREATE DATABASE {self._template}")
            with closing(connect(_named(self.postgres, self._template))) as database:
                apply(database)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.postgres is not None:
            self._administer(f"DROP DATABASE IF EXISTS {self._template} WITH (FORCE)")

    def _administer(self, statement: str) -> None:
        assert self.postgres is not None
        with self._lock, closing(connect(self.postgres)) as administrator:
            administrator.execute_sql(statement)

    @contextmanager
    def fresh(self, kind: str) -> Iterator[Site]:
        """A new database, and a folder beside it. Belongs to this thread. Raises Unmeasurable without PostgreSQL."""
        folder = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self.folder))
        try:
            if kind == "sqlite":
                shutil.copyfile(self._sqlite, folder / "outbox.db")
                with closing(Site(f"sqlite:///{folder.as_posix()}/outbox.db", folder)) as site:
                    yield site
                return
            if self.postgres is None:
                raise Unmeasurable("there is no PostgreSQL here")
            name = f"outbox_{uuid.uuid4().hex[:12]}"
            self._administer(f"CREATE DATABASE {name} TEMPLATE {self._template}")
            try:
                with closing(Site(_named(self.postgres, name), folder)) as site:
                    yield site
            finally:
                self._administer(f"DROP DATABASE {name} WITH (FORCE)")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _named(server: str, name: str) -> str:
    """`server`, its database replaced by `name`."""
    rest, question, options = server.partition("?")
    return f"{rest.rsplit('/', 1)[0]}/{name}{question}{options}"
