"""Time elements and KPIs against published examples, and what must hold of any."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.equipment import STATES
from edge_agent.metrics import KPIS, Definition, by_window, kpis, milliseconds, planned_busy_ns, ratio, time_in

S = 1_000_000_000
MIN = 60 * S


def times(**states: float) -> dict[str, int]:
    return dict.fromkeys(STATES, 0) | {state: round(ns) for state, ns in states.items()}


H = 60 * MIN

# Times, definition, produced, good, and what the source prints in percent: A, P, Q, OEE, with its number of decimals.
# A source that cuts where it should round is met to one unit of its last digit.
WORKED = [
    # oee.com, "OEE Calculation" (also Vorne's worksheet): a shift of 8 h, breaks of 60 min outside the planned time,
    # 47 min of stops, ideal cycle 1.0 s, 19,271 pieces, 423 rejects.
    pytest.param(
        times(producing=373 * MIN, down=47 * MIN, planned_stop=60 * MIN),
        Definition(S), 19_271, 18_848, ("88.81", "86.11", "97.80", "74.79"), id="oee.com",
    ),
    # Willmott and McCarthy, TPM: A Route to World-Class Performance, p. 127: 910 min planned, 115 min of stoppages,
    # 12 min of changeover (a loss), standard cycle 3 min, 203 cycles.
    pytest.param(
        times(producing=783 * MIN, down=115 * MIN, setup=12 * MIN),
        Definition(3 * MIN), 203, None, ("86.0", "77.7", None, None), id="tpm-book",
    ),
    # SMRP Best Practices, 6th edition, OEE, table 1: a day with 8 h idle outside the base, 1.66 h of scheduled downtime
    # that is a loss, and 2.08 h of unscheduled downtime, set-ups of 0.26 h among it.
    pytest.param(
        times(producing=12.26 * H, idle=8 * H, planned_stop=1.66 * H, down=1.82 * H, setup=0.26 * H),
        Definition(idle_counts_as="outside_planned_time", planned_stop_counts_as="availability_loss"),
        None, None, ("76.63", None, None, None), id="smrp",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("spent", "definition", "produced", "good", "percent"), WORKED)
def test_kpis_of_a_published_example_have_its_printed_digits(
    spent: dict[str, int],
    definition: Definition,
    produced: int | None,
    good: int | None,
    percent: tuple[str | None, ...],
) -> None:
    values = kpis(spent, produced, good, definition).values
    for name, printed in zip(KPIS, percent, strict=False):
        if printed is None:
            assert values[name] is None
        else:
            unit = Fraction(1, 10 ** len(printed.partition(".")[2]))
            assert 0 <= Fraction(str(values[name])) * 100 - Fraction(printed) + unit / 2 < unit * 3 / 2


def test_kpis_with_short_stops_as_speed_loss_move_between_factors_and_leave_oee() -> None:
    spent = times(producing=300 * MIN, short_stop=30 * MIN, down=30 * MIN)
    iso = kpis(spent, 5_000, 4_900, Definition(3 * S)).values
    vorne = kpis(spent, 5_000, 4_900, Definition(3 * S, short_stop_counts_as="effectiveness")).values
    assert (iso["availability"], vorne["availability"]) == (0.833333, 0.916667)
    assert (iso["effectiveness"], vorne["effectiveness"]) == (0.833333, 0.757576)
    assert iso["oee_index"] == vorne["oee_index"] == 0.680556


def test_planned_busy_time_follows_what_counts_as_loss() -> None:
    spent = times(producing=100, setup=20, idle=30, planned_stop=40, not_scheduled=1_000, unknown=7)
    assert planned_busy_ns(spent, Definition()) == 150
    outside = Definition(setup_counts_as="outside_planned_time", idle_counts_as="outside_planned_time")
    assert planned_busy_ns(spent, outside) == 100
    assert planned_busy_ns(spent, Definition(planned_stop_counts_as="availability_loss")) == 190


def test_kpis_without_planned_busy_time_are_null_with_reasons() -> None:
    found = kpis(times(not_scheduled=3600 * S), 0, 0, Definition(S))
    assert set(found.values.values()) == {None}
    assert found.reasons == {
        "availability": "no_planned_busy_time",
        "effectiveness": "no_run_time",
        "quality_ratio": "nothing_produced",
        "oee_index": "no_planned_busy_time",
        "throughput_rate_per_h": "no_planned_operation_time",
    }


def test_kpis_when_nothing_was_made_give_an_oee_of_zero() -> None:
    found = kpis(times(producing=1800 * S, down=1800 * S), 0, None, Definition(S))
    assert found.values["oee_index"] == 0
    assert found.values["effectiveness"] == 0
    assert found.reasons == {"quality_ratio": "nothing_produced"}


@pytest.mark.parametrize(
    ("produced", "good", "planned", "reasons"),
    [
        (10, 9, None, {"effectiveness": "no_planned_run_time", "oee_index": "no_planned_run_time"}),
        (10, None, S, {"quality_ratio": "good_not_counted", "oee_index": "good_not_counted"}),
        (
            None,
            9,
            S,
            dict.fromkeys(KPIS[1:], "produced_not_counted"),
        ),
        (10, -1, S, {"quality_ratio": "corrected_below_zero", "oee_index": "corrected_below_zero"}),
    ],
)  # fmt: skip
def test_kpis_that_lack_something_are_null_and_say_what(
    produced: int | None, good: int | None, planned: int | None, reasons: dict[str, str]
) -> None:
    found = kpis(times(producing=60 * S), produced, good, Definition(planned))
    assert found.reasons == reasons
    assert {name for name, value in found.values.items() if value is None} == set(reasons)


def test_kpis_over_one_are_kept_and_flagged() -> None:
    found = kpis(times(producing=60 * S), 90, 90, Definition(2 * S))
    assert (found.values["effectiveness"], found.values["oee_index"]) == (3.0, 3.0)
    assert found.flags == ["effectiveness_over_1", "oee_index_over_1"]


def test_ratio_of_integers_beyond_doubles_is_exact() -> None:
    assert ratio(10**30 + 1, 2 * 10**30) == 0.5
    assert ratio(1, 2_000_000) == 0.000001
    assert ratio(-1, 3) == -0.333333


@given(
    spent=st.fixed_dictionaries({state: st.integers(0, 10**14) for state in STATES}),
    produced=st.integers(0, 10**20),
    scrap=st.integers(0, 10**20),
    planned=st.none() | st.integers(1, 10**12),
    counts_as=st.sampled_from(["availability", "effectiveness"]),
)
def test_kpis_of_anything_are_within_bounds_and_multiply(
    spent: dict[str, int], produced: int, scrap: int, planned: int | None, counts_as: str
) -> None:
    good = max(0, produced - scrap)
    found = kpis(spent, produced, good, Definition(planned, short_stop_counts_as=counts_as))  # type: ignore[arg-type]
    assert {name for name, value in found.values.items() if value is None} == set(found.reasons)
    availability, effectiveness, quality, oee, _ = found.values.values()
    assert availability is None or 0 <= availability <= 1
    assert quality is None or 0 <= quality <= 1
    if None not in (availability, effectiveness, quality, oee):
        assert availability is not None
        assert effectiveness is not None
        assert quality is not None
        assert oee is not None
        # Each factor is rounded to 5e-7; the product's error grows with the other factors.
        slack = 1e-6 * (1 + effectiveness * (availability + quality)) + 1e-9 * effectiveness
        assert abs(availability * effectiveness * quality - oee) <= slack


@given(parts=st.lists(st.integers(0, 10**13), max_size=9))
def test_milliseconds_of_parts_sum_to_the_whole_and_move_none_by_a_millisecond(parts: list[int]) -> None:
    printed = milliseconds(parts)
    assert sum(printed) == (sum(parts) + 500_000) // 1_000_000
    assert all(abs(ms * 1_000_000 - ns) < 1_000_000 for ms, ns in zip(printed, parts, strict=True))


@given(
    lengths=st.lists(st.integers(1, 10**12), min_size=1, max_size=20),
    data=st.data(),
)
def test_by_window_over_any_partition_sums_to_the_spans(lengths: list[int], data: st.DataObject) -> None:
    edges = np.cumsum([0, *lengths]).astype(np.int64)
    drawn = data.draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths)))
    labels = np.array(drawn, np.int8)
    cuts = data.draw(st.sets(st.integers(1, int(edges[-1]))))
    bounds = sorted({0, int(edges[-1])} | cuts)
    windows = list(pairwise(bounds))
    found = by_window(edges, labels, 4, windows)
    assert [sum(row) for row in found] == [end - start for start, end in windows]
    expected = [sum(length for length, own in zip(lengths, drawn, strict=True) if own == label) for label in range(4)]
    assert [sum(column) for column in zip(*found, strict=True)] == expected


def test_time_in_a_window_outside_the_edges_is_zero() -> None:
    edges, mask = np.array([0, 10], np.int64), np.array([True])
    assert time_in(edges, mask, [(-5, 5), (10, 20), (3, 4)]) == [5, 0, 1]
    assert time_in(edges, mask, []) == []


def test_exact_fraction_of_times_survives_a_day_of_nanoseconds() -> None:
    spent = times(producing=86_399_999_999_999, down=1)
    assert kpis(spent, 1, 1, Definition(S)).values["availability"] == float(
        round(Fraction(86_399_999_999_999, 86_400 * S), 6)
    )
