"""aiosmtpd, without TLS or login."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from tests.peers.mails import Delivery
from tests.peers.programs import free_port


class Keeper:
    """A handler that keeps what it is given."""

    port: int

    def __init__(self) -> None:
        self._deliveries: list[Delivery] = []
        self._lock = threading.Lock()

    @property
    def deliveries(self) -> list[Delivery]:
        with self._lock:
            return list(self._deliveries)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 -- aiosmtpd's name
        with self._lock:
            kept = Delivery(envelope.mail_from or "", tuple(envelope.rcpt_tos), envelope.original_content)
            self._deliveries.append(kept)
        return "250 2.0.0 kept"


@pytest.fixture(scope="package")
def keeper() -> Iterator[Keeper]:
    made = Keeper()
    made.port = free_port()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses what Python is going to remove
        from aiosmtpd.controller import Controller

        controller = Controller(made, hostname="127.0.0.1", port=made.port, data_size_limit=50_000_000)
        controller.start()
        yield made
        controller.stop()
