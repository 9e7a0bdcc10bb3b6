"""The truth does not depend on the order in which readings arrive, nor on restarts, nor on when people tell.

One random history of a machine is delivered twice: shuffled, with delays of up to hours, and with the agent killed in
the middle; then, what its store holds, in order. When all has settled both have said the same of windows, stops and
jobs, and what was produced is what the counter says, to the part.

The limits: the first reading of all comes first, because time before it belongs to nobody; a record of windows under an
hour does not say anew that only a job or the reason of a stop is another one; and a window that was published stays
when a late loss takes all that was seen of it, where in order there would have been a gap.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fakes import FakeClock, S, row
from floor import BY_TAG, SHIFTS, Floor, configured
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_summarizer import NOON

from edge_agent.production import Tally, compute
from edge_agent.timestamps import parse

H = 3_600
SPAN = 1_200
NO_SHRINKING = (Phase.explicit, Phase.generate)
"""One example takes seconds, so that making it small takes longer than finding the fault in it."""
DELAYS = (0, 0, 0, 0, 7, 45, 400, 4_000)
LAST = SPAN + max(DELAYS) + 300
TEXT = BY_TAG.replace("[10 s, 1 min, 1 h, job]", "[10 s, 1 min, 1 h, shift, job]") + SHIFTS
COMPARED = ("time_s", "quantity", "kpi", "kpi_reason", "sums", "completeness", "flags", "definition")

OF_STOPS = ("state", "time_s", "reason", "plc", "planned", "failure", "seen_whole", "job", "open")
OF_JOBS = ("job", "quantity", "time_s", "kpi", "started_by", "ended_by")


class Put(NamedTuple):
    """A reading in seconds, and when it arrives."""

    arrives: int
    tag: str
    at: int
    value: Any
    cause: str | None


class Told(NamedTuple):
    """An entry, and when it is told."""

    told: int
    kind: Any
    start: int
    end: int
    body: dict[str, Any]


@st.composite
def _readings(draw: st.DrawFn) -> list[Put]:
    causes = ("device_offline", "bad_quality")
    puts = [Put(0, "plc.status", 0, 1, None)]
    for tag, most, values in (
        ("plc.status", 25, [1, 1, 2, 3, 9]), ("plc.alarm", 5, [0, 17, 30, 99]), ("plc.order", 6, [0, 7, 7, 8]),
    ):  # fmt: skip
        times = draw(st.sets(st.integers(1, SPAN), min_size=most // 4, max_size=most))
        for at in sorted(times):
            bad = draw(st.integers(0, 6)) == 0
            value = None if bad else draw(st.sampled_from(values))
            arrives = at + draw(st.sampled_from(DELAYS))
            puts.append(Put(arrives, tag, at, value, draw(st.sampled_from(causes)) if bad else None))
    count = draw(st.integers(0, 500))
    for at in sorted(draw(st.sets(st.integers(1, SPAN), min_size=6, max_size=30))):
        event = draw(st.integers(0, 11))
        count = 0 if event == 0 else count + draw(st.integers(0, 40))
        value = None if event == 1 else count + 90_000 if event == 2 else count
        arrives = at + draw(st.sampled_from(DELAYS))
        puts.append(Put(arrives, "plc.count", at, value, "device_offline" if event == 1 else None))
    return sorted(puts, key=lambda put: (put.arrives, draw(st.integers(0, 9)) if len(puts) < 9 else 0))


@st.composite
def _entries(draw: st.DrawFn) -> list[Told]:
    found = []
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(1, SPAN))
        reason = draw(st.sampled_from(["tool change", "no operator"]))
        made: tuple[str, int, Any] = draw(
            st.sampled_from(
                [
                    ("reason", start + 30, {"reason": reason}),
                    ("planned-stop", start + 200, {"reason": "meeting"}),
                    ("scrap", start, {"count": 3}),
                    ("correction", start, {"count": 5, "quantity": "produced"}),
                    ("counter-replaced", start, {"tag": "plc.count", "value": 10}),
                ]
            )
        )
        found.append(Told(start + draw(st.sampled_from(DELAYS)), made[0], start, *made[1:]))
    return sorted(found, key=lambda told: told.told)


async def tell(floor: Floor, told: Told) -> None:
    """Tell, and have looked at again what comes after: of a counter all that follows may be another count."""
    await floor.tell(told.kind, told.start, told.end, **told.body)
    if told.kind == "counter-replaced":

        def reopen() -> None:
            with floor.store.transaction():
                now = floor.clock.now()
                floor.store.entries.reopen(
                    "press", NOON + told.start * S, max(now, NOON + told.start * S + 1), "entry", now
                )

        await floor.thread.call(reopen)


async def shuffled(folder: Path, puts: Sequence[Put], entries: Sequence[Told], killed_at: int) -> Floor:
    """The history as it arrives, with the agent killed and started on the way."""
    floor = Floor(folder / "data", configured(folder / "config", TEXT), FakeClock(NOON))
    waiting, said, second, killed = list(puts), list(entries), 0, False
    while second < LAST:
        near = min([*(put.arrives for put in waiting[:1]), *(each.told for each in said[:1]), LAST])
        second = min(max(second + 20, min(near, second + 600)), LAST)
        while waiting and waiting[0].arrives <= second:
            put = waiting.pop(0)
            floor.put(put.tag, put.at, put.value, put.cause)
        while said and said[0].told <= second:
            await tell(floor, said.pop(0))
        await floor.until(second, step=1_000)
        if second >= killed_at and not killed:
            floor, killed = await floor.again(), True
    return floor


async def in_order(folder: Path, rows: Sequence[Any], entries: Sequence[Told]) -> Floor:
    """What a store holds, in order of time; people tell in their order, when all is over."""
    floor = Floor(folder / "data", configured(folder / "config", TEXT), FakeClock(NOON))
    waiting = list(rows)
    for second in (*range(10, SPAN + 60, 10), *range(SPAN + 60, LAST - 300, 500), LAST - 200, LAST):
        while waiting and waiting[0].time < NOON + second * S:
            old = waiting.pop(0)
            number = floor.ids[old.tag]
            floor.thread.append([row(number, old.time, old.value, int(old.quality), old.cause)])
        await floor.until(second, step=1_000)
    assert not waiting
    for told in entries:
        await tell(floor, told)
    return floor


async def settle(floor: Floor) -> None:
    """Let the clock go on until nothing more is to be said."""
    for place in range(12):
        await floor.until(LAST + 61 * (place + 1), step=61)


def truth(floor: Floor) -> dict[str, Any]:
    """What stands in the end, by start and end."""
    found: dict[str, Any] = {}
    for data in floor.facts("production", check=False):
        if (
            data["time_s"]["unknown"] * S == parse(data["end"]) - parse(data["start"])
            and not data["quantity"]["produced"]
        ):
            continue
        more = () if data["window"] in ("10s", "1min") else ("downtime", "job", "segments", "shift")
        found[f"{data['window']} {data['start']} {data['end']}"] = {name: data[name] for name in (*COMPARED, *more)}
    for data in floor.facts("downtime", check=False):
        found[f"stop {data['start']} {data['end']}"] = {name: data[name] for name in OF_STOPS}
    for data in floor.facts("job", check=False):
        found[f"job {data['start']} {data['end']}"] = {name: data[name] for name in OF_JOBS}
    return found


def made(floor: Floor, size: str) -> int:
    """The parts in records and gaps of one size."""
    parts: int = sum(
        data["quantity"]["produced"] for data in floor.facts("production", check=False) if data["window"] == size
    )
    gaps: list[dict[str, Any]] = [data for data in floor.facts("gap", check=False) if data["window"] == size]
    return parts + sum(int(data["produced"]) for data in gaps)


def counted(floor: Floor, size: str) -> int:
    """What the counter, and people, say until the last window of a size that is closed, reckoned at once."""
    machine = floor.summarizer.site.basis.machines["press"]
    mark = floor.store.records.progress("press", size)
    first = floor.store.readings.first_time(machine.tags)
    assert mark is not None
    assert first is not None
    rows = floor.store.readings.steps_of(machine.tags, 0, floor.clock.now())
    entries = floor.store.entries.of("press", 0, floor.clock.now())
    (whole,) = compute(
        machine, floor.summarizer.site.calendar, rows, [(first, mark.closed_until)], floor.clock.now(), entries
    )
    return (whole.quantities["produced"] or Tally()).total


async def _agree(puts: list[Put], entries: list[Told], killed_at: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one = await shuffled(Path(folder) / "shuffled", puts, entries, killed_at)
        await settle(one)
        for size in ("10s", "1min", "1h", "shift"):
            assert made(one, size) == counted(one, size), size
        rows = sorted(one.store.readings.page(limit=100_000), key=lambda row: (row.time, row.id))
        other = await in_order(Path(folder) / "in_order", rows, entries)
        await settle(other)
        found, expected = truth(one), truth(other)
        assert {key: found[key] for key in found if found[key] != expected.get(key)} == {
            key: expected[key] for key in expected if found.get(key) != expected[key]
        }
        for floor in (one, other):
            before = len(floor.records())
            floor.store.entries.reopen("press", NOON, floor.clock.now(), "late_reading", floor.clock.now())
            floor.summarizer.reopened("press", NOON - 86_400 * S)
            await floor.until((floor.clock.now() - NOON) / S + 200, step=70)
            assert [data for data in floor.records()[before:] if data["revision"] and "what" not in data] == []
            await floor.thread.close()


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=NO_SHRINKING)
@given(puts=_readings(), killed_at=st.integers(100, 6_000))
async def test_truth_of_any_readings_is_the_same_in_any_order_of_arrival(puts: list[Put], killed_at: int) -> None:
    await _agree(puts, [], killed_at)


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=NO_SHRINKING)
@given(puts=_readings(), entries=_entries(), killed_at=st.integers(100, 6_000))
async def test_truth_of_any_readings_and_entries_is_the_same_in_any_order_of_arrival(
    puts: list[Put], entries: list[Told], killed_at: int
) -> None:
    await _agree(puts, entries, killed_at)
