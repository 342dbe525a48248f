"""Signatures of a webhook, against the test vector of Standard Webhooks."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from outbox.core.secret import Secret
from outbox.core.webhook import key_of, signed_headers

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


@pytest.mark.parametrize("text", ["tiny key", "whsec_c2hvcnQ=", "whsec_not base64 at all, and long enough", "whsec_"])
def test_a_secret_that_is_none_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"guessed|Base64") as raised:
        key_of(Secret(text))
    assert text not in str(raised.value)
