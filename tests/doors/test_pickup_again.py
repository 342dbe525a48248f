"""The same content dropped twice is two mails: a folder does not guess that somebody did not mean it."""

from __future__ import annotations

from tests.doors.test_pickup import Place
from tests.doors.test_pickup import place as place


def test_under_two_names_and_under_one_name_again(place: Place) -> None:
    place.put("a.eml")
    place.put("b.eml")
    assert place.scan().taken == 2
    place.put("a.eml")
    assert place.scan().taken == 1
    assert place.mails() == 3
