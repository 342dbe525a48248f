"""What an earlier runner could not write is written before its file goes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from outbox.clock import Clock
from outbox.core.lifecycle import State
from outbox.core.reply import Reply
from outbox.core.settlement import Claim, Result, Settlement, relinquish
from outbox.runner import rescue
from outbox.runner.writing.desk import GROUP
from outbox.store import Pick, open_store, runners
from tests.runner.errands import mail, send
from tests.running import SHOP, Site

COUNT = 2 * GROUP + 50


def test_more_than_a_transaction_takes_is_written_before_its_file_goes(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.register(9)  # nothing is sent
    for _ in range(COUNT):
        mail(site)
    results, uuid = claimed_by_one_who_died(site.url)
    rescue.save([tmp_path / "rescue"], results, uuid)
    discard, written = rescue.discard, []

    def discarded(*arguments: Any) -> None:
        written.append(site.states())
        discard(*arguments)

    monkeypatch.setattr(rescue, "discard", discarded)
    send(site, tmp_path)

    assert written == [{"sent": COUNT}]


def claimed_by_one_who_died(url: str) -> tuple[list[Settlement], str]:
    """What became of the mails, which it had no time to write; and the database's id."""
    store = open_store(url, Clock())
    store.open()
    now = datetime.now(UTC) + timedelta(seconds=1)
    with store.transaction():
        runners.register(store, "d" * 32, host="web1", pid=1, version="0", now=now, lease=timedelta(hours=1))
        claims = store.claim("d" * 32, [Pick(SHOP, 5, COUNT)], now)
    store.close()
    assert len(claims) == COUNT
    return [accepted(each) for each in claims], store.database_uuid


def accepted(claim: Claim) -> Settlement:
    reply = Reply(250, "2.0.0", "Ok")
    return replace(relinquish(claim), state=State.SENT, result=Result.ACCEPTED, reply=reply, account="main")
