"""A shift report as people get it: whole, with hardly anything known, in the middle of a shift."""

from __future__ import annotations

import copy
import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, Literal

import pytest
from report_data import HOSTILE, at, full, sparse
from rich.console import Console

from edge_agent import record
from edge_agent.cli.report import page, print_report
from edge_agent.cli.report.charts import COLUMNS, coarse
from edge_agent.cli.report.looks import LOOKS, UNCLASSIFIED
from edge_agent.cli.report.model import read, top
from edge_agent.cli.report.words import Zone, duration, number, percent
from edge_agent.contract import EdgeAgentError

RUNNING_MIN = 207.0
SHIFTS = {"full": full(), "running": full(RUNNING_MIN), "sparse": sparse()}
ALONE = {"start": at(0), "end": at(480)}
"""A shift of which nobody knows more than when it is."""


class Parsed(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts).replace("\u00a0", " ")


def shown(data: dict[str, Any], width: int, *, colour: bool = False) -> str:
    file = io.StringIO()
    system: Literal["truecolor", "auto"] = "truecolor" if colour else "auto"
    print_report(data, Console(file=file, width=width, force_terminal=colour, color_system=system, _environ={}))
    return file.getvalue()


@pytest.mark.parametrize("data", [*SHIFTS.values(), ALONE], ids=[*SHIFTS, "alone"])
def test_page_of_any_shift_is_well_formed_and_names_no_address(data: dict[str, Any]) -> None:
    text = page(data)
    parsed = Parsed(text)
    assert parsed.open == []
    assert not parsed.tags & {"script", "link", "img", "image", "iframe", "object", "embed", "base", "a", "metadata"}
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in re.sub(r"url\(#\w+\)", "", text)
    assert "//" not in re.sub(r"//+", "", text)
    assert not [value for name, value in parsed.attributes if name in ("src", "href") and not value.startswith("#")]
    assert text.count("<!DOCTYPE") == 1
    assert ("http-equiv", "Content-Security-Policy") in parsed.attributes


def test_page_refers_only_to_names_in_it_and_each_is_there_once() -> None:
    parsed = Parsed(page(SHIFTS["full"]))
    names = [value for name, value in parsed.attributes if name == "id"]
    assert len(names) == len(set(names))
    used = {value[1:] for name, value in parsed.attributes if name == "href"}
    used |= {name for _, value in parsed.attributes for name in re.findall(r"url\(#(\w+)\)", value)}
    assert used
    assert used <= set(names)


def test_page_shows_what_people_wrote_as_text_and_nothing_else() -> None:
    text = page(SHIFTS["full"])
    parsed = Parsed(text)
    assert "<script" not in text
    assert "<b>3" not in text
    assert parsed.texts.count(HOSTILE) == 3  # the stop, the product of a job, the note
    assert any(part.startswith("<script>alert") and part.endswith("…") for part in parsed.texts)  # the chart
    assert "operator <b>3</b>" in parsed.texts


def test_page_of_a_machine_with_hostile_names_is_escaped() -> None:
    hostile = full() | {"machine": HOSTILE, "subject": HOSTILE, "shift": HOSTILE, "production_day": HOSTILE}
    hostile["states"] = [{"start": at(0), "end": at(480), "state": HOSTILE}]
    hostile["window"] |= {"flags": [HOSTILE], "time_s": {HOSTILE: 1.0}, "kpi_reason": {"oee_index": HOSTILE}}
    hostile["window"]["kpi"] = {}
    hostile["window"]["completeness"] |= {"missing_s": {HOSTILE: 3.0, '"onload="': 2.0}}
    text = page(hostile)
    assert "<script" not in text
    assert {name for name, _ in Parsed(text).attributes} & {"onload", "onclick"} == set()


def test_page_has_the_figures_the_charts_and_what_is_missing() -> None:
    parsed = Parsed(page(SHIFTS["full"]))
    for word in (
        "early shift", "Monday 23 November 2026, 06:00–14:00 Europe/Paris (UTC+01:00)", "81.2 %", "10 744",
        "1 403 behind", "not counted", "hydraulics/low pressure", UNCLASSIFIED, "short stops", "4711-010",
        "4 min 10 s not observed: device offline. 99.13 % of the scheduled time was observed.",
        "118 items made while nobody looked: counted, but in no ratio.",
        "3 min 45 s of downtime in 2 stops without a reason.", "Not counted: rework.", "dimension/too long",
    ):  # fmt: skip
        assert word in parsed.text, word
    assert sum(name == "aria-label" for name, _ in parsed.attributes) == 4
    assert "pattern" in parsed.tags  # unknown time is hatched


