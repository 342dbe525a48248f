"""The tokens of accounts: kept, renewed in time by one runner, and asked for again when one is refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from outbox import keys
from outbox.core.account import Account, Mechanism, Tls
from outbox.core.secret import Secret
from outbox.errors import OAuthError, VaultError
from outbox.oauth.setup import Grant, Setup
from outbox.runner import tokens as tokens_module
from outbox.runner.tokens import Direct, Tokens
from outbox.store import accounts, oauth, tables
from outbox.store.database import connect
from outbox.store.journal import Act
from outbox.store.oauth import LEASE, OAuth, Sealed
from outbox.vault import Binding, Kind, Vault
from tests.clock import FakeClock
from tests.oauth.endpoint import ERROR, Endpoint, Reply

HOUR = timedelta(hours=1)
REFRESH = "canary-refresh-1"
SHOP = Account("shop", "127.0.0.1", 2525, Tls.NONE, Mechanism.XOAUTH2, "shop@example.com")


@dataclass
class Desk:
    """An account, its vault and clock, and as many runners as a test wants, each with a connection of its own."""

    url: str
    stack: ExitStack
    clock: FakeClock
    vault: Vault
    account: Account = SHOP

    def set_up(self, setup: Setup) -> None:
        """What `outbox account oauth` does."""
        db = self.connect()
        packed = self.vault.seal(setup.pack(), Binding.of(self.account), Kind.OAUTH)
        with db.atomic():
            if not accounts.accounts(db):
                accounts.add_account(db, self.account, Act("test", self.clock.now()))
            sealed = Sealed(packed, self.vault.key_id)
            oauth.save(db, self.account, sealed, Act("test", self.clock.now()), "account oauth")
        self.account = accounts.account(db, "shop")

    def connect(self) -> Any:
        return self.stack.enter_context(closing(connect(self.url)))

    def runner(self, who: str = "a" * 32, **options: Any) -> Tokens:
        options.setdefault("open_vault", lambda: self.vault)
        return Tokens(Direct(self.connect(), self.clock), self.clock, who=who, **options)

    @property
    def row(self) -> OAuth:
        found = oauth.find(self.connect(), "shop")
        assert found is not None
        return found

    @property
    def setup(self) -> Setup:
        binding = Binding.of(self.account)
        return Setup.unpack(self.vault.open(self.row.setup, binding, key_id=self.row.key_id, kind=Kind.OAUTH))


@pytest.fixture
def desk(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(tokens_module, "LOOK_EVERY", 0.01)
    vault = Vault(keys.Keys((keys.new(),), keys.Origin.ENVIRONMENT))
    with ExitStack() as stack:
        yield Desk(database_url, stack, FakeClock(), vault)


@pytest.fixture(autouse=True)
def _no_canary_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert "canary" not in caplog.text


def person(server: Endpoint) -> Setup:
    return Setup(
        Grant.REFRESH_TOKEN,
        server.token_url,
        server.device_url,
        client_id="app",
        client_secret=Secret("canary-secret"),
        refresh_token=Secret(REFRESH),
    )


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def failure(tokens: Tokens, account: Account, *, fresh: bool = False) -> OAuthError:
    with pytest.raises(OAuthError) as caught:
        asyncio.run(tokens.access(account, fresh=fresh))
    assert "account shop" in str(caught.value)
    assert "canary" not in f"{caught.value!r} {caught.value.hint}"
    return caught.value


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


# ---- failures


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
