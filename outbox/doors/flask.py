"""Flask-Mail's interface, for an application whose mail shall be rows in the transaction of its `db.session`.

    mail = OutboxMail(app)                    # in place of flask_mail.Mail(app)
    mail.send(message)                        # a row; it leaves when the session commits

Checks, `email_dispatched`, `record_messages` and MAIL_SUPPRESS_SEND are Flask-Mail's own; MAIL_SERVER and its like are
not asked for. A message says more about itself in an attribute, ``message.outbox = {"dedup_key": "order-7"}``:
arguments of `Mail.from_message`. Once it is enqueued, `message.outbox_id` is its id (None: the dedup_key was there
already).
"""

from __future__ import annotations

from typing import Any

import flask
import flask_mail

from outbox.enqueue import enqueue
from outbox.mail import Mail

SOURCE = "flask"


class OutboxMail(flask_mail.Mail):  # type: ignore[misc, unused-ignore]
    """`session` is whatever `enqueue` takes; without it, Flask-SQLAlchemy's `db.session`."""

    def __init__(self, app: flask.Flask | None = None, *, session: Any = None) -> None:
        self._session = session
        super().__init__(app)

    def init_app(self, app: flask.Flask) -> Any:
        state: Any = super().init_app(app)
        state.connect = self.connect  # extensions find it as app.extensions["mail"], and send with that
        return state

    def connect(self) -> flask_mail.Connection:
        app = self.app or flask.current_app
        session = self._session if self._session is not None else app.extensions["sqlalchemy"].session
        return _Connection(app.extensions["mail"], session)


class _Connection(flask_mail.Connection):  # type: ignore[misc, unused-ignore]
    """Flask-Mail's, whose SMTP server is the session."""

    def __init__(self, state: Any, session: Any) -> None:
        super().__init__(state)
        self._session = session

    def configure_host(self) -> Any:
        return _Host(self._session)

    def send(self, message: Any, envelope_from: Any = None) -> None:
        host: Any = self.host  # None where sending is suppressed
        if isinstance(host, _Host):
            host.message, host.envelope_from = message, envelope_from
        super().send(message, envelope_from)


class _Host:
    """What Flask-Mail asks of an SMTP connection. The message itself says more than the arguments do: who is cc."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.message: Any = None
        self.envelope_from: Any = None

    def sendmail(self, _sender: str, _recipients: list[str], raw: bytes, *_options: object) -> None:
        message = self.message
        fields: dict[str, Any] = {
            "sender": _address(message.sender),
            "to": [_address(each) for each in message.recipients],
            "cc": [_address(each) for each in message.cc],
            "bcc": [_address(each) for each in message.bcc],
            "return_path": _address(self.envelope_from) if self.envelope_from else None,
            **getattr(message, "outbox", {}),
        }
        message.outbox_id = enqueue(self._session, Mail.from_message(raw, **fields), source=SOURCE)

    def quit(self) -> None:
        """There is nothing to end: the transaction is the application's."""


def _address(given: str | tuple[str, str]) -> str:
    """Flask-Mail takes ``(name, address)``, too. The name is in the message."""
    return given if isinstance(given, str) else given[1]
