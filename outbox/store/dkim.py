"""The keys that sign a sender's mail, sealed.

Every function that writes is statements in the caller's open transaction, and leaves a line in the journal.
"""

from __future__ import annotations

from typing import Any

from peewee import Database, IntegrityError, ModelSelect

from outbox.core.dkim import Algorithm
from outbox.core.dkim_key import SealedKey
from outbox.errors import Refused
from outbox.store import tables
from outbox.store.accounts import first_line, sender
from outbox.store.constant import Constant
from outbox.store.journal import Act, journal


def keys(db: Database, of_sender: str = "") -> tuple[SealedKey, ...]:
    """All keys, or those of one sender (folded), in the order of their selectors: so a message's signatures always come
    in the same order.
    """
    if not of_sender:
        return tuple(map(_key, _KEYS.rows(db)))
    return tuple(map(_key, _in_order().where(tables.Dkim.sender == of_sender).dicts().execute(db)))


def _in_order() -> ModelSelect[tables.Dkim]:
    return tables.Dkim.select().order_by(tables.Dkim.sender, tables.Dkim.selector)


_KEYS = Constant(_in_order)


def key(db: Database, of_sender: str, selector: str) -> SealedKey:
    """Raises Refused when the sender (folded) has none with this selector."""
    found = next((each for each in keys(db, of_sender) if each.selector == selector), None)
    if found is None:
        raise Refused(
            f"{of_sender} has no DKIM key with the selector {selector}",
            hint=f"`outbox sender dkim '{of_sender}' --show` shows what it has",
        )
    return found


def add_key(db: Database, new: SealedKey, act: Act) -> None:
    """From now on it signs. Raises Refused when the sender is not registered, or has a key with this selector."""
    of_sender = sender(db, new.sender).address
    if any(each.selector == new.selector for each in keys(db, of_sender)):
        raise _taken(of_sender, new.selector)
    row = {
        "sender": of_sender,
        "selector": new.selector,
        "domain": new.domain,
        "algorithm": str(new.algorithm),
        "secret": new.secret,
        "key_id": new.key_id,
        "created_at": act.at,
    }
    try:
        tables.Dkim.insert(row).execute(db)
    except IntegrityError as error:
        raise Refused(f"the DKIM key {new.selector} cannot be stored: {first_line(error)}") from None
    journal(db, act, "sender dkim add", f"sender={of_sender}", detail=f"selector={new.selector} {new.algorithm}")


def check_unused(db: Database, selector: str, domain: str) -> None:
    """Raises Refused when any sender of this domain has a key with this selector: a new key would want the DNS record
    that has the other one.
    """
    row = tables.Dkim
    there = row.select().where(row.domain == domain, row.selector == selector).dicts().first(db)
    if there is not None:
        raise _taken(there["sender"], selector)


def _taken(of_sender: str, selector: str) -> Refused:
    return Refused(
        f"{of_sender} has a DKIM key with the selector {selector} already",
        hint=f"take another one, --selector NAME; or first: outbox sender dkim '{of_sender}' --remove {selector}",
    )


def remove_key(db: Database, of_sender: str, selector: str, act: Act) -> None:
    """From now on it does not sign. Raises Refused when there is no such key."""
    found = key(db, of_sender, selector)
    row = tables.Dkim
    row.delete().where(row.sender == found.sender, row.selector == found.selector).execute(db)
    detail = f"selector={found.selector} {found.algorithm}"
    journal(db, act, "sender dkim remove", f"sender={found.sender}", detail=detail)


def reseal(db: Database, of: SealedKey, token: str, key_id: str) -> bool:
    """Put the same key under another key of the vault, unless it has been changed meanwhile (then False)."""
    row = tables.Dkim
    condition = (row.sender == of.sender) & (row.selector == of.selector) & (row.secret == of.secret)
    return bool(row.update(secret=token, key_id=key_id).where(condition).execute(db))


def _key(row: dict[str, Any]) -> SealedKey:
    return SealedKey(**{**row, "algorithm": Algorithm(row["algorithm"])})
