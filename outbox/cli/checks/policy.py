"""Where mail may go, and how much of it: staging, reply rules, limits, suppression."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from outbox.cli import origin
from outbox.cli.checks import Check, Result

if TYPE_CHECKING:
    import peewee

    from outbox.cli.session import Session


def examine(session: Session, db: peewee.Database) -> Iterator[Check]:
    """Staging first: it decides over everything else."""
    yield from _staging(session, db)
    yield from _rules(db)
    yield from _limits(db)
    yield from _suppression(db)


def _staging(session: Session, db: peewee.Database) -> Iterator[Check]:
    from outbox.core.staging import Mode
    from outbox.store import migrate

    config = session.config
    staging = config.deliver.staging()
    if staging.mode is Mode.LIVE:
        uuid = migrate.status(db).database_uuid
        if not config.database_uuid and uuid:
            words = "mail goes to its recipients, also from a copy of this database: the configuration names none"
            where = origin.nearby(config.file) if config.file is not None else "the configuration (outbox init)"
            yield Check("deliver", Result.NOTE, words, f'database_uuid = "{uuid}" in {where}')
        return
    words = {
        Mode.REDIRECT: f"redirect: this runner mails {staging.redirect_to} and nobody else",
        Mode.ALLOWLIST: f"allowlist: this runner mails only {_some(staging.allow)}; all others bounce",
        Mode.OFF: "off: this runner mails nobody; all mail waits",
    }[staging.mode]
    where = origin.source(config, "deliver.mode")
    yield Check("deliver", Result.WARN, words, f'meant for copies of a database; else deliver.mode = "live" ({where})')


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _rules(db: peewee.Database) -> Iterator[Check]:
    from outbox.cli.phrases import counted
    from outbox.store import rules

    found = rules.stored(db)
    flawed = [each for each in found if each.rule is None]
    for each in flawed:
        words = f"reply rule {each.id} is not asked: {each.flaw}"
        yield Check("rule", Result.WARN, words, f"outbox rule remove {each.id}")
    if found and not flawed:
        yield Check("rule", Result.OK, counted(len(found), "reply rule"))


def _limits(db: peewee.Database) -> Iterator[Check]:
    from outbox.cli.output import cell
    from outbox.cli.phrases import counted
    from outbox.core.limits import Limited, free, next_free
    from outbox.store import accounts, audit, limits

    found, registry, now = limits.limits(db), accounts.registry(db), audit.now(db)
    known = {Limited.ACCOUNT: registry.accounts.keys(), Limited.SENDER: registry.senders.keys()}
    windows = limits.usage(db, found)
    said = False
    for limit in found:
        if limit.scope in known and limit.name not in known[limit.scope]:
            said = True
            words = f"there is a limit for {limit.scope} {limit.name}, and no such {limit.scope}"
            hint = f"outbox limit remove {limit.scope} {shlex.quote(limit.name)}"
            yield Check("limit", Result.WARN, words, hint)
            continue
        for span, most in limit.rates():
            window = windows.get((*limit.key, span))
            if window is not None and not free(window, span, most, now):
                said = True
                until = cell(next_free(window, span, most, 1, now))
                words = f"limit of {most:,} {span.words} for {limit.scope} {limit.name} is used up until {until}"
                yield Check("limit", Result.NOTE, words, "outbox limit list")
    if found and not said:
        yield Check("limit", Result.OK, f"{counted(len(found), 'limit')}, none used up")


def _suppression(db: peewee.Database) -> Iterator[Check]:
    from outbox.store import health

    count = health.suppressed(db)
    if count:
        words = f"{count:,} {'address or domain gets' if count == 1 else 'addresses and domains get'} no mail"
        yield Check("suppression", Result.NOTE, words, "outbox suppress list")
