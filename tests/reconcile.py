"""The promise of DESIGN §1, held against what the relay has accepted: the invariants I1 to I10.

    journal = Journal()
    journal.take(message)                                 # everything that the relay accepted
    broken(query, journal, "sqlite", committed=ids)       # {} when all of them hold

I1   every message that was committed was accepted, or stands in a state that says why not
I2   nothing that was rolled back was accepted
I3   of every recipient at most 1 + doubts copies were accepted
I4   what is called sent was accepted, and every recipient of it has a 2xx
I5   the rows are those that were committed
I6   with `hold` nobody got a second copy, but what a person has resolved to send again
I7   no attempt is open but of what is being sent
I8   the claim numbers of a message only grow
I9   the database is sound
I10  every copy of a message has the same bytes
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

from tests.relay import Received

Query = Callable[[str], list[Any]]
SHOWN = 5
"""So many of what breaks an invariant are said."""


class Journal:
    """What a relay has accepted, without the bodies: thousands of mails fit. Messages are named ``ID.TOKEN``: an id
    whose transaction was rolled back may be given again, a token never is.
    """

    def __init__(self, accepted: Iterable[Received] = ()) -> None:
        self.count = 0
        self.copies: Counter[tuple[str, str]] = Counter()
        self.contents: dict[str, set[bytes]] = {}
        self._lock = threading.Lock()
        for each in accepted:
            self.take(each)

    def take(self, message: Received) -> None:
        """For any thread."""
        name = message.message_id.lstrip("<").partition("@")[0]
        digest = hashlib.sha256(message.content).digest()
        with self._lock:
            self.count += 1
            self.contents.setdefault(name, set()).add(digest)
            self.copies.update((name, address) for address in message.recipients)


def broken(
    query: Query, journal: Journal, kind: str, *, committed: Collection[int] | None = None, at_rest: bool = False
) -> dict[str, list[Any]]:
    """The invariants that do not hold, each with what breaks it. `query` runs SQL without parameters in a
    database of this `kind` (``sqlite`` or ``postgres``). `committed`: the ids of all that the application has
    committed; None where nobody has counted them. `at_rest`: nothing is queued or being sent any more.
    """
    rows = {
        f"{number}.{token}": (number, state, doubts, on_doubt)
        for number, token, state, doubts, on_doubt in query(
            "SELECT o.id, o.token, d.state, d.doubts, d.on_doubt FROM outbox o JOIN outbox_delivery d"
            " ON d.message_id = o.id"
        )
    }
    resent = _resent(query)
    found = {
        "I1": _unexplained(query) + (_lost(query, journal) if at_rest else []),
        "I2": [name for name in journal.contents if name not in rows],
        "I3": [
            (*key, count) for key, count in journal.copies.items() if key[0] in rows and count > 1 + rows[key[0]][2]
        ],
        "I4": [number for name, (number, state, *_) in rows.items() if state == "sent" and name not in journal.contents]
        + _untrue(query, journal, {number: name for name, (number, *_) in rows.items()}),
        "I5": _not_the_committed(query, committed),
        "I6": [
            (*key, count)
            for key, count in journal.copies.items()
            if key[0] in rows and rows[key[0]][3] == "hold" and count > 1 + resent[rows[key[0]][0]]
        ],
        "I7": query(
            "SELECT a.message_id, a.claim_no FROM outbox_attempt a JOIN outbox_delivery d USING (message_id)"
            " WHERE a.ended_at IS NULL AND NOT (d.state = 'sending' AND d.claim_no = a.claim_no)"
        ),
        "I8": _out_of_order(query),
        "I9": _unsound(query, kind),
        "I10": [name for name, each in journal.contents.items() if len(each) > 1],
    }
    return {name: each for name, each in found.items() if each}


def _resent(query: Query) -> Counter[int]:
    """How often a person has said of a message in doubt that it is to be sent again."""
    said = query("SELECT filter FROM outbox_journal WHERE verb = 'resolve-resend'")
    return Counter(int(number) for (ids,) in said for number in re.findall(r"\d+", ids))


def _lost(query: Query, journal: Journal) -> list[Any]:
    """Messages that nobody has accepted, and whose state does not say why."""
    return [
        (number, state)
        for number, token, state in query(
            "SELECT o.id, o.token, d.state FROM outbox o JOIN outbox_delivery d ON d.message_id = o.id"
            " WHERE d.state NOT IN ('failed', 'expired', 'cancelled', 'held')"
        )
        if f"{number}.{token}" not in journal.contents
    ]


def _unexplained(query: Query) -> list[Any]:
    """Messages without a delivery, and those that have ended, or are held, without a reason that can be read."""
    return query(
        "SELECT id FROM outbox o WHERE NOT EXISTS (SELECT 1 FROM outbox_delivery WHERE message_id = o.id)"
    ) + query(
        "SELECT message_id, state FROM outbox_delivery d WHERE (state = 'held' AND hold_reason IS NULL)"
        " OR (state = 'failed' AND last_reply IS NULL AND NOT EXISTS (SELECT 1 FROM outbox_fate f"
        " WHERE f.message_id = d.message_id AND f.reply IS NOT NULL))"
    )


def _untrue(query: Query, journal: Journal, names: dict[int, str]) -> list[Any]:
    """Recipients that are accepted in the database and not by the relay; `sent` without a 2xx for everybody."""
    fates = query("SELECT message_id, address, fate, code FROM outbox_fate WHERE fate = 'accepted'")
    forgotten = query(
        "SELECT d.message_id FROM outbox_delivery d WHERE d.state = 'sent' AND (NOT EXISTS"
        " (SELECT 1 FROM outbox_fate f WHERE f.message_id = d.message_id) OR EXISTS"
        " (SELECT 1 FROM outbox_fate f WHERE f.message_id = d.message_id AND f.fate <> 'accepted'))"
    )
    return [
        row for row in fates if (names.get(row[0], ""), row[1]) not in journal.copies or row[3] // 100 != 2
    ] + forgotten


def _not_the_committed(query: Query, committed: Collection[int] | None) -> list[Any]:
    if committed is None:
        return []
    return sorted({row[0] for row in query("SELECT id FROM outbox")} ^ set(committed))


def _out_of_order(query: Query) -> list[Any]:
    """A later claim that began earlier, or one that the message does not know of."""
    return query(
        "SELECT a.message_id, a.claim_no FROM outbox_attempt a JOIN outbox_attempt b ON b.message_id = a.message_id"
        " AND b.claim_no > a.claim_no WHERE b.started_at < a.started_at"
    ) + query(
        "SELECT a.message_id, a.claim_no FROM outbox_attempt a JOIN outbox_delivery d USING (message_id)"
        " WHERE a.claim_no > d.claim_no"
    )


def _unsound(query: Query, kind: str) -> list[Any]:
    """What the database itself finds wrong. PostgreSQL: of every index of ours, with what is in the table."""
    if kind == "sqlite":
        return [row for row in query("PRAGMA integrity_check") if row[0] != "ok"]
    query("CREATE EXTENSION IF NOT EXISTS amcheck")
    indexes = "SELECT indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    indexes += " WHERE c.relname ~ '^outbox' AND c.relkind = 'i' AND i.indisvalid AND c.relam = 403"
    wrong = []
    for (name,) in query(indexes):
        try:
            query(f"SELECT bt_index_check('{name}', true)")
        except Exception as error:  # noqa: BLE001  # that is how it says so
            wrong.append(f"{name}: {error}")
    return wrong
