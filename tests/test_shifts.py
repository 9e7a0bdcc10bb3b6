"""Shifts, breaks, production days and windows across midnight and every change of the clocks."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.shifts import Calendar, Shift, fixed_windows, local_ns, minutes, weekdays, windows

S = 1_000_000_000
H = 3_600 * S


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp()) * S


def text(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // S, UTC).strftime("%d %H:%M")


THREE = (
    Shift.of("early", "mon-fri", "06:00", "14:00", ["09:00-09:15"]),
    Shift.of("late", "mon-fri", "14:00", "22:00"),
    Shift.of("night", "mon-fri", "22:00", "06:00", ["01:30-02:00", "23:50-00:10"]),
)
PARIS = Calendar("Europe/Paris", minutes("06:00"), THREE, frozenset({date(2026, 12, 25)}))


@pytest.mark.parametrize(
    ("words", "days"),
    [("mon-fri", {0, 1, 2, 3, 4}), ("mon, wed,sat-sun", {0, 2, 5, 6}), ("sat-mon", {5, 6, 0}), ("tue", {1})],
)
def test_weekdays_of_words_are_numbers_from_monday(words: str, days: set[int]) -> None:
    assert weekdays(words) == days


def test_weekdays_of_an_unknown_word_are_refused() -> None:
    with pytest.raises(ValueError, match="'day' is no day of the week"):
        weekdays("mon-day")


# ----------------------------------------------------------------------------------------- shifts and days


@pytest.mark.parametrize(
    ("local", "shift", "day"),
    [
        ("2026-11-23T06:00:00+01:00", "early", date(2026, 11, 23)),
        ("2026-11-23T13:59:59+01:00", "early", date(2026, 11, 23)),
        ("2026-11-23T14:00:00+01:00", "late", date(2026, 11, 23)),
        ("2026-11-24T05:59:59+01:00", "night", date(2026, 11, 23)),
        ("2026-11-23T05:59:59+01:00", "off", date(2026, 11, 22)),
        ("2026-11-28T03:00:00+01:00", "night", date(2026, 11, 27)),
        ("2026-11-28T12:00:00+01:00", "off", date(2026, 11, 28)),
        ("2026-12-25T08:00:00+01:00", "off", date(2026, 12, 25)),
        ("2026-12-26T02:00:00+01:00", "off", date(2026, 12, 25)),
        ("2026-12-25T02:00:00+01:00", "night", date(2026, 12, 24)),
    ],
)
def test_calendar_at_an_instant_knows_shift_and_production_day(local: str, shift: str, day: date) -> None:
    assert (PARIS.shift_at(at(local)), PARIS.production_day(at(local))) == (shift, day)


def test_night_shift_belongs_whole_to_the_day_it_starts_in_though_the_day_changes_at_midnight() -> None:
    calendar = Calendar("Europe/Paris", 0, THREE)
    assert calendar.production_day(at("2026-11-24T03:00:00+01:00")) == date(2026, 11, 23)
    assert calendar.production_day(at("2026-11-29T03:00:00+01:00")) == date(2026, 11, 29)


def test_scheduled_time_joins_shifts_that_touch_and_skips_closed_days() -> None:
    found = PARIS.scheduled(at("2026-12-23T12:00:00Z"), at("2026-12-28T12:00:00Z")) or []
    assert [(text(start), text(end)) for start, end in found] == [("23 05:00", "25 05:00"), ("28 05:00", "28 13:00")]


def test_breaks_after_midnight_belong_to_the_night_shift() -> None:
    found = PARIS.breaks(at("2026-11-23T06:00:00+01:00"), at("2026-11-24T06:00:00+01:00"))
    assert [(text(start), text(end)) for start, end in found] == [
        ("23 08:00", "23 08:15"), ("23 22:50", "23 23:10"), ("24 00:30", "24 01:00"),
    ]  # fmt: skip


def test_calendar_without_shifts_schedules_all_time_but_closed_days() -> None:
    assert Calendar().scheduled(0, 10**18) is None
    assert Calendar().shift_at(0) is None
    closed = Calendar("Europe/Paris", 360, (), frozenset({date(2026, 12, 25)}))
    found = closed.scheduled(at("2026-12-24T12:00:00Z"), at("2026-12-27T00:00:00Z")) or []
    edges = [text(edge) for interval in found for edge in interval]
    assert "25 05:00" in edges
    assert "26 05:00" in edges
    assert not any(start < at("2026-12-25T12:00:00Z") < end for start, end in found)


def test_parts_of_a_window_are_cut_where_the_shift_changes() -> None:
    start = at("2026-11-23T13:30:00+01:00")
    assert PARIS.parts(start, start + H) == [(start, start + H // 2), (start + H // 2, start + H)]
    assert PARIS.parts(start - H, start) == [(start - H, start)]


# ------------------------------------------------------------------------------------- changes of the clocks


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Paris", date(2026, 3, 28), 7),
        ("Europe/Paris", date(2026, 10, 24), 9),
        ("Australia/Lord_Howe", date(2026, 4, 4), 8.5),
        ("Australia/Lord_Howe", date(2026, 10, 3), 7.5),
        ("Africa/Cairo", date(2026, 4, 23), 7),
        ("Africa/Cairo", date(2026, 10, 29), 9),
        ("America/New_York", date(2026, 3, 7), 7),
        ("America/New_York", date(2026, 10, 31), 9),
        ("Asia/Kolkata", date(2026, 3, 28), 8),
    ],
)
def test_night_shift_over_a_change_of_the_clocks_has_its_true_length(zone: str, day: date, hours: float) -> None:
    calendar = Calendar(zone, 360, (Shift.of("night", "mon-sun", "22:00", "06:00"),))
    noon = local_ns(zone, day, 12 * 60)
    night = next(each for each in calendar.occurrences(noon, noon + 12 * H) if each.production_day == day)
    assert night.end_ns - night.start_ns == hours * H
    start, end = calendar.day_bounds(day)
    assert end - start == (hours + 16) * H


def test_local_time_that_does_not_exist_takes_the_offset_before_and_one_twice_is_the_first() -> None:
    assert local_ns("Europe/Paris", date(2026, 3, 29), 150) == at("2026-03-29T01:30:00Z")
    assert local_ns("Europe/Paris", date(2026, 10, 25), 150) == at("2026-10-25T00:30:00Z")
    assert local_ns("Africa/Cairo", date(2026, 4, 24), 0) == at("2026-04-23T22:00:00Z")


ZONES = ["Europe/Paris", "Australia/Lord_Howe", "Africa/Cairo", "America/New_York", "Asia/Kolkata", "UTC"]


@pytest.mark.parametrize(
    ("zone", "length_s", "first", "starts"),
    [
        ("Europe/Paris", 3600, "2026-03-29T00:00:00Z", ["29 00:00", "29 01:00", "29 02:00"]),
        ("Australia/Lord_Howe", 3600, "2026-10-03T14:30:00Z", ["03 14:30", "03 15:30", "03 16:00"]),
        ("Australia/Lord_Howe", 3600, "2026-04-04T14:00:00Z", ["04 14:00", "04 15:00", "04 15:30", "04 16:30"]),
        ("Asia/Kolkata", 3600, "2026-03-29T00:00:00Z", ["28 23:30", "29 00:30", "29 01:30"]),
        ("Africa/Cairo", 1800, "2026-04-23T21:15:00Z", ["23 21:00", "23 21:30", "23 22:00"]),
    ],
)
def test_fixed_windows_are_aligned_to_local_time_and_cut_by_a_change(
    zone: str, length_s: int, first: str, starts: list[str]
) -> None:
    windows = list(fixed_windows(zone, length_s, at(first), at(first) + 5 * H))
    assert [text(start) for start, _ in windows[: len(starts)]] == starts


@given(
    zone=st.sampled_from(ZONES),
    length_s=st.sampled_from([10, 60, 720, 1200, 1800, 3600]),
    start_s=st.integers(at("2020-01-01T00:00:00Z") // S, at("2031-01-01T00:00:00Z") // S),
    span_s=st.integers(1, 7_200),
    near=st.booleans(),
)
def test_fixed_windows_of_any_range_partition_it_and_begin_on_local_time(
    zone: str, length_s: int, start_s: int, span_s: int, near: bool
) -> None:
    if near:
        start_s = at("2026-10-03T15:00:00Z") // S + start_s % 7_200
    windows = list(fixed_windows(zone, length_s, start_s * S, (start_s + span_s) * S))
    assert windows[0][0] <= start_s * S < windows[0][1]
    assert windows[-1][0] < (start_s + span_s) * S <= windows[-1][1]
    assert all(before[1] == after[0] for before, after in pairwise(windows))
    for start, end in windows:
        begin = datetime.fromtimestamp(start // S, UTC).astimezone(ZoneInfo(zone))
        of_day = begin.hour * 3600 + begin.minute * 60 + begin.second
        earlier = datetime.fromtimestamp(start // S - 1, UTC).astimezone(ZoneInfo(zone))
        assert of_day % length_s == 0 or begin.utcoffset() != earlier.utcoffset()
        assert 0 < end - start <= length_s * S
    # The same windows whatever range asks for them.
    assert list(fixed_windows(zone, length_s, *windows[0])) == windows[:1]


@pytest.mark.parametrize("zone", ZONES[:5])
def test_every_change_of_the_clocks_for_ten_years_keeps_windows_and_days_whole(zone: str) -> None:
    info, calendar = ZoneInfo(zone), Calendar(zone, 360, THREE)
    first, last = at("2020-01-01T00:00:00Z"), at("2031-01-01T00:00:00Z")
    noons = range(first // S, last // S, 86_400)
    offsets = {noon: datetime.fromtimestamp(noon, UTC).astimezone(info).utcoffset() for noon in noons}
    changed = [noon for noon in list(noons)[1:] if offsets[noon] != offsets[noon - 86_400]]
    assert len(changed) == {"Asia/Kolkata": 0, "Africa/Cairo": 16}.get(zone, 22)
    for noon in changed:
        start, end = (noon - 86_400) * S, noon * S
        windows = list(fixed_windows(zone, 3600, start, end))
        assert sum(until - begin for begin, until in windows) == windows[-1][1] - windows[0][0]
        days = {calendar.production_day(begin) for begin, _ in windows}
        assert all(
            calendar.day_bounds(day)[1] - calendar.day_bounds(day)[0]
            in (22.5 * H, 23 * H, 23.5 * H, 24 * H, 24.5 * H, 25 * H)
            for day in days
        )
        for each in calendar.occurrences(start, end):
            assert each.end_ns - each.start_ns in (7 * H, 7.5 * H, 8 * H, 8.5 * H, 9 * H)
            assert calendar.shift_at(each.start_ns) == each.name


def test_fixed_windows_of_an_empty_range_are_none() -> None:
    assert list(fixed_windows("UTC", 60, 5, 5)) == []


# ------------------------------------------------------------------------------- windows shift and day


def test_shift_windows_are_the_shifts_and_the_time_between_them_cut_at_production_days() -> None:
    found = list(windows(PARIS, "shift", at("2026-11-27T12:00:00Z"), at("2026-11-30T06:00:00Z")))
    assert [(text(start), text(end), PARIS.shift_at(start)) for start, end in found] == [
        ("27 05:00", "27 13:00", "early"),
        ("27 13:00", "27 21:00", "late"),
        ("27 21:00", "28 05:00", "night"),
        ("28 05:00", "29 05:00", "off"),
        ("29 05:00", "30 05:00", "off"),
        ("30 05:00", "30 13:00", "early"),
    ]
    days = [PARIS.day_of_window("shift", start).day for start, _ in found]
    assert days == [27, 27, 27, 28, 29, 30]


def test_shift_windows_of_a_closed_day_are_off() -> None:
    start, end = PARIS.day_bounds(date(2026, 12, 25))
    assert list(windows(PARIS, "shift", start, end)) == [(start, end)]
    assert list(windows(PARIS, "day", start, end)) == [(start, end)]
    assert PARIS.shift_at(start) == "off"


def test_day_windows_are_production_days_though_a_night_shift_runs_over_their_start() -> None:
    calendar = Calendar("Europe/Paris", 0, THREE)
    start, end = calendar.day_bounds(date(2026, 11, 24))
    assert list(windows(calendar, "day", start, start + 1)) == [(start, end)]
    assert calendar.shift_at(start) == "night"
    assert calendar.day_of_window("day", start) == date(2026, 11, 24)
    assert calendar.day_of_window("1h", start) == date(2026, 11, 23)


def test_shift_that_overlaps_another_begins_where_the_first_ends() -> None:
    calendar = Calendar("UTC", 0, (Shift.of("a", "mon-sun", "06:00", "14:00"), Shift.of("b", "mon", "13:00", "22:00")))
    start, end = calendar.day_bounds(date(2026, 11, 23))
    found = list(windows(calendar, "shift", start, end))
    assert [(text(begin), calendar.shift_at(begin)) for begin, _ in found] == [
        ("23 00:00", "off"), ("23 06:00", "a"), ("23 14:00", "b"), ("23 22:00", "off"),
    ]  # fmt: skip
    assert calendar.parts(start + 12 * H, start + 15 * H) == [
        (start + 12 * H, start + 14 * H), (start + 14 * H, start + 15 * H)
    ]  # fmt: skip


def test_shifts_that_a_missing_hour_moves_over_one_another_still_cover_time_once() -> None:
    calendar = Calendar(
        "Europe/Paris", 0, (Shift.of("a", "sun", "00:00", "02:45"), Shift.of("b", "sun", "03:00", "08:00"))
    )
    found = list(windows(calendar, "shift", at("2026-03-29T00:00:00Z"), at("2026-03-29T05:00:00Z")))
    assert [(text(start), text(end), calendar.shift_at(start)) for start, end in found] == [
        ("28 23:00", "29 01:45", "a"), ("29 01:45", "29 06:00", "b"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "day", "lengths"),
    [
        ("Europe/Paris", date(2026, 3, 28), [8, 8, 7]),
        ("Europe/Paris", date(2026, 10, 24), [8, 8, 9]),
        ("Australia/Lord_Howe", date(2026, 4, 4), [8, 8, 8.5]),
        ("Australia/Lord_Howe", date(2026, 10, 3), [8, 8, 7.5]),
        ("Africa/Cairo", date(2026, 4, 23), [8, 8, 7]),
        ("Africa/Cairo", date(2026, 10, 29), [8, 8, 9]),
    ],
)
def test_shift_and_day_windows_over_a_change_of_the_clocks_have_their_true_lengths(
    zone: str, day: date, lengths: list[float]
) -> None:
    calendar = Calendar(zone, 360, tuple(Shift.of(each.name, "mon-sun", *_times(each)) for each in THREE))
    bounds = calendar.day_bounds(day)
    assert list(windows(calendar, "day", *bounds)) == [bounds]
    found = list(windows(calendar, "shift", *bounds))
    assert [(end - start) / H for start, end in found] == lengths
    assert (found[0][0], found[-1][1]) == bounds
    assert bounds[1] - bounds[0] == sum(lengths) * H


def _times(shift: Shift) -> tuple[str, str]:
    clock = (f"{minute // 60:02}:{minute % 60:02}" for minute in (shift.start_min, shift.end_min))
    return next(clock), next(clock)


DAY_STARTS = st.integers(0, 24 * 60 - 1)
ANY_SHIFTS = st.lists(
    st.tuples(st.sampled_from(["mon-sun", "mon-fri", "sat-sun", "sun"]), DAY_STARTS, DAY_STARTS), max_size=4
).map(
    lambda drawn: tuple(
        Shift(f"s{number}", weekdays(days), start, end) for number, (days, start, end) in enumerate(drawn)
    )
)


@given(
    zone=st.sampled_from([*ZONES, "America/Havana", "Asia/Beirut", "Pacific/Apia", "Pacific/Kiritimati"]),
    size=st.sampled_from(["shift", "day"]),
    day_start=DAY_STARTS,
    shifts=ANY_SHIFTS,
    start_s=st.integers(at("2020-01-01T00:00:00Z") // S, at("2031-01-01T00:00:00Z") // S),
    span_s=st.integers(1, 5 * 86_400),
    near=st.booleans(),
)
def test_shift_and_day_windows_of_any_calendar_cover_time_once_and_depend_on_no_range(
    zone: str, size: str, day_start: int, shifts: tuple[Shift, ...], start_s: int, span_s: int, near: bool
) -> None:
    if near:
        change = sorted(CHANGES.get(zone, [start_s]))
        start_s = change[start_s % len(change)] - start_s % (2 * 86_400)
    calendar = Calendar(zone, day_start, shifts, frozenset({date(2026, 3, 29)}))
    found = list(windows(calendar, size, start_s * S, (start_s + span_s) * S))
    assert found[0][0] <= start_s * S < found[0][1]
    assert found[-1][0] < (start_s + span_s) * S <= found[-1][1]
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert all(start < end for start, end in found)
    for start, end in found:
        assert list(windows(calendar, size, end - 1, end)) == [(start, end)]
        day = calendar.day_of_window(size, start)
        if size == "day":
            assert calendar.day_bounds(day) == (start, end)
        else:
            assert calendar.shift_at(start) == calendar.shift_at(end - S)
            assert calendar.production_day(end - S) == day
            assert len(calendar.parts(start, end)) == 1


def _changes_of(zone: str) -> list[int]:
    info = ZoneInfo(zone)
    days = range(at("2020-01-01T00:00:00Z") // S, at("2031-01-01T00:00:00Z") // S, 86_400)
    offsets = [datetime.fromtimestamp(day, UTC).astimezone(info).utcoffset() for day in days]
    return [day for day, (before, after) in zip(days[1:], pairwise(offsets), strict=True) if before != after]


CHANGES = {zone: found for zone in ZONES if (found := _changes_of(zone))}


@pytest.mark.parametrize("zone", ["Europe/Paris", "Australia/Lord_Howe", "Africa/Cairo", "America/Havana", "UTC"])
def test_shift_and_day_windows_partition_eleven_years(zone: str) -> None:
    first, last = at("2020-01-01T00:00:00Z"), at("2031-01-01T00:00:00Z")
    calendar = Calendar(zone, 0, THREE)
    for size, fewest in (("day", 4_018), ("shift", 10_000)):
        found = list(windows(calendar, size, first, last))
        assert all(before[1] == after[0] for before, after in pairwise(found))
        assert found[0][0] <= first < last <= found[-1][1]
        assert len(found) >= fewest
        assert max(end - start for start, end in found) <= 25 * H
