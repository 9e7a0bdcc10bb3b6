"""Published records: the example of the design, shapes, bytes, schemas."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import jsonschema
import pytest

from edge_agent import record
from edge_agent.equipment import CAUSES, STATES, CounterRules, StatusMap
from edge_agent.metrics import Definition, kpis
from edge_agent.production import Machine, Present, Tally, WindowData, compute
from edge_agent.shifts import Calendar, Shift

S = 1_000_000_000
SUBJECT = "acme/lyon/press-hall/line-a/press-01"
PARIS = Calendar("Europe/Paris", 360, (Shift.of("early", "mon-fri", "06:00", "14:00", ["09:00-09:15"]),))
PRESS = Machine(
    "press-01",
    SUBJECT,
    StatusMap("plc.status", {1: "producing", 3: "down"}),
    {"plc.status": 63 * S, "plc.count": 63 * S},
    {"produced": (CounterRules("plc.count", Fraction(2)),)},
    Definition(planned_run_time_ns=2_400_000_000),
)
PUBLISHER = record.Publisher("press-hall-gw1", "acme", "lyon", "edge/v1", "0.3.0", "sha256:00")


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp()) * S


def design_window() -> WindowData:
    """The times and counts of the example record in the design."""
    times = dict.fromkeys(STATES, 0) | {
        "producing": 3_010_200_000_000,
        "short_stop": 41 * S,
        "delay": 120 * S,
        "down": 300 * S,
        "planned_stop": 119 * S,
        "unknown": 9_800_000_000,
    }
    missing = dict.fromkeys(CAUSES, 0) | {"device_offline": 9_800_000_000}
    quantities = {"produced": Tally(1200), "good": Tally(1190), "scrap": Tally(10), "rework": None}
    return WindowData(
        at("2026-11-23T06:00:00Z"), at("2026-11-23T07:00:00Z"), times, missing, 0, quantities,
        kpis(times, 1200, 1190, PRESS.definition), (), False, True, (),
        planned_run_time_ns=PRESS.definition.planned_run_time_ns,
    )  # fmt: skip


def production_event(data: dict[str, Any]) -> dict[str, Any]:
    return record.event(
        PUBLISHER, "production", SUBJECT, data, epoch=3, number=184467, sequence=1204,
        time_ns=at("2026-11-23T07:00:05Z") + 120_999_999, clock="synchronized",
    )  # fmt: skip


def valid(kind: str, event: dict[str, Any]) -> dict[str, Any]:
    """The event after its trip over the wire, checked against its schemas."""
    received: dict[str, Any] = json.loads(record.freeze(event))
    for made, instance in ((record.envelope_schema(kind), received), (record.schema(kind), received["data"])):
        jsonschema.Draft202012Validator.check_schema(made)
        jsonschema.Draft202012Validator(made).validate(instance)
    return received


def test_production_data_of_the_design_example_has_its_printed_digits() -> None:
    data = record.production_data(PRESS, PARIS, "1h", design_window())
    printed = {name: json.dumps(data[name]) for name in ("time_s", "quantity", "kpi", "completeness")}
    assert printed == {
        "time_s": '{"producing": 3010.2, "short_stop": 41.0, "delay": 120.0, "down": 300.0, "setup": 0.0, "idle": 0.0, '
        '"planned_stop": 119.0, "not_scheduled": 0.0, "unknown": 9.8}',
        "quantity": '{"produced": 1200, "good": 1190, "scrap": 10, "rework": 0, "unobserved": 0, "quarantined": 0, '
        '"unit": "1", "scrap_by_reason": {}, "rework_by_reason": {}}',
        "kpi": '{"availability": 0.867193, "effectiveness": 0.956747, "quality_ratio": 0.991667, '
        '"oee_index": 0.82277, "throughput_rate_per_h": 1200.0, "nee_index": 0.82277, '
        '"technical_efficiency": 0.867193, '
        '"setup_rate": 0.0, "utilization_efficiency": 0.867193, "scrap_ratio": 0.008333, "rework_ratio": null, '
        '"first_pass_yield": null, "mtbf_h": null, "mttf_h": null, "mttr_h": null, '
        '"industry_ooe": 0.795499, "industry_teep": 0.795499}',
        "completeness": '{"observed_s": 3590.2, "missing_s": {"device_offline": 9.8, "agent_down": 0.0, '
        '"bad_quality": 0.0, "unmapped_state": 0.0, "stale": 0.0, "not_started": 0.0, "misconfigured": 0.0, '
        '"overflow": 0.0}, "uncertain_s": 0.0, "ratio": 0.997278, "complete": false}',
    }


def test_production_data_names_its_fact_its_shift_and_its_day() -> None:
    revision = record.Revision(revisable_until_ns=at("2026-12-07T05:00:00Z"))
    data = record.production_data(PRESS, PARIS, "1h", design_window(), revision)
    assert data["key"] == f"{SUBJECT}/production/1h/2026-11-23T06:00:00Z"
    assert (data["start"], data["end"]) == ("2026-11-23T06:00:00Z", "2026-11-23T07:00:00Z")
    assert (data["shift"], data["production_day"]) == ("early", "2026-11-23")
    assert data["revisable_until"] == "2026-12-07T05:00:00Z"
    assert data["definition"]["planned_run_time_per_item_s"] == 2.4
    assert data["definition"]["short_stop_s"] == 60


def test_event_carries_the_attributes_of_the_design_in_their_order() -> None:
    event = production_event(record.production_data(PRESS, PARIS, "1h", design_window()))
    received = valid("production", event)
    received.pop("data")
    assert list(received.items()) == [
        ("specversion", "1.0"),
        ("id", "press-hall-gw1:3:184467"),
        ("source", "/edge/v1/acme/lyon/_agents/press-hall-gw1"),
        ("type", "edge.production.v1"),
        ("subject", SUBJECT),
        ("time", "2026-11-23T07:00:05.120Z"),
        ("datacontenttype", "application/json"),
        ("dataschema", "urn:edge-agent:schema:production:1"),
        ("sequence", "000000001204"),
        ("epoch", 3),
        ("agentversion", "0.3.0"),
        ("configuration", "sha256:00"),
        ("clock", "synchronized"),
    ]


def test_topics_are_literal_and_stable() -> None:
    subject = PUBLISHER.machine_subject("press-hall", "line-a", "press-01")
    assert subject == SUBJECT
    assert record.production_topic("edge/v1", subject, "1h") == f"edge/v1/{SUBJECT}/production/1h"
    assert record.state_topic("edge/v1", subject) == f"edge/v1/{SUBJECT}/state"
    assert record.agent_topic(PUBLISHER, "status") == "edge/v1/acme/lyon/_agents/press-hall-gw1/status"


def test_revision_carries_what_it_replaces_and_validates() -> None:
    first = record.production_data(PRESS, PARIS, "1h", design_window())
    revision = record.Revision(1, "late_reading", record.previous_of(first), withdrawn=True, final=True)
    second = record.production_data(PRESS, PARIS, "1h", design_window(), revision)
    received = valid("production", production_event(second))["data"]
    assert received["previous"] == {"revision": 0, "quantity": first["quantity"], "time_s": first["time_s"]}


def test_quantity_lists_scrap_by_reason_and_a_revision_of_an_older_version_validates() -> None:
    found = replace(design_window(), by_reason={"scrap": {"dimension/too long": 7, "unclassified": 3}})
    data = record.production_data(PRESS, PARIS, "1h", found)
    received = valid("production", production_event(data))["data"]
    assert received["quantity"]["scrap_by_reason"] == {"dimension/too long": 7, "unclassified": 3}
    assert received["quantity"]["rework_by_reason"] == {}
    older = record.previous_of(data) | {"quantity": dict(data["quantity"])}
    del older["quantity"]["scrap_by_reason"], older["quantity"]["rework_by_reason"]
    valid("production", production_event(data | {"previous": older}))
    with pytest.raises(jsonschema.ValidationError, match="scrap_by_reason"):
        valid("production", production_event(data | {"quantity": older["quantity"]}))


def test_window_across_a_shift_change_has_segments_and_no_shift() -> None:
    start = at("2026-11-23T13:30:00+01:00")
    rows = {"plc.status": [(start, 1, 0, None)], "plc.count": [(start, 5, 0, None), (start + 1900 * S, 9, 0, None)]}
    held = Machine(**{name: getattr(PRESS, name) for name in PRESS.__slots__} | {"hold_ns": {}})
    found = compute(held, PARIS, rows, [(start, start + 3600 * S)], start + 3600 * S)[0]
    data = record.production_data(held, PARIS, "1h", found)
    received = valid("production", production_event(data))["data"]
    assert received["shift"] is None
    assert [(s["shift"], s["start"], s["quantity"]["produced"]) for s in received["segments"]] == [
        ("early", "2026-11-23T12:30:00Z", 0),
        ("off", "2026-11-23T13:00:00Z", 4),
    ]
    not_good = ("quality_ratio", "oee_index", "nee_index", "first_pass_yield", "industry_ooe", "industry_teep")
    assert received["kpi_reason"] == dict.fromkeys(not_good, "good_not_counted") | {
        "scrap_ratio": "scrap_not_counted",
        "rework_ratio": "rework_not_counted",
    } | dict.fromkeys(("mtbf_h", "mttf_h", "mttr_h"), "no_failure")
    assert received["flags"] == ["producing_outside_plan"]


def test_times_in_fractions_of_a_millisecond_still_print_the_window() -> None:
    times = dict.fromkeys(STATES, 0) | {"producing": 3_333_333_333, "delay": 3_333_333_333, "unknown": 3_333_333_334}
    missing = dict.fromkeys(CAUSES, 0) | {"stale": 1_666_666_667, "overflow": 1_666_666_667}
    nothing = dict.fromkeys(("produced", "good", "scrap", "rework"))
    found = WindowData(
        0, 10 * S, times, missing, 0, nothing, kpis(times, None, None, Definition()), (), False, True, ()
    )
    data = record.production_data(PRESS, Calendar(), "10s", found)
    assert round(sum(Fraction(str(value)) for value in data["time_s"].values()), 9) == 10
    missing_s = data["completeness"]["missing_s"].values()
    assert sum(Fraction(str(value)) for value in missing_s) == Fraction(str(data["time_s"]["unknown"]))


def test_freeze_of_large_integers_writes_strings_and_keeps_small_ones() -> None:
    assert record.freeze({"a": 2**53, "b": 2**53 + 1, "c": [-(2**64), True], "d": "é"}) == (
        b'{"a":9007199254740992,"b":"9007199254740993","c":["-18446744073709551616",true],"d":"\xc3\xa9"}'
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_freeze_of_what_json_cannot_say_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        record.freeze({"value": value})


def test_gap_state_and_status_validate_against_their_schemas() -> None:
    gap = record.gap_data(
        SUBJECT, "10s", 0, 60 * S, "agent_down", machine="press-01", window="10s",
        topic=record.production_topic("edge/v1", SUBJECT, "10s"), count=6, produced=2**60,
    )  # fmt: skip
    state = record.state_data(PRESS, Present("unknown", 5 * S, "stale"), "early", design_window())
    status = record.status_data("offline", 0, version="0.3.0", reason="connection_lost", misconfigured={"m": "no tag"})
    common: dict[str, Any] = {"epoch": 1, "number": 1, "time_ns": 0, "clock": "unsynchronized"}
    received = valid("gap", record.event(PUBLISHER, "gap", SUBJECT, gap, sequence=1, **common))
    assert received["data"]["key"] == f"{SUBJECT}/gap/10s/1970-01-01T00:00:00Z"
    assert received["data"]["produced"] == str(2**60)
    received = valid("state", record.event(PUBLISHER, "state", SUBJECT, state, sequence=None, **common))
    assert received["data"]["counts"]["produced"] == 1200
    assert "sequence" not in received
    valid("status", record.event(PUBLISHER, "status", PUBLISHER.subject, status, sequence=None, **common))


def test_schema_refuses_a_record_that_lacks_a_state() -> None:
    data = record.production_data(PRESS, PARIS, "1h", design_window())
    del data["time_s"]["unknown"]
    with pytest.raises(jsonschema.ValidationError, match="unknown"):
        jsonschema.validate(data, record.schema("production"))
