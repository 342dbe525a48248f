"""An application in a soak: it commits mails, and rolls a quarter of them back; it may be killed at any moment.

Every transaction is a line in its journal, before and after: ``? TOKEN…`` begun, ``+ TOKEN…`` committed, ``- TOKEN…``
rolled back. What has a ``?`` and nothing after it is not known to anybody: it was killed, or the server was.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import time
from collections.abc import Callable
from typing import Any

from outbox.store.database import connect, dialect_of

INSERT = (
    "INSERT INTO outbox (sender, recipients, subject, text_body, on_doubt, token)"
    " VALUES ('shop@example.com', ?, ?, 'Thanks', ?, ?)"
)


def write(argument: dict[str, Any]) -> None:
    """`url`, `journal`, `seed`, `policy`, and `until`: a file; when it is there, we end. `pause` in seconds.
    While there is a file `rest`, we rest.
    """
    dice = random.Random(argument["seed"])
    journal = os.open(argument["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(mark: str, tokens: list[str]) -> None:
        os.write(journal, f"{mark} {' '.join(tokens)}\n".encode())

    database: Any = None
    while not os.path.exists(argument["until"]):
        while os.path.exists(argument["rest"]):
            time.sleep(0.02)
        try:
            if database is None:
                database = connect(argument["url"])
            _transaction(database, argument, dice, note)
        except Exception:  # noqa: BLE001  # the server is away, or the lock was not to be had
            with contextlib.suppress(Exception):
                if database is not None:
                    database.close()
            database = None
            time.sleep(0.05)
        time.sleep(argument["pause"] * dice.random())


def _transaction(
    database: Any, argument: dict[str, Any], dice: random.Random, note: Callable[[str, list[str]], None]
) -> None:
    tokens = [secrets.token_hex(16) for _ in range(dice.randrange(1, 10))]
    sql = INSERT if dialect_of(argument["url"]) == "sqlite" else INSERT.replace("?", "%s")
    note("?", tokens)
    undone = dice.random() < 0.25
    with database.atomic() as transaction:
        for token in tokens:
            several = dice.random() < 0.1
            recipients = f"a{token[:6]}@example.net" + (f", b{token[:6]}@example.net" if several else "")
            database.execute_sql(sql, (recipients, f"Order {token[:8]}", argument["policy"], token))
        if undone:
            transaction.rollback()
    note("-" if undone else "+", tokens)
