"""`outbox` with everything said: an entry point of the tests' own, `python -m tests.security.loud ARGUMENTS`.

Every logger at DEBUG, peewee, APScheduler and asyncio among them; tracebacks with the local variables of every frame,
as error reporters collect them; and faulthandler's last words.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import traceback
from types import TracebackType
from typing import Any, TextIO

os.environ["PYTHONASYNCIODEBUG"] = "1"

from outbox import log
from outbox.cli.main import main

QUIET = log.set_up


class _WithLocals(log.LineFormatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802 -- logging's name
        return "".join(traceback.TracebackException(*ei, capture_locals=True).format())


def loudly(verbosity: int = 0, stream: TextIO | None = None) -> None:
    QUIET(2, stream)
    root = logging.getLogger()
    root.handlers[0].setFormatter(_WithLocals())
    for name in ("", *logging.Logger.manager.loggerDict, "peewee", "apscheduler", "asyncio", "httpx2", "psycopg"):
        logging.getLogger(name or None).setLevel(logging.DEBUG)


def crash(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    sys.stderr.write("".join(traceback.TracebackException(kind, error, at, capture_locals=True).format()))


if __name__ == "__main__":
    faulthandler.enable()
    sys.excepthook = crash
    log.set_up = loudly
    loudly()
    main()
