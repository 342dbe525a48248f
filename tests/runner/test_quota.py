"""Limits as a runner keeps them: over a real clerk and database, with a clock that the test turns."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from outbox.clock import Clock
from outbox.core.account import Account, Route, Sender, Tls
from outbox.core.limits import Limit, Limited
from outbox.core.settlement import Claim
from outbox.errors import DatabaseError
from outbox.runner.claiming.quota import Postponed, Quota, Reservation
from outbox.runner.writing.clerk import Clerk
from outbox.store import open_store
from outbox.store.limits import Snapshot
from tests.clock import FakeClock

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SHOP = "shop@example.com"
ANN = "ann@example.net"
WINDOW = 12

NET = Limited.DOMAIN, "example.net"
MAIN = Limited.ACCOUNT, "main"


class TurnedClock(FakeClock):
    """Also for the clerk's thread, which must not wait for it."""

    def sleep(self, seconds: float) -> None:
        pass


@dataclass
class Office:
    """A runner's quota, and as much of dispatch as it takes: claims in the order of due times, a window at a time."""

    clerk: Clerk
    quota: Quota
    clock: TurnedClock
    route: Route = field(
        default=Route(Account("main", "relay.example.com", 587, Tls.STARTTLS, max_connections=3), Sender(SHOP, "main"))
    )
    attempts: Counter[int] = field(default_factory=Counter)
    sent: dict[int, datetime] = field(default_factory=dict)

    async def reserve(self, *addresses: str, claim_no: int = 1, priority: int = 5) -> Reservation | Postponed:
        """For a message that is claimed for the first time, unless `claim_no` says otherwise."""
        return await self.quota.reserve(Claim(1, claim_no, SHOP, priority), self.route, addresses or (ANN,))

    async def granted(self, *addresses: str, claim_no: int = 1, priority: int = 5) -> Reservation:
        answer = await self.reserve(*addresses, claim_no=claim_no, priority=priority)
        assert isinstance(answer, Reservation), answer
        return answer

    async def postponed(self, *addresses: str, claim_no: int = 1, priority: int = 5) -> Postponed:
        answer = await self.reserve(*addresses, claim_no=claim_no, priority=priority)
        assert isinstance(answer, Postponed), answer
        return answer

    async def send(self, backlog: Sequence[Sequence[str]], until: datetime) -> None:
        """Send these messages, each to so many addresses, in no time, whenever they may go."""
        due = [(self.clock.now(), message_id) for message_id in range(1, len(backlog) + 1)]
        while due and (now := self.clock.now()) < until:
            room = self.quota.room(self.route, now)
            most = WINDOW if room is None else min(WINDOW, room)
            if self.quota.blocked(self.route, now) or due[0][0] > now:
                self.clock.advance(timedelta(milliseconds=200))
                await asyncio.sleep(0)
                continue
            claims = [heapq.heappop(due) for _ in range(min(most, len(due))) if due[0][0] <= now]
            answers = await asyncio.gather(*(self._attempt(message_id, backlog) for _, message_id in claims))
            for (was_due, message_id), answer in zip(claims, answers, strict=True):
                if isinstance(answer, Reservation):
                    self.sent[message_id] = now
                    answer.release()
                else:
                    heapq.heappush(due, (answer.until or was_due, message_id))

    async def _attempt(self, message_id: int, backlog: Sequence[Sequence[str]]) -> Reservation | Postponed:
        self.attempts[message_id] += 1
        claim = Claim(message_id, self.attempts[message_id], SHOP)
        return await self.quota.reserve(claim, self.route, backlog[message_id - 1])

    def busiest(self, span: timedelta) -> int:
        """The most messages that were sent within a span."""
        moments = sorted(self.sent.values())
        return max(sum(at - span < each <= at for each in moments) for at in moments)


