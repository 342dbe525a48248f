"""How columns become values: moments, bytes and JSON, which the two dialects hold in different types."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from peewee import Field


class UtcDateTimeField(Field):
    """A moment: SQLite TEXT of 24 characters ``YYYY-MM-DDTHH:MM:SS.mmmZ``, PostgreSQL timestamptz.

    Both are written with the same text (PostgreSQL reads it as timestamptz, and the Z makes it independent of the
    session's time zone), so whole milliseconds are what a moment has. A naive datetime is refused: nobody can say what
    it means.
    """

    field_type = "TIMESTAMPTZ"

    def db_value(self, value: datetime | None) -> str | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored moment needs a time zone")
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"

    def python_value(self, value: str | datetime | None) -> datetime | None:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if value is not None and value.tzinfo is None:  # `2026-03-01 10:30`, by an application: SQLite means UTC
            value = value.replace(tzinfo=UTC)
        return None if value is None else value.astimezone(UTC)


class BytesField(Field):
    """Bytes: SQLite BLOB (or the TEXT that an application wrote instead, as UTF-8), PostgreSQL bytea."""

    field_type = "BLOB"

    def python_value(self, value: bytes | memoryview | str | None) -> bytes | None:
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        return None if value is None else bytes(value)


class JsonTextField(Field):
    """JSON as text: SQLite TEXT as it was stored, PostgreSQL jsonb written out again."""

    field_type = "TEXT"

    def python_value(self, value: Any) -> str | None:
        return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
