"""The five orders of the demo, and what has to come of each."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from outbox.demo.shop import PaymentDeclined, Shop

ANN, BEN, CAROL, OLD, DORA, EMIL = (f"{name}@example.net" for name in ("ann", "ben", "carol", "old", "dora", "emil"))

GREYLISTED = frozenset({BEN})
REFUSED = frozenset({OLD})


@dataclass(frozen=True, slots=True)
class Order:
    """One order, and what its mail has to come to.

    transaction  what the shop did
    state        of the mail in the end; "" if there must be none
    tries        address, fate and code of each recipient in each attempt
    accepted     for whom the relay has to have taken it
    remark       for the page
    """

    number: int
    transaction: str
    state: str
    tries: tuple[tuple[str, str, int], ...]
    accepted: tuple[str, ...]
    remark: str = ""


ORDERS = (
    Order(1, "committed", "sent", ((ANN, "accepted", 250),), (ANN,)),
    Order(2, "committed", "sent", ((BEN, "deferred", 450), (BEN, "accepted", 250)), (BEN,)),
    Order(3, "committed", "failed", ((CAROL, "accepted", 250), (OLD, "bounced", 550)), (CAROL,)),
    Order(4, "committed", "sent", ((DORA, "accepted", 250),), (DORA,), "by plain SQL"),
    Order(5, "rolled back", "", (), ()),
)
NEVER = EMIL
"""For whom order 5 would have been."""


def take_orders(shop: Shop) -> None:
    """Five transactions."""
    shop.order(1, ANN)
    shop.order(2, BEN)
    shop.order(3, CAROL, OLD)
    shop.order_in_plain_sql(4, DORA)
    with suppress(PaymentDeclined):
        shop.order(5, EMIL, declined=True)