def test_page_of_a_shift_that_runs_says_so_and_shows_the_open_stop() -> None:
    parsed = Parsed(page(SHIFTS["running"]))
    assert "The shift still runs: figures so far, until 09:27." in parsed.text
    assert "open" in parsed.texts
    assert "\u00a0now" in parsed.texts
    assert "still runs" not in Parsed(page(SHIFTS["full"])).text


def test_page_of_an_unknown_shift_says_what_is_not_known() -> None:
    parsed = Parsed(page(SHIFTS["sparse"]))
    for word in (
        "no shift", "not counted", "no goal", "not recorded", "no planned run time per item", "No goal is set.",
        "8 h not observed: the agent did not run 8 h, device offline 9.8 s.", "no OEE", "Stops are not recorded.",
        "Not counted: produced, good, scrap, rework.", "not observed",
    ):  # fmt: skip
        assert word in parsed.text, word
    assert "pattern" in parsed.tags


def test_page_of_the_same_shift_has_the_same_bytes_in_another_process() -> None:
    code = "import report_data, edge_agent.cli.report as report; print(report.page(report_data.full()), end='')"
    pages = {
        subprocess.run(
            [sys.executable, "-X", "utf8", "-c", code], check=True, capture_output=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path), "TZ": zone},
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }  # fmt: skip
    assert pages == {page(full()).encode()}


def test_page_of_a_shift_of_thousands_of_states_stays_small() -> None:
    data = full()
    data["states"] = [
        {"start": at(0.12 * place), "end": at(0.12 * place + 0.12), "state": tuple(LOOKS)[place * 7 % 9]}
        for place in range(4000)
    ]
    assert len(coarse(read(data))) <= COLUMNS
    assert len(page(data).encode()) < 300_000


def test_page_without_the_drawing_library_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("charts", "drawing"):
        monkeypatch.delitem(sys.modules, f"edge_agent.cli.report.{name}", raising=False)
        monkeypatch.delattr(sys.modules["edge_agent.cli.report"], name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EdgeAgentError, match=r"^[^\n]*pip install 'edge-agent\[report\]'$"):
        page(SHIFTS["full"])
    assert "OEE 81.2 %" in shown(SHIFTS["full"], 80)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", SHIFTS)
