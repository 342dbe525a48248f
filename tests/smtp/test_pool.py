"""Connections are kept by key, replaced when they are spent or gone, and nobody has to know."""

from __future__ import annotations

import asyncio

import pytest

from outbox.core.outcome import Report, Stage
from outbox.core.secret import Secret
from outbox.smtp.connection import Connection, Relay
from outbox.smtp.pool import Key, Pool
from tests import relay as scripted
from tests.relay import HANG
from tests.smtp.sending import HELLO, TO_ANN, Mark, account, deadlines, run

MAIN: Key = ("main", 1)


async def deliver(pool: Pool, settings: Relay, key: Key = MAIN) -> Report:
    taken = await pool.take(key, settings)
    if isinstance(taken, Report):
        return taken
    report = await taken.deliver(TO_ANN, HELLO, Mark())
    await pool.give(key, taken)
    return report


def pooled(**options: float) -> Pool:
    return Pool(deadlines(), **options)


def test_a_connection_is_used_again_and_closed_with_quit() -> None:
    async def story(relay: scripted.Relay) -> None:
        pool = pooled()
        for _ in range(3):
            assert (await deliver(pool, account(relay))).stage is Stage.DOT
        assert pool.idle == 1
        await pool.close()
        assert pool.idle == 0

    with scripted.Relay() as relay:
        run(story(relay))
    assert len(relay.sessions) == 1
    assert (relay.commands.count("RSET"), relay.commands.count("QUIT")) == (0, 1)


def test_what_is_in_use_is_not_shared() -> None:
    async def story(relay: scripted.Relay) -> None:
        pool = pooled()
        first = await pool.take(MAIN, account(relay))
        second = await pool.take(MAIN, account(relay))
        assert isinstance(first, Connection)
        assert isinstance(second, Connection)
        assert first is not second
        await pool.give(MAIN, first)
        await pool.give(MAIN, second)
        assert await pool.take(MAIN, account(relay)) is second  # the one used last
        await second.close()
        await pool.close()

    with scripted.Relay() as relay:
        run(story(relay))
    assert relay.commands.count("QUIT") == 2


def test_another_account_or_another_password_has_another_connection() -> None:
    async def story(relay: scripted.Relay) -> None:
        pool = pooled()
        for key in (("main", 1), ("main", 2), ("other", 1), ("main", 1)):
            await deliver(pool, account(relay), key)
        assert pool.idle == 3
        await pool.drop("main")
        assert pool.idle == 1
        await pool.close()

    with scripted.Relay() as relay:
        run(story(relay))
    assert len(relay.sessions) == 3


def test_a_relay_that_refuses_is_reported_and_nothing_is_kept() -> None:
    async def story(relay: scripted.Relay) -> None:
        pool = pooled()
        report = await deliver(pool, account(relay))
        assert (report.stage, report.reply and report.reply.code) == (Stage.BANNER, 554)
        assert pool.idle == 0
        await pool.close()

    with scripted.Relay({"banner": "554 no"}) as relay:
        run(story(relay))


@pytest.mark.parametrize("goodbye", ["", "421 4.4.2 idle"])
def test_a_connection_that_died_while_idle_is_replaced_in_silence(goodbye: str) -> None:
    async def story(relay: scripted.Relay) -> None:
        pool = pooled()
        await deliver(pool, account(relay))
        if goodbye:
            relay.sessions[0].send(goodbye)
        relay.sessions[0].hang_up()
        for _ in range(20):  # it need not have been noticed yet: then the report is stale, see the next test
            await asyncio.sleep(0.005)
        assert (await deliver(pool, account(relay))).stage is Stage.DOT
        await pool.close()

    with scripted.Relay() as relay:
        run(story(relay))
    assert len(relay.messages) == 2


def test_one_that_dies_under_the_next_message_is_stale() -> None:
    async def story(relay: scripted.Relay) -> None:
        pool = pooled()
        await deliver(pool, account(relay))
        relay.script["mail"] = ["421 4.4.2 idle for too long"]
        assert (await deliver(pool, account(relay))).stale
        assert (await deliver(pool, account(relay))).stage is Stage.DOT
        await pool.close()

    with scripted.Relay() as relay:
        run(story(relay))
    assert len(relay.messages) == 2


