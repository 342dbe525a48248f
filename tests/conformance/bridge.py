"""A TCP port in front of a Unix socket: Java's and other drivers do not know Unix sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def bridge(path: str) -> Iterator[int]:
    """The port on 127.0.0.1 that leads to the socket at `path`."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(lambda r, w: _both(path, r, w), "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(_ended(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _ended() -> None:
    """All connections are over."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _both(path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    theirs, ours = await asyncio.open_unix_connection(path)
    await asyncio.gather(_pass(reader, ours), _pass(theirs, writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        try:
            while read := await reader.read(65536):
                writer.write(read)
                await writer.drain()
        finally:
            writer.close()
