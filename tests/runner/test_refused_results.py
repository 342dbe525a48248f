"""A result that the database refuses ends nothing, and keeps nobody waiting."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.relay import HANG, Relay
from tests.runner.errands import mail, send
from tests.running import Site, eventually


def break_delivery(site: Site, message_id: int, doubts: int) -> None:
    """Past the CHECK of its schema, as a restored dump may have it."""
    site.query("PRAGMA ignore_check_constraints = 1")
    site.query("UPDATE outbox_delivery SET doubts = ? WHERE message_id = ?", doubts, message_id)
    site.query("PRAGMA ignore_check_constraints = 0")


def test_a_runner_until_empty_ends_where_a_result_is_refused(
    sqlite_site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in the rescue file, the mail is not sent again, and when the row has been put right it is written."""
    site = sqlite_site
    with Relay() as relay:
        site.register(relay.port)
        broken, sound = mail(site), mail(site)
        break_delivery(site, broken, -1)

        send(site, tmp_path)

        assert "its result is refused, and kept" in caplog.text
        assert site.query("SELECT message_id FROM outbox_delivery WHERE state = 'sent'") == [(sound,)]
        assert f'"message_id": {broken}' in (tmp_path / "rescue").read_text()

        break_delivery(site, broken, 0)
        send(site, tmp_path)

        assert site.states() == {"sent": 2}
        assert len(relay.messages) == 2


def test_a_rescued_result_that_is_refused_ends_nobody_else_s_delivery(sqlite_site: Site) -> None:
    """It counts among the results, and not among the claims of this runner."""
    site = sqlite_site
    with Relay({"dot": [None, HANG]}) as relay:
        site.register(relay.port, connections=1)
        broken = mail(site)
        break_delivery(site, broken, -1)
        with site.run("--until-empty") as first:
            assert first.wait() == 0

        sound = mail(site)
        with site.run("--until-empty") as second:
            eventually(lambda: relay.commands.count(".") == 2, "the other mail is at its dot")
            eventually(lambda: site.states() == {"sent": 1, "sending": 1}, "the rescued result is written, late")
            relay.release()
            assert second.wait() == 0
            assert "0 results of an earlier run" in second.output, "then, it was not written"

        assert site.query("SELECT state, doubts FROM outbox_delivery WHERE message_id = ?", sound) == [("sent", 0)]
