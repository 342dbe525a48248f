"""docs/feedback.md is true: its queries run, its settings are settings, and its receiver knows a genuine request."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import peewee
import pytest

from outbox.config import Config
from outbox.core.secret import Secret
from outbox.core.webhook import signed_headers
from outbox.store.database import dialect
from tests.pages import ROOT, blocks
from tests.reader import statements
from tests.stories import SPAM, Stories

PAGE = ROOT / "docs" / "feedback.md"
BODY = json.dumps({"events": [{"id": 7, "kind": "bounced"}, {"id": 8, "kind": "accepted"}]}).encode()


def receiver_of_the_page() -> dict[str, Any]:
    """The names that its code defines."""
    (block,) = [each for each in blocks(PAGE) if "receiver" in each.words]
    names: dict[str, Any] = {}
    exec(block.text, names)
    return names


@pytest.fixture
def receiver() -> Iterator[tuple[dict[str, Any], str]]:
    """The page's receiver at work, and its URL."""
    names = receiver_of_the_page()
    with ThreadingHTTPServer(("127.0.0.1", 0), names["Receiver"]) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield names, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def post(url: str, headers: dict[str, str], body: bytes = BODY) -> int:
    try:
        with urlopen(Request(url, body, headers)) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def test_its_receiver_takes_what_is_signed_and_fresh_and_nothing_else(receiver: tuple[dict[str, Any], str]) -> None:
    names, url = receiver
    secret, now = Secret(names["SECRET"]), datetime.now(UTC)
    good = signed_headers("events-7-8", now, BODY, [Secret("whsec_" + "A" * 40), secret])
    assert post(url, good) == 204
    assert names["Receiver"].seen == {7: "bounced", 8: "accepted"}
    assert post(url, good, BODY.replace(b"7", b"9")) == 401
    assert post(url, good | {"webhook-id": "events-7-9"}) == 401
    assert post(url, signed_headers("events-7-8", now - timedelta(minutes=6), BODY, [secret])) == 401
    assert post(url, signed_headers("events-7-8", now, BODY, [Secret("whsec_" + "A" * 40)])) == 401
    assert names["Receiver"].seen == {7: "bounced", 8: "accepted"}


def test_its_queries_run_and_find_what_is_new_once(database_url: str, database: peewee.Database) -> None:
    with Stories(database_url) as stories:
        stories.attempt(stories.mail(), SPAM)
    fresh: list[Any] = []
    for _ in range(2):
        for block in blocks(PAGE):
            if block.language == "sql" and set(block.words) <= {dialect(database)}:
                for statement in statements(block.text):
                    cursor = database.execute_sql(statement.strip().rstrip(";"))
                    fresh += cursor.fetchall() if "mail_news (event_id, kind" in statement else []
    assert [row[1] for row in fresh] == (["bounced"] if dialect(database) == "postgres" else [])


def test_its_settings_are_settings() -> None:
    given: dict[str, Any] = {}
    for block in blocks(PAGE):
        if block.language == "toml":
            given |= tomllib.loads(block.text)
    config = Config(**given)
    assert (config.webhook.kinds, config.notices.failure) == ("bounced, expired, paused", True)
