"""A clerk with a class beside it, over a real database; and an application that takes what a webhook posts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from outbox.clock import Clock
from outbox.runner.writing.clerk import Clerk
from outbox.store import open_store


@asynccontextmanager
async def clerk_of(url: str) -> AsyncIterator[Clerk]:
    clerk = Clerk(open_store(url, Clock()), Clock(), byte_budget=1_000_000, on_change=lambda: None)
    await clerk.start()
    try:
        yield clerk
    finally:
        await clerk.stop(5)


@dataclass
class Application:
    """What came, as (header, body), and what it answers: each of `answers` once, then 204. `hangs` until it is set."""

    answers: list[int] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    hangs: Event | None = None
    url: str = ""

    @property
    def events(self) -> list[dict[str, Any]]:
        """Of all requests."""
        return [event for _, body in self.requests for event in json.loads(body)["events"]]

    @property
    def ids(self) -> list[list[int]]:
        """Of the events of each request."""
        return [[event["id"] for event in json.loads(body)["events"]] for _, body in self.requests]


@contextmanager
def application(*answers: int, hangs: Event | None = None) -> Iterator[Application]:
    taking = Application(list(answers), hangs=hangs)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            taking.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            if taking.hangs is not None:
                taking.hangs.wait(30)
            code = taking.answers.pop(0) if taking.answers else 204
            self.send_response(code)
            if code in (301, 302, 307):
                self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        taking.url = f"http://127.0.0.1:{server.server_port}/mail?token=canary"
        Thread(target=server.serve_forever, daemon=True).start()
        yield taking
        if taking.hangs is not None:
            taking.hangs.set()
        server.shutdown()
