"""Limits, as runners keep them."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime

from outbox.clock import Clock
from outbox.core.limits import Limit, Limited
from outbox.store import limits
from outbox.store.journal import Act
from tests.relay import Relay
from tests.running import SHOP, Site, eventually

MAIN = Limited.ACCOUNT, "main"


def set_limit(site: Site, limit: Limit) -> None:
    with site.db.atomic():
        limits.set_limit(site.db, limit, Act("test", Clock().now()))


def attempts(site: Site) -> int:
    return int(site.query("SELECT count(*) FROM outbox_attempt")[0][0])


def test_a_used_up_account_keeps_its_mail_due_and_says_why(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        set_limit(site, Limit(*MAIN, per_day=5))
        site.insert(300)
        with site.run("--until-empty") as runner:
            assert runner.wait() == 0
        assert len(relay.messages) == 5
        assert site.states() == {"sent": 5, "queued": 295}
        assert "limit of 5 a day for account main is used up until" in runner.stays[0]
        assert attempts(site) <= 5 + 12 + 5
        site.audit(relay.messages)


def test_recipients_are_counted_and_a_lifted_limit_lets_the_rest_go(site: Site) -> None:
    three = "ann@example.net, bob@example.net, cem@example.net"
    with Relay() as relay:
        site.register(relay.port)
        set_limit(site, Limit(Limited.SENDER, SHOP, per_day=4))
        site.insert(2, recipients=three)
        with site.run() as runner:
            runner.started()
            site.until(sent=1, queued=1)
            with site.db.atomic():
                limits.remove_limit(site.db, Limited.SENDER, SHOP, Act("test", Clock().now()))
            site.until(sent=2)


def test_mail_to_a_used_up_domain_is_put_off_and_other_mail_goes(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        set_limit(site, Limit(Limited.DOMAIN, "example.net", per_day=3))
        site.insert(20)
        site.insert(20, recipients="ann@example.org")
        with site.run("--until-empty") as runner:
            assert runner.wait() == 0
        assert site.states() == {"sent": 23, "queued": 17}
        due = [
            row[0] for row in site.query("SELECT due_at FROM outbox_delivery WHERE state = 'queued' ORDER BY due_at")
        ]
        moments = [datetime.fromisoformat(each) if isinstance(each, str) else each for each in due]
        assert moments[0] > datetime.now(UTC)
        assert len(set(moments)) == 17
        assert attempts(site) == 20 + 20
        reason = site.query("SELECT DISTINCT reply FROM outbox_attempt WHERE outcome = 'relinquished'")
        assert reason == [("limit of 3 a day for domain example.net is used up",)]
        site.audit(relay.messages)


def test_all_runners_together_keep_a_limit(site: Site) -> None:
    with Relay() as relay, ExitStack() as stack:
        site.register(relay.port)
        set_limit(site, Limit(*MAIN, connections=3, per_day=30))
        runners = [stack.enter_context(site.run()) for _ in range(2)]
        for each in runners:
            each.started()
        eventually(lambda: len(site.runners()) == 2, "two runners")
        site.insert(60)
        site.until(sent=30, queued=30)
        assert len(relay.messages) == 30
        for each in runners:
            each.stop()
        assert [each.wait() for each in runners] == [0, 0]
        site.audit(relay.messages)


def test_an_unreachable_relay_uses_nothing_up(site: Site) -> None:
    with Relay() as relay:
        port = relay.port
    site.register(port)
    set_limit(site, Limit(*MAIN, per_day=5))
    site.insert(3)
    with site.run() as runner:
        runner.started()
        eventually(lambda: site.attempts()["paused"] >= 3, "three attempts")
        runner.stop()
        runner.wait()
    assert site.query("SELECT used FROM outbox_usage") == [(0,)]


def test_a_runner_without_a_connection_to_a_domain_leaves_its_mail_to_one_that_has_it(site: Site) -> None:
    with Relay() as relay, ExitStack() as stack:
        site.register(relay.port)
        set_limit(site, Limit(Limited.DOMAIN, "example.net", connections=1))
        runners = [stack.enter_context(site.run()) for _ in range(3)]
        for each in runners:
            each.started()
        eventually(lambda: len(site.runners()) == 3, "three runners")
        site.insert(15)
        site.until(40, sent=15)
        spent = 2 * 12 + 2 * 5  # a window of each of the two, and then one message each time they look
        assert attempts(site) <= 15 + 15 + spent, "each is put off about once"
        site.audit(relay.messages)
