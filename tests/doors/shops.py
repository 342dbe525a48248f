"""Applications of frameworks, each a process that serves orders over HTTP and says on which port."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path

from tests.relay import Received, Relay
from tests.running import Program, Site, eventually


def place_two_orders(app: str, site: Site, folder: Path, *, mails: int) -> tuple[int, list[Received]]:
    """Order 7, which commits with so many mails, and order 8, which fails after its INSERTs and rolls back. Then a
    runner sends what there is. What was answered to order 7, and what the relay has.
    """
    site.query("CREATE TABLE orders (id integer)")
    (folder / "shop.py").write_text(app)
    with Relay() as relay, Program([sys.executable, "shop.py", site.url], folder) as shop:
        site.register(relay.port)
        port = int(shop.says(r"serves (\d+)")[1])
        status, message_id = _post(port, "/orders/7")
        failed, _ = _post(port, "/orders/8?fail=1")
        assert (status, failed) == (200, 500)
        with site.run() as runner:
            runner.started()
            eventually(lambda: len(relay.messages) >= mails, "the mails of order 7")
            site.until(sent=mails)
    assert site.query("SELECT id FROM orders") == [(7,)]
    return int(message_id), relay.messages


def _post(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
