"""What a device recorded while nobody looked: put where the hole was, told once, and published as a correction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock, S, ScriptedDriver
from test_summarizer import CONFIG, NOON, Bench
from uplink_peers import until

from edge_agent.backfill import Backfill
from edge_agent.config import load
from edge_agent.contract import (
    NO_HISTORY,
    Device,
    HistoryPart,
    NotConnected,
    Origin,
    Reading,
    Tag,
    TagSettings,
    Value,
    parse_duration,
)
from edge_agent.intake import Intake, TagState

KEEP = parse_duration("14 d")


class Recorder(ScriptedDriver):
    """A device that recorded what it measured; `behind_ns` is by how much its clock is slow."""

    def __init__(self, devices: Sequence[Device]) -> None:
        super().__init__(devices)
        self.recorded: dict[str, list[tuple[float, Value]]] = {}
        self.holds = False
        self.breaks_after: int | None = None
        self.refuses: dict[str, str] = {}
        self.behind_ns = 0
        self.asked: list[tuple[tuple[str, ...], float, float]] = []
        self.clock: FakeClock | None = None

    def has_history(self, tag: Tag) -> bool:
        return True

    async def device_time(self, device: Device) -> int | None:
        return None if self.clock is None else self.clock.now() - self.behind_ns

    async def history(self, tags: Sequence[Tag], start: int, end: int) -> AsyncGenerator[HistoryPart, None]:
        self.asked.append((tuple(tag.short_name for tag in tags), (start - NOON) / S, (end - NOON) / S))
        sent = 0
        for tag in tags:
            if tag.short_name in self.refuses:
                yield HistoryPart(tag, [], error=self.refuses[tag.short_name])
                continue
            for at, value in self.recorded.get(tag.short_name, []):
                time = NOON + round(at * S) - self.behind_ns
                if start <= time < end:
                    if self.breaks_after is not None and sent >= self.breaks_after:
                        raise NotConnected("gone in the middle of its history")
                    sent += 1
                    reading = Reading(tag, time, value, origin=Origin.HISTORY, server_time=time + 7)
                    yield HistoryPart(tag, [reading], holds=self.holds)
            yield HistoryPart(tag, [], complete=True, holds=self.holds)


class Outage(Bench):
    """The press of a summarizer's bench, read through the intake; its device has a history."""

    def __init__(self, folder: Path, **tag: Any) -> None:
        (folder / "config").mkdir()
        (folder / "config" / "all.yaml").write_text(CONFIG)
        super().__init__(folder / "data", load(folder / "config"), FakeClock(NOON))
        tags = tuple(Tag(f"plc.{name}", TagSettings(address=name, **tag), S) for name in ("count", "status"))
        self.device = Device("plc", load(folder / "config").devices["plc"].settings, tags)
        self.count, self.status = tags
        self.driver = Recorder([self.device])
        states = {
            each: TagState(each, self.ids[each.name], machine=True, refresh_ns=60 * S, max_skew_ns=2 * S)
            for each in tags
        }
        self.intake = Intake(states)
        self.backfill = Backfill(self.driver, [self.device], self.intake, self.thread, self.clock, KEEP)

    def live(self, second: float, count: int, status: int = 1) -> None:
        time = NOON + round(second * S)
        readings = [Reading(self.count, time, count), Reading(self.status, time, status)]
        self.thread.append(self.intake.accept(readings, time))

    def lose(self, last_seen: float) -> None:
        self.thread.append(self.intake.lost(self.device.tags, NOON + round(last_seen * S), "device_offline"))

    def run(self, start: int, end: int) -> None:
        """One part each second."""
        for second in range(start, end):
            self.live(second, 1_000 + second)

    @asynccontextmanager
    async def filling(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.backfill.run())
        try:
            await self.clock.advance(2.5)
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def open_holes(self) -> int:
        return len(self.store.holes.pending(tag.name for tag in self.device.tags))

    async def filled(self) -> None:
        """Ask for the history until there is nothing left to ask for."""
        async with self.filling():
            await until(lambda: bool(self.driver.asked) and not self.open_holes())


@pytest.fixture
async def outage(tmp_path: Path) -> AsyncIterator[Outage]:
    made = Outage(tmp_path)
    yield made
    await made.thread.close()


