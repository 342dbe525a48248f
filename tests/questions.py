"""Every question that the manual and the commands ask about messages, each as a call: what must not cost more for the
years that went before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta

import peewee

from outbox.core.account import Sender
from outbox.core.lifecycle import Verb
from outbox.core.settlement import Policy
from outbox.store import audit, health, operate
from outbox.store import senders as registered
from outbox.store.database import dialect
from outbox.store.events import Channel
from outbox.store.filters import WORDS, Filter
from outbox.store.journal import Act
from outbox.store.statistics import By, statistics
from tests.pages import DOCS, blocks
from tests.reader import statements
from tests.stories import GREYLISTED, NO_SUCH_USER, OK, Stories

Question = tuple[str, Callable[[], object]]

_MORE = {
    r"list --to nobody.*|(retry|list) --to ann.*(numbers)?": "the text of mail that was not tried for everybody",
    r"list.*: numbers": "up to 10,000 of what matches",
    r"outbox_addressee .*": "a seek for each 16,384 messages",
    r"outbox_daily .*": "a seek for each day of the history",
    r"outbox_sender_health .*": "a seek for each sender",
}


def reads_more(question: str) -> str:
    """What a question reads besides its answer, by its nature; "" if nothing."""
    return next((more for pattern, more in _MORE.items() if re.fullmatch(pattern, question)), "")


PAGE = 50
"""Of a list."""


def handful(url: str, senders: Iterable[str] = ()) -> None:
    """Into the database: a page of each way in which mail can end, some of every other way in which it can stand, and
    these senders besides.
    """
    with Stories(url) as stories:
        stories.register("shop@example.com")
        for sender in senders:
            act = Act("olga", stories.store.now())
            registered.add_sender(stories.store.db, Sender(sender, "main"), act)
        for number in range(PAGE):
            stories.attempt(stories.mail(tag="order", dedup_key=f"order-{number}-confirmation"), OK)
            stories.attempt(stories.mail(tag="order"), None, [NO_SUCH_USER])
            stories.attempt(stories.mail(), GREYLISTED, policy=Policy(max_age=timedelta(0)))
            operate.cancel(stories.store.db, [stories.mail()], who="olga")
        for _ in range(3):
            stories.one_of_each()
            stories.attempt(stories.mail(on_doubt="hold"), None)
            doubtful = stories.mail()
            stories.attempt(doubtful, None)
            stories.attempt(doubtful, OK)


def questions(db: peewee.Database) -> Iterator[Question]:
    """All of them, each with its name."""
    yield from of_the_manual(db)
    yield from of_the_lists(db)
    yield from of_the_verbs(db)
    yield "show 7", lambda: audit.show(db, 7)
    yield "message by key", lambda: audit.by_key(db, "order-7-confirmation")
    yield "message 7", lambda: audit.message(db, 7)
    yield "stats", lambda: statistics(db)
    for by in By:
        yield f"stats --by {by}", lambda by=by: statistics(db, by=by)  # type: ignore[misc]
    yield "doctor: queue", lambda: health.queue(db)
    yield "doctor: blocked", lambda: health.blocked(db)
    yield "doctor: due by account", lambda: health.due_by_account(db)
    yield "doctor: runners", lambda: health.runners(db)
    yield "doctor: untold", lambda: health.untold(db, Channel.WEBHOOK)


def of_the_manual(db: peewee.Database) -> Iterator[Question]:
    """Every SELECT of the pages of the manual that can be asked of this database, named after what it reads first."""
    for page in DOCS:
        for block in blocks(page):
            if block.language == "sql" and set(block.words) <= {dialect(db)}:
                for sql in statements(block.text):
                    words = sql.strip().rstrip(";")
                    read = re.search(r"FROM (outbox\w*)", words)
                    if words.startswith("SELECT") and read:
                        yield f"{read[1]} ({block.place})", lambda words=words: _fetched(db, words)  # type: ignore[misc]


def of_the_lists(db: peewee.Database) -> Iterator[Question]:
    """`outbox list` with each of its filters, and its line of numbers."""
    hour = audit.now(db) - timedelta(hours=1)
    asked = [
        ("", Filter()),
        *((f" --state {word}", Filter(states=(word,))) for word in WORDS),
        (" --state failed --state expired", Filter(states=("failed", "expired"))),
        (" --sender shop@example.com", Filter(sender="shop@example.com")),
        (" --sender *@example.com", Filter(sender="*@example.com")),
        (" --sender nobody@example.com", Filter(sender="nobody@example.com")),
        (" --to ann@example.net", Filter(recipient="ann@example.net")),
        (" --to nobody@example.net", Filter(recipient="nobody@example.net")),
        (" --tag order", Filter(tag="order")),
        (" --key order-7-confirmation", Filter(dedup_key="order-7-confirmation")),
        (" --code 550", Filter(code="550")),
        (" --code 552", Filter(code="552")),
        (" --code 5.1.1", Filter(code="5.1.1")),
        (" --code 5.7", Filter(code="5.7")),
        (" --code 250", Filter(code="250")),
        (" --since 1h", Filter(since=hour)),
        (" --since 1h --state failed", Filter(since=hour, states=("failed",))),
        (" --state failed --sender shop@example.com", Filter(states=("failed",), sender="shop@example.com")),
        (" --tag order --code 550", Filter(tag="order", code="550")),
    ]
    for name, which in asked:
        yield f"list{name}", lambda which=which: audit.listing(db, which)  # type: ignore[misc]
        yield f"list{name}: numbers", lambda which=which: audit.counts(db, which)  # type: ignore[misc]
    yield "list --before 50", lambda: audit.listing(db, Filter(), before=50)


def of_the_verbs(db: peewee.Database) -> Iterator[Question]:
    """What a verb with a filter would change."""
    hour = audit.now(db) - timedelta(hours=1)
    for name, verb, which in (
        ("retry --since 1h", Verb.RETRY, Filter(since=hour)),
        ("retry --code 5.7.26", Verb.RETRY, Filter(code="5.7.26")),
        ("retry --to ann@example.net", Verb.RETRY, Filter(recipient="ann@example.net")),
        ("retry --tag order", Verb.RETRY, Filter(tag="order")),
        ("retry --state held", Verb.RETRY, Filter(states=("held",))),
        ("retry --state deferred", Verb.RETRY, Filter(states=("deferred",))),
        ("hold --sender shop@example.com", Verb.HOLD, Filter(sender="shop@example.com")),
        ("hold --since 1h", Verb.HOLD, Filter(since=hour)),
        ("release", Verb.RELEASE, Filter(states=("held",))),
        ("cancel --tag order", Verb.CANCEL, Filter(tag="order")),
        ("resolve", Verb.RESOLVE_SENT, Filter(states=("held",))),
    ):
        yield name, lambda verb=verb, which=which: operate.matching(db, verb, which)  # type: ignore[misc]


def _fetched(db: peewee.Database, sql: str) -> object:
    return db.execute_sql(sql.replace("%", "%%") if dialect(db) == "postgres" else sql).fetchall()
