"""kill -9 in mid-batch, with an application that listens: every end and every doubt is an event, once, and none is lost
on its way to the webhook.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from threading import Event as Gate

from outbox.store import events
from tests.crash.test_kill import killing
from tests.relay import Accept, Relay
from tests.runner.applications import application
from tests.running import Program, Site, eventually

MAILS = 30
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def hears(folder: Path, url: str) -> dict[str, str]:
    path = folder / "webhook.secret"
    path.write_text(SECRET)
    path.chmod(0o600)
    return {"webhook_url": url, "webhook_secret_file": str(path)}


def counts(site: Site) -> Counter[tuple[str, int | None]]:
    return Counter((str(event.kind), event.message_id) for event in events.listing(site.db))


def test_a_killed_runner_leaves_one_event_for_each_end_and_each_doubt(site: Site) -> None:
    victims: list[Program] = []
    script = {"dot": [None] * 7 + [Accept(killing(victims))], "rcpt:bob@example.net": "550 5.1.1 no such user"}
    with Relay(script) as relay:
        site.register(relay.port)
        good = site.insert(MAILS)
        bad = site.insert(4, recipients="bob@example.net")
        with site.run() as victim:
            victims.append(victim)
            victim.wait()
        with site.run("--until-empty") as survivor:
            assert survivor.wait() == 0
        site.audit(relay.messages)
    doubts = dict(site.query("SELECT message_id, doubts FROM outbox_delivery"))
    expected = Counter({("accepted", each): 1 for each in good} | {("bounced", each): 1 for each in bad})
    expected.update({("doubt", message_id): count for message_id, count in doubts.items() if count})
    assert sum(doubts.values()) >= 1
    assert counts(site) == expected


def test_a_runner_that_dies_while_it_posts_loses_no_event(site: Site, tmp_path: Path) -> None:
    gate = Gate()
    with Relay() as relay, application(hangs=gate) as taking:
        site.register(relay.port)
        ids = site.insert(MAILS)
        with site.run(**hears(tmp_path, taking.url)) as victim:
            site.until(sent=MAILS)
            eventually(lambda: taking.requests, "it posts, and is not answered")
            victim.kill()
        gate.set()
        taking.hangs = None
        with site.run("--until-empty", **hears(tmp_path, taking.url)) as survivor:
            assert survivor.wait() == 0
        told = {event["id"]: event["message_id"] for event in taking.events}
    assert sorted(told.values()) == sorted(ids)
