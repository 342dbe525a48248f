"""Accounts in the database: adding them, pausing them, the relay's breaker; the registry of accounts and senders.

Every function that writes is statements in the caller's open transaction, and leaves a line in the journal. Senders are
written by `senders.py`; what runners do to both, by `faults.py` and `probes.py`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from peewee import JOIN, Database, Expression, IntegrityError, ModelSelect, fn

from outbox.core.account import BY_OPERATOR, Account, Mechanism, Registry, Sender, Tls, fold, may_log_in, tripped
from outbox.core.address import wildcard
from outbox.errors import Refused
from outbox.store import tables
from outbox.store.constant import Constant
from outbox.store.journal import Act, journal

# ---- reading


def _everything() -> ModelSelect[tables.Account]:
    of_senders = [column.alias(f"s_{column.name}") for column in tables.Sender._meta.sorted_fields]
    query = tables.Account.select(tables.Account, *of_senders)
    return query.join(tables.Sender, JOIN.LEFT_OUTER, on=(tables.Sender.account == tables.Account.name))


_REGISTRY = Constant(_everything)


def registry(db: Database) -> Registry:
    """All accounts and senders at one moment. One statement, so that a sender is never seen without its account."""
    accounts: dict[str, Account] = {}
    senders: list[Sender] = []
    for row in _REGISTRY.rows(db):
        of_sender = {name.removeprefix("s_"): row.pop(name) for name in list(row) if name.startswith("s_")}
        if row["name"] not in accounts:
            accounts[row["name"]] = _account(row)
        if of_sender["address"] is not None:
            senders.append(_sender(of_sender))
    return Registry(accounts.values(), senders)


def accounts(db: Database) -> list[Account]:
    """All accounts, by name."""
    return [_account(row) for row in tables.Account.select().order_by(tables.Account.name).dicts().execute(db)]


def account(db: Database, name: str) -> Account:
    """Raises Refused when there is none of that name."""
    row = tables.Account.select().where(tables.Account.name == name).dicts().first(db)
    if row is None:
        raise Refused(f"there is no account {name}", hint="`outbox account list` shows them")
    return _account(row)


def senders(db: Database, account: str = "") -> list[Sender]:
    """All senders, or those of one account, by address."""
    query = tables.Sender.select().order_by(tables.Sender.address)
    if account:
        query = query.where(tables.Sender.account == account)
    return [_sender(row) for row in query.dicts().execute(db)]


def sender(db: Database, address: str) -> Sender:
    """The registration of exactly this address, or of exactly this ``*@domain``. Raises Refused when there is none."""
    found = find_sender(db, fold(address))
    if found is None:
        raise Refused(f"{address} is not a registered sender", hint="`outbox sender list` shows them")
    return found


def find_sender(db: Database, address: str) -> Sender | None:
    """The same for a folded address (see `fold`), or None."""
    row = tables.Sender.select().where(tables.Sender.address == address).dicts().first(db)
    return _sender(row) if row is not None else None


def covering(db: Database, address: str) -> Sender | None:
    """The registration by which a folded address speaks: its own, else its domain's, or None."""
    return find_sender(db, address) or find_sender(db, wildcard(address))


def waiting(db: Database, address: str) -> int:
    """How many messages of a sender are still to be sent: all of its domain's for ``*@domain``."""
    lane = tables.Delivery.sender
    condition = lane.endswith(address[1:]) if address.startswith("*@") else lane == address
    return int(tables.Delivery.select().where(condition, tables.Delivery.state.in_(("queued", "held"))).count(db))


def still_failed(db: Database, ids: tuple[int, ...]) -> list[int]:
    """Those of a brake's messages that nobody has retried since."""
    row = tables.Delivery
    failed = row.select(row.message_id).where(row.message_id.in_(ids), row.state == "failed").order_by(row.message_id)
    return [each.message_id for each in failed.execute(db)]


# ---- accounts


def check_new(db: Database, new: Account) -> None:
    """Raises Refused when the name is taken, or when the password would leave this machine in clear text."""
    refuse_clear_text(new)
    if _exists(db, tables.Account, tables.Account.name == new.name):
        raise Refused(f"there is an account {new.name} already", hint=f"outbox account show {new.name}")


