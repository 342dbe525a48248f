"""Users of the SMTP door in the database. Functions of the caller's open transaction, like those of `senders`."""

from __future__ import annotations

from peewee import Database

from outbox.core.user import User
from outbox.errors import Refused
from outbox.store import tables
from outbox.store.journal import Act, journal


def users(db: Database) -> list[User]:
    """All of them, by name."""
    row = tables.User
    found = row.select().order_by(row.name).execute(db)
    return [User(each.name, each.password_hash, tuple((each.senders or "").split())) for each in found]


def add_user(db: Database, new: User, act: Act) -> None:
    """Raises Refused when the name is taken."""
    values = {
        "name": new.name,
        "password_hash": new.password_hash,
        "senders": " ".join(new.senders) or None,
        "created_at": act.at,
    }
    query = tables.User.insert(values).on_conflict_ignore().returning(tables.User.name)
    if not list(query.execute(db)):
        raise Refused(f"user {new.name} is there already", hint=f"outbox user password {new.name}")
    journal(db, act, "user add", f"user={new.name}")


def set_password(db: Database, name: str, password_hash: str, act: Act) -> None:
    """Raises Refused when there is no such user."""
    row = tables.User
    if not row.update(password_hash=password_hash).where(row.name == name).execute(db):
        raise _unknown(name)
    journal(db, act, "user password", f"user={name}")


def remove_user(db: Database, name: str, act: Act) -> None:
    """Raises Refused when there is no such user."""
    row = tables.User
    if not row.delete().where(row.name == name).execute(db):
        raise _unknown(name)
    journal(db, act, "user remove", f"user={name}")


def _unknown(name: str) -> Refused:
    return Refused(f"there is no user {name}", hint="`outbox user list` shows them")
