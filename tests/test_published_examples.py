"""Published worked examples, from readings to records: `cases/published_*` say where each comes from, what it gives
and what it prints.

`example.json` of a case has what is read: either `readings` (tag, time, value), or `days`, each a start, spans of
minutes with their state, and the parts made in them, spread evenly over the time of producing. `records` and
`rolled_up` have what is printed, in percent as text with its digits; `cut` names those that the source cut where it
should have rounded, or multiplied from rounded factors.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edge_agent.cli import app

EXAMPLES = sorted((Path(__file__).parent / "cases").glob("published_*/"))
CODES = {"producing": 1, "delay": 2, "down": 3, "setup": 4, "planned_stop": 5, "idle": 6}
FACTORS = {
    "availability": ("run_s", "busy_s"),
    "effectiveness": ("planned_run_produced_s", "run_s"),
    "quality_ratio": ("good", "produced"),
    "oee_index": ("planned_run_good_s", "busy_s"),
    "industry_teep": ("planned_run_good_s", "observed_s"),
    "utilization": ("busy_s", "observed_s"),
    "availability_loss": ("setup_s", "busy_s"),
}
"""How records add up: sums over sums, as `docs/records.md` says; and two names of the sources."""
Reading = tuple[str, datetime, str]


def whole_day(day: dict[str, Any]) -> Iterator[Reading]:
    """What a status and the counters read at each change and each minute, and just before a change."""
    producing_s = sum(round(60 * minutes) for minutes, state in day["spans_min"] if state == "producing")
    start, ran_s = datetime.fromisoformat(day["start"]), 0
    for minutes, state in day["spans_min"]:
        length_s = round(60 * minutes)
        for second in sorted({*range(0, length_s, 60), length_s - 1}):
            # All parts of a span are there one second before its end.
            run_s = ran_s + (second if second < length_s - 1 else length_s) * (state == "producing")
            time = start + timedelta(seconds=second)
            yield "plc.status", time, str(CODES[state])
            for tag in day["before"]:
                made = day[tag] * run_s // producing_s if producing_s else 0
                yield f"plc.{tag}", time, str(day["before"][tag] + made)
        ran_s += length_s * (state == "producing")
        start += timedelta(seconds=length_s)


def readings(example: dict[str, Any]) -> Iterator[Reading]:
    for tag, time, value in example.get("readings", ()):
        yield tag, datetime.fromisoformat(time), value
    before = {"produced": 184_467, "scrap": 65_000, "rework": 900}
    for day in example.get("days", ()):
        before = {tag: count for tag, count in before.items() if tag in day}
        yield from whole_day(day | {"before": before})
        before = {tag: count + day[tag] for tag, count in before.items()}


def as_csv(example: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("tag", "time", "value", "quality"))
    for tag, time, value in readings(example):
        writer.writerow((tag, f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}", value, "good"))
    return text.getvalue()


@cache
def tried(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The example, and the data of the production records that the verb prints."""
    example = json.loads((folder / "example.json").read_text())
    arguments = ["backtest", str(folder / "config"), "-", "--hold", "--until", example["until"]]
    result = CliRunner().invoke(app, arguments, input=as_csv(example))
    assert result.exit_code == 0, (result.output, result.exception)
    said = [json.loads(line) for line in result.stdout.splitlines()]
    return example, [one["data"] for one in said if one["type"] == "production"]


def agrees(found: Fraction, printed: str, cut: bool) -> bool:
    """Whether a number in percent has these digits: rounded to the nearest, or with `cut` to the next lower one."""
    unit = Fraction(1, 10 ** len(printed.partition(".")[2]))
    difference = found - Fraction(printed)
    return 0 < difference < unit if cut else abs(difference) <= unit / 2


def ratio(records: list[dict[str, Any]], name: str) -> Fraction:
    above, below = (sum((Fraction(str(one["sums"][part])) for one in records), Fraction()) for part in FACTORS[name])
    return 100 * above / below


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_records_of_a_published_example_have_its_printed_digits(folder: Path) -> None:
    example, found = tried(folder)
    by_key = {(one["window"], one["start"]): one for one in found}
    for wanted in example["records"]:
        record = by_key[wanted["window"], wanted["start"]]
        for name, printed in wanted["percent"].items():
            value = Fraction(str(record["kpi"][name])) * 100
            assert agrees(value, printed, name in wanted.get("cut", ())), (name, float(value), printed)
        for part in ("time_s", "quantity"):
            expected = wanted.get(part, {})
            assert {name: record[part][name] for name in expected} == expected
        assert record["completeness"]["complete"] is True


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_records_of_a_published_example_add_up_to_its_printed_digits(folder: Path) -> None:
    example, found = tried(folder)
    wanted = example.get("rolled_up")
    if wanted is None:
        assert example["records"], "each example prints something"
        return
    chosen = [
        one for one in found if (one["window"], one["shift"]) == (wanted["window"], wanted.get("shift", one["shift"]))
    ]
    assert len(chosen) == wanted["records"]
    for name, printed in wanted["percent"].items():
        value = ratio(chosen, name)
        assert agrees(value, printed, name in wanted.get("cut", ())), (name, float(value), printed)
    for name, total in wanted["sums"].items():
        assert sum(one["sums"][name] for one in chosen) == total


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_published_example_names_its_source_and_its_parts_are_all_there(folder: Path) -> None:
    example, found = tried(folder)
    assert "\nSource: " in (folder / "README.md").read_text()
    smallest = found[0]["window"]
    produced = sum(one["quantity"]["produced"] for one in found if one["window"] == smallest)
    counts = [int(value) for tag, _, value in readings(example) if tag == "plc.produced"]
    assert produced == counts[-1] - counts[0]
    assert all(sum(Fraction(str(s)) for s in one["time_s"].values()) == length_s(one) for one in found)


def length_s(record: dict[str, Any]) -> float:
    start, end = (datetime.fromisoformat(record[edge]) for edge in ("start", "end"))
    return (end - start).total_seconds()
