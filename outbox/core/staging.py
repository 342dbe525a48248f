"""Where mail really goes, so that a copied production database does not mail customers.

live        to its recipients
redirect    to one address, once per message; a header field says for whom it was, and so does each fate
allowlist   to those whose address, or whole domain, is allowed; to nobody else
off         nowhere: nothing is claimed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from outbox.core.address import parse_address
from outbox.core.dsn import Dsn
from outbox.core.fate import RecipientFate
from outbox.core.message import Recipient
from outbox.core.outcome import Report
from outbox.core.reply import Reply, sanitise
from outbox.core.suppression import pattern_of, patterns_for, withhold
from outbox.core.words import text_field

MEANT_FOR = "X-Outbox-Meant-For"
NAMED = 10
"""So many recipients are named in that field; of the others it says how many they are."""


class Mode(StrEnum):
    """Where mail goes. Anything but LIVE is for copies of a production database."""

    LIVE = "live"
    REDIRECT = "redirect"
    ALLOWLIST = "allowlist"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Staging:
    """The settings of [deliver]. `allow` holds addresses and ``*@domain``. Raises ValueError with a sentence when they
    do not fit together: a safety that does not hold must not start.
    """

    mode: Mode = Mode.LIVE
    redirect_to: str = ""
    allow: tuple[str, ...] = ()
    redirects: bool = field(init=False, repr=False, compare=False)
    _allowed: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.mode is Mode.REDIRECT:
            if not self.redirect_to:
                raise ValueError("mode redirect needs redirect_to")
            object.__setattr__(self, "redirect_to", parse_address(self.redirect_to).wire)
        if self.mode is Mode.ALLOWLIST and not self.allow:
            raise ValueError("mode allowlist needs allow")
        object.__setattr__(self, "redirects", self.mode is Mode.REDIRECT)
        object.__setattr__(self, "_allowed", frozenset(_allowed(each) for each in self.allow))

    @property
    def claims(self) -> bool:
        """Whether anything is sent at all."""
        return self.mode is not Mode.OFF

    # -- allowlist

    def allows(self, address: str) -> bool:
        """Whether this address of an envelope may get anything, itself or through the redirection."""
        if self.mode is Mode.ALLOWLIST:
            return not self._allowed.isdisjoint(patterns_for(address))
        return self.claims

    def withheld(self, recipient: Recipient) -> RecipientFate:
        """The fate of a recipient that is not allowed."""
        reason = f"not sent, says Outbox: staging allowlist: {recipient.address} is not in [deliver] allow"
        return withhold(recipient, reason)

    # -- redirect

    def envelope(self, recipients: Sequence[Recipient]) -> tuple[str, ...]:
        """The addresses that RCPT says for these recipients. Redirected, all of them are one."""
        return (self.redirect_to,) if self.redirects else tuple([each.address for each in recipients])

    def dsn(self, asked: Dsn) -> Dsn:
        """What the relay is asked to tell the return path, which is production's: redirected, nothing."""
        return _UNTOLD if self.redirects else asked

    def labelled(self, data: bytes, recipients: Sequence[Recipient]) -> bytes:
        """The message, with a field before it that says for whom it was."""
        if not self.redirects:
            return data
        named = [each.address for each in recipients[:NAMED]]
        if more := len(recipients) - NAMED if len(recipients) > NAMED else 0:
            named.append(f"and {more:,} more")
        return f"{text_field(MEANT_FOR, ', '.join(named))}\r\n".encode() + data

    def spread(self, report: Report, recipients: Sequence[Recipient]) -> Report:
        """What a relay said of the one address, said of each of the recipients it stands for."""
        if not self.redirects or not report.recipients:
            return report
        return replace(report, recipients=report.recipients[:1] * len(recipients))

    def told(self, fates: Sequence[RecipientFate]) -> tuple[RecipientFate, ...]:
        """The fates of the recipients, each saying where the mail went instead."""
        if not self.redirects:
            return tuple(fates)
        return tuple(replace(each, reply=self._redirected(each.reply)) for each in fates)

    def _redirected(self, reply: Reply | None) -> Reply:
        said = reply if reply is not None else Reply(0)
        return Reply(said.code, said.status, sanitise(f"redirected to {self.redirect_to}: {said}"))


_UNTOLD = Dsn(notify="never")


def _allowed(text: str) -> str:
    try:
        return pattern_of(text)
    except ValueError as fault:
        raise ValueError(f"allow: {text!r} is neither an address nor *@domain: {fault}") from None
