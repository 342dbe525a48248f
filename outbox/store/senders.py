"""Senders in the database: registering addresses to accounts, pausing them.

Every function is statements in the caller's open transaction, and leaves a line in the journal. Reading them is in
`accounts`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime

from peewee import Database, IntegrityError

from outbox.core.account import BY_OPERATOR, Registry, Sender, fold
from outbox.core.limits import Limited
from outbox.errors import Refused
from outbox.store import limits, tables
from outbox.store.accounts import RESUMED, UNPAUSED, account, covering, find_sender, first_line, registry, sender
from outbox.store.journal import Act, journal

_STORABLE = re.compile(r"[^\x00-\x20\x7f<>,;()@]+@[^\x00-\x20\x7f<>,;()@]+")
"""What the CHECK of `outbox_sender.address` admits."""


def add_sender(db: Database, new: Sender, act: Act) -> None:
    """Register an address, or ``*@domain``, to an account. Raises Refused when there is no such account, when it is
    registered already, or when its return path belongs to nobody or to another account.
    """
    account(db, new.account)
    address, return_path = fold(new.address), fold(new.return_path)
    existing = find_sender(db, address)
    if existing is not None:
        raise Refused(
            f"{address} is registered to account {existing.account} already",
            hint=f"to change that, first: outbox sender remove {address}",
        )
    known = registry(db)
    with_new = Registry(known.accounts.values(), [*known.senders.values(), Sender(address, new.account)])
    if return_path and not with_new.allows(new.account, return_path):
        raise Refused(
            f"the return path {return_path} is not registered to account {new.account}",
            hint=f"outbox sender add {return_path} --account {new.account}",
        )
    try:
        _insert(db, replace(new, address=address, return_path=return_path), act)
    except IntegrityError as error:
        raise Refused(f"sender {address} cannot be added: {first_line(error)}") from None


def remove_sender(db: Database, address: str, act: Act) -> None:
    """From now on its mail fails, unless ``*@domain`` is registered too. Raises Refused when it is not registered."""
    found = sender(db, address)
    tables.Sender.delete().where(tables.Sender.address == found.address).execute(db)
    limits.forget_limit(db, Limited.SENDER, found.address)
    journal(db, act, "sender remove", f"sender={found.address}", detail=f"account={found.account}")


def pause_sender(db: Database, address: str, reason: str, until: datetime | None, act: Act) -> None:
    """A person asks for it: send nothing from this address, or from this domain, until `until` (None: until it is
    resumed). It takes the place of a runner's pause. An address that is only covered by ``*@domain`` gets a
    registration of its own. Raises Refused when it is not registered.
    """
    address = fold(address)
    current = covering(db, address)
    if current is None:
        raise Refused(f"{address} is not a registered sender", hint="`outbox sender list` shows them")
    if current.address != address:
        current = register_by_itself(db, current, address, act)
    row = tables.Sender
    values = {**UNPAUSED, "pause_reason": BY_OPERATOR + reason, "paused_until": until}
    row.update(values).where(row.address == current.address).execute(db)
    journal(db, act, "sender pause", f"sender={current.address}", detail=BY_OPERATOR + reason)


def register_by_itself(db: Database, domain: Sender, address: str, act: Act) -> Sender:
    """A registration of its own for an address that `domain` covers; `domain`, where it cannot be stored."""
    if not _STORABLE.fullmatch(address):
        return domain
    _insert(db, Sender(address, domain.account, domain.display_name, domain.return_path), act, unless_there=True)
    return find_sender(db, address) or domain


def resume_sender(db: Database, address: str, act: Act) -> None:
    """Lift every pause of the sender, and forget its brake. Raises Refused when it is not registered."""
    found = sender(db, address)
    tables.Sender.update(RESUMED).where(tables.Sender.address == found.address).execute(db)
    journal(db, act, "sender resume", f"sender={found.address}", detail=found.pause_reason)


def _insert(db: Database, new: Sender, act: Act, *, unless_there: bool = False) -> None:
    row = {
        "address": new.address,
        "account": new.account,
        "display_name": new.display_name or None,
        "return_path": new.return_path or None,
        "created_at": act.at,
    }
    insert = tables.Sender.insert(row)
    if unless_there:
        insert = insert.on_conflict_ignore()
    insert.execute(db)
    journal(db, act, "sender add", f"sender={new.address}", detail=f"account={new.account}")