def add_account(db: Database, new: Account, act: Act) -> None:
    """Raises Refused as `check_new` does."""
    check_new(db, new)
    row = {
        "name": new.name,
        "relay_host": new.relay_host,
        "relay_port": new.relay_port,
        "tls": str(new.tls),
        "mechanism": str(new.mechanism),
        "username": new.username or None,
        "secret": new.secret,
        "key_id": new.key_id or None,
        "credential_version": new.credential_version,
        "ca_file": new.ca_file or None,
        "tls_pins": new.tls_pins or None,
        "max_connections": new.max_connections,
        "max_messages": new.max_messages,
        "created_at": act.at,
    }
    try:
        tables.Account.insert(row).execute(db)
    except IntegrityError as error:
        raise Refused(f"account {new.name} cannot be added: {first_line(error)}") from None
    journal(db, act, "account add", f"account={new.name}", detail=f"{new.relay} tls={new.tls}")


def check_removable(db: Database, name: str) -> None:
    """Raises Refused while it has senders: their mail would fail without anybody having said so."""
    account(db, name)
    registered = [each.address for each in senders(db, name)]
    if registered:
        more = f" and {len(registered) - 3} more" if len(registered) > 3 else ""
        raise Refused(
            f"account {name} still has senders: {', '.join(registered[:3])}{more}",
            hint=f"outbox sender remove '{registered[0]}'",
        )


def remove_account(db: Database, name: str, act: Act) -> None:
    """Raises Refused as `check_removable` does."""
    check_removable(db, name)
    try:
        tables.Account.delete().where(tables.Account.name == name).execute(db)
    except IntegrityError:
        raise Refused(f"account {name} was given a sender just now") from None
    journal(db, act, "account remove", f"account={name}")


def set_password(db: Database, changed: Account, act: Act) -> None:
    """Store `username`, `secret` and `key_id` of `changed`, and lift a pause that a runner imposed: a new password
    deserves a new trial. A person's own pause stays. The other settings must still be those that the secret is bound
    to; Refused when somebody changed them meanwhile, and when the password would be sent in clear text.
    """
    values = {"secret": changed.secret, "key_id": changed.key_id or None}
    renew_credentials(db, changed, **values)
    journal(db, act, "account set-password", f"account={changed.name}", detail=f"key={changed.key_id}")


def renew_credentials(db: Database, changed: Account, **values: Any) -> None:
    """What a new password and a new OAuth setup have in common: the username and `values` are stored, the credential
    version grows, and a runner's pause is lifted. Raises Refused as `set_password` does.
    """
    refuse_clear_text(changed)
    row = tables.Account
    version = row.credential_version + 1
    written = (
        row.update(username=changed.username or None, credential_version=version, **values)
        .where(
            row.name == changed.name,
            row.relay_host == changed.relay_host,
            row.relay_port == changed.relay_port,
            row.tls == str(changed.tls),
            fn.COALESCE(row.ca_file, "") == changed.ca_file,
            fn.COALESCE(row.tls_pins, "") == changed.tls_pins,
        )
        .execute(db)
    )
    if not written:
        raise Refused(f"account {changed.name} was changed meanwhile", hint="try again")
    row.update(UNPAUSED).where(row.name == changed.name, not_by_operator(row)).execute(db)


def starttls_seen(db: Database, name: str, now: datetime) -> None:
    """The account's relay has offered STARTTLS: from now on it must."""
    row = tables.Account
    row.update(starttls_seen_at=now).where(row.name == name, row.starttls_seen_at.is_null()).execute(db)


def reseal(db: Database, of: Account, token: str, key_id: str) -> bool:
    """Put the same secret under another key, unless it has been changed meanwhile (then False)."""
    row = tables.Account
    condition = (row.name == of.name) & (row.secret == of.secret)
    return bool(row.update(secret=token, key_id=key_id).where(condition).execute(db))


def pause_account(db: Database, name: str, reason: str, until: datetime | None, act: Act) -> None:
    """A person asks for it: send nothing through this account until `until` (None: until it is resumed). It takes the
    place of a runner's pause, and of its brake. Raises Refused when there is no such account.
    """
    account(db, name)
    values = {**UNPAUSED, "pause_reason": BY_OPERATOR + reason, "paused_until": until}
    tables.Account.update(values).where(tables.Account.name == name).execute(db)
    journal(db, act, "account pause", f"account={name}", detail=BY_OPERATOR + reason)


