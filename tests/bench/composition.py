"""What it costs to make a row of the database into the bytes of a mail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from outbox.core.account import Account, Route, Sender, Tls
from outbox.core.message import Attachment, Message, recipients_of, senders_of
from outbox.core.render import render
from outbox.runner.sending.journey import return_path_of
from outbox.smtp.transaction import content_flaw, stuffed
from tests.bench.content import SHOP, TEXT, recipient, subject
from tests.bench.figures import Bench, Figure, at_most

TOPIC = "composition"
AT = datetime(2026, 3, 1, 9, 5, 7, tzinfo=UTC)
HTML = "<p>Thanks for your order of today, we pack it at <b>once</b>.</p>\n" * 60
GERMAN = "Danke für Ihre Bestellung von heute, wir packen sie gleich.\n" * 34
PDF = Attachment("invoice.pdf", bytes(range(256)) * 400, "application/pdf")
ROUTE = Route(Account("main", "127.0.0.1", 25, Tls.NONE), Sender(SHOP, "main"))
MANY = 10_000


def measure(bench: Bench) -> Iterator[Figure]:
    times = bench.size(40, 8)
    for name, make, count, aim in (
        ("text, 2 kB", plain, 1_000, 25),
        ("text and html", with_html, 500, 80),
        ("text with an attachment of 100 kB", with_file, 50, 600),
    ):
        spent = least(times, count, make, render) * 1e6
        note = f"CPU time of render(), least of {times} × {count} mails, each rendered once"
        yield at_most(TOPIC, name, spent, "µs", aim, note)
    spent = least(times, 500, german, render) * 1e6
    yield Figure(TOPIC, "text in German, with name and subject", spent, "µs", note="the same; quoted-printable")
    spent = least(times, 1_000, plain, everything) * 1e6
    note = "senders_of, recipients_of, return_path_of, render, content_flaw, stuffed: what a runner does to each"
    yield at_most(TOPIC, "text, 2 kB, with its envelope and the checks", spent, "µs", 25, note)
    spent = least(3, 1, to_many, everything)
    yield at_most(TOPIC, f"text for {MANY:,} recipients, with the envelope", spent, "s", 0.5, "the same")


def least(times: int, count: int, make: Callable[[int], Message], work: Callable[[Message], object]) -> float:
    """CPU seconds that `work` takes for a message, of the quickest of so many turns. None comes twice: what is kept of
    one (its addresses, parsed) must not help the next.
    """
    found = []
    for turn in range(times):
        messages = [make(turn * count + number) for number in range(1, count + 1)]
        began = time.thread_time()
        for each in messages:
            work(each)
        found.append((time.thread_time() - began) / count)
    return min(found)


def everything(message: Message) -> None:
    senders_of(message)
    recipients_of(message)
    return_path_of(message, ROUTE)
    data = render(message).data
    content_flaw(data)
    stuffed(data)


def plain(number: int) -> Message:
    return Message(number, f"{number:032x}", AT, SHOP, "", recipient(number), subject=subject(number), text_body=TEXT)


def with_html(number: int) -> Message:
    return replace(plain(number), html_body=HTML)


def with_file(number: int) -> Message:
    return replace(plain(number), attachments=(PDF,))


def german(number: int) -> Message:
    to, about = f"Jörg Müller <{recipient(number)}>", f"Grüße zu {subject(number)}"
    return replace(plain(number), sender_name="Jürgens Laden", recipients=to, subject=about, text_body=GERMAN)


def to_many(number: int) -> Message:
    return replace(plain(number), recipients=", ".join(recipient(number * MANY + each) for each in range(MANY)))
