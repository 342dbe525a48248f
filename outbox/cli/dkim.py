"""``outbox sender dkim``: the keys that sign a sender's mail, and the DNS records that let others check it.

A private key is never printed: it is made here, or read from a file, and stored sealed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox.cli import output
from outbox.cli.session import session_of
from outbox.errors import Refused

if TYPE_CHECKING:
    from outbox.cli.session import Session
    from outbox.core.dkim import Algorithm
    from outbox.core.dkim_key import DnsRecord, SealedKey
    from outbox.core.secret import Secret
    from outbox.store.opened import Database
    from outbox.vault import Vault

MAX_FILE = 64 * 1024


class Kind(StrEnum):
    """What people call the algorithms."""

    RSA = "rsa"
    ED25519 = "ed25519"


@dataclass(frozen=True, slots=True)
class _Shown:
    """A key, and what is to be published for it."""

    key: SealedKey
    bits: int
    record: DnsRecord

    def facts(self) -> dict[str, Any]:
        return {
            "sender": self.key.sender,
            "selector": self.key.selector,
            "domain": self.key.domain,
            "algorithm": self.key.algorithm,
            "bits": self.bits,
            "name": self.record.name,
            "type": "TXT",
            "value": self.record.text,
            "strings": self.record.strings,
            "key_id": self.key.key_id,
            "created_at": self.key.created_at,
        }


def dkim(
    ctx: typer.Context,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="A registered sender, or its *@example.com.")],
    generate: Annotated[bool, typer.Option("--generate", help="Make a key, and sign with it from now on.")] = False,
    file: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="The same with the private key in a PEM file.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the DNS records (also without any option).")] = False,
    remove: Annotated[
        str, typer.Option("--remove", metavar="SELECTOR", help="Do not sign with this key any more; it is deleted.")
    ] = "",
    selector: Annotated[str, typer.Option("--selector", help="Name of the key; else one of kind and month.")] = "",
    algorithm: Annotated[Kind, typer.Option("--algorithm", help="Of a key that is made.")] = Kind.RSA,
    bits: Annotated[int, typer.Option("--bits", min=2048, max=4096, help="Of an RSA key that is made.")] = 2048,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Sign a sender's mail with DKIM: make, import, show or remove its keys. Each adds a signature of its own."""
    from outbox.store import accounts
    from outbox.store import dkim as stored

    if sum((generate, file is not None, show, bool(remove))) > 1:
        raise typer.BadParameter("give one of --generate, --import, --show and --remove")
    session = session_of(ctx)
    with session.database() as db:
        sender = accounts.sender(db, address).address
        if remove:
            with db.atomic():
                stored.remove_key(db, sender, remove.lower(), session.act())
            output.say(f"removed the DKIM key {remove.lower()} of {sender}")
            output.note("leave its DNS record for a week: what it has signed is still checked")
        elif generate:
            _add(session, db, sender, selector, _made(algorithm, bits), as_json=as_json, new=True)
        elif file is not None:
            _add(session, db, sender, selector, _read(file), as_json=as_json, new=False)
        else:
            _show(session, db, sender, as_json=as_json)


def _made(kind: Kind, bits: int) -> tuple[Algorithm, Secret]:
    from outbox import keypair
    from outbox.core.dkim import Algorithm

    algorithm = Algorithm.RSA if kind is Kind.RSA else Algorithm.ED25519
    return algorithm, keypair.generate(algorithm, bits)


def _read(file: Path) -> tuple[Algorithm, Secret]:
    from outbox import keypair

    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE + 1)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror}", param_hint="--import") from None
    try:
        return keypair.read(content)
    except Refused as refused:
        raise Refused(f"{file}: {refused}", hint=refused.hint) from None


def _add(
    session: Session,
    db: Database,
    sender: str,
    selector: str,
    key: tuple[Algorithm, Secret],
    *,
    as_json: bool,
    new: bool,
) -> None:
    from outbox.core.dkim_key import SealedKey, checked_selector, signing_domain
    from outbox.store import dkim as stored
    from outbox.vault import DkimBinding, Kind

    algorithm, secret = key
    act = session.act()
    try:
        domain = signing_domain(sender)
        selector = checked_selector(selector or _usual_selector(algorithm, act.at), domain)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    vault = session.vault
    token = vault.seal(secret, DkimBinding(sender, selector, domain, str(algorithm)), Kind.DKIM)
    sealed = SealedKey(sender, selector, domain, algorithm, token, vault.key_id, act.at)
    with db.atomic():
        if new:
            stored.check_unused(db, selector, domain)
        stored.add_key(db, sealed, act)
    _print([_shown(sealed, secret)], as_json=as_json, one=True)
    output.note(f"stored, sealed: from now on the mail of {sender} is signed with it")
    output.note("publish this record at once: a signature that nobody can look up counts as none")


def _usual_selector(algorithm: Algorithm, at: datetime) -> str:
    kind = Kind.RSA if algorithm.startswith("rsa") else Kind.ED25519
    return f"outbox-{kind}-{at:%Y%m}"


def _show(session: Session, db: Database, sender: str, *, as_json: bool) -> None:
    from outbox.core.address import wildcard
    from outbox.store import dkim as stored

    keys = stored.keys(db, sender)
    _print([_opened(session.vault, key) for key in keys], as_json=as_json)
    if keys:
        return
    of_domain = stored.keys(db, wildcard(sender)) if not sender.startswith("*@") else ()
    if of_domain:
        output.note(f"{sender} has no keys of its own: those of {wildcard(sender)} sign its mail")
    else:
        output.note(f"the mail of {sender} is not signed; outbox sender dkim '{sender}' --generate")


def _opened(vault: Vault, key: SealedKey) -> _Shown:
    from outbox.vault import DkimBinding, Kind

    binding = DkimBinding(key.sender, key.selector, key.domain, str(key.algorithm))
    return _shown(key, vault.open(key.secret, binding, key_id=key.key_id, kind=Kind.DKIM))


def _shown(key: SealedKey, secret: Secret) -> _Shown:
    from outbox import keypair
    from outbox.core.dkim_key import dns_record

    return _Shown(key, keypair.bits(secret), dns_record(key, keypair.public(secret)))


def _print(keys: list[_Shown], *, as_json: bool, one: bool = False) -> None:
    from outbox.keypair import WANTED_BITS

    facts = [each.facts() for each in keys]
    if as_json:
        output.show_json(facts[0] if one else facts)
    else:
        for each in keys:
            output.say(str(each.record))
    for each in keys:
        if each.key.algorithm.startswith("rsa") and each.bits < WANTED_BITS:
            output.note(f"{each.key.selector} has {each.bits} bits only: 2048 are wanted today (RFC 8301)")
