"""Time elements and KPIs against published examples, and what must hold of any."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

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
EFFORT = ("oee_index", "nee_index", "industry_ooe", "industry_teep")


class Worked(NamedTuple):
    """A published example: what it gives, and what its source prints, in percent, with its number of decimals.

    A source that cuts where it should round is met to one unit of its last digit.
    """

    times: dict[str, int]
    definition: Definition
    printed: dict[str, str]
    produced: int | None = None
    good: int | None = None
    rework: int | None = None


WORKED = {
    # oee.com, "OEE Calculation" (also Vorne's worksheet): a shift of 8 h, breaks of 60 min outside the planned time,
    # 47 min of stops, ideal cycle 1.0 s, 19,271 pieces, 423 rejects.
    "oee.com": Worked(
        times(producing=373 * MIN, down=47 * MIN, planned_stop=60 * MIN),
        Definition(S),
        {"availability": "88.81", "effectiveness": "86.11", "quality_ratio": "97.80", "oee_index": "74.79"},
        19_271, 18_848,
    ),
    # Willmott and McCarthy, TPM: A Route to World-Class Performance, p. 127: 910 min planned, 115 min of stoppages,
    # 12 min of changeover (a loss), standard cycle 3 min, 203 cycles.
    "tpm-book": Worked(
        times(producing=783 * MIN, down=115 * MIN, setup=12 * MIN),
        Definition(3 * MIN),
        {"availability": "86.0", "effectiveness": "77.7"},
        203,
    ),
    # SMRP Best Practices, 6th edition, OEE, table 1: a day with 8 h idle outside the base, 1.66 h of scheduled downtime
    # that is a loss, and 2.08 h of unscheduled downtime, set-ups of 0.26 h among it.
    "smrp": Worked(
        times(producing=12.26 * H, idle=8 * H, planned_stop=1.66 * H, down=1.82 * H, setup=0.26 * H),
        Definition(idle_counts_as="outside_planned_time", planned_stop_counts_as="availability_loss"),
        {"availability": "76.63"},
    ),
    # blog.infraspeak.com, "OEE, TEEP, OOE": 480 min scheduled, 47 min down, 1.3 s for a piece, 19,690 pieces, 420 bad.
    "infraspeak": Worked(
        times(producing=433 * MIN, down=47 * MIN, planned_stop=60 * MIN),
        Definition(1_300_000_000),
        {"availability": "90.2", "effectiveness": "98.5", "quality_ratio": "97.9"},
        19_690, 19_270,
    ),
    # waycalculator.com, "Overall Equipment Effectiveness", example 1: 420 of 480 min, cycle 1 min, 400 made, 380 good.
    "waycalculator": Worked(
        times(producing=420 * MIN, delay=60 * MIN),
        Definition(MIN),
        {"availability": "87.5", "effectiveness": "95.2", "quality_ratio": "95", "oee_index": "79.1"},
        400, 380,
    ),
    # leanworxcloud.com, "TEEP definition", example 1: an OEE of 60 %, 24 hours a day, 6 days a week.
    "leanworx-6-days": Worked(
        times(producing=144 * H, not_scheduled=24 * H),
        Definition(6 * MIN),
        {"oee_index": "60", "industry_teep": "51.4"},
        900, 864,
    ),
    # The same, example 2: an OEE of 60 %, 12 hours a day, 1 hour of them breaks, 6 days a week.
    "leanworx-12-hours": Worked(
        times(producing=66 * H, planned_stop=6 * H, not_scheduled=96 * H),
        Definition(6 * MIN),
        {"oee_index": "60", "industry_teep": "23.6"},
        400, 396,
    ),
    # mfgcalcs.com, "First Pass Yield", its baseline: 1,200 units, 1,090 passed first time, 75 reworked, 35 scrapped.
    "mfgcalcs-first-pass": Worked(times(producing=H), Definition(), {"first_pass_yield": "90.83"}, 1_200, 1_165, 75),
    # mfgcalcs.com, "Yield", its baseline: 2,000 units, 1,908 good, 58 scrapped, 34 reworked.
    "mfgcalcs-yield": Worked(times(producing=H), Definition(), {"first_pass_yield": "95.4"}, 2_000, 1_942, 34),
    # The same with 5,000 units.
    "mfgcalcs-rates": Worked(
        times(producing=H), Definition(), {"scrap_ratio": "1.16", "rework_ratio": "0.68"}, 5_000, 4_942, 34
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKED)
def test_kpis_of_a_published_example_have_its_printed_digits(name: str) -> None:
    example = WORKED[name]
    values = kpis(example.times, example.produced, example.good, example.definition, example.rework).values
    for kpi, printed in example.printed.items():
        unit = Fraction(1, 10 ** len(printed.partition(".")[2]))
        assert 0 <= Fraction(str(values[kpi])) * 100 - Fraction(printed) + unit / 2 < unit * 3 / 2, kpi


def without_failures(reasons: dict[str, str]) -> dict[str, str]:
    """The reasons of what does not speak of failures; what does had none."""
    assert {reasons[name] for name in ("mtbf_h", "mttf_h", "mttr_h")} == {"no_failure"}
    return {name: reason for name, reason in reasons.items() if reason != "no_failure"}


def test_kpis_of_one_window_are_what_their_formulas_say() -> None:
    spent = times(
        producing=300 * MIN, short_stop=30 * MIN, delay=20 * MIN, down=40 * MIN, setup=60 * MIN, idle=50 * MIN,
        planned_stop=25 * MIN, not_scheduled=900 * MIN, unknown=15 * MIN,
    )  # fmt: skip
    found = kpis(spent, 5_000, 4_900, Definition(3 * S), 100, failures=4)
    assert found.values == {
        "availability": 0.6,  # 300 / 500
        "effectiveness": 0.833333,  # 250 / 300
        "quality_ratio": 0.98,
        "oee_index": 0.49,  # 245 / 500
        "throughput_rate_per_h": 555.555556,  # in 540 min
        "nee_index": 0.588,  # 360 / 500 x 250 / 300 x 0.98
        "technical_efficiency": 0.769231,  # 300 / 390
        "setup_rate": 0.166667,  # 60 / 360
        "utilization_efficiency": 0.666667,  # 300 / 450
        "scrap_ratio": 0.02,
        "rework_ratio": 0.02,
        "first_pass_yield": 0.96,
        "mtbf_h": 1.666667,  # 400 min / 4
        "mttf_h": 1.5,  # 360 min / 4
        "mttr_h": 0.166667,  # 40 min / 4
        "industry_ooe": 0.466667,  # 245 / 525
        "industry_teep": 0.17193,  # 245 / 1425
    }
    assert (found.reasons, found.flags) == ({}, [])
    assert found.sums == {
        "observed_s": 1_425 * MIN, "operation_s": 525 * MIN, "busy_s": 500 * MIN, "run_s": 300 * MIN,
        "setup_s": 60 * MIN, "delay_s": 90 * MIN, "planned_run_produced_s": 250 * MIN, "planned_run_good_s": 245 * MIN,
        "produced": 5_000, "good": 4_900, "rework": 100, "down_s": 40 * MIN, "failures": 4,
    }  # fmt: skip
    fast = kpis(spent, 5_000, 4_900, Definition(3 * S, short_stop_counts_as="effectiveness"), 100).values
    assert fast["technical_efficiency"] == 0.846154  # 330 / 390
    assert fast["setup_rate"] == 0.153846  # 60 / 390
    assert fast["oee_index"] == 0.49
    outside = kpis(spent, 5_000, 4_900, Definition(3 * S, setup_counts_as="outside_planned_time"), 100).values
    assert outside["nee_index"] == outside["oee_index"] == 0.556818  # setup is no loss and in no base


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
    assert {name for name, value in found.values.items() if value is not None} == {"industry_teep"}
    assert found.values["industry_teep"] == 0, "nothing was made"
    assert without_failures(found.reasons) == {
        "availability": "no_planned_busy_time",
        "effectiveness": "no_run_time",
        "quality_ratio": "nothing_produced",
        "oee_index": "no_planned_busy_time",
        "throughput_rate_per_h": "no_planned_operation_time",
        "nee_index": "no_planned_busy_time",
        "technical_efficiency": "no_run_or_delay_time",
        "setup_rate": "no_run_or_setup_time",
        "utilization_efficiency": "no_busy_time",
        "scrap_ratio": "nothing_produced",
        "rework_ratio": "nothing_produced",
        "first_pass_yield": "nothing_produced",
        "industry_ooe": "no_observed_operation_time",
    }


def test_kpis_when_nothing_was_made_give_an_oee_of_zero() -> None:
    found = kpis(times(producing=1800 * S, down=1800 * S), 0, None, Definition(S))
    zero = {name for name, value in found.values.items() if value == 0}
    assert zero == {
        "effectiveness", "throughput_rate_per_h", "setup_rate", *EFFORT,
    }  # fmt: skip
    assert without_failures(found.reasons) == dict.fromkeys(
        ("quality_ratio", "scrap_ratio", "rework_ratio", "first_pass_yield"), "nothing_produced"
    )


@pytest.mark.parametrize(
    ("produced", "good", "rework", "planned", "reasons"),
    [
        (10, 9, 0, None, dict.fromkeys(("effectiveness", *EFFORT), "no_planned_run_time")),
        (
            10, None, 0, S,
            dict.fromkeys(("quality_ratio", *EFFORT, "first_pass_yield"), "good_not_counted")
            | {"scrap_ratio": "scrap_not_counted"},
        ),
        (
            None, 9, 0, S,
            dict.fromkeys(
                ("effectiveness", "quality_ratio", "throughput_rate_per_h", *EFFORT,
                 "scrap_ratio", "rework_ratio", "first_pass_yield"),
                "produced_not_counted",
            ),
        ),
        (
            10, -1, 0, S,
            dict.fromkeys(("quality_ratio", *EFFORT, "scrap_ratio", "first_pass_yield"), "corrected_below_zero"),
        ),
        (10, 9, None, S, dict.fromkeys(("rework_ratio", "first_pass_yield"), "rework_not_counted")),
        (10, 9, -1, S, dict.fromkeys(("rework_ratio", "first_pass_yield"), "corrected_below_zero")),
        (10, 3, 4, S, {"first_pass_yield": "rework_exceeds_good"}),
    ],
)  # fmt: skip
def test_kpis_that_lack_something_are_null_and_say_what(
    produced: int | None, good: int | None, rework: int | None, planned: int | None, reasons: dict[str, str]
) -> None:
    found = kpis(times(producing=60 * S), produced, good, Definition(planned), rework)
    assert without_failures(found.reasons) == reasons
    assert {name for name, value in found.values.items() if value is None} == set(found.reasons)


def test_kpis_over_one_are_kept_and_flagged() -> None:
    found = kpis(times(producing=60 * S), 90, 90, Definition(2 * S))
    assert (found.values["effectiveness"], found.values["oee_index"]) == (3.0, 3.0)
    assert found.flags == [f"{name}_over_1" for name in ("effectiveness", *EFFORT)]


def test_ratio_of_integers_beyond_doubles_is_exact() -> None:
    assert ratio(10**30 + 1, 2 * 10**30) == 0.5
    assert ratio(1, 2_000_000) == 0.000001
    assert ratio(-1, 3) == -0.333333


@given(
    spent=st.fixed_dictionaries({state: st.integers(0, 10**14) for state in STATES}),
    produced=st.integers(0, 10**20),
    rework=st.none() | st.integers(0, 10**20),
    scrap=st.integers(0, 10**20),
    planned=st.none() | st.integers(1, 10**12),
    counts_as=st.sampled_from(["availability", "effectiveness"]),
)
def test_kpis_of_anything_are_within_bounds_and_multiply(
    spent: dict[str, int], produced: int, rework: int | None, scrap: int, planned: int | None, counts_as: str
) -> None:
    good = max(0, produced - scrap)
    definition = Definition(planned, short_stop_counts_as=counts_as)  # type: ignore[arg-type]
    found = kpis(spent, produced, good, definition, rework)
    assert {name for name, value in found.values.items() if value is None} == set(found.reasons)
    assert list(found.values) == list(KPIS)
    for name in ("technical_efficiency", "setup_rate", "utilization_efficiency", "scrap_ratio", "first_pass_yield"):
        assert 0 <= (found.values[name] or 0) <= 1, name
    teep, ooe = found.values["industry_teep"], found.values["industry_ooe"]
    availability, effectiveness, quality, oee, *_ = found.values.values()
    if None not in (teep, ooe, oee):
        assert teep is not None
        assert ooe is not None
        assert oee is not None
        assert teep <= ooe <= oee <= (found.values["nee_index"] or oee)
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


def test_sums_without_time_to_divide_by_are_still_numbers_and_without_a_plan_are_null() -> None:
    stopped = kpis(times(not_scheduled=H), 10, 9, Definition(S)).sums
    assert (stopped["busy_s"], stopped["planned_run_produced_s"], stopped["planned_run_good_s"]) == (0, 10 * S, 9 * S)
    unplanned = kpis(times(producing=H), 10, None, Definition()).sums
    assert [name for name, amount in unplanned.items() if amount is None] == [
        "planned_run_produced_s", "planned_run_good_s", "good", "rework"
    ]  # fmt: skip


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
