"""Readings of a time that is not settled, and of a time that is set forward, as they come to stand in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from fakes import START, FakeClock, S, ScriptedDriver, device, settle

from edge_agent.clock import Trust
from edge_agent.clock import boot as boot_of_this_machine
from edge_agent.contract import Device, NotConnected, Quality, Reading, Tag
from edge_agent.intake import Intake, TagState
from edge_agent.poller import Link
from edge_agent.settling import BOOT, OFFSET, Settling, recalled_offset
from edge_agent.store import Store, StoreThread
from edge_agent.timeline import PATIENCE_NS, Timeline

HOUR = 3_600 * S


class Bench:
    """A link whose device counts the polls, on a clock that is moved, over a real store."""

    def __init__(
        self, folder: Path, now: int, trusted: Trust = "unsynchronized", most: int = 1_000, monotonic: int = 0
    ) -> None:
        self.clock = FakeClock(now - monotonic)
        self.clock.stop_the_process(monotonic / S)
        self.clock.trusted = trusted
        self.line = Timeline(self.clock)
        self.store = Store(folder)
        plc = device()
        self.tags = plc.tags
        alive = self.store.fact("alive")
        self.line.begin(alive, recalled_offset(self.store, alive, self.clock.monotonic()))
        self.store.begin(self.line.now())
        self.ids = self.store.register([(tag.name, True) for tag in plc.tags])
        states = {
            tag: TagState(tag, self.ids[tag.name], machine=True, refresh_ns=60 * S, max_skew_ns=2 * S)
            for tag in plc.tags
        }
        self.intake = Intake(states)
        self.thread = StoreThread(self.store, self.line, S)
        self.settling = Settling(self.line, self.thread, self.intake, most)
        self.polls = 0
        self.driver = ScriptedDriver([plc], self.counting)
        self.link = Link("link", self.driver, [plc], self.intake, self.settling.append, self.line)
        self.task = asyncio.create_task(self.link.run())

    async def __aenter__(self) -> Bench:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.settling.end()
        await self.settling.note_loss()
        await self.thread.close()

    def counting(self, _: Device, tags: Sequence[Tag]) -> list[Reading]:
        self.polls += 1
        return [Reading(tag, None, self.polls) for tag in tags]

    async def pass_by(self, seconds: int) -> None:
        for _ in range(seconds):
            await self.clock.advance(1)
            self.settling.look([self.link])
        await settle()


def stored(folder: Path, tag: str = "plc.a") -> list[tuple[float, object, str | None]]:
    """(seconds from START, value, cause) of a tag's rows, in order of arrival."""
    with Store(folder) as store:
        return [((one.time - START) / S, one.value, one.cause) for one in store.readings.page(tags=[tag])]


async def test_readings_of_an_unset_clock_are_dated_when_it_is_set(tmp_path: Path) -> None:
    async with Bench(tmp_path, 86_400 * S) as bench:
        await bench.pass_by(3)
        await bench.thread.flush()
        assert bench.store.readings.count() == 0
        bench.clock.step_wall(START - bench.clock.now())
        await bench.pass_by(2)
    assert stored(tmp_path) == [(-3, 1, None), (-2, 2, None), (-1, 3, None), (0, 4, None), (1, 5, None), (2, 6, None)]


async def test_what_reckons_with_time_is_told_when_it_is_settled(tmp_path: Path) -> None:
    async with Bench(tmp_path, 86_400 * S) as bench:
        told: list[int] = []
        bench.settling.when_settled.append(lambda: told.append(bench.line.now()))
        begun: list[int] = []

        async def work() -> None:
            begun.append(bench.line.now())

        task = asyncio.create_task(bench.settling.after(work)())
        await bench.pass_by(2)
        assert (told, begun) == ([], [])
        bench.clock.step_wall(START - bench.clock.now())
        await bench.pass_by(1)
        await task
        assert told[0] >= START
        assert begun[0] >= START


async def test_device_that_is_lost_before_the_clock_is_set_is_lost_at_that_time(tmp_path: Path) -> None:
    async with Bench(tmp_path, 86_400 * S) as bench:
        await bench.pass_by(2)

        def lost(device: Device, tags: Sequence[Tag]) -> list[Reading]:
            raise NotConnected("gone")

        bench.driver.script = lost
        bench.driver.refusals = [NotConnected("gone")] * 9
        await bench.pass_by(2)
        bench.clock.step_wall(START - bench.clock.now())
        await bench.pass_by(1)
    after = stored(tmp_path)
    assert [each[1:] for each in after] == [(1, None), (2, None), (3, None), (None, "device_offline")]
    assert [each[0] for each in after] == pytest.approx([-4, -3, -2, -2])


async def test_times_of_a_device_are_kept_when_readings_are_dated_anew(tmp_path: Path) -> None:
    async with Bench(tmp_path, 86_400 * S) as bench:
        device_time = START - 7 * S

        def told(_: Device, tags: Sequence[Tag]) -> list[Reading]:
            return [Reading(tag, device_time, 1) for tag in tags]

        bench.driver.script = told
        await bench.pass_by(1)
        bench.clock.step_wall(START - bench.clock.now())
        await bench.pass_by(1)
        state = bench.intake.states[bench.tags[0]]
        assert state.skew_ns == pytest.approx(-7 * S, abs=2 * S)
    with Store(tmp_path) as store:
        first = store.readings.page(tags=["plc.a"])[0]
    assert (first.time, first.source_time) == (START - S, device_time)


