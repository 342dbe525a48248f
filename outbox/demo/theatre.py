"""The stage of the demo: a database in a temporary folder, the relay, and the runner, which is the real program.

Nothing of the visitor's own takes part: the runner has its own configuration, and none of their OUTBOX_ variables.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType

from outbox.clock import Clock
from outbox.core.account import Account, Sender, Tls
from outbox.demo import outcome
from outbox.demo.relay import HOST, Answer, Relay
from outbox.demo.script import GREYLISTED, REFUSED, take_orders
from outbox.demo.shop import SENDER, Shop
from outbox.errors import OutboxError
from outbox.runner.supervise import SUPERVISED
from outbox.store import accounts, migrate, senders
from outbox.store.database import connect
from outbox.store.journal import Act

CONFIGURATION = 'database = "shop.db"\n\n[retry]\nfloor = "1s"  # one minute by default\nceiling = "1s"  # 4 hours\n'
PATIENCE = 20.0
"""Seconds for what should take three, on a machine that has other things to do."""

LOOK_EVERY = 0.05


class Stage:
    """What the demo consists of, while it plays; `stage` makes one."""

    def __init__(self, database: Path, relay: Relay, runner: Runner) -> None:
        self.database, self.relay, self.runner = database, relay, runner

    async def play(self, tell: Callable[[str], None]) -> outcome.Outcome:
        """Let the shop take its orders, wait until each of their mails has come to an end, and look at both ends.

        Raises OutboxError when that does not happen.
        """
        with Shop(self.database) as shop:
            take_orders(shop)
        tell("A shop commits four orders, each with its mail, and rolls back a fifth.")
        await self.runner.until(lambda: outcome.is_over(self.database))
        return outcome.observe(self.database, self.relay)


@asynccontextmanager
async def stage(
    folder: Path,
    tell: Callable[[str], None],
    on_answer: Callable[[Answer], None],
    *,
    greylisted: frozenset[str] = GREYLISTED,
    refused: frozenset[str] = REFUSED,
) -> AsyncIterator[Stage]:
    """Set everything up in `folder`, and take it down at the end. `tell` is told of each step in a sentence.

    Raises OutboxError when the runner does not start.
    """
    database = folder / "shop.db"
    async with Relay(greylisted=greylisted, refused=refused, on_answer=on_answer) as relay:
        _make_database(database, relay.port)
        tell("A new SQLite database, with the tables of Outbox in it.")
        tell(f"A relay: an SMTP server of this demo's own, on {HOST}:{relay.port}.")
        async with Runner(folder) as runner:
            await runner.until(lambda: outcome.has_runner(database))
            tell("The runner, which sends what is in the outbox: the process `outbox run`.")
            yield Stage(database, relay, runner)


class Runner:
    """`outbox run`, as a context manager. It also ends when we do, however that comes: it watches its standard input,
    which is a pipe from us.
    """

    def __init__(self, folder: Path) -> None:
        self._configuration, self._log = folder / "outbox.toml", folder / "runner.log"

    async def __aenter__(self) -> Runner:
        self._process = self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.to_thread(self._process.wait, PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    async def until(self, done: Callable[[], bool], patience: float | None = PATIENCE) -> None:
        """Look until it is so. Raises OutboxError when the runner ends before, or when it takes longer than that."""
        try:
            async with asyncio.timeout(patience):
                while not done():
                    if (status := self._process.poll()) is not None:
                        raise OutboxError(f"the runner ended with status {status}: {self._last_word()}")
                    await asyncio.sleep(LOOK_EVERY)
        except TimeoutError:
            raise OutboxError(f"nothing more in {patience} s; the runner: {self._last_word()}") from None

    def _start(self) -> subprocess.Popen[bytes]:
        self._configuration.write_text(CONFIGURATION, encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
        with self._log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 -- our own interpreter, and nothing a stranger could name
                [sys.executable, "-m", "outbox", "--config", str(self._configuration), "run"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment | {SUPERVISED: "1"},
                start_new_session=True,  # a Ctrl-C in the terminal is for us alone
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )

    def _last_word(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        errors = [line for line in lines if line.startswith("error: ")]
        return next((line for line in reversed(errors or lines) if line), "it said nothing")


def _make_database(database: Path, port: int) -> None:
    """The tables, an account without a login, and the sender that may use it."""
    opened = connect(str(database))
    try:
        migrate.apply(opened)
        act = Act("demo", Clock().now())
        with opened.atomic():
            accounts.add_account(opened, Account("demo", HOST, port, Tls.NONE), act)
            senders.add_sender(opened, Sender(SENDER, "demo", "Shop"), act)
    finally:
        opened.close()
