"""huey on SQLite, a task for each mail: ``python -m … fill``; its consumer imports `huey` from here."""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

from huey import SqliteHuey

from tests.bench.foreign import given

# Its own defaults: WAL, and SQLite's own synchronous = FULL.
huey = SqliteHuey("bench", filename=str(given.FOLDER / "huey.db"), results=False)
send = huey.task()(given.send)

if __name__ == "__main__":
    for each in range(given.COUNT):
        send(each)
