"""What must come before what: the mark before the dot, and the settlement before the goodbye."""

from __future__ import annotations

import sys
from contextlib import closing

from outbox.clock import Clock
from outbox.store import open_store
from tests.relay import HANG, Relay
from tests.running import Program, Site, eventually


def test_without_its_mark_no_dot_is_written(sqlite_site: Site) -> None:
    """The claim is lost while the relay waits for the body: the mark is refused, and so nobody has the message yet."""
    site = sqlite_site
    with Relay({"data": [HANG, None]}) as relay, closing(open_store(site.url, Clock())) as store:
        site.register(relay.port, connections=1)
        (message_id,) = site.insert()
        with site.run("--until-empty") as runner:
            eventually(lambda: "DATA" in relay.commands, "the relay is asked for the body")
            store.open()
            with store.transaction():
                store.reclaim_stray(message_id, 1, 3, store.now())
            relay.release()
            assert runner.wait() == 0

    assert "." not in relay.sessions[0].commands
    assert len(relay.messages) == 1
    assert site.attempts() == {"lost": 1, "accepted": 1}


def test_a_settlement_does_not_wait_for_the_goodbye(sqlite_site: Site) -> None:
    """A relay that says nothing to QUIT has accepted all the same, and a runner killed now must not leave a doubt."""
    site = sqlite_site
    with Relay({"quit": HANG}) as relay:
        site.register(relay.port, connections=1)
        site.query("UPDATE outbox_account SET max_messages = 1")
        site.insert()
        command = [sys.executable, "-m", "tests.impatient", "60", "60"]
        with Program(command, site.folder, OUTBOX_DATABASE=site.url):
            eventually(lambda: "QUIT" in relay.commands, "the connection is given up")
            site.until(4, sent=1)

    assert site.attempts() == {"accepted": 1}
