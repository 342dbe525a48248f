"""Foreign programs: where they are, and a loud skip where they are not.

`tests/peers/install` (run by .ci/run) puts into `PEERS` what cannot be installed beside a Postfix: Debian's Exim, taken
out of its package, and Nodemailer's smtp-server.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

import pytest

PEERS = Path(os.environ.get("OUTBOX_PEERS") or Path.home() / ".cache" / "outbox-peers")
ADMIN_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def program(name: str, *, path: str = ADMIN_PATH) -> str:
    """The path of a program. Skips the test, loudly, when it is not installed."""
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"A REAL PEER IS NOT TESTED: {name.upper()} IS NOT INSTALLED (run tests/peers/install)")
    return found


def needs_root(name: str) -> None:
    """Skips the test, loudly, where this user cannot start a server that changes to users of its own."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip(f"A REAL PEER IS NOT TESTED: ONLY ROOT CAN START {name.upper()}")


@contextmanager
def open_folder(name: str) -> Iterator[Path]:
    """A folder that every user may look into: servers give up root. pytest's own folders are closed to them."""
    folder = Path(mkdtemp(prefix=f"outbox-{name}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
