"""Durations and sizes as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("15m", 900), ("4h", 14400), ("2d", 172800), ("250ms", 0.25), ("1h30m", 5400), ("0s", 0)],
)
def test_a_duration_is_read_and_written_alike(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert format_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(("text", "seconds"), [("1h 30m", 5400), (" 30 s ", 30), ("2D", 172800), ("90s", 90)])
def test_white_space_and_capitals_do_not_matter(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", " ", "30", "s", "-1s", "1.5h", "1 week", "30s 1h", "1m1m", "1s!", "٣s", "1e3s"])
def test_anything_else_is_refused_with_an_example_of_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match='"30s"'):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_every_number_of_milliseconds_survives(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("text", "size"),
    [("64 MiB", 2**26), ("1GiB", 2**30), ("512 kb", 512_000), ("7 B", 7), ("0 B", 0), ("10 MB", 10**7)],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["", "64", "MiB", "-1 MiB", "1.5 GiB", "64 XB"])
def test_a_size_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match='"64 MiB"'):
        parse_size(text)


def test_a_size_is_written_in_the_largest_unit_that_fits() -> None:
    assert [format_size(size) for size in (2**26, 2**30, 1536 * 1024, 1000, 0)] == [
        "64 MiB",
        "1 GiB",
        "1536 KiB",
        "1000 B",
        "0 B",
    ]