def resume_account(db: Database, name: str, act: Act) -> None:
    """Lift every pause of the account, forget its brake, and try its relay again at once."""
    current = account(db, name)
    tables.Account.update(RESUMED).where(tables.Account.name == name).execute(db)
    close_breaker(db, current.relay_host, current.relay_port)
    journal(db, act, "account resume", f"account={name}", detail=current.pause_reason)


# ---- the relay's breaker, shared by all accounts with the same host and port


def trip_relay(
    db: Database, host: str, port: int, reason: str, act: Act, *, at_least: timedelta = timedelta(0)
) -> datetime | None:
    """The relay could not be reached. Returns until when it is now left alone, None while it is not yet. `at_least`:
    for how long the relay has asked us to.

    A failure of a connection that was under way when the breaker opened does not count: with ten connections, one
    outage would otherwise look like ten.
    """
    row = tables.Account
    relay = at_relay(host, port)
    closed = row.breaker_until.is_null() | (row.breaker_until <= act.at)
    # The increment also takes the row locks, so that two runners count one after the other.
    if not row.update(breaker_failures=row.breaker_failures + 1).where(relay, closed).execute(db):
        return None
    counted = int(row.select(fn.MAX(row.breaker_failures)).where(relay).scalar(db))
    failures, until = tripped(counted - 1, act.at)
    if until is not None:
        until = max(until, act.at + at_least)
    values = {"breaker_failures": failures, "breaker_until": until, "breaker_reason": reason}
    row.update(values).where(relay).execute(db)
    if until is not None:
        journal(db, act, "relay trip", f"relay={host}:{port}", detail=f"{failures} failures: {reason}")
    return until


def relay_recovered(db: Database, host: str, port: int, act: Act) -> None:
    """The relay answered. Writes nothing when its breaker was at rest."""
    row = tables.Account
    was_open = _exists(db, row, at_relay(host, port), row.breaker_until.is_null(False))
    if close_breaker(db, host, port) and was_open:
        journal(db, act, "relay recover", f"relay={host}:{port}")


# ---- rows and records


def first_line(error: Exception) -> str:
    """What a database says about a row it refuses, without PostgreSQL's DETAIL, which shows the row and so the
    token.
    """
    return str(error).partition("\n")[0]


UNPAUSED: dict[str, Any] = {
    "pause_reason": None,
    "paused_until": None,
    "probes": 0,
    "probe_until": None,
    "brake": None,
}
"""Of an account or a sender whose fault is gone. What a brake has failed stays written there, to be retried."""

RESUMED = {**UNPAUSED, "brake_messages": None}

_PAUSE_TEXTS = ("pause_reason", "brake", "brake_messages")
_ACCOUNT_TEXTS = ("username", "key_id", "ca_file", "tls_pins", "breaker_reason", *_PAUSE_TEXTS)
_SENDER_TEXTS = ("display_name", "return_path", *_PAUSE_TEXTS)


def _account(row: dict[str, Any]) -> Account:
    text = {name: row[name] or "" for name in _ACCOUNT_TEXTS}
    return Account(**{**row, **text, "tls": Tls(row["tls"]), "mechanism": Mechanism(row["mechanism"])})


def _sender(row: dict[str, Any]) -> Sender:
    return Sender(**{**row, **{name: row[name] or "" for name in _SENDER_TEXTS}})


def refuse_clear_text(of: Account) -> None:
    """Raises Refused when the account's password would leave this machine without TLS."""
    if of.username and not may_log_in(of.tls, of.relay_host):
        raise Refused(
            f"account {of.name}: a password is not sent to {of.relay} without TLS",
            hint="use TLS mode starttls or implicit; only a relay on this machine may do without",
        )


def _exists(db: Database, table: type[Any], *conditions: Expression) -> bool:
    return bool(table.select().where(*conditions).exists(db))


def not_by_operator(table: type[tables.Account] | type[tables.Sender]) -> Any:
    """The condition that a row is not paused by a person."""
    return table.pause_reason.is_null() | ~table.pause_reason.startswith(BY_OPERATOR)


def at_relay(host: str, port: int) -> Expression:
    """The condition that an account is at this relay."""
    condition: Expression = (tables.Account.relay_host == host) & (tables.Account.relay_port == port)
    return condition


def close_breaker(db: Database, host: str, port: int) -> int:
    """How many accounts' rows said that it had counted anything."""
    row = tables.Account
    values = {"breaker_failures": 0, "breaker_until": None, "breaker_reason": None}
    return int(row.update(values).where(at_relay(host, port), row.breaker_failures > 0).execute(db))
