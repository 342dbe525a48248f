"""The application of the demo: a bookshop with plain `sqlite3`, which mails its customers from its own transactions.

This is all that an application has to do; it never speaks SMTP, and it does not know that the runner exists.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType

from outbox import Mail, enqueue

SENDER = "shop@example.com"


class PaymentDeclined(Exception):
    pass


class Shop:
    """A context manager. Every method is one transaction of the shop."""

    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(database)

    def __enter__(self) -> Shop:
        self._connection.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY, customer TEXT NOT NULL)")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def order(self, number: int, customer: str, *also: str, declined: bool = False) -> None:
        """Take an order, and mail the customer and whoever `also` wants to know. Raises PaymentDeclined."""
        with self._connection:  # commits at its end, and rolls back when an exception leaves it
            self._connection.execute("INSERT INTO orders VALUES (?, ?)", (number, customer))
            thanks = Mail(sender=f"Shop <{SENDER}>", to=[customer, *also], subject=f"Order {number}", text="Thank you!")
            enqueue(self._connection, thanks)
            if declined:
                raise PaymentDeclined

    def order_in_plain_sql(self, number: int, customer: str) -> None:
        """The same from a program that has never heard of this library: four columns are enough."""
        with self._connection:
            self._connection.execute("INSERT INTO orders VALUES (?, ?)", (number, customer))
            self._connection.execute(
                "INSERT INTO outbox (sender, recipients, subject, text_body) VALUES (?, ?, ?, ?)",
                (SENDER, customer, f"Order {number}", "Thank you!"),
            )
