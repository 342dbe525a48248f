"""The tokens of accounts: kept, renewed in time by one runner, and asked for again when one is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from outbox import keys
from outbox.core.account import Tls
from outbox.errors import OAuthError, VaultError
from outbox.store import oauth, sealed, tables
from outbox.store.oauth import LEASE
from outbox.vault import Vault
from tests.oauth.desk import HOUR, REFRESH, Desk, failure, person, run
from tests.oauth.desk import desk as desk
from tests.oauth.desk import no_canary_in_the_log as no_canary_in_the_log
from tests.oauth.endpoint import Endpoint, Reply

# ---- one runner


def test_a_token_is_got_once_and_kept_sealed_for_all_runners(desk: Desk) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        one, other = desk.runner(), desk.runner("b" * 32)

        async def scenario() -> None:
            for tokens in (one, one, other):
                assert (await tokens.access(desk.account)).reveal() == server.current

        run(scenario)
        assert len(server.requests) == 1
    row = desk.row
    assert (row.version, row.refreshing_by, row.refreshing_until) == (2, "", None)
    assert (row.refresh_at, row.expires_at) == (desk.clock.now() + HOUR * 0.8, desk.clock.now() + HOUR)
    for table in tables.TABLES:
        assert "canary" not in repr(list(table.select().dicts().execute(desk.connect())))


def test_a_token_is_renewed_at_four_fifths_of_its_life(desk: Desk) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        tokens = desk.runner()

        async def scenario() -> None:
            first = await tokens.access(desk.account)
            desk.clock.advance(HOUR * 0.79)
            assert await tokens.access(desk.account) == first
            desk.clock.advance(HOUR * 0.02)
            assert (await tokens.access(desk.account)).reveal() == server.current != first.reveal()

        run(scenario)
        assert len(server.requests) == 2
    assert desk.row.version == 3


def test_a_rotated_refresh_token_is_written_back_and_used_the_next_time(desk: Desk) -> None:
    with Endpoint({"refresh_token": "canary-refresh-2"}, {}, {"refresh_token": REFRESH}) as server:
        desk.set_up(person(server))
        tokens = desk.runner()

        async def scenario() -> None:
            for _ in range(3):
                await tokens.access(desk.account)
                desk.clock.advance(HOUR)

        run(scenario)
        used = [request.form["refresh_token"] for request in server.requests]
        assert used == [REFRESH, "canary-refresh-2", "canary-refresh-2"]
    assert desk.setup == person(server)


ELSEWHERE: list[dict[str, Any]] = [
    {"relay_host": "evil.example"},
    {"relay_port": 26},
    {"username": "eve@example.com"},
    {"tls": Tls.OPPORTUNISTIC},
    {"ca_file": "evil.pem"},
    {"tls_pins": "0" * 64},
]


@pytest.mark.parametrize("changed", ELSEWHERE, ids=lambda changed: next(iter(changed)))
def test_a_token_that_is_in_memory_goes_to_no_other_relay(desk: Desk, changed: dict[str, Any]) -> None:
    """Whoever can write to the database changes the row, and not the version of its credentials."""
    with Endpoint() as server:
        desk.set_up(person(server))
        tokens = desk.runner()

        async def scenario() -> None:
            token = await tokens.access(desk.account)
            with pytest.raises(VaultError):
                await tokens.access(replace(desk.account, **changed))
            assert await tokens.access(desk.account) == token

        run(scenario)
        assert len(server.requests) == 1


def test_nor_does_one_that_is_on_its_way(desk: Desk) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        tokens = desk.runner()
        server.gate.clear()

        async def scenario() -> None:
            asking = asyncio.create_task(tokens.access(desk.account))
            await asyncio.to_thread(server.wait, 1)
            other = asyncio.create_task(tokens.access(replace(desk.account, relay_host="evil.example")))
            await asyncio.sleep(0)
            server.gate.set()
            assert (await asking).reveal() == server.current
            with pytest.raises(VaultError):
                await other

        run(scenario)


def test_a_key_that_is_retired_while_a_token_is_on_its_way_does_not_seal_it(desk: Desk) -> None:
    """Nothing would open the setup any more, nor the refresh token that has just replaced the old one."""
    (old,), new = desk.vault.keys.keys, keys.new()
    file, cached = desk.vault, desk.vault

    def load_again() -> bool:
        nonlocal cached
        before, cached = cached, file
        return cached.keys.ids != before.keys.ids

    def rotate() -> None:
        """`outbox key add`, `rotate` and `retire`."""
        nonlocal file
        both, db = Vault(keys.Keys((new, old), keys.Origin.ENVIRONMENT)), desk.connect()
        with db.atomic():
            for held in sealed.every(db):
                assert sealed.reseal(db, held, tuple(both.rotate(each, "shop") for each in held.tokens), both.key_id)
        file = Vault(keys.Keys((new,), keys.Origin.ENVIRONMENT))

    with Endpoint({"refresh_token": "canary-refresh-2"}) as server:
        desk.set_up(person(server))
        tokens = desk.runner(open_vault=lambda: cached, load_again=load_again)
        server.gate.clear()

        async def scenario() -> None:
            asking = asyncio.create_task(tokens.access(desk.account))
            await asyncio.to_thread(server.wait, 1)
            rotate()
            server.gate.set()
            assert (await asking).reveal() == server.current

        run(scenario)
    desk.vault = file
    assert desk.row.key_id == new.id
    assert desk.setup.refresh_token.reveal() == "canary-refresh-2"


def test_a_refused_token_is_replaced_once(desk: Desk) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        tokens = desk.runner()

        async def scenario() -> None:
            first = await tokens.access(desk.account)
            fresh = await tokens.access(desk.account, fresh=True)
            assert fresh != first
            assert await tokens.access(desk.account) == fresh

        run(scenario)
        assert len(server.requests) == 2


def test_a_token_that_somebody_else_has_replaced_already_is_not_replaced_again(desk: Desk) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        one, other = desk.runner(), desk.runner("b" * 32)

        async def scenario() -> None:
            await one.access(desk.account)
            await other.access(desk.account)
            newer = await one.access(desk.account, fresh=True)
            assert await other.access(desk.account, fresh=True) == newer

        run(scenario)
        assert len(server.requests) == 2


def test_a_refused_token_is_not_handed_out_again_when_no_other_can_be_got(desk: Desk) -> None:
    with Endpoint({}, Reply(503)) as server:
        desk.set_up(person(server))
        tokens = desk.runner()
        asyncio.run(tokens.access(desk.account))
        assert "answers 503" in str(failure(tokens, desk.account, fresh=True))
        assert "a moment ago" in str(failure(tokens, desk.account))
        desk.clock.advance(timedelta(minutes=1))
        assert asyncio.run(tokens.access(desk.account)).reveal() == server.current == "canary-access-3"


def test_who_hears_late_that_the_old_token_is_refused_gets_the_one_that_is_there(desk: Desk) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        tokens = desk.runner()

        async def scenario() -> None:
            old = await tokens.access(desk.account)
            new = await tokens.access(desk.account, fresh=True, refused=old)
            assert await tokens.access(desk.account, fresh=True, refused=old) == new != old

        run(scenario)
        assert len(server.requests) == 2


def test_the_same_token_from_the_endpoint_again_is_given_a_trial(desk: Desk) -> None:
    same = {"access_token": "canary-same"}
    with Endpoint(same, same, same) as server:
        desk.set_up(person(server))
        tokens = desk.runner()

        async def scenario() -> None:
            for fresh in (False, True, False):
                assert (await tokens.access(desk.account, fresh=fresh)).reveal() == "canary-same"

        run(scenario)
        assert len(server.requests) == 2


def test_many_who_ask_at_once_share_one_request(desk: Desk) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        tokens = desk.runner()

        async def scenario() -> None:
            got = await asyncio.gather(*(tokens.access(desk.account) for _ in range(10)))
            assert {each.reveal() for each in got} == {server.current}

        run(scenario)
        assert len(server.requests) == 1


def test_what_has_been_begun_is_ended_and_kept_although_nobody_waits_any_more(desk: Desk) -> None:
    with Endpoint({"refresh_token": "canary-refresh-2"}) as server:
        desk.set_up(person(server))
        tokens = desk.runner()

        async def scenario() -> None:
            server.gate.clear()
            asking = asyncio.create_task(tokens.access(desk.account))
            await asyncio.to_thread(server.wait, 1)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert asking.cancelled()
            server.gate.set()
            await tokens.close()

        run(scenario)
    assert desk.setup.refresh_token.reveal() == "canary-refresh-2"
    assert desk.row.version == 2


def test_the_end_does_not_wait_for_an_endpoint_that_is_silent(desk: Desk) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        tokens = desk.runner()

        async def scenario() -> None:
            server.gate.clear()
            asking = asyncio.create_task(tokens.access(desk.account))
            await asyncio.to_thread(server.wait, 1)
            await tokens.close(patience=0.05)
            await asyncio.wait({asking}, timeout=5)
            assert asking.cancelled()

        run(scenario)
    assert (desk.row.version, desk.row.refreshing_until) == (1, None)  # whoever comes next need not wait


def test_another_setup_counts_at_once(desk: Desk) -> None:
    with Endpoint() as before, Endpoint({"access_token": "canary-new"}) as after:
        desk.set_up(person(before))
        tokens = desk.runner()
        asyncio.run(tokens.access(desk.account))
        desk.set_up(person(after))
        assert asyncio.run(tokens.access(desk.account)).reveal() == "canary-new"


def test_a_setup_that_is_stored_while_a_token_is_got_for_the_old_one_wins(desk: Desk) -> None:
    with Endpoint() as before, Endpoint({"access_token": "canary-new"}) as after:
        desk.set_up(person(before))
        tokens = desk.runner()

        async def scenario() -> None:
            before.gate.clear()
            asking = asyncio.create_task(tokens.access(desk.account))
            await asyncio.to_thread(before.wait, 1)
            desk.set_up(person(after))
            before.gate.set()
            assert (await asking).reveal() == "canary-new"

        run(scenario)
    assert desk.setup == person(after)


# ---- several runners


def test_two_runners_at_once_make_one_request(desk: Desk) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        one, other = desk.runner(), desk.runner("b" * 32)

        async def scenario() -> None:
            server.gate.clear()
            first = asyncio.create_task(one.access(desk.account))
            await asyncio.to_thread(server.wait, 1)
            second = asyncio.create_task(other.access(desk.account))
            done, _ = await asyncio.wait({second}, timeout=0.1)
            assert not done  # it waits for the first
            server.gate.set()
            assert (await first).reveal() == (await second).reveal() == server.current

        run(scenario)
        assert len(server.requests) == 1


def test_while_one_renews_the_others_use_the_old_token(desk: Desk) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        one, other = desk.runner(), desk.runner("b" * 32)

        async def scenario() -> None:
            first = await one.access(desk.account)
            desk.clock.advance(HOUR * 0.85)
            server.gate.clear()
            renewing = asyncio.create_task(one.access(desk.account))
            await asyncio.to_thread(server.wait, 2)
            assert await other.access(desk.account) == first
            server.gate.set()
            newer = await renewing
            assert await other.access(desk.account) == newer != first

        run(scenario)
        assert len(server.requests) == 2


def test_a_runner_that_has_died_over_it_is_overtaken(desk: Desk) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        assert oauth.take(desk.connect(), "shop", "d" * 32, desk.row.version, desk.clock.now())
        tokens = desk.runner()

        async def scenario() -> None:
            waiting = asyncio.create_task(tokens.access(desk.account))
            done, _ = await asyncio.wait({waiting}, timeout=0.1)
            assert not done
            desk.clock.jump(LEASE)
            assert (await waiting).reveal() == server.current

        run(scenario)


def test_waiting_for_another_runner_has_an_end(desk: Desk) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        assert oauth.take(desk.connect(), "shop", "d" * 32, desk.row.version, desk.clock.now() + HOUR)
        tokens = desk.runner()

        async def scenario() -> None:
            waiting = asyncio.create_task(tokens.access(desk.account))
            done, _ = await asyncio.wait({waiting}, timeout=0.1)
            assert not done
            desk.clock.advance(timedelta(seconds=46))
            with pytest.raises(OAuthError, match="runner dddddddd") as caught:
                await waiting
            assert not caught.value.permanent

        run(scenario)
        assert server.requests == []


def test_the_clock_of_a_token_may_be_set_back(desk: Desk) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        tokens = desk.runner()
        asyncio.run(tokens.access(desk.account))
        desk.clock.jump(timedelta(days=-1))
        assert asyncio.run(tokens.access(desk.account)).reveal() == server.current
        assert desk.row.refreshed_at == desk.clock.now() + timedelta(days=1)
        assert isinstance(desk.row.refreshed_at, datetime)
