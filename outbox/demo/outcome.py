"""What came of the demo, from both ends: what the database says, and what the relay knows. And what should have.

The database is asked in SQL, as anybody would: there is nothing in here that the visitor cannot type.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from outbox.demo.relay import Answer, Received, Relay
from outbox.demo.script import NEVER, ORDERS

AUDIT = """\
SELECT message_id AS mail, claim_no AS attempt, address, fate, code, reply
FROM outbox_audit ORDER BY mail, attempt, position"""

_STATES = "SELECT id, state FROM outbox_status ORDER BY id"
_TRIES = "SELECT message_id, started_at FROM outbox_attempt ORDER BY message_id, claim_no"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the database says: `audit` has the rows of AUDIT under their `columns`, `states` is mail → state, `stored`
    has the recipients of every mail, `started` the moments at which each was tried. What the relay knows: `answers`,
    `received`.
    """

    columns: tuple[str, ...]
    audit: tuple[tuple[object, ...], ...]
    states: dict[int, str]
    orders: tuple[int, ...]
    stored: frozenset[str]
    started: dict[int, tuple[datetime, ...]]
    answers: tuple[Answer, ...]
    received: tuple[Received, ...]

    @property
    def tries(self) -> dict[int, list[tuple[object, ...]]]:
        """Mail → address, fate and code of each recipient in each attempt, in their order."""
        found: dict[int, list[tuple[object, ...]]] = {}
        for mail, _, address, fate, code, _ in self.audit:
            assert isinstance(mail, int)
            found.setdefault(mail, []).append((address, fate, code))
        return found


def observe(database: Path, relay: Relay) -> Outcome:
    """Look at both ends."""
    with closing(sqlite3.connect(database)) as connection:
        cursor = connection.execute(AUDIT)
        audit = tuple(cursor.fetchall())
        started: dict[int, tuple[datetime, ...]] = {}
        for mail, moment in connection.execute(_TRIES):
            started[mail] = (*started.get(mail, ()), datetime.fromisoformat(moment))
        return Outcome(
            columns=tuple(column[0] for column in cursor.description),
            audit=audit,
            states=dict(connection.execute(_STATES)),
            orders=tuple(number for (number,) in connection.execute("SELECT number FROM orders ORDER BY number")),
            stored=frozenset(text for (text,) in connection.execute("SELECT recipients FROM outbox")),
            started=started,
            answers=tuple(relay.answers),
            received=tuple(relay.received),
        )


def has_runner(database: Path) -> bool:
    """Whether a runner has said that it lives."""
    return bool(_one(database, "SELECT count(*) FROM outbox_runner WHERE dead_at IS NULL"))


def is_over(database: Path) -> bool:
    """Whether every mail is in a final state."""
    return _one(database, "SELECT count(*) FROM outbox_delivery WHERE final_at IS NULL") == 0


def _one(database: Path, query: str) -> object:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchone()[0]


def differences(found: Outcome) -> list[str]:
    """Everything that is not as the script has it, each in a sentence."""
    return [*_wrong_orders(found), *_wrong_words(found), *_traces(found)]


def _wrong_orders(found: Outcome) -> list[str]:
    wrong = []
    committed = [order for order in ORDERS if order.state]
    numbers = tuple(order.number for order in committed)
    if found.orders != numbers:
        wrong.append(f"the shop has the orders {found.orders}, not {numbers}")
    if (mails := tuple(found.states)) != numbers:
        wrong.append(f"the outbox has the mails {mails}, not {numbers}")
    for order in committed:
        if (state := found.states.get(order.number)) != order.state:
            wrong.append(f"mail {order.number} is {state}, not {order.state}")
        if (tries := tuple(found.tries.get(order.number, ()))) != order.tries:
            wrong.append(f"the audit of mail {order.number} says {tries}, not {order.tries}")
    received = sorted((each.subject, each.recipients) for each in found.received)
    wanted = sorted((f"Order {order.number}", order.accepted) for order in committed)
    if received != wanted:
        wrong.append(f"the relay received {received}, not {wanted}")
    return wrong


def _wrong_words(found: Outcome) -> list[str]:
    """The replies that are stored must be those that were given, word for word."""
    given = sorted(f"{each.address}: {each.code} {each.reply.split(' ', 2)[2]}" for each in found.answers)
    stored = sorted(f"{address}: {code} {reply}" for _, _, address, _, code, reply in found.audit)
    return [] if stored == given else [f"the audit says {stored}, and the relay said {given}"]


def _traces(found: Outcome) -> list[str]:
    """What was rolled back must be nowhere."""
    wrong = []
    if any(NEVER in text for text in found.stored):
        wrong.append(f"a mail for {NEVER} is stored, though its transaction was rolled back")
    if any(answer.address == NEVER for answer in found.answers):
        wrong.append(f"a mail for {NEVER} reached the relay, though its transaction was rolled back")
    return wrong