@asynccontextmanager
async def office(url: str, *known: Limit, rank: int = 0, runners: int = 1) -> AsyncIterator[Office]:
    clock = TurnedClock(NOON)
    clerk = Clerk(open_store(url, clock), clock, byte_budget=1_000_000, on_change=lambda: None)
    await clerk.start()
    quota = Quota(clerk, clock)
    quota.load(Snapshot(known, rank, runners))
    try:
        yield Office(clerk, quota, clock)
    finally:
        await clerk.stop(5)


def test_without_limits_everything_goes_and_the_database_is_not_asked(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url) as it:
            await it.clerk.stop(5)  # asking would raise
            (await it.granted()).release(tried=False)
            assert it.quota.places(it.route.account) == 3
            assert it.quota.room(it.route, NOON) is None
            assert it.quota.blocked(it.route, NOON) == ""

    asyncio.run(scenario())


def test_mail_that_no_limit_is_for_goes_unasked(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, Limit(*NET, per_minute=1)) as it:
            await it.clerk.stop(5)
            await it.granted("bob@example.org", "bob@sub.example.net")
            with pytest.raises(DatabaseError):
                await it.granted("bob@Example.NET")

    asyncio.run(scenario())


def test_recipients_are_counted_and_a_used_up_account_is_blocked_until_some_are_free(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, Limit(*MAIN, per_minute=30)) as it:
            await it.granted(*[ANN] * 29)
            refused = await it.postponed(ANN, ANN)
            assert refused.until is None
            # Three are free then, a tenth of the limit; two were free two seconds earlier.
            assert refused.reason == "limit of 30 a minute for account main is used up until 2026-03-01T12:01:03Z"
            assert it.quota.blocked(it.route, NOON) == refused.reason
            assert it.quota.room(it.route, NOON) == 0
            assert (await it.postponed()) == refused
            it.clock.advance(timedelta(seconds=65))
            now = it.clock.now()
            assert it.quota.blocked(it.route, now) == ""
            assert it.quota.room(it.route, now) == 3
            await it.granted(ANN, ANN, ANN)
            assert it.quota.room(it.route, now) == 1

    asyncio.run(scenario())


def test_a_limit_of_a_sender_and_of_its_whole_domain_both_count(sqlite_url: str) -> None:
    whole = Limit(Limited.SENDER, "*@example.com", per_hour=2)

    async def scenario() -> None:
        async with office(sqlite_url, Limit(Limited.SENDER, SHOP, per_hour=1), whole) as it:
            it.route = replace(it.route, domain=Sender("*@example.com", "main"))
            await it.granted()
            assert "limit of 1 an hour for sender shop@example.com" in (await it.postponed()).reason
            beside = replace(it.route, sender=Sender("bob@example.com", "main"))
            assert it.quota.blocked(beside, NOON) == ""
            assert isinstance(await it.quota.reserve(Claim(2, 1, "bob@example.com"), beside, [ANN]), Reservation)
            third = await it.quota.reserve(Claim(3, 1, "bob@example.com"), beside, [ANN])
            assert isinstance(third, Postponed)
            assert "for sender *@example.com" in third.reason

    asyncio.run(scenario())


def test_messages_to_a_used_up_domain_get_slots_and_others_go(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, Limit(*NET, per_minute=6)) as it:
            for _ in range(6):
                await it.granted()
            slots = [(await it.postponed()).until for _ in range(3)]
            assert slots == [NOON + timedelta(seconds=each) for each in (65, 75, 85)]
            assert (await it.postponed(ANN, ANN)).until == NOON + timedelta(seconds=105)
            assert (await it.postponed(priority=0)).until == NOON + timedelta(seconds=65)
            await it.granted("bob@example.org")
            assert it.quota.blocked(it.route, NOON) == ""
            it.clock.advance(timedelta(seconds=70))
            assert (await it.postponed()).until == NOON + timedelta(seconds=115)  # not before its turn
            await it.granted(claim_no=2)

    asyncio.run(scenario())


