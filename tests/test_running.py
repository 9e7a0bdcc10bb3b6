"""Running totals: as the whole time in one go, whatever the steps; what comes a little late is in them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from desk_bench import CONFIG, DeskBench
from fakes import FakeClock, S
from test_summarizer import NOON

from edge_agent import production
from edge_agent.production import WindowData
from edge_agent.running import Running

HOURS = 7 * 3_600
"""More than one stride."""


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[DeskBench]:
    made = DeskBench(tmp_path, FakeClock(NOON), CONFIG)
    yield made
    await made.thread.close()


def running(bench: DeskBench, machine: str = "press") -> Running:
    site = bench.summarizer.site
    return Running(site.basis.machines[machine], site.calendar, bench.thread)


def made_of(data: WindowData | None) -> object:
    """What a state record says of a total."""
    assert data is not None
    return data.quantities, data.by_reason, data.pace, data.product, data.job


async def whole(bench: DeskBench, start: int, now: int) -> WindowData:
    """The same in one go."""
    site = bench.summarizer.site
    machine = site.basis.machines["press"]
    since = start - production.lookback_ns(machine)
    rows = bench.store.readings.steps_of(machine.tags, since, now, production.COUNTER_LOOKBACK_READINGS)
    entries = bench.store.entries.of("press", since, now)
    (data,) = production.compute(machine, site.calendar, rows, [(start, now)], now, entries)
    return data


def rough_day(bench: DeskBench, rng: random.Random) -> None:
    """Seven hours with stops, holes, resets, jumps that nobody believes, and a counter that wraps."""
    count, second = 60_000, 0
    while second < HOURS:
        what = rng.choice(["run"] * 6 + ["stop", "hole", "blind", "jump", "reset"])
        for _ in range(rng.randrange(1, 60)):
            second += 10
            count = (count + (10 if what in ("run", "blind") else 0)) % 65_536
            cause = "device_offline" if what == "hole" else None
            bench.put("plc.count", second, None if cause else count, cause)
            blind = cause or ("bad_quality" if what == "blind" else None)
            bench.put("plc.status", second, None if blind else (3 if what == "stop" else 1), blind)
            bench.put("plc.rejects", second, second // 600, None)
        if what in ("jump", "reset"):
            count = rng.randrange(1, 65_536) if what == "jump" else 0


@pytest.mark.parametrize("seed", range(6))
async def test_total_is_that_of_the_whole_time_whatever_the_steps(bench: DeskBench, seed: int) -> None:
    rng = random.Random(seed)
    rough_day(bench, rng)
    await bench.clock.advance(HOURS + 60)
    await bench.tell("job-start", at=0, job="WO-1")
    for _ in range(6):
        await bench.tell("scrap", at=rng.randrange(HOURS), count=rng.randrange(1, 9), reason=rng.choice(["a", "b/c"]))
        await bench.tell("correction", at=rng.randrange(HOURS), count=rng.randrange(-9, -1))
        await bench.tell("counter-replaced", at=rng.randrange(HOURS), tag="plc.count", value=rng.randrange(65_536))
    totals, now, start = running(bench), NOON + 5 * S, NOON + 1_234 * S
    while now < NOON + HOURS * S:
        now += rng.choice([1, 7, 60, 61, 600, 4_000]) * S + rng.randrange(S)
        if now > start:
            assert made_of(await totals.total("job", start, now)) == made_of(await whole(bench, start, now)), now - NOON


async def test_total_of_no_time_is_none(bench: DeskBench) -> None:
    assert await running(bench).total("shift", NOON, NOON) is None
    assert await running(bench).total("shift", NOON, NOON - S) is None


async def test_part_that_comes_a_little_late_is_in_the_next_total(bench: DeskBench) -> None:
    totals = running(bench)
    bench.run(0, 600)
    await bench.thread.flush()
    before = await totals.total("shift", NOON, NOON + 595 * S)
    bench.put("plc.count", 593, bench.made + 50)
    await bench.thread.flush()
    after = await totals.total("shift", NOON, NOON + 660 * S)
    assert before is not None
    assert after is not None
    assert (before.quantities["produced"].total, after.quantities["produced"].total) == (590, 640)  # type: ignore[union-attr]


async def test_total_that_begins_elsewhere_or_is_asked_for_an_earlier_time_begins_anew(bench: DeskBench) -> None:
    totals = running(bench)
    bench.run(0, 3_600)
    await bench.thread.flush()
    for start, now in ((0, 3_600), (0, 600), (1_800, 3_600), (0, 3_600)):
        span = (NOON + start * S, NOON + now * S)
        assert made_of(await totals.total("shift", *span)) == made_of(await whole(bench, *span))


async def test_total_has_what_was_told_of_long_ago_once_it_is_forgotten(bench: DeskBench) -> None:
    totals = running(bench)
    bench.run(0, 3_600)
    await bench.clock.advance(3_600)
    await bench.thread.flush()
    await totals.total("shift", NOON, NOON + 3_600 * S)
    await bench.tell("scrap", at=600, count=5)
    totals.forget()
    found = await totals.total("shift", NOON, NOON + 3_600 * S)
    assert found is not None
    assert found.quantities["scrap"].total == 5  # type: ignore[union-attr]


async def test_total_goes_on_from_before_what_has_changed(bench: DeskBench, monkeypatch: pytest.MonkeyPatch) -> None:
    totals, now = running(bench), NOON + HOURS * S
    rough_day(bench, random.Random(5))
    await bench.clock.advance(HOURS)
    await bench.thread.flush()
    for hour in range(1, 8):
        await totals.total("shift", NOON, NOON + hour * 3_600 * S)
    spans: list[int] = []
    compute = production.compute

    def watched(*given: object) -> object:
        spans.extend(end - start for start, end in given[3])  # type: ignore[attr-defined]
        return compute(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(production, "compute", watched)
    await bench.tell("scrap", at=6.5 * 3_600, count=5)
    totals.forget(NOON + round(6.5 * 3_600) * S)
    after = await totals.total("shift", NOON, now)
    assert sum(spans) < 2.1 * 3_600 * S
    monkeypatch.undo()
    assert made_of(after) == made_of(await whole(bench, NOON, now))
    await bench.tell("scrap", at=10, count=3)
    totals.forget(NOON + 10 * S)
    assert made_of(await totals.total("shift", NOON, now)) == made_of(await whole(bench, NOON, now))
