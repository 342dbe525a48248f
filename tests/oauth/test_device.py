"""A person's consent on another device, against a scripted endpoint."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.secret import Secret
from outbox.oauth import device
from outbox.oauth.answer import Granted, GrantError
from outbox.oauth.device import GRANT_TYPE, Begun
from outbox.oauth.setup import Grant, Setup
from tests.clock import FakeClock
from tests.oauth.endpoint import ERROR, Answer, Endpoint, Reply

PENDING = ERROR("authorization_pending")
SLOW_DOWN = ERROR("slow_down")


@dataclass
class Person:
    """Whoever waits for a login: time passes only as he sleeps."""

    clock: FakeClock = field(default_factory=FakeClock)
    slept: list[float] = field(default_factory=list)
    told: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(timedelta(seconds=seconds))

    def log_in(self, server: Endpoint) -> tuple[Begun, Granted]:
        async def scenario() -> tuple[Begun, Granted]:
            begun = await device.begin(setup(server))
            return begun, await device.finish(setup(server), begun, self.clock, self.sleep, self.told.append)

        return asyncio.run(scenario())


def setup(server: Endpoint) -> Setup:
    return Setup(
        Grant.REFRESH_TOKEN, server.token_url, server.device_url, client_id="app", scope="https://mail.example/ offline"
    )


def refused(*script: Answer, code: Answer | None = None) -> tuple[GrantError, Person]:
    person = Person()
    with Endpoint(*script, device=code) as server, pytest.raises(GrantError) as caught:
        person.log_in(server)
    assert "canary" not in f"{caught.value!r}"
    return caught.value, person


def test_the_endpoint_is_asked_until_the_person_has_agreed() -> None:
    person = Person()
    with Endpoint(PENDING, PENDING, {"refresh_token": "canary-refresh"}) as server:
        begun, granted = person.log_in(server)
        assert granted.access_token.reveal() == server.current
    assert granted.refresh_token == Secret("canary-refresh")
    assert (begun.url, begun.code) == ("https://login.example.com/device", "WDJB-MJHT")
    assert "canary" not in repr(begun)
    asked, *polls = server.requests
    assert (asked.path, asked.form) == ("/device", {"client_id": "app", "scope": "https://mail.example/ offline"})
    assert [
        (poll.path, poll.form["grant_type"], poll.form["device_code"], poll.form["client_id"]) for poll in polls
    ] == [("/token", GRANT_TYPE, "canary-device", "app")] * 3
    assert person.slept == [5, 5, 5]
    assert person.told == [895, 890]


def test_each_slow_down_adds_five_seconds_for_good() -> None:
    person = Person()
    with Endpoint(SLOW_DOWN, PENDING, SLOW_DOWN, PENDING) as server:
        person.log_in(server)
    assert person.slept == [5, 10, 10, 15, 15]


def test_the_interval_is_the_endpoints_within_reason() -> None:
    for named, kept in ((7, 7), ("7", 7), (None, 5), (0, 5), (-1, 5), ("soon", 5), (0.1, 1), (10**6, 60)):
        person = Person()
        with Endpoint(device={"interval": named}) as server:
            person.log_in(server)
        assert person.slept == [kept], named


def test_an_endpoint_in_trouble_is_asked_less_and_less_often() -> None:
    person = Person()
    with Endpoint(Reply(503), Reply(500), PENDING) as server:
        person.log_in(server)
    assert person.slept == [5, 10, 20, 20]


@pytest.mark.parametrize("code", ["access_denied", "expired_token", "invalid_grant"])
def test_a_refusal_ends_it(code: str) -> None:
    error, person = refused(PENDING, ERROR(code))
    assert (error.permanent, error.code, len(person.slept)) == (True, code, 2)


def test_a_code_is_good_for_as_long_as_the_endpoint_says() -> None:
    error, person = refused(*[PENDING] * 20, code={"expires_in": 12})
    assert "nobody has entered the code in time" in str(error)
    assert person.slept == [5, 5, 2]


def test_the_user_agrees_at_googles_url_too() -> None:
    person = Person()
    answer = {"verification_uri": None, "verification_url": "https://www.google.com/device"}
    with Endpoint(device=answer) as server:
        assert person.log_in(server)[0].url == "https://www.google.com/device"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"device_code": None}, "without a code"),
        ({"user_code": "\x1b[2J"}, "without a code"),
        ({"user_code": ["x"]}, "without a code"),
        ({"verification_uri": "http://login.example.com/"}, "without a code"),
        ({"verification_uri": "javascript:alert(1)"}, "without a code"),
        (ERROR("invalid_client", "no such client"), "invalid_client: no such client"),
        (ERROR("unauthorized_client"), "unauthorized_client"),
        (Reply(404), "answers 404"),
    ],
)
def test_a_login_that_cannot_begin_says_why(answer: Answer, words: str) -> None:
    error, person = refused(code=answer)
    assert error.permanent
    assert words in str(error)
    assert person.slept == []


def test_only_a_url_that_may_be_opened_is_shown_with_the_code_in_it() -> None:
    for given_url, shown in (("https://login.example.com/device?code=1", True), ("file:///etc", False), (5, False)):
        with Endpoint(device={"verification_uri_complete": given_url}) as server:
            begun = asyncio.run(device.begin(setup(server)))
        assert bool(begun.complete_url) is shown


@given(st.floats(0.5, 60), st.sampled_from(["authorization_pending", "slow_down", "temporarily_unavailable", ""]))
def test_the_interval_never_gets_shorter_nor_endless(interval: float, code: str) -> None:
    following = device.next_interval(GrantError("", permanent=False, code=code), interval)
    assert interval <= following <= 60


def test_a_confidential_client_gives_its_secret_when_it_asks_for_the_token_only() -> None:
    person: Any = Person()

    async def scenario(server: Endpoint) -> None:
        of = replace(setup(server), client_secret=Secret("canary-secret"))
        begun = await device.begin(of)
        await device.finish(of, begun, person.clock, person.sleep)

    with Endpoint() as server:
        asyncio.run(scenario(server))
    assert "client_secret" not in server.requests[0].form
    assert server.requests[1].form["client_secret"] == "canary-secret"
