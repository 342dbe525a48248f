"""`outbox run --until-empty` with little patience: an entry point of the tests' own.

The ten minutes for the answer to a dot are no setting, because a shorter wait makes duplicates (RFC 5321 §4.5.3.2.6).
So the tests make a Service themselves:

    python -m tests.impatient SECONDS [QUIT]   # how long to wait for the answer to a dot, and to QUIT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from outbox import log
from outbox.clock import Clock
from outbox.config import load
from outbox.errors import VaultError
from outbox.runner.service import Errand, Remainder, Service
from outbox.smtp.connection import Deadlines
from outbox.vault import Vault


def no_vault() -> Vault:
    raise VaultError("there is no key in this test")


def show(remainder: Remainder) -> None:
    print(remainder)


async def run(seconds: float, goodbye: float = 2.0) -> int:
    deadlines = Deadlines(dot=seconds, quit=goodbye)
    service = Service(load(None), no_vault, Clock(), version="0", rescue_files=[Path("rescue")], deadlines=deadlines)
    service.listen_for_signals()
    return await service.run(Errand(until_empty=True), show)


if __name__ == "__main__":
    log.set_up()
    sys.exit(asyncio.run(run(*map(float, sys.argv[1:]))))
