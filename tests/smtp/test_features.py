"""EHLO's answer, as features."""

from __future__ import annotations

import pytest

from outbox.smtp.features import Features, read_features


@pytest.mark.parametrize(
    ("lines", "features"),
    [
        ([], Features()),
        ([b"PIPELINING", b"8BITMIME", b"SMTPUTF8", b"STARTTLS"], Features(True, None, True, True, True)),
        ([b"pipelining", b"Size 1000"], Features(pipelining=True, size=1000)),
        ([b"SIZE"], Features(size=0)),
        ([b"SIZE 0"], Features(size=0)),
        ([b"SIZE lots"], Features(size=0)),
        ([b"SIZE " + b"9" * 5000], Features(size=0)),
        ([b"AUTH PLAIN LOGIN", b"AUTH=PLAIN"], Features(mechanisms=frozenset({"PLAIN", "LOGIN"}))),
        ([b"AUTH=LOGIN"], Features(mechanisms=frozenset({"LOGIN"}))),
        ([b"AUTH"], Features()),
        ([b"LIMITS RCPTMAX=50 MAILMAX=5"], Features(max_recipients=50)),
        ([b"LIMITS RCPTMAX=-1 WHAT"], Features()),
        ([b"DSN"], Features(dsn=True)),
        ([b"", b" ", b"\xff\xfe", b"X-WHAT EVER", b"PIPELININGS"], Features()),
    ],
)
def test_what_is_understood_is_offered(lines: list[bytes], features: Features) -> None:
    assert read_features(lines) == features