def test_nothing_is_put_off_for_more_than_a_year(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, Limit(*NET, per_day=1)) as it:
            await it.granted()
            slots = [(await it.postponed()).until for _ in range(400)]
            assert slots[0] == NOON.replace(hour=0) + timedelta(days=1, hours=12)
            assert slots[-1] is not None
            assert slots[100] == NOON + timedelta(days=101)
            assert slots[-1] <= NOON + timedelta(days=367)

    asyncio.run(scenario())


def test_what_was_not_tried_is_given_back(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, Limit(*NET, per_minute=1)) as it:
            first = await it.granted()
            first.release(tried=False)
            first.release(tried=False)  # once
            second = await it.granted()
            assert isinstance(await it.reserve(), Postponed)
            second.release()
            assert isinstance(await it.reserve(claim_no=2), Postponed)

    asyncio.run(scenario())


def test_who_is_cut_off_while_he_asks_takes_nothing(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, Limit(*NET, per_minute=1, connections=1)) as it:
            asking = asyncio.create_task(it.reserve())
            await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await it.granted()

    asyncio.run(scenario())


@pytest.mark.parametrize(("most", "fewest"), [(5, 47), (60, 540), (900, 2000)])
def test_a_backlog_of_a_limited_account_is_not_claimed_again_and_again(sqlite_url: str, most: int, fewest: int) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, Limit(*MAIN, per_minute=most)) as it:
            await it.send([[ANN]] * 2000, NOON + timedelta(minutes=10))
            assert fewest <= len(it.sent) <= most * 10
            assert it.busiest(timedelta(minutes=1)) <= most * 1.2
            assert sum(it.attempts.values()) <= 2 * len(it.sent) + WINDOW
            assert sorted(it.sent) == list(range(1, len(it.sent) + 1))  # in their order

    asyncio.run(scenario())


def test_a_backlog_to_a_limited_domain_is_claimed_about_twice(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, Limit(*NET, per_minute=120)) as it:
            await it.send([[ANN]] * 2000, NOON + timedelta(hours=1))
            assert len(it.sent) == 2000
            assert max(it.sent.values()) <= NOON + timedelta(minutes=19)
            assert it.busiest(timedelta(minutes=1)) <= 121
            assert sum(it.attempts.values()) <= 2 * 2000 + WINDOW

    asyncio.run(scenario())


@pytest.mark.parametrize("key", [MAIN, NET])
def test_messages_to_many_go_among_the_others(sqlite_url: str, key: tuple[Limited, str]) -> None:
    backlog = [[ANN] * (8 if turn % 10 == 5 else 1) for turn in range(100)]  # 170 recipients

    async def scenario() -> None:
        async with office(sqlite_url, Limit(*key, per_minute=10)) as it:
            await it.send(backlog, NOON + timedelta(hours=1))
            assert len(it.sent) == len(backlog)
            assert max(it.sent.values()) <= NOON + timedelta(minutes=2 * 17)
            assert max(it.attempts.values()) <= 10
            assert sum(it.attempts.values()) <= 4 * len(backlog)

    asyncio.run(scenario())


def test_a_message_that_came_back_often_goes_when_one_is_free(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, Limit(*NET, per_minute=10)) as it:
            await it.granted(*[ANN] * 9)
            for claim_no in range(1, 5):
                await it.postponed(*[ANN] * 8, claim_no=claim_no)
            await it.granted(*[ANN] * 8, claim_no=5)
            await it.postponed(claim_no=5)

    asyncio.run(scenario())


def test_connections_are_shared_out_among_the_living_runners(sqlite_url: str) -> None:
    limit = Limit(*MAIN, connections=5)

    async def scenario() -> None:
        async with office(sqlite_url, limit, rank=0, runners=2) as it:
            account = it.route.account
            assert it.quota.places(account) == 3
            it.quota.load(Snapshot((limit,), 1, 2))
            assert it.quota.places(account) == 2
            it.quota.load(Snapshot((limit,), 0, 1))
            assert it.quota.places(account) == 3  # its own limit, of one runner
            it.quota.load(Snapshot((limit,), 6, 7))
            assert it.quota.places(account) == 0
            why = it.quota.blocked(it.route, NOON)
            assert why == "limit of 5 connections for account main is used up by other runners"

    asyncio.run(scenario())


