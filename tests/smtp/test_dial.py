"""Which addresses are this machine."""

from __future__ import annotations

import pytest

from outbox.smtp.dial import is_loopback


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("0.0.0.0", False),
        ("2001:db8::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:192.0.2.1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_loopback_is_told_by_the_address(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback
