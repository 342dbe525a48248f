"""The process of `drain`: the runner and the relay. What to do comes in JSON on standard input, what came of it goes to
standard output; what is wrong, in its last line, to standard error.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from outbox import keys
from outbox.clock import Clock
from outbox.config import Config
from outbox.core.account import Account, Sender, Tls
from outbox.core.address import domain_of
from outbox.demo.relay import HOST
from outbox.errors import ConfigError, OutboxError, Refused, VaultError
from outbox.runner.assembly import assemble
from outbox.runner.sending.login import Login
from outbox.runner.service import Errand, Remainder, Service
from outbox.smtp.relay import Relay as Way
from outbox.store import accounts, senders, tables
from outbox.store.journal import Act
from outbox.store.opened import Database, opened
from outbox.store.rows import moment_of
from outbox.testing.relay import Scripted
from outbox.vault import Vault

ACCOUNT = "outbox-testing"
"""The account of senders that are registered for the length of a run."""


class Detour(Login):
    """Every account leads to the relay of the test, without TLS or a login."""

    def __init__(self, *args: Any, port: int, **named: Any) -> None:
        super().__init__(*args, **named)
        self._port = port

    async def relay(self, account: Account, *, refused: Way | None = None) -> Way:
        return Way(HOST, self._port, Tls.NONE, max_messages=account.max_messages)


def main() -> int:
    order = json.load(sys.stdin.buffer)
    try:
        try:
            config = Config(**{**order["settings"], "database": order["database"]})
        except ValidationError as error:
            raise ConfigError(f"settings: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from None
        with opened(config.database) as db:
            _refuse_company(db)
            with _registered(db):
                said = asyncio.run(_drain(config, order["answers"], timedelta(seconds=order["wait"])))
    except OutboxError as error:
        print(f"{error}{f' ({error.hint})' if error.hint else ''}", file=sys.stderr)
        return error.exit_code
    json.dump(said, sys.stdout)
    return 0


async def _drain(config: Config, answers: dict[str, Any], wait: timedelta) -> dict[str, Any]:
    remainders: list[Remainder] = []
    with tempfile.TemporaryDirectory() as folder:
        relay = Scripted(answers)
        async with relay:
            service = Service(
                config,
                partial(_vault, config),
                Clock(),
                version=version("mail-outbox"),
                rescue_files=[Path(folder, "rescue")],
                parts=partial(assemble, log_in=partial(Detour, port=relay.port)),
            )
            service.listen_for_signals()
            if await service.run(Errand(until_empty=True, wait=wait), remainders.append):
                raise OutboxError("the runner has broken down")
    done = {str(state): count for each in remainders for state, count in each.done.items()}
    received = [(each.sender, each.recipients, base64.b64encode(each.data).decode()) for each in relay.mails]
    return {"received": received, "done": done, "stays": [line for each in remainders for line in _stays(each)]}


def _stays(remainder: Remainder) -> Iterator[str]:
    for each in remainder.waiting:
        yield f"{each.count} from {each.sender}: {each.reason or f'due {each.due_at:%Y-%m-%dT%H:%M:%SZ}'}"
    if remainder.held:
        yield f"{remainder.held} held"


def _vault(config: Config) -> Vault:
    """The keys of the test, where it has some: for DKIM. A login is never opened, so any key does."""
    try:
        return Vault(keys.load(config.key_file))
    except VaultError:
        return Vault(keys.Keys((keys.new(),), keys.Origin.ENVIRONMENT))


def _refuse_company(db: Database) -> None:
    """Another runner would send to the real relays what this one should have sent to its own: that is no test."""
    row, now = tables.Runner, Clock().now()
    alive = row.select(row.lease_until).where(row.dead_at.is_null()).tuples().execute(db)
    if any(moment_of(until) > now for (until,) in alive):
        raise Refused("a runner serves this database: drain() is for databases of tests")


@contextmanager
def _registered(db: Database) -> Iterator[None]:
    """Where there is no account, all senders of waiting mail are registered for this block."""
    if tables.Account.select().where(tables.Account.name != ACCOUNT).exists(db):
        yield
        return
    _remove(db)  # of a run that was killed
    lane = tables.Delivery.sender
    waiting = [str(address) for (address,) in tables.Delivery.select(lane).distinct().tuples().execute(db)]
    act = Act("outbox.testing", Clock().now())
    with db.atomic():
        accounts.add_account(db, Account(ACCOUNT, HOST, 25, Tls.NONE), act)
        for domain in sorted({domain_of(address) for address in waiting if "@" in address}):
            senders.add_sender(db, Sender(f"*@{domain}", ACCOUNT), act)
    try:
        yield
    finally:
        _remove(db)


def _remove(db: Database) -> None:
    with db.atomic():
        tables.Sender.delete().where(tables.Sender.account == ACCOUNT).execute(db)
        tables.Account.delete().where(tables.Account.name == ACCOUNT).execute(db)


if __name__ == "__main__":
    sys.exit(main())