def test_no_more_messages_of_a_sender_are_under_way_than_its_connections(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, Limit(Limited.SENDER, SHOP, connections=2)) as it:
            first, _ = await it.granted(), await it.granted()
            assert it.quota.room(it.route, NOON) == 0
            refused = await it.postponed()
            assert refused.reason == "limit of 2 connections for sender shop@example.com is used up"
            assert refused.until is not None
            assert NOON < refused.until <= NOON + timedelta(seconds=5)
            first.release()
            assert it.quota.room(it.route, NOON) == 1
            await it.granted()

    asyncio.run(scenario())


def test_transactions_to_a_domain_are_as_many_as_its_connections_and_the_rest_comes_one_by_one(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, Limit(*NET, connections=1)) as it:
            slow = await it.granted()
            await it.granted("bob@example.org")
            it.clock.advance(timedelta(seconds=20))
            slow.release()
            slow = await it.granted()
            waits = [(await it.postponed()).until for _ in range(3)]
            now = it.clock.now()
            assert waits == [now + timedelta(seconds=each) for each in (20, 40, 60)]  # as long as one takes
            slow.release()
            await it.granted()

    asyncio.run(scenario())


def test_a_sender_is_left_to_the_runners_that_have_a_connection_to_its_domain(sqlite_url: str) -> None:
    async def scenario() -> None:
        limit = Limit(*NET, connections=1)
        async with office(sqlite_url, limit) as it:
            it.quota.load(Snapshot((limit,), 1, 2))
            for seconds in (5, 10, 20):
                assert await it.postponed() == Postponed(None, it.quota.blocked(it.route, it.clock.now()))
                await it.granted("bob@example.org")  # it was claimed before
                assert it.quota.room(it.route, it.clock.now()) == 0
                it.clock.advance(timedelta(seconds=seconds))
                assert it.quota.room(it.route, it.clock.now()) == 1
            await it.granted("bob@example.org")
            assert it.quota.room(it.route, it.clock.now()) is None
            why = (await it.postponed()).reason
            assert why == "limit of 1 connection for domain example.net is used up by other runners"
            it.quota.load(Snapshot((limit,), 0, 1))
            await it.granted()

    asyncio.run(scenario())


def test_a_changed_limit_is_heard_at_once(sqlite_url: str) -> None:
    async def scenario() -> None:
        async with office(sqlite_url, Limit(*MAIN, per_day=1)) as it:
            await it.granted()
            await it.postponed()
            it.quota.load(Snapshot((Limit(*MAIN, per_day=1),)))
            assert it.quota.blocked(it.route, NOON) != ""
            it.quota.load(Snapshot((Limit(*MAIN, per_day=2),)))
            assert it.quota.blocked(it.route, NOON) == ""
            await it.granted()
            it.quota.load(Snapshot())
            await it.granted()

    asyncio.run(scenario())


def test_two_runners_together_keep_the_limit(database_url: str) -> None:
    """Both kinds of database, and the true time."""

    async def runner(limit: Limit) -> int:
        clerk = Clerk(open_store(database_url, Clock()), Clock(), byte_budget=1_000_000, on_change=lambda: None)
        await clerk.start()
        try:
            quota = Quota(clerk, Clock())
            quota.load(Snapshot((limit,), 0, 2))
            route = Route(Account("main", "relay.example.com", 587, Tls.STARTTLS), Sender(SHOP, "main"))
            claims = [Claim(turn, 2, SHOP) for turn in range(200)]
            answers = await asyncio.gather(*(quota.reserve(each, route, [ANN]) for each in claims))
            return sum(isinstance(each, Reservation) for each in answers)
        finally:
            await clerk.stop(5)

    async def scenario() -> list[int]:
        return await asyncio.gather(*(runner(Limit(*NET, per_day=250)) for _ in range(2)))

    assert sum(asyncio.run(scenario())) == 250
