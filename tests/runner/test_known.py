"""What is known is never forgotten: errors of ours, stale registries, late results, and statements that collide."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from outbox.clock import Clock
from outbox.core.account import Account
from outbox.core.lifecycle import State
from outbox.core.settlement import Claim, nothing_left
from outbox.runner.registrar import Registrar
from outbox.runner.steady import Steadiness
from outbox.runner.upkeep import Identity, Upkeep
from outbox.store import runners
from tests.relay import DROP, Accept, Relay
from tests.runner.errands import mail, send
from tests.runner.office import office
from tests.running import Site


def test_an_error_after_the_acceptance_does_not_undo_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The breaker is reset after the mail is settled, and whatever happens then is another matter."""

    async def broken(self: Registrar, account: Account) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Registrar, "relay_answered", broken)
    with Relay() as relay:
        site.register(relay.port)
        message_id = mail(site)
        send(site, tmp_path)
        assert len(relay.messages) == 1
    assert site.query("SELECT state FROM outbox_delivery WHERE message_id = ?", message_id) == [("sent",)]


def test_a_sender_registered_in_the_mails_own_transaction_is_not_called_unregistered(
    site: Site, tmp_path: Path
) -> None:
    """A runner that is up has a registry that is up to a second old."""

    def register_and_send(session: object, line: str) -> None:
        if not site_in_relay.query("SELECT 1 FROM outbox_sender WHERE address = 'new@example.com'"):
            with site_in_relay.db.atomic():
                site_in_relay.query(
                    "INSERT INTO outbox_sender (address, account) SELECT 'new@example.com', name FROM outbox_account"
                )
                mail(site_in_relay, sender="new@example.com")

    with Relay() as relay:
        site.register(relay.port)
        mail(site)
        site_in_relay: Site

        def once(session: object, line: str) -> None:
            nonlocal site_in_relay
            site_in_relay = Site(site.url, site.folder)
            register_and_send(session, line)
            site_in_relay.close()

        relay.script["dot"] = [once]
        send(site, tmp_path)
        assert {each.sender for each in relay.messages} == {"shop@example.com", "new@example.com"}


def test_the_late_acceptance_of_the_last_recipient_ends_the_message(site: Site, tmp_path: Path) -> None:
    """One was refused before, the other's 2xx came late: nobody is left, and the message is not tried for ever."""
    with Relay({"rcpt:bob@example.net": "550 5.1.1 unknown", "dot": [Accept(DROP)]}) as relay:
        site.register(relay.port)
        message_id = mail(site, recipients="ann@example.net, bob@example.net")
        send(site, tmp_path)
        site.query("UPDATE outbox_recipient SET fate = 'accepted' WHERE fate = 'doubt'")
        site.query("UPDATE outbox_delivery SET due_at = first_attempt_at")
        send(site, tmp_path)
        assert len(relay.messages) == 1
    assert site.query("SELECT state FROM outbox_delivery WHERE message_id = ?", message_id) == [("failed",)]


def test_nothing_left_is_sent_or_failed_by_what_came_before() -> None:
    claim = Claim(7, 3, "shop@example.com")
    assert nothing_left(claim, bounced=False).state is State.SENT
    assert nothing_left(claim, bounced=True).state is State.FAILED


def test_suspects_behind_many_that_are_paused_are_sent(site: Site, tmp_path: Path) -> None:
    with Relay() as relay:
        site.register(relay.port)
        for _ in range(12):
            mail(site, sender="paused@example.com")
        site.query(
            "INSERT INTO outbox_sender (address, account, pause_reason)"
            " SELECT 'paused@example.com', name, 'operator: vacation' FROM outbox_account"
        )
        behind = mail(site)
        site.query("UPDATE outbox_delivery SET crashes = 1")
        send(site, tmp_path)
        assert len(relay.messages) == 1
    assert site.query("SELECT state FROM outbox_delivery WHERE message_id = ?", behind) == [("sent",)]


class NoLock:
    """A presence that nobody else sees."""

    def take(self, runner: str) -> None: ...

    def release(self, *, departed: bool = True) -> None: ...

    def sweep(self, dead: object) -> None: ...


def upkeep(clerk: object, runner: str) -> Upkeep:
    return Upkeep(
        clerk,  # type: ignore[arg-type]
        Identity(runner, "0.1.0", timedelta(seconds=60)),
        NoLock(),
        max_doubts=3,
        claims=set,
        on_reclaimed=lambda: None,
        steady=Steadiness(Clock(), Clock().now),
        new_id=Clock().token,
    )


def test_after_a_jump_of_the_clock_runners_do_not_bury_each_other(sqlite_url: str) -> None:
    me, other = "1" * 32, "2" * 32

    async def scenario() -> None:
        async with office(sqlite_url) as it:
            mine, its = upkeep(it.clerk, me), upkeep(it.clerk, other)
            await mine.arrive()
            await its.arrive()
            past = datetime.now(UTC) - timedelta(minutes=2)
            await it.clerk.upkeep(
                lambda store, now: store.db.execute_sql(
                    "UPDATE outbox_runner SET lease_until = ?", (past.strftime("%Y-%m-%dT%H:%M:%S.000Z"),)
                )
            )
            await mine.reclaim()
            await mine.renew()
            await mine.reclaim()
            assert other in await it.clerk.read(runners.leases)

    asyncio.run(scenario())


def test_a_runner_whose_lease_has_run_out_while_ours_has_not_is_buried(sqlite_url: str) -> None:
    me, other = "1" * 32, "2" * 32

    async def scenario() -> None:
        async with office(sqlite_url) as it:
            mine, its = upkeep(it.clerk, me), upkeep(it.clerk, other)
            await mine.arrive()
            await its.arrive()
            await it.clerk.upkeep(
                lambda store, now: runners.renew(store, other, now - timedelta(minutes=5), timedelta(minutes=1))
            )
            await mine.reclaim()
            assert set(await it.clerk.read(runners.leases)) & {me, other} == {me}

    asyncio.run(scenario())
