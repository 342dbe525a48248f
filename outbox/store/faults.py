"""A fault that reaches beyond one message, written in the transaction of the settlement that met it.

Together or not at all: a message that is back in the queue without the pause would run into the same fault at once.

A fault pauses `WHERE credential_version` is still the one that met it: an old "535" must not pause an account whose
password was repaired meanwhile. No fault lifts, shortens or replaces a pause that a person asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peewee import Database, SqliteDatabase

from outbox.core.account import Account, Sender, fold
from outbox.core.address import wildcard
from outbox.core.outcome import Scope
from outbox.core.settlement import Pause, Settlement
from outbox.store import accounts, probes, senders, tables
from outbox.store.journal import Act, journal

MOST_IDS = 100
"""So many messages that a brake has failed are remembered with the account."""


def lock(db: Database, settlements: Sequence[Settlement]) -> None:
    """Lock what `record` will write for these, always in the same order, so that no two runners wait for each other in
    a circle. (SQLite's one lock is the transaction's already.)
    """
    if isinstance(db, SqliteDatabase):
        return
    row = tables.Account
    subjects = {each for of in settlements if of.probed is not None for each in of.probed.probe.subjects}
    paused = [each for each in settlements if each.pause is not None]
    relays = {(each.name, each.port) for each in subjects if each.scope is Scope.RELAY}
    at_fault = row.select(row.relay_host, row.relay_port).where(row.name.in_([each.account for each in paused]))
    relays |= set(at_fault.tuples().execute(db))
    condition: Any = row.name.in_([each.name for each in subjects if each.scope is Scope.ACCOUNT])
    for host, port in relays:
        condition |= accounts.at_relay(host, port)
    list(row.select(row.name).where(condition).order_by(row.name).for_update().execute(db))
    addresses = {each.name for each in subjects if each.scope is Scope.SENDER}
    for each in paused:
        addresses |= {fold(each.sender), wildcard(fold(each.sender))}
    sender = tables.Sender
    found = sender.select(sender.address).where(sender.address.in_(list(addresses)))
    list(found.order_by(sender.address).for_update().execute(db))


def record(db: Database, settlement: Settlement, act: Act) -> None:
    """Write what a probe has shown; then pause the account or the sender, or count in the relay's breaker, as
    `settlement.pause` says.
    """
    if settlement.probed is not None:
        probes.finish(db, settlement.probed, act)
    pause, used = settlement.pause, settlement.credential_version
    row = tables.Account
    account = row.select(row.relay_host, row.relay_port).where(row.name == settlement.account).first(db)
    if pause is None or account is None:
        return
    if pause.scope is Scope.RELAY:
        at_least = pause.at_least
        accounts.trip_relay(db, account.relay_host, account.relay_port, pause.reason, act, at_least=at_least)
    elif pause.scope is Scope.ACCOUNT:
        pause_account(db, settlement.account, pause, act, used)
    else:  # a message or a recipient is not paused
        pause_sender(db, settlement.sender, pause, act, used)


def pause_account(db: Database, name: str, pause: Pause, act: Act, used: int) -> bool:
    """Whether the account is paused for this now. `used` is the credential version that met the fault."""
    row = tables.Account
    if not row.select().where(row.name == name, row.credential_version == used).exists(db):
        return False
    return _impose(db, accounts.account(db, name), pause, act)


def pause_sender(db: Database, address: str, pause: Pause, act: Act, used: int) -> bool:
    """The same for a sender. An address that is only covered by ``*@domain`` gets a registration of its own first, so
    that one refused address does not stop its whole domain; unless it is one that cannot be stored: then the domain is
    paused.
    """
    address = fold(address)
    current = accounts.covering(db, address)
    if current is None or accounts.account(db, current.account).credential_version != used:
        return False
    if current.address != address:
        current = senders.register_by_itself(db, current, address, act)
    return _impose(db, current, pause, act)


def _impose(db: Database, current: Account | Sender, pause: Pause, act: Act) -> bool:
    """Ten connections that meet the same fault are one pause, and one line of the journal."""
    paused = current.is_paused(act.at)
    until = act.at + pause.lasting(max(0, current.probes - paused))
    longer = not paused or (current.paused_until is not None and current.paused_until < until)
    values: dict[str, Any] = {}
    if longer:
        values = {"pause_reason": pause.reason, "paused_until": until, "probes": current.probes + (not paused)}
    if pause.brake and (longer or current.brake == pause.brake):
        values |= {"brake": pause.brake, "brake_messages": _together(current, pause)}
    row: Any = tables.Account if isinstance(current, Account) else tables.Sender
    scope, key = ("account", row.name) if isinstance(current, Account) else ("sender", row.address)
    name = current.name if isinstance(current, Account) else current.address
    may = accounts.not_by_operator(row) | (row.paused_until <= act.at)  # a person's pause that is over is none
    if not values:
        return bool(row.select().where(key == name, may).exists(db))
    written = row.update(values).where(key == name, may).execute(db)
    if written and not paused:
        journal(db, act, f"{scope} pause", f"{scope}={name}", detail=pause.reason)
    return bool(written)


def _together(current: Account | Sender, pause: Pause) -> str | None:
    """The ids of all that have failed by the brake, the latest last."""
    ids = dict.fromkeys((*current.failed_by_brake, *pause.failed))
    return " ".join(map(str, list(ids)[-MOST_IDS:])) or None
