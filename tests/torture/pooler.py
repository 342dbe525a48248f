"""What a pooler does to the locks of a session: the client is gone, and its session stays.

with Pooler(url) as pooler:
    … connect to pooler.url instead; the server's side of each connection stays open until the end
"""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, urlsplit


class Pooler:
    """A proxy on loopback. It knows nothing of the protocol, and gives no session to a second client."""

    def __init__(self, server: str) -> None:
        self._server = urlsplit(server)
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Pooler:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, name="pooler", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    @property
    def url(self) -> str:
        login = self._server.netloc.rpartition("@")[0]
        port = self._listener.getsockname()[1]
        return f"{self._server.scheme}://{login}@127.0.0.1:{port}{self._server.path}"

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            session = self._connect()
            self._sockets += (client, session)
            for source, target in ((client, session), (session, client)):
                threading.Thread(target=_pump, args=(source, target), name="pooler", daemon=True).start()

    def _connect(self) -> socket.socket:
        folder = parse_qs(self._server.query).get("host", [""])[0]
        if not folder:
            return socket.create_connection((self._server.hostname or "127.0.0.1", self._server.port or 5432))
        place = next(each for each in Path(folder).glob(".s.PGSQL.*") if each.suffix != ".lock")
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(place))
        return connected


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Until one of them is gone; the other one is not told."""
    with contextlib.suppress(OSError):
        while octets := source.recv(65536):
            target.sendall(octets)
