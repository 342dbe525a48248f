"""A relay that falls silent after the dot: nobody knows whether it took the mail. That is said and respected."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pytest

from outbox.store.rows import moment_of
from tests.relay import DROP, GARBAGE, HANG, Accept, Answer, Relay
from tests.running import Program, Site


def send_impatiently(site: Site) -> str:
    """Run until nothing is left, with half a second of patience after a dot. What the runner said."""
    command = [sys.executable, "-m", "tests.impatient", "0.5"]
    with Program(command, site.folder, OUTBOX_DATABASE=site.url) as runner:
        assert runner.wait() == 0
        return runner.output


@pytest.mark.parametrize("answer", [HANG, DROP, GARBAGE], ids=["silence", "hang-up", "garbage"])
def test_what_comes_after_the_dot_and_is_no_answer_is_a_doubt(sqlite_site: Site, answer: Answer) -> None:
    in_doubt(sqlite_site, answer)


def test_a_doubt_is_recorded_and_tried_again_in_a_quarter_of_an_hour(postgres_site: Site) -> None:
    in_doubt(postgres_site, HANG)


def in_doubt(site: Site, answer: Answer) -> None:
    with Relay({"dot": [Accept(answer)]}) as relay:
        site.register(relay.port)
        number = site.insert_one(recipients="ann@example.net, bo@example.net")
        send_impatiently(site)

        delivery = site.delivery(number)
        assert (delivery["state"], delivery["doubts"], delivery["failures"]) == ("queued", 1, 0)
        wait = moment_of(delivery["due_at"]) - datetime.now(UTC)
        assert timedelta(minutes=14) < wait <= timedelta(minutes=15)
        attempt = site.attempt(number)
        assert (attempt["outcome"], attempt["stage"]) == ("doubt", "dot")
        assert attempt["dot_at"] is not None
        fates = site.query("SELECT address, fate FROM outbox_fate ORDER BY position")
        assert [tuple(row) for row in fates] == [("ann@example.net", "doubt"), ("bo@example.net", "doubt")]
        assert site.query("SELECT recipients_in_doubt FROM outbox_doubtful") == [(2,)]

        site.query("UPDATE outbox_delivery SET due_at = created_at FROM outbox WHERE id = message_id")
        send_impatiently(site)
        assert site.states() == {"sent": 1}
        assert len(relay.messages) == 2, "a second copy, as announced"
        site.audit(relay.messages)


@pytest.mark.parametrize("answer", ["--sent", "--resend"])
def test_on_doubt_hold_waits_for_a_person(sqlite_site: Site, answer: str) -> None:
    site = sqlite_site
    with Relay({"dot": [Accept(HANG)]}) as relay:
        site.register(relay.port)
        number = site.insert_one(recipients="ann@example.net", on_doubt="hold")
        send_impatiently(site)
        assert site.states() == {"held": 1}
        assert "outbox resolve" in site.delivery(number)["hold_reason"]
        with site.run("-q", "--until-empty") as patient:
            assert patient.wait() == 0
        assert len(relay.messages) == 1, "never a second copy by ourselves"

        status, said = site.outbox("resolve", str(number), answer)
        assert status == 0, said
        with site.run("-q", "--until-empty") as patient:
            assert patient.wait() == 0
        assert site.states() == {"sent": 1}
        assert len(relay.messages) == (1 if answer == "--sent" else 2)
        if answer == "--resend":
            site.audit(relay.messages)
