"""From readings to rows: report by exception, refresh, deadband, time, loss."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import START, S, device

from edge_agent.contract import Quality, Reading, Value
from edge_agent.intake import Intake, TagState, converted
from edge_agent.listing import readings_page, tag_as_read
from edge_agent.store import Row, Store
from edge_agent.store.values import pack

REFRESH = 60 * S


class Bench:
    """One tag and its intake."""

    def __init__(self, **settings: Any) -> None:
        self.tag = device(**settings).tags[0]
        state = TagState(self.tag, 1, machine=True, refresh_ns=REFRESH, max_skew_ns=2 * S)
        self.intake = Intake({self.tag: state})

    def take(self, value: Value, at: float, time: int | None = None, **rest: Any) -> list[Row]:
        return self.intake.accept([Reading(self.tag, time, value, **rest)], START + round(at * S))


def test_intake_stores_a_change_and_not_a_repeat() -> None:
    bench = Bench()
    assert [row[2] for row in bench.take(1, 0)] == [1]
    assert bench.take(1, 1) == []
    assert [row[2] for row in bench.take(2, 2)] == [2]


def test_intake_stores_again_when_the_refresh_is_due() -> None:
    bench = Bench()
    bench.take(1, 0)
    assert bench.take(1, 59.9) == []
    assert len(bench.take(1, 60)) == 1
    assert bench.take(1, 61) == []


def test_intake_stores_a_change_of_quality_or_cause() -> None:
    bench = Bench()
    bench.take(1, 0)
    assert len(bench.take(1, 1, quality=Quality.UNCERTAIN, cause="UncertainLastUsableValue")) == 1
    assert len(bench.take(1, 2, quality=Quality.UNCERTAIN, cause="UncertainSubNormal")) == 1


def test_intake_stores_every_reading_of_a_stream() -> None:
    bench = Bench(store="every")
    assert [len(bench.take("4006381333931", second)) for second in range(3)] == [1, 1, 1]
    assert bench.intake.hold([bench.tag], START + 1_000 * S) == []


def test_intake_scales_and_then_applies_the_deadband_in_scaled_units() -> None:
    bench = Bench(scale=0.1, deadband=0.2)
    assert bench.take(200, 0)[0][2] == 20.0
    assert bench.take(202, 1) == []
    assert bench.take(203, 2)[0][2] == 20.3


def test_intake_deadband_does_not_hide_a_drift() -> None:
    bench = Bench(deadband=1.0)
    stored = [row[2] for step in range(40) for row in bench.take(step * 0.25, step)]
    assert len(stored) > 5
    assert max(abs(step * 0.25 - min(stored, key=lambda kept: abs(kept - step * 0.25))) for step in range(40)) <= 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_intake_number_that_is_none_is_bad(value: float) -> None:
    _, _, stored, quality, cause, *_ = Bench().take(value, 0)[0]
    assert (stored, quality, cause) == (None, 2, "not_a_number")


def test_intake_uses_the_devices_time_within_the_skew_and_else_the_time_of_receipt() -> None:
    bench = Bench()
    near, far = START - S, START - 3 * S
    assert bench.take(1, 0, near)[0][1:6:4] == (near, START)
    assert bench.take(2, 1, far)[0][1:6:4] == (START + S, None)
    assert bench.intake.states[bench.tag].skew_ns == far - START - S


def test_intake_keeps_what_the_devices_clocks_said_whichever_time_is_used() -> None:
    bench = Bench()
    near, far = START - S, START - 3 * S
    assert bench.take(1, 0, near, server_time=near + 5)[0][7:] == (0, 5)
    assert bench.take(2, 1, far, server_time=far + 5)[0][7:] == (far - START - S, far + 5 - START - S)
    assert bench.take(3, 2)[0][7:] == (None, None)
    assert bench.take(4, 3, 2**70, server_time=-(2**70))[0][7:] == (None, None), "no column could hold these"
    assert bench.intake.hold([bench.tag], START + 70 * S)[0][7:] == (None, None), "it is ours, not the device's"
    assert bench.intake.lost([bench.tag], START + 71 * S, "device_offline")[0][7:] == (None, None)


def test_times_of_the_device_are_listed_from_the_store_and_from_what_was_read_last(tmp_path: Path) -> None:
    bench, at = Bench(), START - S
    with Store(tmp_path) as store:
        store.begin(START)
        store.register([(bench.tag.name, True)])
        store.append(bench.take(1, 0, at, server_time=at + S // 2) + bench.take(2, 2), START + 2 * S)
        items, _ = readings_page(store, {}, 0)
    times = [(item["time"], item["source_time"], item["server_time"], item["received"]) for item in items]
    assert times == [
        ("2026-11-18T11:06:39Z", "2026-11-18T11:06:39Z", "2026-11-18T11:06:39.500Z", "2026-11-18T11:06:40Z"),
        ("2026-11-18T11:06:42Z", None, None, "2026-11-18T11:06:42Z"),
    ]
    read = tag_as_read(bench.intake.states[bench.tag], START + 3 * S, START + 2 * S)
    assert (read["source_time"], read["server_time"]) == ("2026-11-18T11:06:39Z", "2026-11-18T11:06:39.500Z")
    bench.take(3, 3, 2**70)
    assert tag_as_read(bench.intake.states[bench.tag], START, START)["source_time"] is None, "it cannot be written"


def test_intake_live_reading_never_hides_behind_an_older_row() -> None:
    bench = Bench()
    bench.take(1, 0)
    assert bench.intake.lost([bench.tag], START + 5 * S, "device_offline")[0][1] == START + 5 * S + 1
    assert bench.take(1, 5.5, START + 4 * S)[0][1] == START + round(5.5 * S)


def test_intake_loss_is_one_bad_row_dated_just_after_the_last_poll() -> None:
    bench = Bench()
    bench.take(1, 0)
    _, time, value, quality, cause, *_ = bench.intake.lost([bench.tag], START + 7 * S, "device_offline")[0]
    assert (time, value, quality, cause) == (START + 7 * S + 1, None, 2, "device_offline")
    assert bench.intake.lost([bench.tag], START + 9 * S, "device_offline") == []


def test_intake_value_after_a_loss_is_stored_even_when_it_is_the_same() -> None:
    bench = Bench()
    bench.take(1, 0)
    bench.intake.lost([bench.tag], START + S, "device_offline")
    assert [row[2] for row in bench.take(1, 2)] == [1]


def test_intake_link_without_news_holds_what_it_said() -> None:
    bench = Bench()
    bench.take(1, 0)
    assert bench.intake.hold([bench.tag], START + 30 * S) == []
    assert [row[1:4] for row in bench.intake.hold([bench.tag], START + 60 * S)] == [(START + 60 * S, 1, 0)]


def test_intake_scale_of_one_leaves_an_integer_as_it_is() -> None:
    assert Bench(scale=1.0, offset=0.0).take(2**62 + 1, 0)[0][2] == 2**62 + 1


def test_intake_packs_what_sqlite_would_change() -> None:
    bench = Bench()
    assert bench.take(True, 0)[0][2] == b"true"
    assert bench.take((1.5, 2.5), 1)[0][2] == b"[1.5, 2.5]"


@pytest.mark.parametrize(
    ("given", "value", "cause"),
    [
        (np.int64(7), 7, None),
        (np.float32(0.5), 0.5, None),
        (np.float32("nan"), None, "not_a_number"),
        (Quality.UNCERTAIN, 1, None),
        ([1, 2], None, "unsupported_type list"),
        (Decimal(1), None, "unsupported_type Decimal"),
    ],
)
def test_intake_of_what_is_no_value_by_the_contract_is_the_value_it_means_or_bad(
    tmp_path: Path, given: Any, value: Value, cause: str | None
) -> None:
    bench = Bench()
    rows = bench.take(given, 0)
    read = converted(bench.intake.states[bench.tag], Reading(bench.tag, None, given))
    with Store(tmp_path) as store:
        store.register([(bench.tag.name, True)])
        store.append(rows, START)
        (found,) = store.readings.page()
        assert (found.value, found.cause) == (value, cause) == read[::2]
        assert type(found.value) is type(value)


def test_text_and_number_that_sqlite_does_not_take_do_not_hold_up_the_others(tmp_path: Path) -> None:
    values = ("half \udc80 of a pair", 2**64 - 1, -(2**70), "a whole one: \U0001f60a", True, 5)
    with Store(tmp_path) as store:
        store.register([("plc.count", True)])
        rows: list[Row] = [
            (1, START + n, pack(value), 0, "\ud800" if n == 5 else None, None, 1, None, None)
            for n, value in enumerate(values)
        ]
        store.append(rows, START)
        found = store.readings.page()
    assert [each.value for each in found] == ["half ? of a pair", *values[1:]]
    assert found[5].cause == "?"
