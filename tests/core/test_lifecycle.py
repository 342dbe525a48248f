"""The states and the operators' verbs."""

from __future__ import annotations

from outbox.core.lifecycle import ALLOWED_FROM, BECOMES, FINAL, State, Verb


def test_every_verb_says_from_where_and_to_where() -> None:
    assert set(ALLOWED_FROM) == set(BECOMES) == set(Verb)


def test_no_operator_touches_what_is_being_sent() -> None:
    assert all(State.SENDING not in states for states in ALLOWED_FROM.values())


def test_sent_and_cancelled_are_for_ever() -> None:
    left = FINAL - {state for states in ALLOWED_FROM.values() for state in states}
    assert left == {State.SENT, State.CANCELLED}
