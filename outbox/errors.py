"""The exceptions of Outbox. A failed delivery is not among them: that is data (see `outbox.core.outcome`).

OutboxError                 everything below; carries `hint`, what to do next
├── InvalidMail             an application handed over a mail that cannot be sent: `field` and `reason`
├── InvalidMessage          a stored message cannot be composed: `status` (RFC 3463) and `reason`
├── ConfigError             the configuration is missing or wrong                       (exit 3)
├── DatabaseError           the database cannot be reached or opened                    (exit 4)
│   ├── SchemaError         its tables are missing, older or newer than this program    (exit 4)
│   └── UnusableDatabase    it is damaged, or another has taken its place               (exit 3)
├── VaultError              the key is missing, or does not open a secret               (exit 5)
├── OAuthError              no access token for an account: `permanent` or passing      (exit 7)
└── Refused                 an operator asked for something the state of things forbids (exit 1)
"""

from __future__ import annotations


class OutboxError(Exception):
    """Anything Outbox raises on purpose. `str()` says what is wrong and where; `hint` says what to do next, or is
    empty.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidMail(OutboxError, ValueError):
    """A mail an application handed over cannot be sent as it is. Nothing was written.

    `field` is the argument of `Mail` at fault (``"subject"``), `reason` a sentence about it.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class InvalidMessage(OutboxError):
    """A stored message cannot be composed or addressed. It fails with `status` (RFC 3463, e.g. ``"5.6.0"``); the
    batch goes on.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class ConfigError(OutboxError):
    """The configuration is missing, unreadable or wrong."""

    exit_code = 3


class DatabaseError(OutboxError):
    """The database cannot be reached or opened."""

    exit_code = 4


class SchemaError(DatabaseError):
    """The tables are missing, older or newer than this program understands."""


class UnusableDatabase(DatabaseError):
    """The database is damaged, or another one has taken its place: starting again would not change that."""

    exit_code = 3


class VaultError(OutboxError):
    """The key is missing or malformed, or does not open a secret. Never carries the secret or the token."""

    exit_code = 5


class OAuthError(OutboxError):
    """There is no access token for an account. `permanent` when somebody has to do something (consent again, correct
    the setup); else it may pass by itself, and asking again later is right. Carries no secret.
    """

    exit_code = 7

    def __init__(self, message: str, *, permanent: bool, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.permanent = permanent


class Refused(OutboxError):
    """What an operator asked for is forbidden by the state of things: an account with senders cannot be removed."""
