"""A transactional mail outbox: INSERT a mail in your own transaction; it is sent, retried and recorded.

    from outbox import Mail, enqueue

    with connection:
        connection.execute("UPDATE orders SET …")
        enqueue(connection, Mail(sender="shop@example.com", to="ann@example.net", subject="Order 7", text="Thanks"))

How a row becomes a mail
------------------------

1. An application INSERTs into the table `outbox`, from Python or any other language: `mail.py` checks a mail,
   `enqueue.py` inserts it, through `drivers/`. A trigger adds its row of `outbox_delivery`, state `queued`
   (`schema/`: the tables, in plain SQL).
2. A runner (`outbox run`) is woken, and claims what is due for the senders in turn (`runner/claiming/dispatch.py`).
   Every write is one of the verbs of `store/`, run by the one thread that writes, `runner/writing/clerk.py`.
   `runner/sending/delivery.py` takes each message that was claimed through the steps that follow.
3. `core/render.py` composes the bytes, always the same for the same row.
4. `smtp/` speaks with the relay of the sender's account, logged in with a password that only `vault.py` can open.
   Before the final dot the clerk commits a *dot mark*; what the relay said comes back as a report, never an exception.
5. `core/judge.py` classifies each reply, `core/settlement.py` decides what becomes of the message: sent, failed, held,
   or queued again later (`core/backoff.py`).
6. The clerk commits that to `outbox_delivery`, `outbox_attempt` and `outbox_recipient`, where `store/audit.py`, the
   views of `schema/` and the commands of `cli/` show it.

`core/` is arithmetic: no input or output, no clock, no chance. Time and chance come from `clock.py`, the exceptions
from `errors.py`, settings from `config/`, log lines from `log.py`.

Importing this package loads none of that but `mail.py`, `enqueue.py`, and what they need of `core/`.
"""

from outbox.core.message import Attachment
from outbox.enqueue import aenqueue, aenqueue_many, enqueue, enqueue_many
from outbox.mail import Mail

__all__ = ["Attachment", "Mail", "aenqueue", "aenqueue_many", "enqueue", "enqueue_many"]
