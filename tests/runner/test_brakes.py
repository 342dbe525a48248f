"""What a runner remembers of refusals in a row, and when it forgets."""

from __future__ import annotations

from dataclasses import replace

from outbox.core.account import Account, Registry, Route, Sender, Tls
from outbox.core.brake import Streak, Streaks
from outbox.core.settlement import NO_STREAKS
from outbox.runner.sending.brakes import Brakes
from tests.core.test_brake import BLOCKED, OK, SPAM, dot

MAIN = Account("main", "127.0.0.1", 25, Tls.NONE)
SHOP, OTHER = Sender("shop@x", "main"), Sender("other@x", "main")
ROUTE = Route(MAIN, SHOP)


def met(brakes: Brakes, *attempts: tuple[str, int, bool]) -> None:
    """Sender, id, and whether it was refused."""
    for sender, message_id, refused in attempts:
        brakes.after(sender, "main", message_id, dot(BLOCKED if refused else OK), spared=False)


def test_a_sender_has_a_row_of_its_own_that_others_do_not_end() -> None:
    brakes = Brakes()
    met(brakes, ("shop@x", 1, True), ("other@x", 2, False), ("shop@x", 3, True))
    found = brakes.before("shop@x", ROUTE)
    assert (found.account, found.sender) == (Streak(SPAM, (3,)), Streak(SPAM, (1, 3)))
    assert brakes.before("other@x", Route(MAIN, OTHER)).sender == Streak()


def test_what_is_accepted_is_forgotten() -> None:
    brakes = Brakes()
    met(brakes, ("shop@x", 1, True), ("shop@x", 2, False))
    assert brakes.before("shop@x", ROUTE) == NO_STREAKS


def test_a_brake_in_the_database_is_everybodys() -> None:
    brakes = Brakes()
    assert brakes.before("shop@x", Route(replace(MAIN, brake=SPAM), SHOP)).account == Streak(SPAM, braked=True)
    assert brakes.before("shop@x", Route(MAIN, replace(SHOP, brake=SPAM))).sender == Streak(SPAM, braked=True)
    whole = Route(MAIN, SHOP, Sender("*@x", "main", brake=SPAM))
    assert brakes.before("shop@x", whole).sender == Streak(SPAM, braked=True)


def test_the_end_of_a_brake_ends_the_row_that_led_to_it() -> None:
    for before, sender_after in (
        (Registry([replace(MAIN, brake=SPAM)], [SHOP]), Streak(SPAM, (1, 2))),  # others' mail may have ended it
        (Registry([MAIN], [replace(SHOP, brake=SPAM)]), Streak()),
    ):
        brakes = Brakes()
        met(brakes, ("shop@x", 1, True), ("shop@x", 2, True))
        brakes.see(Registry([MAIN], [SHOP]), before)
        assert brakes.before("shop@x", ROUTE).account == Streak(SPAM, (1, 2))
        brakes.see(before, Registry([MAIN], [SHOP]))
        assert brakes.before("shop@x", ROUTE) == Streaks(Streak(), sender_after)
