"""`outbox run` on a machine whose resolver is silent: an entry point of the tests' own.

python -m tests.deaf HOST ARGUMENT…      # `outbox ARGUMENT…`; who asks for HOST is never answered
"""

from __future__ import annotations

import socket
import sys
import time
from typing import Any

HOST = sys.argv[1]
_ask = socket.getaddrinfo


def ask(host: Any, *arguments: Any, **named: Any) -> Any:
    if host == HOST:
        time.sleep(3600)
    return _ask(host, *arguments, **named)


if __name__ == "__main__":
    from outbox.cli.main import app

    socket.getaddrinfo = ask
    sys.argv[1:2] = []
    app()
