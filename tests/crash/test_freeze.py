"""A runner that is stopped for longer than its lease, and comes back: it may not write a dot, nor a result over a newer
one.

A frozen process still holds its lock, on SQLite the file's and on PostgreSQL the session's; only the lease tells.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from outbox.store.database import connect
from tests.relay import Accept, Relay, Session
from tests.relay_session import Answer
from tests.running import SHOP, Program, Site, eventually

LEASE = {"run_lease": "1s", "run_renew": "400ms"}


def freezing(site: Site, runners: list[Program]) -> Callable[[Session, str], Answer]:
    """An honest answer, given to a runner which has just been frozen."""

    def answer(session: Session, line: str) -> Answer:
        for runner in runners:
            site.freeze(runner)
        return None

    return answer


def test_a_runner_that_was_frozen_before_its_dot_does_not_write_it(site: Site) -> None:
    frozen: list[Program] = []
    with Relay({"data": [freezing(site, frozen)]}) as relay:
        site.register(relay.port)
        number = site.insert_one(recipients="ann@example.net")
        with site.run(**LEASE) as first:
            frozen.append(first)
            eventually(lambda: "DATA" in relay.commands, "the first runner has said DATA")
            with site.run(**LEASE) as second:
                site.until(sent=1)
                assert site.attempt(number, 1)["outcome"] == "lost"
                first.resume()
                first.says("has been declared dead")
                second.stop()
                assert second.wait() == 0
            assert "." not in relay.sessions[0].commands, "its claim is lost, so it may not write the dot"
            assert len(relay.messages) == 1
            assert site.delivery(number)["claim_no"] == 2

            site.insert(3)
            site.until(sent=4)  # under its new id it is a runner like any other
            assert len(site.runners()) == 1
        assert site.attempts() == {"lost": 1, "accepted": 4}
        site.audit(relay.messages)


def test_a_late_result_is_kept_beside_the_newer_one(site: Site) -> None:
    frozen: list[Program] = []
    with Relay({"dot": [Accept(freezing(site, frozen))]}) as relay:
        site.register(relay.port)
        number = site.insert_one(recipients="ann@example.net")
        with site.run(**LEASE) as first:
            frozen.append(first)
            eventually(lambda: "." in relay.commands, "the first runner has written its dot")
            with site.run(**LEASE):
                site.until(sent=1)
                newer = site.attempt(number, 2)
                assert site.attempt(number, 1)["outcome"] == "doubt"
                first.resume()
                eventually(lambda: site.attempt(number, 1)["late_at"], "the late result is noted")

        late = site.attempt(number, 1)
        assert (late["outcome"], late["late_outcome"]) == ("doubt", "accepted")
        assert late["late_reply"].startswith("250")
        assert site.attempt(number, 2) == newer
        delivery = site.delivery(number)
        assert (delivery["state"], delivery["claim_no"], delivery["doubts"]) == ("sent", 2, 1)
        assert len(relay.messages) == 2
        site.audit(relay.messages)


def test_a_late_2xx_settles_what_is_held_for_doubt(site: Site) -> None:
    frozen: list[Program] = []
    with Relay({"dot": [Accept(freezing(site, frozen))]}) as relay:
        site.register(relay.port)
        number = site.insert_one(recipients="ann@example.net", on_doubt="hold")
        with site.run(**LEASE) as first:
            frozen.append(first)
            eventually(lambda: "." in relay.commands, "the first runner has written its dot")
            with site.run(**LEASE):
                site.until(held=1)
                first.resume()
                site.until(sent=1)

        late = site.attempt(number, 1)
        assert (late["outcome"], late["late_outcome"]) == ("doubt", "accepted")
        assert len(relay.messages) == 1
        site.audit(relay.messages)


def test_a_runner_that_others_have_declared_dead_claims_nothing_under_its_old_id(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port, connections=10)
        with site.run(**LEASE) as first:
            first.started()
            site.freeze(first)
            with site.run(**LEASE) as second:
                # Frozen in a transaction of its own, it keeps its row until the server ends that: a minute.
                second.says(f"{first.started()}[0-9a-f]* is dead", 75)
                second.stop()
                assert second.wait() == 0
            site.insert(60)
            first.resume()
            site.until(sent=60)
        assert site.attempts() == {"accepted": 60}, "none was lost or in doubt, for nobody else was there"
        site.audit(relay.messages)


def test_a_runner_that_is_frozen_in_the_middle_of_its_transaction_stops_nobody(postgres_site: Site) -> None:
    """It keeps the rows that it has locked, and only those: here of a result that it is writing."""
    site = postgres_site
    with Relay() as relay:
        site.register(relay.port)
        with site.run(**LEASE) as first:
            first.started()
            with site.db.atomic():
                site.query("LOCK TABLE outbox_recipient IN EXCLUSIVE MODE")
                with closing(connect(site.url)) as application:
                    application.execute_sql(
                        "INSERT INTO outbox (sender, recipients, text_body) VALUES (%s, %s, 'Thanks')",
                        (SHOP, "ann@example.net"),
                    )
                waiting = "SELECT 1 FROM pg_locks WHERE relation = 'outbox_recipient'::regclass AND NOT granted"
                eventually(lambda: site.query(waiting), "it has settled, and waits to write the recipient")
                first.freeze()
            # Now the server has let it write the recipient, and it stands still with its result uncommitted.
            with site.run(**LEASE) as second:
                second.says(f"{first.started()}[0-9a-f]* is dead")
                site.insert(5)
                eventually(lambda: site.states().get("sent") == 5, "the others are sent", 3)
                assert site.states() == {"sent": 5, "sending": 1}
                first.resume()
                site.until(sent=6)
        assert len(relay.messages) == 6
        site.audit(relay.messages)
