"""A secret is not shown by anything that shows values."""

from __future__ import annotations

import copy
import logging
import pickle
from dataclasses import asdict, dataclass

import pytest

from outbox.core.secret import Secret

PASSWORD = "correct horse"


@dataclass(frozen=True)
class Holder:
    secret: Secret


def test_only_reveal_shows_the_text() -> None:
    secret = Secret(PASSWORD)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>20}",
        f"{secret!r}",
        repr(Holder(secret)),
    ]
    assert secret.reveal() == PASSWORD
    assert not any(PASSWORD in text for text in shown)


def test_a_log_record_does_not_carry_it(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("outbox.test").warning("signing in with %s", Secret(PASSWORD))
    assert PASSWORD not in caplog.text
    assert "<secret>" in caplog.text


def test_it_is_not_pickled_or_copied() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret(PASSWORD))
    with pytest.raises(TypeError):
        copy.deepcopy(Secret(PASSWORD))
    with pytest.raises(TypeError):
        asdict(Holder(Secret(PASSWORD)))


def test_equality_and_truth_follow_the_text() -> None:
    assert Secret("grüße") == Secret("grüße")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert not Secret()
    assert Secret("a")
