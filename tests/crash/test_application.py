"""The application is killed in the middle of its transaction: its mail has never existed."""

from __future__ import annotations

import sys

from outbox.store.database import dialect, sqlite_path
from tests.relay import Relay
from tests.running import Program, Site

INSERT = (
    "INSERT INTO outbox (sender, recipients, subject, text_body)"
    " VALUES ('shop@example.com', 'ghost@example.net', 'Order 7', 'Thanks')"
)
SQLITE = f"""
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1])
db.execute({INSERT!r})
print("inserted", flush=True)
time.sleep(60)
db.commit()
"""
POSTGRES = f"""
import psycopg, sys, time
db = psycopg.connect(sys.argv[1])
db.execute({INSERT!r})
print("inserted", flush=True)
time.sleep(60)
db.commit()
"""


def test_mail_of_an_application_that_dies_before_its_commit_is_never_sent(site: Site) -> None:
    kind = dialect(site.db)
    script, place = (POSTGRES, site.url) if kind == "postgres" else (SQLITE, sqlite_path(site.url))
    with Relay() as relay:
        site.register(relay.port)
        with site.run("-q"):
            for turn in range(1, 4):
                with Program([sys.executable, "-c", script, place], site.folder) as application:
                    application.says("inserted")
                    assert "ghost@example.net" not in str(site.query("SELECT recipients FROM outbox"))
                    application.kill()
                site.insert(1)  # the lock is free, and the runner at work
                site.until(sent=turn)
        assert site.query("SELECT count(*) FROM outbox WHERE recipients = 'ghost@example.net'") == [(0,)]
        assert [message.recipients for message in relay.messages] == [("ann0@example.net",)] * 3
        site.audit(relay.messages)


def test_mail_of_a_transaction_that_is_rolled_back_is_never_sent(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        with site.run("-q"):
            with site.db.atomic() as transaction:
                site.insert(5, recipients="ghost@example.net")
                transaction.rollback()
            site.insert(1)
            site.until(sent=1)
        assert len(relay.messages) == 1
