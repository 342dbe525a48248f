"""A scripted authorization server on loopback: a token endpoint and a device endpoint.

    with Endpoint() as endpoint:                       # an honest one: every token is new, and good for an hour
        ... ask endpoint.token_url ...
        endpoint.requests[0].form["grant_type"]        # what it was asked, in order

    Endpoint({"refresh_token": "canary-2"}, ERROR("invalid_grant"))     # the first answer, the second, then honest ones

An answer is a mapping (merged into an honest one; None takes a field away), a `Reply` (exactly that), or HANG (nothing,
until the endpoint is closed). `current` is the access token that was given last.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl


@dataclass(frozen=True)
class Reply:
    """Exactly this answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


HANG = Reply(0)


def ERROR(code: str, description: str = "", status: int = 400) -> Reply:  # noqa: N802 - reads like a constant
    """An error as RFC 6749 §5.2 has it."""
    return Reply(status, json.dumps({"error": code, "error_description": description}).encode())


Answer = Mapping[str, Any] | Reply


@dataclass(frozen=True)
class Request:
    path: str
    form: Mapping[str, str]
    headers: Mapping[str, str]


class Endpoint:
    """See above."""

    def __init__(self, *script: Answer, device: Answer | None = None, context: ssl.SSLContext | None = None) -> None:
        self.script = list(script)
        self.device = device
        self.requests: list[Request] = []
        self.tokens: list[str] = []
        self.closing = threading.Event()
        self.arrived = threading.Condition()
        self.gate = threading.Event()
        """While it is not set, no answer is given. It is, unless a test clears it."""
        self.gate.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._scheme = "https" if context else "http"
        if context is not None:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Endpoint:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    @property
    def device_url(self) -> str:
        return f"{self.url}/device"

    @property
    def current(self) -> str:
        return self.tokens[-1]

    def wait(self, count: int, seconds: float = 10.0) -> None:
        """Until so many requests have come."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: len(self.requests) >= count, seconds):
                raise TimeoutError(f"{len(self.requests)} requests, not {count}")

    def answer(self, request: Request) -> Reply:
        """What is answered to a request, which is noted."""
        with self.arrived:
            self.requests.append(request)
            self.arrived.notify_all()
            if request.path == "/device":
                scripted, honest = self.device, self._code()
            else:
                scripted = self.script.pop(0) if self.script else {}
                honest = self._token()
            if isinstance(scripted, Reply):
                return scripted
            merged = {**honest, **(scripted or {})}
            if merged.get("access_token"):
                self.tokens.append(str(merged["access_token"]))
        return Reply(200, json.dumps({name: value for name, value in merged.items() if value is not None}).encode())

    def _token(self) -> dict[str, Any]:
        return {"access_token": f"canary-access-{len(self.requests)}", "token_type": "Bearer", "expires_in": 3600}

    def _code(self) -> dict[str, Any]:
        return {
            "device_code": "canary-device",
            "user_code": "WDJB-MJHT",
            "verification_uri": "https://login.example.com/device",
            "expires_in": 900,
            "interval": 5,
        }


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            form = dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True))
            reply = endpoint.answer(Request(self.path, form, {k.lower(): v for k, v in self.headers.items()}))
            endpoint.gate.wait(30)
            if reply is HANG:
                endpoint.closing.wait(30)
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            try:
                self.wfile.write(reply.body)
            except OSError:  # whoever asked has gone
                self.close_connection = True

        def do_GET(self) -> None:
            endpoint.answer(Request("GET " + self.path, {}, {}))
            self.send_error(405)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing is said of requests."""

    return Handler
