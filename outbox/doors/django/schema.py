"""The packaged schema, installed by `manage.py migrate`.

The first migration installs all of it. What a newer version of Outbox brings is applied at the end of every `migrate`,
so there is no number to keep here. `outbox schema apply` does the same; whoever is first wins.
"""

from __future__ import annotations

from typing import Any

from django.db import connections, router
from django.db.migrations.operations.base import Operation

DIALECTS = {"sqlite": "sqlite", "postgresql": "postgres"}
"""Django's vendor → the dialect of our schema."""


class InstallSchema(Operation):
    """Tables, triggers and views, as far as they are missing. Forward only: dropping mail that waits is for people."""

    reduces_to_sql = True
    reversible = False

    def state_forwards(self, app_label: str, state: Any) -> None:
        """The state of models does not know of it."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if router.allow_migrate(schema_editor.connection.alias, app_label):
            apply(schema_editor)

    def describe(self) -> str:
        return "Install the tables of Outbox"


def bring_up_to_date(using: str, **_: Any) -> None:
    """After a `migrate`: what is newer than the tables there. A database without our tables stays so."""
    connection = connections[using]
    if connection.vendor not in DIALECTS or not router.allow_migrate(using, "outbox"):
        return
    if 0 < version_of(connection) < latest_of(connection):
        with connection.schema_editor() as editor:
            apply(editor)


def apply(schema_editor: Any) -> None:
    """Bring the tables up to date, in the editor's transaction. Raises NotSupportedError."""
    from outbox.store import migrate

    connection = schema_editor.connection
    dialect = DIALECTS.get(connection.vendor)
    if dialect is None:
        raise connection.Database.NotSupportedError(f"Outbox needs SQLite or PostgreSQL, not {connection.vendor}")
    which: Any = dialect
    if schema_editor.collect_sql:  # sqlmigrate
        version = 0
    else:
        if dialect == "postgres":
            schema_editor.execute(migrate.POSTGRES_LOCK, params=None)
        version = version_of(connection)
    for statement in migrate.statements(which, version):
        schema_editor.execute(statement, params=None)  # None: a % in it is a %


def version_of(connection: Any) -> int:
    """How far the tables are; 0 where there are none."""
    if "outbox_meta" not in connection.introspection.table_names():
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT value FROM outbox_meta WHERE key = 'schema_version'")
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def latest_of(connection: Any) -> int:
    """How far the tables of this version are."""
    from outbox.store import migrate

    which: Any = DIALECTS[connection.vendor]
    return migrate.latest(which)
