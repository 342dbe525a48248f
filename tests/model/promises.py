"""What must hold after every step, whatever came before."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.protocol import ON_DOUBT, World
from tests.model.reading import Database, Delivery

_FINAL = frozenset({"sent", "failed", "expired", "cancelled"})


def broken(before: Database, after: Database, world: World) -> str:
    """The first promise that does not hold, in words; ``""`` when all do."""
    return next(_broken(before, after, world), "")


def _broken(before: Database, after: Database, world: World) -> Iterator[str]:
    open_attempts = {(each[0], each[1]) for each in after.attempts if each[2] is None}
    known = {each[0] for each in after.runners}
    for then, now in zip(before.deliveries, after.deliveries, strict=True):
        yield from _broken_for(then, now, after, world)
        being_sent = {(now.message_id, now.claim_no)} if now.state == "sending" else set()
        if {each for each in open_attempts if each[0] == now.message_id} != being_sent:
            yield f"I7: the open attempts of message {now.message_id} are not the one that is being sent"
        if now.state == "sending" and now.owner not in known:
            yield f"I1: message {now.message_id} is being sent by nobody, and nobody would take it back"
    if not set(before.fates) <= set(after.fates):
        yield f"a fate was changed or has gone: {sorted(set(before.fates) - set(after.fates))}"
    for changed in set(before.attempts) - set(after.attempts):
        if changed[2] is not None and not any(each[:3] == changed[:3] for each in after.attempts):
            yield f"the outcome of an attempt was changed: {changed}"


def _broken_for(then: Delivery, now: Delivery, after: Database, world: World) -> Iterator[str]:
    number = now.message_id
    copies, exposed = world.copies[number - 1], world.exposed[number - 1]
    if exposed > 1 + now.doubts:
        yield f"I3: message {number} has {exposed} dots that may have been accepted, and {now.doubts} doubts announced"
    if ON_DOUBT[number] == "hold" and exposed > 1:
        yield f"I6: message {number} is to be held in doubt, and was handed over {exposed} times"
    if now.state == "sent":
        accepted = any(each[0] == number and each[2] == "accepted" for each in after.fates)
        if not copies or not accepted:
            yield f"I4: message {number} is called sent; accepted copies: {copies}, by its fates: {accepted}"
    if then.state in _FINAL and now.state != then.state:
        yield f"message {number} has left the final state {then.state} for {now.state}"
    if now.claim_no < then.claim_no or now.doubts < then.doubts:
        yield f"I8: claim_no or doubts of message {number} have gone back"
    in_doubt = sum(each[0] == number and each[2] == "doubt" for each in after.attempts)
    told = dict(after.told).get(number, 0)
    if not now.doubts == in_doubt == told:
        yield f"message {number}: doubts {now.doubts}, attempts in doubt {in_doubt}, events {told}"


def unfinished(database: Database) -> list[int]:
    """Messages that are neither at their end nor waiting for a person."""
    return [each.message_id for each in database.deliveries if each.state not in _FINAL | {"held"}]
