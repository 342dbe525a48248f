"""Tokens that cannot be got, or do not open: who is told what, and who asks again when."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from outbox import keys
from outbox.core.account import Tls
from outbox.errors import VaultError
from outbox.store import tables
from outbox.vault import Vault
from tests.oauth.desk import HOUR, Desk, failure, person, run
from tests.oauth.desk import desk as desk
from tests.oauth.desk import no_canary_in_the_log as no_canary_in_the_log
from tests.oauth.endpoint import ERROR, Endpoint, Reply


def test_a_refusal_that_lasts_says_what_to_do_and_gives_the_lease_back(desk: Desk) -> None:
    with Endpoint(ERROR("invalid_grant", "expired"), ERROR("invalid_client", "unknown")) as server:
        desk.set_up(person(server))
        tokens = desk.runner()
        error = failure(tokens, desk.account)
        assert error.permanent
        assert "invalid_grant: expired; re-consent needed: outbox account login shop" in str(error)
        assert desk.row.refreshing_until is None
        error = failure(tokens, desk.account)
        assert "invalid_client: unknown; the setup is to be corrected: outbox account oauth shop" in str(error)
        assert error.permanent


def test_who_cannot_log_in_on_another_device_is_told_to_give_another_refresh_token(desk: Desk) -> None:
    with Endpoint(ERROR("invalid_grant")) as server:
        desk.set_up(replace(person(server), device_url=""))
        assert "re-consent needed: outbox account oauth shop" in str(failure(desk.runner(), desk.account))


def test_a_failure_that_may_pass_is_tried_again_after_a_rest_by_one_of_all(desk: Desk) -> None:
    with Endpoint(Reply(500), Reply(500)) as server:
        desk.set_up(person(server))
        one, other = desk.runner(), desk.runner("b" * 32)
        error = failure(one, desk.account)
        assert not error.permanent
        assert "answers 500" in str(error)
        assert "failed a moment ago" in str(failure(one, desk.account))
        assert "failed a moment ago" in str(failure(other, desk.account))
        assert len(server.requests) == 1
        desk.clock.advance(timedelta(seconds=31))
        assert "answers 500" in str(failure(other, desk.account))
        desk.clock.advance(timedelta(seconds=31))
        assert asyncio.run(one.access(desk.account)).reveal() == server.current


@pytest.mark.parametrize("answer", [Reply(500), ERROR("invalid_grant")])
def test_while_the_old_token_is_good_a_failure_is_only_told(
    desk: Desk, answer: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    with Endpoint({}, answer, answer) as server:
        desk.set_up(person(server))
        tokens = desk.runner()

        async def scenario() -> None:
            first = await tokens.access(desk.account)
            desk.clock.advance(HOUR * 0.9)
            assert await tokens.access(desk.account) == first
            assert await tokens.access(desk.account) == first

        run(scenario)
        assert len(server.requests) == 2
        assert caplog.text.count("could not be renewed, and is used on") == 1
        desk.clock.advance(HOUR * 0.1)
        assert failure(tokens, desk.account).permanent is (answer.status == 400)


def test_an_account_without_a_setup_says_how_to_give_it_one(desk: Desk) -> None:
    error = failure(desk.runner(), desk.account)
    assert error.permanent
    assert "it has no OAuth setup: outbox account oauth shop" in str(error)


@pytest.mark.parametrize("change", [{"relay_host": "127.0.0.2"}, {"username": "eve"}, {"tls": Tls.STARTTLS}])
def test_the_setup_does_not_open_for_another_relay_or_login(desk: Desk, change: dict[str, Any]) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        tokens = desk.runner()
        asyncio.run(tokens.access(desk.account))
        with pytest.raises(VaultError, match="its OAuth setup was stored for"):
            asyncio.run(desk.runner().access(replace(desk.account, **change)))
        assert len(server.requests) == 1


def test_a_token_that_does_not_open_is_got_again(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    with Endpoint() as server:
        desk.set_up(person(server))
        asyncio.run(desk.runner().access(desk.account))
        tables.OAuth.update(token="gAAAA-damaged").execute(desk.connect())
        assert asyncio.run(desk.runner().access(desk.account)).reveal() == server.current == "canary-access-2"
    assert "opens its access token" in caplog.text


def test_a_key_that_has_been_added_meanwhile_is_looked_for_once(desk: Desk) -> None:
    old = Vault(keys.Keys((keys.new(),), keys.Origin.ENVIRONMENT))
    loaded = [old]

    def load_again() -> bool:
        loaded.append(desk.vault)
        return len(loaded) == 2

    with Endpoint() as server:
        desk.set_up(person(server))
        tokens = desk.runner(open_vault=lambda: loaded[-1], load_again=load_again)
        assert asyncio.run(tokens.access(desk.account)).reveal() == server.current
    with pytest.raises(VaultError, match="is not loaded"):
        asyncio.run(desk.runner(open_vault=lambda: old).access(desk.account))