async def away(outage: Outage, start: int = 100, end: int = 400) -> None:
    """Looked at until `start`, and again from `end` on; what happened in between was published as unknown."""
    outage.run(0, start)
    outage.lose(start - 1)
    await outage.close_at(end)
    outage.run(end, end + 1)


async def after(outage: Outage, second: float) -> list[dict[str, Any]]:
    issued = await outage.close_at(second)
    return issued + await outage.close_at(second + 70)


async def test_history_of_an_outage_supersedes_it_and_says_so(outage: Outage) -> None:
    await away(outage)
    before = {data["start"]: data for data in outage.truth("1min").values()}
    assert before["2026-11-23T12:01:00Z"]["time_s"]["unknown"] == 21.0
    assert "2026-11-23T12:02:00Z" not in before
    outage.driver.recorded = {
        "count": [(second, 1_000 + second) for second in range(95, 400)],
        "status": [(second, 1) for second in range(95, 400)],
    }
    await outage.filled()
    issued = await after(outage, 410)
    minutes = {data["start"]: data for data in issued if data.get("window") == "1min" and "time_s" in data}
    assert minutes["2026-11-23T12:02:00Z"]["revision"] == 0, "of that minute nothing was published before"
    minute = minutes["2026-11-23T12:01:00Z"]
    assert (minute["revision"], minute["revised_because"]) == (1, "backfill")
    assert (minute["quantity"]["produced"], minute["quantity"]["unobserved"]) == (60, 0)
    assert minute["time_s"]["producing"] == 60.0
    assert minute["completeness"]["complete"]
    assert {data["revised_because"] for data in issued if data.get("revision") and "time_s" in data} == {"backfill"}
    assert outage.produced("10s") == 400
    gaps = {data["key"]: data for data in outage.records() if data["key"].find("/gap/") > 0}
    assert gaps
    assert all(data["withdrawn"] for data in gaps.values())


async def test_history_is_asked_for_from_the_last_time_that_the_device_gave_until_it_was_back(outage: Outage) -> None:
    await away(outage)
    await outage.filled()
    ((tags, start, end),) = outage.driver.asked
    assert tags == ("count", "status")
    assert start == pytest.approx(89), "the status was the same for longer than 10 s"
    reached = outage.store.holes.start_of("plc.count", NOON + 99 * S)
    assert reached is None, "the count of 99 s came live"
    assert end == pytest.approx(402, abs=1)


async def test_history_that_breaks_off_goes_on_where_it_ended_and_doubles_nothing(outage: Outage) -> None:
    await away(outage)
    outage.driver.recorded = {"count": [(s, 1_000 + s) for s in range(100, 400)]}
    outage.driver.breaks_after = 120
    async with outage.filling() as task:
        with pytest.raises(NotConnected):
            await asyncio.wait_for(asyncio.shield(task), 10)
    outage.driver.breaks_after = None
    await outage.filled()
    assert [start for _, start, _ in outage.driver.asked] == pytest.approx([89, 89])
    times = [row.time for row in outage.store.readings.page(tags=["plc.count"], limit=10_000) if row.quality < 2]
    assert len(times) == len(set(times)) == 401


async def test_history_that_was_not_read_to_the_end_is_asked_for_after_a_restart(outage: Outage) -> None:
    await away(outage)
    outage.driver.breaks_after = 0
    outage.driver.recorded = {"count": [(200, 1_200)], "status": [(200, 1)]}
    async with outage.filling() as task:
        await until(task.done)
    assert outage.open_holes() == 2
    outage.driver.breaks_after = None
    outage.backfill = Backfill(
        outage.driver, [outage.device], Intake(outage.intake.states), outage.thread, outage.clock, KEEP
    )
    await outage.filled()
    assert outage.store.holes.start_of("plc.count", NOON + 200 * S) == NOON + 99 * S + 1


async def test_device_that_ran_through_holds_what_it_said_last(outage: Outage) -> None:
    await away(outage)
    outage.driver.holds = True
    outage.driver.recorded = {"count": [(250, 1_250)], "status": [(250, 3)]}
    await outage.filled()
    await after(outage, 410)
    minutes = {data["start"][11:16]: data for data in outage.truth("1min").values()}
    assert minutes["12:02"]["time_s"]["producing"] == 60.0
    assert (minutes["12:04"]["time_s"]["producing"], minutes["12:04"]["time_s"]["down"]) == (10.0, 50.0)
    assert minutes["12:05"]["time_s"]["down"] == 60.0
    assert minutes["12:04"]["quantity"]["produced"] == 151


