"""PostgreSQL takes a COMMIT and its acknowledgement is lost; and it refuses transactions that may be tried again.

A proxy stands between a runner and the server. When it is told to, it lets the COMMIT of a certain statement (a claim,
a mark, a settlement) through, keeps the answer for itself and cuts the connection: the runner cannot know.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from tests.bench.figures import Figure, Unmeasurable
from tests.reconcile import Journal, broken
from tests.relay import Relay
from tests.running import Runner, Site, command
from tests.torture.cruelty import Cruelty, none_of
from tests.torture.places import Places

TOPIC = "commits"
MAILS = 60
LOST = {"claim": b"AS MATERIALIZED", "mark": b"dot_through = m.through", "settlement": b"outbox_recipient"}
"""A piece of the SQL by which each is known."""

REFUSED = {"40001": "serialization_failure", "40P01": "deadlock_detected", "55P03": "lock_not_available"}
TIMES = 5

_REFUSE = """
CREATE SEQUENCE refusals;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF nextval('refusals') % 7 = 1 AND currval('refusals') <= {last} THEN
    RAISE EXCEPTION 'no' USING ERRCODE = '{code}';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON outbox_delivery_live FOR EACH ROW EXECUTE FUNCTION refuse()
"""


class Proxy:
    """On a port of loopback. `lose`: keep the answer to the next COMMIT after this piece of SQL; `alone`: to the
    statement itself, which is a transaction of its own.
    """

    def __init__(self, url: str) -> None:
        self._target: dict[str, Any] = conninfo_to_dict(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.lose, self.alone = b"", False
        self.lost = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def url(self) -> str:
        found = self._target
        password = f":{quote(found['password'])}" if found.get("password") else ""
        user, name = quote(found.get("user", "postgres")), found["dbname"]
        return f"postgresql://{user}{password}@127.0.0.1:{self.port}/{name}?sslmode=disable"

    def close(self) -> None:
        self._listener.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client, self._connect()), daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = self._target.get("host", "127.0.0.1"), int(self._target.get("port") or 5432)
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        deaf = threading.Event()

        def back() -> None:
            with suppress(OSError):
                while octets := server.recv(65536):
                    if deaf.is_set():
                        break  # the server has done it; nobody hears of it
                    client.sendall(octets)
            for each in (client, server):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

        threading.Thread(target=back, daemon=True).start()
        seen = False
        with suppress(OSError):
            while octets := client.recv(65536):
                seen = seen or bool(self.lose and self.lose in octets)
                if seen and (self.alone or b"COMMIT" in octets):
                    self.lose, seen = b"", False
                    self.lost += 1
                    deaf.set()
                server.sendall(octets)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def measure(cruelty: Cruelty) -> Iterator[Figure]:
    if cruelty.postgres is None:
        raise Unmeasurable("there is no PostgreSQL here")
    with Places(cruelty.folder, cruelty.postgres) as places:
        for what, sql in LOST.items():
            cruelty.say(f"commits: the acknowledgement of a {what} is lost")
            with places.fresh("postgres") as site:
                yield from unheard(site, what, sql)
        for code, name in REFUSED.items():
            cruelty.say(f"commits: {code}")
            with places.fresh("postgres") as site:
                yield from refused(site, code, name)


def unheard(site: Site, what: str, sql: bytes) -> Iterator[Figure]:
    proxy = Proxy(site.url)
    with Relay() as relay:
        site.register(relay.port)
        proxy.alone, proxy.lose = what != "settlement", sql
        site.insert(MAILS)
        with Runner(command("run"), site.folder, OUTBOX_DATABASE=proxy.url(), OUTBOX_RUN_RENEW="500ms") as runner:
            site.until(60, sent=MAILS)
            runner.stop()
            ended = runner.wait()
        wrong = broken(site.query, Journal(relay.messages), "postgres", at_rest=True)
        more = len(relay.messages) - MAILS
    proxy.close()
    note = f"{dict(site.attempts())}, exit {ended}"
    yield Figure(TOPIC, f"{what}: acknowledgements lost", proxy.lost, "", "1", proxy.lost == 1)
    yield none_of(TOPIC, f"{what}: its acknowledgement lost: copies more", more, note)
    yield none_of(TOPIC, f"{what}: its acknowledgement lost: broken", len(wrong), str(wrong) if wrong else "")


def refused(site: Site, code: str, name: str) -> Iterator[Figure]:
    """Some of the updates of deliveries are refused; the same group is tried again."""
    last = TIMES * 7
    with Relay() as relay:
        site.register(relay.port)
        site.db.connection().execute(_REFUSE.format(last=last, code=code))
        site.insert(MAILS)
        with site.run() as runner:
            site.until(60, sent=MAILS)
            runner.stop()
            ended = runner.wait()
        [[turns]] = site.query("SELECT last_value FROM refusals")
        wrong = broken(site.query, Journal(relay.messages), "postgres", at_rest=True)
        more = len(relay.messages) - MAILS
        shouted = sum("Traceback" in line for line in runner.lines)
    note = f"refused {(min(turns, last) + 6) // 7} times; {dict(site.attempts())}"
    yield none_of(
        TOPIC, f"{code} ({name}): wrong", len(wrong) + more + shouted + bool(ended), str(wrong) if wrong else note
    )
