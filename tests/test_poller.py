"""A link's task: polls on the clock, skips, backs off, speaks once; one device's trouble stays its own."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from fakes import START, FakeClock, S, ScriptedDriver, StreamingDriver, device

from edge_agent.contract import Device, DeviceFault, Driver, NotConnected, Reading, Tag, bad
from edge_agent.intake import Intake, TagState
from edge_agent.poller import Link, delay_ns
from edge_agent.store import Row


class Bench:
    """A link on a fake clock, with the rows that it appends."""

    def __init__(self, driver: Driver, devices: Sequence[Device]) -> None:
        self.clock = FakeClock()
        self.rows: list[Row] = []
        tags = [tag for one in devices for tag in one.tags]
        self.ids = {tag.name: number for number, tag in enumerate(tags)}
        states = {
            tag: TagState(tag, number, machine=True, refresh_ns=60 * S, max_skew_ns=2 * S)
            for number, tag in enumerate(tags)
        }
        self.link = Link("link", driver, devices, Intake(states), self.rows.extend, self.clock, rng=random.Random(1))

    def of(self, name: str) -> list[tuple[float, object, str | None]]:
        """(seconds from the start, value, cause) of a tag's rows."""
        return [((row[1] - START) / S, row[2], row[4]) for row in self.rows if row[0] == self.ids[name]]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.link.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_link_polls_at_fixed_times_without_drift() -> None:
    plc = device()
    driver = ScriptedDriver([plc])
    bench = Bench(driver, [plc])
    count = iter(range(1_000))

    async def slow(_: Device, tags: tuple[Tag, ...]) -> list[Reading]:
        await bench.clock.sleep_until(bench.clock.monotonic() + S // 3)
        return [Reading(tag, None, next(count)) for tag in tags]

    driver.script = slow
    async with bench.running():
        await bench.clock.advance(5.5)
    assert [time for time, *_ in bench.of("plc.a")] == pytest.approx([n + 1 / 3 for n in range(6)])
    assert bench.link.figures[0].skipped == 0


async def test_link_of_a_process_that_was_stopped_says_that_nobody_looked() -> None:
    plc = device()
    bench = Bench(ScriptedDriver([plc]), [plc])
    async with bench.running():
        await bench.clock.advance(2.5)
        bench.clock.stop_the_process(30)
        await bench.clock.advance(1)
    times, values, causes = zip(*bench.of("plc.a"), strict=True)
    assert times == pytest.approx((0, 2, 32.5))
    assert (values, causes) == ((1, None, 1), (None, "agent_down", None))


async def test_link_whose_driver_lets_a_cancellation_out_is_lost_and_comes_back() -> None:
    plc = device()
    driver = ScriptedDriver([plc])
    bench = Bench(driver, [plc])
    count = 0

    async def interrupted_once(_: Device, tags: tuple[Tag, ...]) -> list[Reading]:
        nonlocal count
        count += 1
        if count == 2:
            raise asyncio.CancelledError
        return [Reading(tag, None, count) for tag in tags]

    driver.script = interrupted_once
    async with bench.running():
        await bench.clock.advance(9.5)
        assert bench.link.figures[0].connected
    values = [value for _, value, _ in bench.of("plc.a")]
    assert values[:3] == [1, None, 3]


async def test_link_skips_and_counts_polls_that_overran_and_never_bunches() -> None:
    plc = device()
    driver = ScriptedDriver([plc])
    bench = Bench(driver, [plc])
    began: list[float] = []

    async def stalls_once(_: Device, tags: tuple[Tag, ...]) -> list[Reading]:
        began.append(bench.clock.monotonic() / S)
        if len(began) == 2:
            await bench.clock.sleep_until(bench.clock.monotonic() + round(3.4 * S))
        return [Reading(tag, None, len(began)) for tag in tags]

    driver.script = stalls_once
    async with bench.running():
        await bench.clock.advance(7.5)
    assert began == [0, 1, 5, 6, 7]
    assert bench.link.figures[0].skipped == 3


async def test_link_reads_tags_with_their_own_poll_as_a_group() -> None:
    fast, slow = device("plc", ("a",), "1 s").tags[0], device("plc", ("b",), "10 s").tags[0]
    plc = Device("plc", device().settings, (fast, slow))
    driver = ScriptedDriver([plc])
    bench = Bench(driver, [plc])
    async with bench.running():
        await bench.clock.advance(20.5)
    assert driver.reads.count(("plc.a",)) == 21
    assert driver.reads.count(("plc.b",)) == 3


async def test_link_that_is_lost_and_back_says_each_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plc = device()
    driver = ScriptedDriver([plc])
    bench = Bench(driver, [plc])
    async with bench.running():
        await bench.clock.advance(2.5)
        driver.script = _raise(NotConnected("connection reset"))
        driver.refusals = [NotConnected("connection refused")] * 8
        await bench.clock.advance(60)
        driver.script = _ones
        await bench.clock.advance(20)
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[1].split()[0] for line in said] == ["connected", "lost", "back"]
    assert driver.closed == driver.connected > 9