def test_rset_asks_a_connection_that_was_idle_for_long() -> None:
    async def story(relay: scripted.Relay) -> None:
        pool = pooled(probe_after=-1)
        for _ in range(2):
            assert (await deliver(pool, account(relay))).stage is Stage.DOT
        await pool.close()

    with scripted.Relay() as relay:
        run(story(relay))
    assert len(relay.sessions) == 1
    assert relay.commands.count("RSET") == 1


@pytest.mark.parametrize("answer", ["503 no", "421 bye", HANG])
def test_one_that_does_not_answer_it_is_replaced(answer: object) -> None:
    async def story(relay: scripted.Relay) -> None:
        pool = Pool(deadlines(rset=0.2), probe_after=-1)
        for _ in range(2):
            assert (await deliver(pool, account(relay))).stage is Stage.DOT
        await pool.close()

    with scripted.Relay({"rset": answer}) as relay:
        run(story(relay))
    assert len(relay.sessions) == 2
    assert len(relay.messages) == 2


def test_after_a_failed_transaction_rset_comes_first() -> None:
    async def story(relay: scripted.Relay) -> None:
        pool = pooled()
        assert (await deliver(pool, account(relay))).stage is Stage.RCPT
        assert (await deliver(pool, account(relay))).stage is Stage.DOT
        await pool.close()

    with scripted.Relay({"rcpt": ["550 5.1.1 no"]}) as relay:
        run(story(relay))
    assert len(relay.sessions) == 1
    assert relay.commands.count("RSET") == 1


def test_a_connection_carries_no_more_messages_than_the_account_allows() -> None:
    async def story(relay: scripted.Relay) -> None:
        pool = pooled()
        settings = Relay("127.0.0.1", relay.port, "none", max_messages=2)
        for _ in range(5):
            await deliver(pool, settings)
        await pool.close()

    with scripted.Relay() as relay:
        run(story(relay))
    assert [session.commands.count(".") for session in relay.sessions] == [2, 2, 1]


def test_an_old_connection_is_replaced() -> None:
    async def story(relay: scripted.Relay) -> None:
        pool = pooled(max_age=-1)
        for _ in range(2):
            await deliver(pool, account(relay))
        assert pool.idle == 0
        await pool.close()

    with scripted.Relay() as relay:
        run(story(relay))
    assert len(relay.sessions) == 2


def test_idle_connections_are_closed_after_a_while() -> None:
    async def story(relay: scripted.Relay) -> None:
        patient, quick = pooled(), pooled(max_idle=-1)
        for pool in (patient, quick):
            await deliver(pool, account(relay))
            await pool.close_idle()
        assert (patient.idle, quick.idle) == (1, 0)
        await patient.close()
        await quick.close()

    with scripted.Relay() as relay:
        run(story(relay))
    assert relay.commands.count("QUIT") == 2


def test_giving_back_does_not_wait_for_a_slow_goodbye() -> None:
    async def story(relay: scripted.Relay) -> None:
        loop = asyncio.get_running_loop()
        pool = Pool(deadlines(quit=0.5), max_age=-1)
        connection = await pool.take(MAIN, account(relay))
        assert isinstance(connection, Connection)
        started = loop.time()
        await pool.give(MAIN, connection)
        assert loop.time() - started < 0.4
        await pool.close()
        assert loop.time() - started > 0.4

    with scripted.Relay({"quit": HANG}) as relay:
        run(story(relay))


def test_the_password_is_in_no_representation() -> None:
    settings = Relay("mail.example", 587, "starttls", username="ann", password=Secret("correct horse"))
    assert "correct horse" not in f"{settings!r} {settings}"


def test_of_keys_that_are_gone_nothing_is_kept() -> None:
    """A version of a password is a key, and there are many in a year."""

    async def story(relay: scripted.Relay) -> None:
        pool = pooled()
        for version in range(3):
            await deliver(pool, account(relay), ("main", version))
        assert len(pool._idle) == 3
        await pool.drop("main")
        assert pool._idle == {}
        taken = await pool.take(MAIN, account(relay))
        assert isinstance(taken, Connection)
        await pool.give(MAIN, taken)
        assert await pool.take(MAIN, account(relay)) is taken
        assert pool._idle in ({}, {MAIN: []})
        other = await pool.take(MAIN, account(relay))  # there is none left
        assert isinstance(other, Connection)
        assert pool._idle == {}
        await taken.close()
        await other.close()
        await pool.close()

    with scripted.Relay() as relay:
        run(story(relay))
