"""What the database says, as far as the protocol has to do with it."""

from __future__ import annotations

from typing import Any, NamedTuple

from outbox.store.sqlite import SqliteStore

_DELIVERIES = """
SELECT message_id, state, claim_no, lease_owner, dot_at IS NOT NULL, doubts, crashes, failures FROM outbox_delivery
ORDER BY message_id"""
_ATTEMPTS = "SELECT message_id, claim_no, outcome, late_outcome, runner_id FROM outbox_attempt ORDER BY 1, 2"
_FATES = "SELECT message_id, claim_no, fate FROM outbox_recipient ORDER BY 1, 2"
_RUNNERS = "SELECT id, dead_at IS NOT NULL FROM outbox_runner ORDER BY id"
_DOUBTS_TOLD = "SELECT message_id, count(*) FROM outbox_event WHERE kind = 'doubt' GROUP BY message_id ORDER BY 1"


class Delivery(NamedTuple):
    message_id: int
    state: str
    claim_no: int
    owner: str | None
    dotted: int
    doubts: int
    crashes: int
    failures: int


class Database(NamedTuple):
    """What the database says, but for its times, which are all the same. Hashable."""

    deliveries: tuple[Delivery, ...]
    attempts: tuple[Any, ...]
    fates: tuple[Any, ...]
    runners: tuple[Any, ...]
    told: tuple[Any, ...]

    @property
    def living(self) -> set[str]:
        return {runner for runner, dead in self.runners if not dead}

    @property
    def dead(self) -> set[str]:
        return {runner for runner, dead in self.runners if dead}


def read(store: SqliteStore) -> Database:
    run = store.db.connection().execute
    return Database(
        tuple(Delivery(*row) for row in run(_DELIVERIES)),
        tuple(run(_ATTEMPTS)),
        tuple(run(_FATES)),
        tuple(run(_RUNNERS)),
        tuple(run(_DOUBTS_TOLD)),
    )
