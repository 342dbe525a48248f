"""procrastinate, a task for each mail: ``python -m … fill|send``."""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import asyncio
import sys

from procrastinate import App, PsycopgConnector

from tests.bench.foreign import given

CONCURRENCY = 16
"""More was not faster, neither with a larger pool nor with finished tasks deleted."""

app = App(connector=PsycopgConnector(conninfo=given.POSTGRES, min_size=4, max_size=10))


async def send(number: int) -> None:
    given.send(number)


task = app.task(name="send")(send)


async def fill() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await task.batch_defer_async(*({"number": each} for each in range(given.COUNT)))


async def work() -> None:
    async with app.open_async():
        await app.run_worker_async(concurrency=CONCURRENCY, wait=False)


if __name__ == "__main__":
    asyncio.run(fill() if sys.argv[1] == "fill" else work())
