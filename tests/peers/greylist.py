"""Greylisting, as a policy server that Postfix asks (SMTPD_POLICY_README): the first try of each sender and recipient
is deferred, the next one is let in.
"""

from __future__ import annotations

import socketserver
import threading
from types import TracebackType


class _Questions(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        question: dict[str, str] = {}
        for line in self.rfile:
            name, equals, value = line.decode("utf-8", "replace").strip().partition("=")
            if equals:
                question[name] = value
            elif question:
                self.wfile.write(f"action={self.server.greylist.answer(question)}\n\n".encode())
                question = {}


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    greylist: Greylist


class Greylist:
    """A context manager. `deferred` are the recipients that were asked to come again, in order."""

    def __init__(self) -> None:
        self.deferred: list[str] = []
        self._known: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Greylist:
        self._server = _Server(("127.0.0.1", 0), _Questions)
        self._server.greylist = self
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="greylist", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, question: dict[str, str]) -> str:
        if question.get("protocol_state") != "RCPT":
            return "DUNNO"
        pair = (question["sender"], question["recipient"])
        with self._lock:
            if pair in self._known:
                return "DUNNO"
            self._known.add(pair)
            self.deferred.append(pair[1])
        if pair[1].startswith("strict"):
            return "451 4.7.1 Greylisted, try again later"
        return "DEFER_IF_PERMIT 4.2.0 Greylisted, see http://postgrey.example/help"
