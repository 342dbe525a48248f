"""What a mail asks of delivery status notifications (RFC 3461). Passed on where DSN is offered, else to nobody."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CONDITIONS = ("success", "failure", "delay")
_ENVID = re.compile(r"[ -~]{1,100}")


@dataclass(frozen=True, slots=True)
class Dsn:
    """The parameters as the columns `dsn_notify`, `dsn_ret` and `dsn_envid` have them; all empty: the relay decides.

    notify  ``"never"``, or some of ``success``, ``failure`` and ``delay``, separated by commas (NOTIFY of RCPT)
    ret     ``"full"`` or ``"hdrs"``: how much of the mail a notification brings back (RET of MAIL)
    envid   printable ASCII, at most 100 characters, by which the sender knows the mail again (ENVID of MAIL)
    """

    notify: str = ""
    ret: str = ""
    envid: str = ""

    def __bool__(self) -> bool:
        return bool(self.notify or self.ret or self.envid)

    def flaw(self) -> str:
        """What is wrong with it, in words, or ``""``."""
        if self.notify and self.notify != "never":
            conditions = self.notify.split(",")
            if len(set(conditions)) != len(conditions) or not set(conditions) <= set(_CONDITIONS):
                return f"dsn_notify must be 'never', or of {', '.join(_CONDITIONS)}, not {self.notify!r}"
        if self.ret not in ("", "full", "hdrs"):
            return f"dsn_ret must be 'full' or 'hdrs', not {self.ret!r}"
        if self.envid and not _ENVID.fullmatch(self.envid):
            return f"dsn_envid must be printable ASCII, at most 100 characters, not {self.envid[:101]!r}"
        return ""


NO_DSN = Dsn()


def xtext(text: str) -> str:
    """`text` (ASCII) as a parameter's value says it (RFC 3461 §4)."""
    return "".join(each if "!" <= each <= "~" and each not in "+=" else f"+{ord(each):02X}" for each in text)


def unxtext(text: str) -> str:
    """What a parameter's value says."""
    return re.sub(r"\+([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), text)
