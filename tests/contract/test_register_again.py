"""A runner whose first COMMIT was not acknowledged registers once more, under the same id."""

from __future__ import annotations

from datetime import timedelta

from outbox.store import runners
from tests.contract.stores import ME
from tests.stories import Stories


def test_a_registration_that_is_there_already_is_as_good_as_a_new_one(database_url: str) -> None:
    with Stories(database_url) as stories:
        store, lease = stories.store, timedelta(minutes=1)
        for _ in range(2):
            with store.transaction():
                now = store.now()
                runners.register(store, ME, host="web1", pid=7, version="1", now=now, lease=lease)
        assert runners.leases(store).keys() == {ME}
        with store.transaction():
            assert runners.renew(store, ME, store.now(), lease)
