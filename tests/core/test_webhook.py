"""Signatures of a webhook, against the test vector of Standard Webhooks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from outbox.core.secret import Secret
from outbox.core.webhook import key_of, name_of, signed_headers

SECRET = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
AT = datetime.fromtimestamp(1614265330, UTC)
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_request_is_signed_as_standard_webhooks_does() -> None:
    assert signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", AT, BODY, [SECRET]) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }


def test_every_secret_signs() -> None:
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", AT, BODY, [Secret("x" * 32), SECRET])
    first, second = headers["webhook-signature"].split(" ")
    assert (first[:3], second) == ("v1,", SIGNATURE)
    assert first != second


def test_a_secret_may_be_any_text_that_is_long_enough() -> None:
    assert key_of(Secret("correct horse battery")) == b"correct horse battery"


@pytest.mark.parametrize(
    "text",
    [
        "tiny key",
        "fifteen letters",
        "whsec_",
        "whsec_c2hvcnQ=",
        "whsec_not base64 at all, and long enough",
        "whsec_MfKQ9r8GKYqrTwjU!PD8ILPZIo2LaLaSw",  # what decoders like to skip
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n",
    ],
)
def test_a_secret_that_is_none_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"guessed|Base64") as raised:
        key_of(Secret(text))
    assert text not in str(raised.value)


def test_sixteen_bytes_are_enough() -> None:
    assert key_of(Secret("sixteen letters!")) == b"sixteen letters!"
    assert key_of(Secret("whsec_MDEyMzQ1Njc4OWFiY2RlZg==")) == b"0123456789abcdef"


def test_events_that_are_posted_together_have_a_name_of_their_own() -> None:
    assert name_of([7]) == "events-7-7-7902699be42c8a8e"
    assert name_of([7, 9, 12]) == "events-7-12-4de71379b5b45978"
    assert len({name_of([7, 8, 12]), name_of([7, 9, 12]), name_of([7, 9, 12])}) == 2


def test_the_time_of_a_request_is_in_whole_seconds() -> None:
    at = AT.replace(microsecond=999_999)
    assert signed_headers("x", at, b"", [SECRET])["webhook-timestamp"] == "1614265330"
