"""PostgreSQL ends the transaction of a runner that stands still in the middle of it, and the runner begins anew."""

from __future__ import annotations

import pytest

from outbox.clock import Clock
from outbox.store import TransientError, open_store
from outbox.store.database import connect
from tests.running import eventually


def test_a_transaction_that_took_too_long_is_one_that_may_be_tried_again(postgres_url: str) -> None:
    store, other = open_store(postgres_url, Clock()), connect(postgres_url)
    store.open()
    if getattr(other, "server_version", 0) < 170000:
        pytest.skip("transaction_timeout is there from PostgreSQL 17 on")
    assert store.db.execute_sql("SHOW transaction_timeout").fetchone()[0] == "1min"
    store.db.execute_sql("SET transaction_timeout = '50ms'")
    (pid,) = store.db.execute_sql("SELECT pg_backend_pid()").fetchone()

    def gone() -> bool:
        return not other.execute_sql("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchall()

    def stand_still() -> None:
        with store.transaction():
            eventually(gone, "the end of its session")
            store.sending()

    with pytest.raises(TransientError) as raised:
        stand_still()
    assert raised.value.reconnect
    store.close()
    store.open()
    with store.transaction():
        assert store.sending() == 0
    store.close()
    other.close()