def test_terminal_report_fits_its_width_without_colour_codes(name: str, width: int) -> None:
    text = shown(SHIFTS[name], width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    assert "\u00a0" not in text
    for title in ("States", "Time by state", "Time lost by reason", "Longest stops", "Hours", "What is missing"):
        assert title in text


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_report_has_the_figures(width: int) -> None:
    text = shown(SHIFTS["full"], width)
    for word in (
        "OEE 81.2 % = availability 86.3 % × effectiveness 95.2 % × quality 98.9 %", "10 744 · 98.9 % of produced",
        "1 403 behind · goal 1 600 an hour, 12 267 expected by now", "D ▁ down", "37 min 45 s", "? ░ not observed",
        "unclassified", "06:00–07:00", "84.2 %", "Pump 2 replaced", "118 items made while nobody looked",
    ):  # fmt: skip
        assert word in text, word
    assert "…" not in "".join(line for line in text.splitlines() if re.match(r"\d\d:\d\d–", line))
    assert ("Time by state" in text.split("Time lost by reason")[0].splitlines()[-1]) == (width == 120)


def test_terminal_timeline_reads_without_colour_and_ends_at_the_time_of_the_report() -> None:
    lines = shown(SHIFTS["running"], 80).splitlines()
    strip, letters, hours = lines[lines.index("States") + 1 :][:3]
    assert len(strip) == math.ceil(74 * RUNNING_MIN / 480)
    assert {"█", "▁", "▄", "▃"} == set(strip)
    assert [letters[place] for place, mark in enumerate(strip) if mark == "▁"] == ["D"] * strip.count("▁")
    assert {"s", "D", "C", "W"} <= set(letters)
    assert hours.startswith("06:00")
    assert hours.endswith("14:00")


def test_terminal_report_has_the_colours_of_the_page() -> None:
    text = shown(SHIFTS["full"], 120, colour=True)
    html = page(SHIFTS["full"]).lower()
    for state in ("producing", "short_stop", "delay", "down", "setup", "planned_stop"):
        colour = LOOKS[state].colour
        red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
        assert f"38;2;{red};{green};{blue}" in text, state
        assert colour.lower() in html, state


def test_terminal_report_in_an_encoding_without_blocks_is_letters() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    print_report(SHIFTS["full"], Console(file=file, width=80))
    text = raw.getvalue().decode("ascii")
    assert "availability 86.3 % x effectiveness" in text
    assert re.search(r"^#+D#+D+#+", text, re.MULTILINE)


def test_terminal_report_passes_on_no_control_characters() -> None:
    data = full()
    data["notes"] = [{"time": at(1), "by": "x\x1b]0;title\x07", "text": "one\x1b[2J\ntwo [red]three[/red]"}]
    text = shown(data, 120)
    assert "one [2J two [red]three[/red]" in text
    assert not [letter for letter in text if not letter.isprintable() and letter != "\n"]


def test_terminal_report_of_a_shift_without_anything_says_so() -> None:
    text = shown(ALONE, 80)
    for word in ("no goal", "not counted", "not recorded", "There are no figures for this shift.", "OEE – (not known)"):
        assert word in text, word


def test_page_of_reasons_that_look_like_formulas_shows_them_as_they_are() -> None:
    data = full()
    reasons = {"$_{^$": 60.0, r"$\frac{$": 50.0, "100 % $": 40.0}
    data["window"]["downtime"] = {"stops": 3, "by_reason_s": reasons}
    assert set(reasons) <= set(Parsed(page(data)).texts)


def test_stop_that_a_person_planned_is_no_loss_and_one_not_seen_whole_lasted_longer() -> None:
    data = full() | {"downtime": [SHIFTS["full"]["downtime"][0] | {"planned": True, "seen_whole": False}]}
    del data["window"]["downtime"]
    (stop,) = read(data).stops
    assert (stop.lost_s, stop.state, stop.lasted.replace("\u00a0", " ")) == (0.0, "planned_stop", "≥ 5 min")
    assert sum(loss.seconds for loss in read(data).losses if loss.kind != "short_stop") == 0.0


def test_work_of_a_shift_of_one_job_comes_from_the_whole_shift() -> None:
    data = full()
    data["window"] |= {"segments": [], "job": "4711-010", "product": "cup"}
    assert [row[:3] for row in read(data).work] == [("4711-010", "cup", "10\u00a0864")]


def test_sample_shift_has_the_fields_of_records() -> None:
    schema = record.schema("production")["properties"]
    window = SHIFTS["full"]["window"]
    assert set(window) <= set(schema)
    for name in ("kpi", "time_s", "quantity", "completeness", "downtime"):
        assert set(window[name]) <= set(schema[name]["properties"]), name


def places(found: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The path to every field in it; of a list, only into its first item."""
    if isinstance(found, dict):
        for name, inner in found.items():
            yield (*path, name)
            yield from places(inner, *path, name)
    elif isinstance(found, list) and found:
        yield from places(found[0], *path, 0)


def test_report_with_any_one_field_null_is_still_printed() -> None:
    whole = full()
    whole |= {name: whole[name][:3] for name in ("hours", "states", "downtime", "counts")}
    paths = [path for path in places(whole) if path not in (("start",), ("end",))]
    assert len(paths) > 100
    for *path, last in paths:
        data = copy.deepcopy(whole)
        inner: Any = data
        for name in path:
            inner = inner[name]
        inner[last] = None
        assert "What is missing" in shown(data, 80), (*path, last)


def test_losses_always_end_with_the_unclassified_and_fold_the_small_ones() -> None:
    data = full()
    data["window"]["downtime"] = {"stops": 20, "by_reason_s": {f"r{place}": 100.0 - place for place in range(20)}}
    losses = read(data).losses
    assert losses[-1].reason == UNCLASSIFIED
    assert losses[-1].seconds == 0.0
    assert losses[0].reason == "short stops"
    folded = top(losses, 8)
    assert len(folded) == 8
    assert folded[-1].reason == UNCLASSIFIED
    assert folded[-2].reason == "15 other reasons"
    assert sum(loss.seconds for loss in folded) == pytest.approx(sum(loss.seconds for loss in losses))


def test_losses_without_sums_come_from_the_stops() -> None:
    data = full()
    del data["window"]["downtime"]
    data["window"]["time_s"]["short_stop"] = 0.0
    assert [(loss.reason, loss.seconds, loss.stops) for loss in read(data).losses] == [
        ("hydraulics/low pressure", 1560.0, 2), (HOSTILE, 610.0, 1), ("tool/broken ejector", 480.0, 1),
        ("starved", 215.0, 2), (UNCLASSIFIED, 225.0, 2),
    ]  # fmt: skip


def test_timeline_with_a_hole_shows_it_as_unknown() -> None:
    data = ALONE | {"states": [{"start": at(60), "end": at(120), "state": "producing"}], "now": at(180)}
    hour = 3600.0
    report = read(data)
    pieces = [(piece.start - report.start, piece.end - report.start, piece.state) for piece in report.pieces]
    assert pieces == [(0, hour, "unknown"), (hour, 2 * hour, "producing"), (2 * hour, 3 * hour, "unknown")]


def test_a_moment_unobserved_never_reads_as_all_observed() -> None:
    data = full()
    completeness = data["window"]["completeness"]
    completeness |= {"missing_s": {"device_offline": 0.2}, "ratio": 1 - 0.2 / 28_800}
    assert "0.2 s not observed: device offline. 99.99 % of the scheduled time was observed." in " ".join(
        read(data).missing
    ).replace("\u00a0", " ")


def test_scrap_that_is_not_counted_is_told_from_produced_and_good() -> None:
    data = full()
    data["window"]["quantity"]["scrap"] = None
    assert "not counted · produced less good: 120" in shown(data, 120)


def test_times_of_a_night_when_the_clocks_change_have_both_offsets() -> None:
    data = full() | {"start": "2026-10-24T20:00:00Z", "end": "2026-10-25T05:00:00Z", "now": None, "hours": []}
    data["states"] = data["counts"] = data["downtime"] = []
    when = read(data).when
    assert when.endswith("22:00 (UTC+02:00) – 06:00 (UTC+01:00) Europe/Paris, the clocks change")
    report = read(data)
    assert [text for _, text in report.zone.hours(report.start, report.end)][4:7] == ["02:00", "02:00", "03:00"]
    assert "the clocks change" in Parsed(page(data)).text


def test_report_of_a_production_day_is_called_so_and_has_all_its_hours() -> None:
    data = full() | {"shift": None, "end": "2026-11-24T05:00:00Z", "now": None}
    data["hours"] = [data["hours"][0] | {"start": at(60 * hour), "end": at(60 * hour + 60)} for hour in range(24)]
    text = Parsed(page(data)).text
    assert "· production day" in text
    assert "05:00–06:00" in text
    assert read(full() | {"shift": "off"}).title == "outside the shifts"


def test_zone_that_nobody_knows_is_shown_as_utc() -> None:
    assert Zone("Mars/Olympus").span(0, 3600) == "00:00–01:00 UTC (UTC+00:00)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"), (0, "0 s"), (9.8, "9.8 s"), (59.96, "1 min"), (250, "4 min 10 s"), (3599.7, "1 h"),
        (22_320, "6 h 12 min"), (28_790.2, "8 h"), (-61, "−1 min 01 s"),
    ],
)  # fmt: skip
def test_duration_has_the_two_units_that_matter(seconds: float | None, text: str) -> None:
    assert duration(seconds).replace("\u00a0", " ") == text


def test_numbers_have_their_thousands_apart_and_their_unit() -> None:
    told = [number(1234567), number(-220), number(2.5, "kg"), number(3, "1"), percent(1.042)]
    assert [text.replace("\u00a0", " ") for text in told] == ["1 234 567", "−220", "2.5 kg", "3", "104.2 %"]
