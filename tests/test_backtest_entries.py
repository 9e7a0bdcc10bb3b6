"""`edge-agent backtest --entries`: what people told meanwhile, at its time; and what was exported can be fed back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_backtest import records, tried
from typer.testing import Result

from edge_agent.contract import EdgeAgentError

CASE = Path(__file__).parent / "cases" / "scrap_and_reason_are_told_afterwards"
Entry = dict[str, Any]
SCRAP: Entry = {
    "machine": "press", "kind": "scrap", "start": "2026-11-23T12:50:00Z", "by": "ann", "body": {"count": 5}
}  # fmt: skip
NOTE: Entry = SCRAP | {"kind": "note", "body": {"text": "a new die"}}


def arguments(folder: Path, *told: Entry | str) -> list[str]:
    lines = [one if isinstance(one, str) else json.dumps(one) for one in told]
    (folder / "told.jsonl").write_text("\n".join(lines))
    return [str(CASE / "config"), str(CASE / "readings.csv"), "--entries", str(folder / "told.jsonl")]


def said(folder: Path, *told: Entry | str, options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    return records(*arguments(folder, *told), *options)


def refused(folder: Path, *told: Entry | str) -> str:
    result: Result = tried(*arguments(folder, *told))
    assert isinstance(result.exception, EdgeAgentError), result.output
    assert result.stdout == ""
    return str(result.exception).replace(str(folder), "")


def entries(found: list[dict[str, Any]]) -> list[Entry]:
    return [one["data"] for one in found if one["type"] == "entry"]


def hour(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The last word on the hour from twelve."""
    said_of_it: list[dict[str, Any]] = [
        one["data"] for one in found if one["data"]["key"].endswith("/1h/2026-11-23T12:00:00Z")
    ]
    return said_of_it[-1]


def test_entry_without_made_is_taken_at_the_time_that_it_speaks_of(tmp_path: Path) -> None:
    (entry,) = entries(said(tmp_path, SCRAP))
    assert (entry["made"], entry["start"], entry["by"]) == (SCRAP["start"], SCRAP["start"], "ann")


def test_entries_are_taken_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    told = [SCRAP | {"made": f"2026-11-23T13:0{minute}:00Z", "body": {"count": minute}} for minute in (5, 2, 3)]
    found = entries(said(tmp_path, *told, "", options=("--revisions",)))
    assert [(one["entry"], one["body"]["count"]) for one in found] == [(1, 2), (2, 3), (3, 5)]
    assert [one["made"] for one in found] == [f"2026-11-23T13:0{minute}:00Z" for minute in (2, 3, 5)]


def test_entry_that_is_told_the_day_after_the_last_reading_corrects_all_the_same(tmp_path: Path) -> None:
    found = said(tmp_path, SCRAP | {"made": "2026-11-24T09:00:00Z"})
    assert hour(found)["quantity"]["scrap"] == 5
    assert hour(found)["revised_because"] == "entry"
    assert entries(found)[0]["made"] == "2026-11-24T09:00:00Z"


def test_entry_from_before_the_first_reading_is_taken(tmp_path: Path) -> None:
    early = {"kind": "job-start", "start": "2026-11-23T11:50:00Z", "body": {"job": "WO-1"}}
    assert hour(said(tmp_path, SCRAP | early))["job"] == "WO-1"


def test_reason_without_start_is_of_the_stop_that_went_on_when_it_was_made(tmp_path: Path) -> None:
    reason = {"machine": "press", "kind": "reason", "made": "2026-11-23T12:20:30Z", "body": {"reason": "guard open"}}
    found = said(tmp_path, reason)
    (stop,) = [one["data"] for one in found if one["type"] == "downtime"]
    assert (stop["reason"], stop["reason_by"], stop["person"]["by"]) == ("guard open", "person", "entries")


def test_last_revisions_are_the_same_truth_as_all_of_them(tmp_path: Path) -> None:
    told = (SCRAP, SCRAP | {"kind": "correction", "made": "2026-11-23T13:08:00Z", "body": {"count": -7}})
    last, every = said(tmp_path, *told), said(tmp_path, *told, options=("--revisions",))
    for name in ("quantity", "time_s", "kpi", "downtime"):
        assert hour(last)[name] == hour(every)[name]
    assert hour(last)["quantity"]["produced"] == 3_203