async def test_link_that_is_lost_writes_bad_just_after_the_last_poll() -> None:
    plc = device()
    driver = ScriptedDriver([plc])
    bench = Bench(driver, [plc])
    async with bench.running():
        await bench.clock.advance(2.5)
        driver.script = _raise(NotConnected("gone"))
        await bench.clock.advance(3)
    assert bench.of("plc.a") == [(0.0, 1, None), (pytest.approx(2.0), None, "device_offline")]


async def test_link_that_never_came_up_is_offline_from_the_first_try() -> None:
    plc = device()
    driver = ScriptedDriver([plc])
    driver.refusals = [NotConnected("refused")] * 100
    bench = Bench(driver, [plc])
    async with bench.running():
        await bench.clock.advance(30)
    assert [(value, cause) for _, value, cause in bench.of("plc.a")] == [(None, "device_offline")]
    assert not bench.link.figures[0].connected
    assert bench.link.figures[0].error == "refused"


async def test_device_that_does_not_answer_leaves_its_neighbour_on_the_same_link_alone() -> None:
    dead, alive = device("dead"), device("alive")
    driver = ScriptedDriver([dead, alive])
    bench = Bench(driver, [dead, alive])
    count = iter(range(1_000))

    async def script(one: Device, tags: tuple[Tag, ...]) -> list[Reading]:
        if one is dead:
            await bench.clock.sleep_until(bench.clock.monotonic() + S // 5)
            raise DeviceFault(dead, "no answer within 200 ms")
        return [Reading(tag, None, next(count)) for tag in tags]

    driver.script = script
    async with bench.running():
        await bench.clock.advance(60.5)
    assert len(bench.of("alive.a")) == 61
    assert driver.connected == 1
    assert [cause for *_, cause in bench.of("dead.a")] == ["device_offline"]
    probes = driver.reads.count(("dead.a",))
    assert 6 <= probes <= 20, "a dead device is probed ever more slowly"


async def test_link_survives_a_bug_in_its_driver() -> None:
    plc = device()
    driver = ScriptedDriver([plc])
    driver.script = _raise(ZeroDivisionError("oops"))
    bench = Bench(driver, [plc])
    async with bench.running():
        await bench.clock.advance(1)
        driver.script = _ones
        await bench.clock.advance(30)
    assert bench.link.figures[0].connected
    assert [value for _, value, _ in bench.of("plc.a")] == [None, 1]


async def test_link_whose_driver_hangs_is_closed_by_the_backstop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.poller.BACKSTOP_S", 0.01)
    plc = device()
    driver = ScriptedDriver([plc])
    hung = asyncio.Event()

    async def hang(_: Device, __: tuple[Tag, ...]) -> list[Reading]:
        hung.set()
        return await asyncio.Future()

    driver.script = hang
    bench = Bench(driver, [plc])
    async with bench.running():
        await hung.wait()
        async with asyncio.timeout(5):
            await driver.was_closed.wait()
    assert "did not come back in time" in str(bench.link.figures[0].error)


async def test_stream_without_news_holds_its_values_and_a_lost_one_says_so() -> None:
    plc = device()
    driver = StreamingDriver([plc])
    bench = Bench(driver, [plc])
    async with bench.running():
        driver.batches.put_nowait([Reading(plc.tags[0], None, 5)])
        for _ in range(13):
            await bench.clock.advance(10)
            driver.batches.put_nowait([])
        await bench.clock.advance(5)
        driver.batches.put_nowait(NotConnected("silent for 30 s"))
        await bench.clock.advance(0.1)
    assert bench.of("plc.a") == [
        (0.0, 5, None), (50.0, 5, None), (100.0, 5, None), (pytest.approx(130.0), None, "device_offline")
    ]  # fmt: skip


async def test_link_that_answers_once_and_breaks_again_is_one_outage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plc = device()
    driver = ScriptedDriver([plc])
    bench = Bench(driver, [plc])
    answers = iter([1, 0] * 1_000)

    def flapping(_: Device, tags: tuple[Tag, ...]) -> list[Reading]:
        if next(answers):
            return [Reading(tag, None, 1) for tag in tags]
        raise NotConnected("connection reset")

    driver.script = flapping
    async with bench.running():
        await bench.clock.advance(60)
        tries = driver.connected
        driver.script = _ones
        await bench.clock.advance(30)
    said = [record.getMessage().split(":")[1].split()[0] for record in caplog.records]
    assert said == ["connected", "lost", "back"]
    assert tries < 15, "the delay goes on growing"


async def test_stream_that_breaks_after_its_first_values_is_one_outage(caplog: pytest.LogCaptureFixture) -> None:
    plc = device()
    driver = StreamingDriver([plc])
    bench = Bench(driver, [plc])
    async with bench.running():
        for _ in range(40):
            driver.batches.put_nowait([Reading(plc.tags[0], None, 5)])
            driver.batches.put_nowait(NotConnected("subscription refused"))
        await bench.clock.advance(30)
    assert len(caplog.records) == 1
    assert driver.connected < 10


async def test_value_that_holds_on_a_busy_stream_is_stored_at_each_refresh() -> None:
    plc = device(tags=("busy", "still"))
    driver = StreamingDriver([plc])
    bench = Bench(driver, [plc])
    busy, still = plc.tags
    async with bench.running():
        driver.batches.put_nowait([Reading(busy, None, 0), Reading(still, None, 7)])
        for second in range(1, 131):
            driver.batches.put_nowait([Reading(busy, None, second)])
            if second % 5 == 0:
                driver.batches.put_nowait([])
            await bench.clock.advance(1)
    assert [(round(time), value) for time, value, _ in bench.of("plc.still")] == [(0, 7), (54, 7), (104, 7)]


def mute(bench: Bench, seconds: float, place: int = 0) -> None:
    """Let the log be silent about a device for so long, as the verb does."""
    bench.link.figures[place].muted_until = bench.clock.now() + round(seconds * S)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of each log line whom it is of and its first word."""
    said = [record.getMessage().split(":") for record in caplog.records]
    return [f"{names}:{rest.split()[0]}" for names, rest, *_ in said]


async def test_device_that_is_muted_is_read_as_before_and_its_loss_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    plc = device()
    driver = ScriptedDriver([plc])
    bench = Bench(driver, [plc])
    async with bench.running():
        await bench.clock.advance(2.5)
        mute(bench, 3_600)
        driver.script = _raise(NotConnected("connection reset"))
        await bench.clock.advance(60)
        assert bench.link.figures[0].error == "connection reset"
        driver.script = _ones
        await bench.clock.advance(20)
    assert lines(caplog) == ["plc:connected"]
    assert [(value, cause) for _, value, cause in bench.of("plc.a")] == [(1, None), (None, "device_offline"), (1, None)]


async def test_device_that_is_still_lost_when_its_mute_ends_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plc = device()
    driver = ScriptedDriver([plc])
    driver.refusals = [NotConnected("connection refused")] * 1_000
    bench = Bench(driver, [plc])
    mute(bench, 100)
    async with bench.running():
        await bench.clock.advance(99)
        assert lines(caplog) == []
        await bench.clock.advance(600)
        assert lines(caplog) == ["plc:lost"]
        driver.refusals = []
        await bench.clock.advance(30)
    assert lines(caplog) == ["plc:lost", "plc:connected", "plc:back"]


async def test_device_that_was_lost_before_it_was_muted_is_said_to_be_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plc = device()
    driver = ScriptedDriver([plc])
    driver.refusals = [NotConnected("connection refused")] * 5
    bench = Bench(driver, [plc])
    async with bench.running():
        await bench.clock.advance(1)
        mute(bench, 3_600)
        await bench.clock.advance(60)
    assert lines(caplog) == ["plc:lost", "plc:connected", "plc:back"]


async def test_neighbour_of_a_muted_device_on_the_same_link_is_said_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    muted, other = device("muted"), device("other")
    driver = ScriptedDriver([muted, other])
    bench = Bench(driver, [muted, other])
    mute(bench, 3_600)

    def silent(one: Device, _: tuple[Tag, ...]) -> list[Reading]:
        raise DeviceFault(one, "no answer")

    driver.script = silent
    async with bench.running():
        await bench.clock.advance(30)
        assert lines(caplog) == ["other:lost"]
        driver.script = _raise(NotConnected("cable"))
        await bench.clock.advance(30)
    assert lines(caplog) == ["other:lost", "muted, other:lost"], "a link is muted when all of its devices are"


def test_delay_doubles_to_its_bound_and_is_spread() -> None:
    rng = random.Random(7)
    delays = [delay_ns(failures, rng) / S for failures in range(1, 12)]
    assert all(0.1 <= delay <= 10.0 for delay in delays)
    assert delays[0] <= 0.2
    assert min(delays[6:]) >= 5.0
    assert len(set(delays[6:])) == 5


def _ones(_: Device, tags: tuple[Tag, ...]) -> list[Reading]:
    return [Reading(tag, None, 1) for tag in tags]


def _raise(error: Exception):  # type: ignore[no-untyped-def]  # noqa: ANN202
    def script(_: Device, __: tuple[Tag, ...]) -> list[Reading]:
        raise error

    return script


async def test_tag_that_goes_bad_is_named_once_with_its_place_and_its_neighbours_are_read_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    plc = device(tags=("a", "b"))
    plc = Device(plc.name, plc.settings, tuple(replace(tag, place=f"devices/plc.yaml:{12 + n}")
                                               for n, tag in enumerate(plc.tags)))  # fmt: skip
    driver = ScriptedDriver([plc])
    bench = Bench(driver, [plc])
    good = False
    count = iter(range(10_000))

    def answer(_: Device, tags: tuple[Tag, ...]) -> list[Reading]:
        a, b = tags
        return [Reading(a, None, next(count)), Reading(b, None, 1) if good else bad(b, "illegal_data_address")]

    driver.script = answer
    async with bench.running():
        await bench.clock.advance(130)
        lines = [record.getMessage() for record in caplog.records if "bad" in record.getMessage()]
        assert lines == ["plc: bad: b (devices/plc.yaml:13) illegal_data_address; its other tags are read on"]
        assert [one["tag"] for one in bench.link.figures[0].bad] == ["plc.b"]
        good = True
        await bench.clock.advance(2)
        assert "plc: good again: b" in caplog.text
        assert bench.link.figures[0].bad == []
        caplog.clear()
        for _ in range(20):  # one that comes and goes
            good = not good
            await bench.clock.advance(2)
        assert caplog.text == ""
    assert len(bench.of("plc.a")) == 173


async def test_tag_that_goes_bad_on_a_muted_device_is_not_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    plc = device()
    driver = ScriptedDriver([plc], lambda _, tags: [bad(tag, "illegal_data_address") for tag in tags])
    bench = Bench(driver, [plc])
    bench.link.figures[0].muted_until = START + 60 * S
    async with bench.running():
        await bench.clock.advance(5)
    assert "bad" not in caplog.text
