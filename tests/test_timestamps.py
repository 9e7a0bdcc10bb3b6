"""Nanoseconds to text and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.timestamps import parse, rfc3339, rfc3339_ms

S = 1_000_000_000


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_500_000_000, "1970-01-01T00:00:01.500Z"),
        (1_000_001_000, "1970-01-01T00:00:01.000001Z"),
        (253_402_300_799 * S, "9999-12-31T23:59:59Z"),
    ],
)
def test_time_prints_no_more_digits_than_it_needs(ns: int, text: str) -> None:
    assert rfc3339(ns) == text


@given(st.integers(0, 253_402_300_799 * S))
def test_time_survives_text_to_the_nanosecond(ns: int) -> None:
    assert parse(rfc3339(ns)) == ns
    assert 0 <= ns - parse(rfc3339_ms(ns)) < 1_000_000


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-11-23T08:00:00+01:00", "2026-11-23T07:00:00Z"),
        ("2026-11-23T01:30:00-0530", "2026-11-23T07:00:00Z"),
        ("2026-11-23 07:00", "2026-11-23T07:00:00Z"),
        ("2026-11-23", "2026-11-23T00:00:00Z"),
        ("2026-11-23T07:00:00.1234567899Z", "2026-11-23T07:00:00.123456789Z"),
    ],
)
def test_time_is_read_as_people_write_it(text: str, same: str) -> None:
    assert parse(text) == parse(same)


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "07:00", "2026-11-23T25:00:00Z", ""])
def test_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse(text)