def test_exported_entries_fed_back_give_the_same_records(tmp_path: Path) -> None:
    first = said(
        tmp_path,
        NOTE | {"made": "2026-11-23T12:55:00.123456789Z"},
        SCRAP | {"made": "2026-11-23T13:01:00Z", "start": "2026-11-23T12:50:00.25Z"},
        NOTE | {"kind": "withdraw", "made": "2026-11-23T13:02:00Z", "body": {"entry": 2}},
        SCRAP | {"kind": "reason", "made": "2026-11-23T13:02:30Z", "body": {"reason": "guard open"}},
        options=("--revisions",),
    )
    shapes = (
        lambda data: data,
        lambda data: {"type": "entry", "data": data},
        lambda data: {"topic": "t", "event": {"type": "edge.entry.v1", "data": data}},
    )
    for shape in shapes:
        again = said(tmp_path, *(shape(data) for data in entries(first)), options=("--revisions",))
        assert again == first


def test_withdrawal_in_a_part_of_an_export_is_of_the_entry_that_it_meant(tmp_path: Path) -> None:
    told = [
        SCRAP | {"entry": 41, "made": "2026-11-23T13:01:00Z", "body": {"count": 5}},
        SCRAP | {"entry": 42, "made": "2026-11-23T13:01:30Z", "body": {"count": 70}},
        SCRAP | {"entry": 43, "kind": "withdraw", "made": "2026-11-23T13:02:00Z", "body": {"entry": 42}},
    ]
    assert hour(said(tmp_path, *told))["quantity"]["scrap"] == 5
    assert refused(tmp_path, told[0], told[2]) == (
        "/told.jsonl:2: it withdraws entry 42, which is not told before it in this file"
    )


def test_withdrawal_in_a_file_without_numbers_counts_the_entries_in_their_order(tmp_path: Path) -> None:
    told = [SCRAP | {"body": {"count": 5}}, SCRAP | {"body": {"count": 70}}]
    withdrawal = {"machine": "press", "kind": "withdraw", "made": "2026-11-23T13:02:00Z", "body": {"entry": 2}}
    assert hour(said(tmp_path, *told, withdrawal))["quantity"]["scrap"] == 5


def test_file_that_a_windows_editor_wrote_is_read(tmp_path: Path) -> None:
    assert len(entries(said(tmp_path, "\ufeff" + json.dumps(SCRAP) + "\r"))) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (SCRAP | {"machine": "pres"}, "/told.jsonl:2: there is no machine 'pres'; did you mean 'press'?"),
        (SCRAP | {"body": {"count": 0}}, "/told.jsonl:2: 0 is no number of items"),
        (SCRAP | {"made": "2026-11-23T12:30:00Z"}, "/told.jsonl:2: 2026-11-23T12:50:00Z is still to come"),
        (SCRAP | {"made": "2027-01-30T12:30:00Z"}, "and what was before that is final"),
        (SCRAP | {"kind": "gossip"}, "/told.jsonl:2: 'gossip' is no kind of entry; there are: reason"),
        (SCRAP | {"start": "12:50"}, "/told.jsonl:2: '12:50' is not a time such as 2026-11-23T07:00:00Z; a line is"),
        (SCRAP | {"start": None}, "/told.jsonl:2: neither start nor made says when it was; a line is an object with"),
        (SCRAP | {"body": 5}, "/told.jsonl:2: the body of an entry is an object, not 5"),
        ("[1]", "/told.jsonl:2: it is no object; a line is an object with machine"),
        ("scrap 5", "/told.jsonl:2: Expecting value"),
        ('{"type":"production","data":{"start":"2026-11-23T12:50:00Z"}}', "/told.jsonl:2: None is no kind of entry"),
    ],
)
def test_line_that_is_no_entry_is_named_with_file_line_and_cure(
    tmp_path: Path, line: Entry | str, message: str
) -> None:
    assert message in refused(tmp_path, NOTE, line)