async def test_clock_behind_the_store_ends_in_an_unbroken_time_line(tmp_path: Path) -> None:
    async with Bench(tmp_path, START) as first:
        await first.pass_by(5)
    with Store(tmp_path) as store, store.transaction():
        store.set_fact(BOOT, 1)  # the machine is started again, and its clock has lost an hour
    async with Bench(tmp_path, START - HOUR) as second:
        await second.pass_by(PATIENCE_NS // S - 1)
        assert not second.line.settled
        await second.pass_by(3)
        assert second.line.settled
    times = [time for time, *_ in stored(tmp_path)]
    assert times == sorted(times)
    assert len(set(times)) == len(times)
    assert times[-1] == pytest.approx(PATIENCE_NS / S + 7, abs=3)


async def test_restarted_agent_on_the_same_boot_goes_on_though_the_clock_went_back(tmp_path: Path) -> None:
    async with Bench(tmp_path, START) as first:
        await first.pass_by(2)
        await first.settling._remember()
    async with Bench(tmp_path, START - HOUR, monotonic=12 * S) as second:
        assert second.line.settled
        assert second.line.now() >= START + 10 * S
        await second.pass_by(1)
    times = [time for time, *_ in stored(tmp_path)]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("boot", "offset", "alive", "recalled"),
    [
        (0, START - 10 * S, START, True),
        (1, START - 10 * S, START, False),  # the machine was started since
        (0, START - 15 * S, START, False),  # the store knows of a later time
        (0, None, START, False),
        (0, START - 10 * S, None, False),
    ],
)
def test_time_of_a_run_before_is_gone_on_with_only_where_it_can_be(
    tmp_path: Path, boot: int, offset: int | None, alive: int | None, recalled: bool
) -> None:
    here = boot_of_this_machine()
    assert here is not None
    with Store(tmp_path) as store:
        with store.transaction():
            store.set_fact(BOOT, here + boot)
            if offset is not None:
                store.set_fact(OFFSET, offset)
        assert recalled_offset(store, alive, 12 * S) == (offset if recalled else None)


async def test_device_that_was_lost_before_the_run_stays_lost_since_then(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
    async with Bench(tmp_path, START - HOUR) as bench:
        state = bench.intake.states[bench.tags[0]]
        state.lost_since, state.value = START - 5 * S, 1
        await bench.pass_by(2)
        bench.clock.step_wall(2 * HOUR)
        await bench.pass_by(1)
        assert bench.line.settled
        assert state.lost_since == START - 5 * S


async def test_time_that_never_was_is_a_hole_in_the_readings(tmp_path: Path) -> None:
    async with Bench(tmp_path, START) as bench:
        bench.driver.script = lambda _, tags: [Reading(tag, None, 7) for tag in tags]
        await bench.pass_by(10)
        bench.clock.trusted = "synchronized"
        bench.clock.step_wall(HOUR)
        await bench.pass_by(5)
    rows = stored(tmp_path)
    assert [each[1:] for each in rows] == [(7, None), (None, "agent_down"), (7, None)]
    assert [each[0] for each in rows] == pytest.approx([0, 11, 3_611])


async def test_readings_that_are_too_many_for_the_memory_are_counted_and_named(tmp_path: Path) -> None:
    async with Bench(tmp_path, 86_400 * S, most=6) as bench:
        await bench.pass_by(9)  # ten polls
        bench.clock.step_wall(START - bench.clock.now())
        await bench.pass_by(1)
        await bench.settling._remember()
        assert bench.settling.dropped == 0
        (loss,) = bench.store.losses.pending(10)
        assert (loss.what, loss.cause, loss.rows) == ("readings", "overflow", 11 - 6)
        assert loss.start == pytest.approx(START - 9 * S, abs=2 * S)


async def test_readings_of_a_clock_that_is_never_set_are_counted_and_named_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Bench(tmp_path, 86_400 * S) as bench:
        await bench.pass_by(2)
    assert "3 readings of before the clock was set are lost" in caplog.text
    assert stored(tmp_path) == []
    with Store(tmp_path) as store:
        assert [loss.rows for loss in store.losses.pending(10)] == [3]


async def test_full_memory_ends_the_wait_for_a_clock_behind_the_store(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
    async with Bench(tmp_path, START - HOUR, most=6) as bench:
        await bench.pass_by(5)
        assert bench.line.settled
    rows = stored(tmp_path)
    assert [value for _, value, _ in rows][-3:] == [4, 5, 6]
    assert bench.store.losses is not None


async def test_second_fact_of_the_time_is_written_only_when_it_has_moved(tmp_path: Path) -> None:
    async with Bench(tmp_path, START) as bench:
        await bench.settling._remember()
        written = bench.store.fact(OFFSET)
        bench.clock.step_wall(S // 100)
        await bench.settling._remember()
        assert bench.store.fact(OFFSET) == written
        bench.clock.step_wall(S // 10)
        await bench.settling._remember()
        assert bench.store.fact(OFFSET) == bench.line.offset


def test_quality_of_a_leap_is_bad() -> None:
    plc = device()
    tag = plc.tags[0]
    state = TagState(tag, 1, machine=True, refresh_ns=60 * S, max_skew_ns=2 * S)
    intake = Intake({tag: state})
    intake.accept([Reading(tag, None, 5)], START)
    rows = intake.leapt([tag], START + S, START + HOUR)
    assert [(row[1], row[2], row[3]) for row in rows] == [
        (START + S + 1, None, int(Quality.BAD)), (START + HOUR, 5, int(Quality.GOOD)),
    ]  # fmt: skip