async def test_device_that_did_not_run_through_leaves_unknown_what_it_does_not_tell(outage: Outage) -> None:
    await away(outage)
    outage.driver.recorded = {"count": [(250, 1_250)], "status": [(250, 3)]}
    await outage.filled()
    await after(outage, 410)
    minutes = {data["start"][11:16]: data for data in outage.truth("1min").values()}
    assert "12:02" not in minutes
    assert minutes["12:04"]["time_s"] == minutes["12:04"]["time_s"] | {"unknown": 10.0, "down": 50.0}
    stale = minutes["12:05"]["time_s"]
    assert stale["unknown"] > 40, "63 s after it was said, it is not known any more"


async def test_device_without_history_leaves_the_gap_and_says_why(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    await away(outage)
    outage.driver.refuses = {"count": "BadHistoryOperationUnsupported", "status": "BadHistoryOperationUnsupported"}
    async with outage.filling():
        told = "no history of count, status: BadHistoryOperationUnsupported; the gap stays"
        await until(lambda: told in caplog.text and not outage.open_holes())
    assert await after(outage, 410) == [] or all(not data.get("revision") for data in outage.records())


async def test_history_of_a_device_whose_clock_is_wrong_is_corrected(outage: Outage) -> None:
    await away(outage)
    outage.driver.clock, outage.driver.behind_ns = outage.clock, 3_600 * S
    outage.driver.recorded = {"count": [(s, 1_000 + s) for s in range(100, 400)]}
    await outage.filled()
    ((_, start, _),) = outage.driver.asked
    assert start == pytest.approx(89 - 3_600)
    found = {row.time: row for row in outage.store.readings.page(tags=["plc.count"], limit=10_000)}
    filled = found[NOON + 200 * S]
    assert filled.value == 1_200
    assert filled.source_time == NOON + 200 * S - 3_600 * S, "what its clock said is kept, as wrong as it was"
    assert filled.server_time == filled.source_time + 7


async def test_event_that_came_live_is_not_counted_again_from_history(tmp_path: Path) -> None:
    outage = Outage(tmp_path, store="every")
    outage.live(0, 5)
    outage.lose(0)
    await outage.clock.advance(100)
    for _ in range(2):  # after the reconnect the device shows its last event; it happened at 50
        time = NOON + 50 * S
        outage.thread.append(outage.intake.accept([Reading(outage.count, time, 7)], outage.clock.now()))
        outage.lose(100)
    outage.live(101, 9)
    outage.driver.recorded = {"count": [(50, 7), (60, 8)]}
    await outage.filled()
    good = [row.value for row in outage.store.readings.page(tags=["plc.count"], limit=100) if row.quality < 2]
    assert sorted(good, key=str) == [5, 7, 8, 9]
    await outage.thread.close()


async def test_device_that_keeps_no_history_is_asked_once_and_nobody_is_told(
    outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    outage.driver.refuses = {"count": NO_HISTORY, "status": NO_HISTORY}
    await away(outage)
    await outage.filled()
    for round_ in range(3):  # a link that comes and goes
        outage.lose(400 + 10 * round_)
        await outage.clock.advance(5)
        outage.live(405 + 10 * round_, 1_500)
        async with outage.filling():
            pass
    assert len(outage.driver.asked) == 1
    assert "history" not in caplog.text
    assert outage.store._connection.execute("SELECT count(*) FROM hole").fetchone() == (0,)


async def test_holes_that_were_filled_are_forgotten_with_their_readings(outage: Outage) -> None:
    await away(outage)
    outage.driver.recorded = {"count": [(200, 1_200)], "status": [(200, 1)]}
    await outage.filled()
    assert outage.store.holes.start_of("plc.count", NOON + 200 * S) is not None
    with outage.store.transaction():
        outage.store.holes.prune(NOON + 500 * S)
    assert outage.store.holes.start_of("plc.count", NOON + 200 * S) is None
