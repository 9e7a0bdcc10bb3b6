"""OPC UA history: the gap of an outage from the server's own records, against asyncua and node-opcua."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import S
from node_server import NodeServer, needs_node_opcua
from opcua_server import build, endpoint_of, now_with, ua
from test_opcua_items import device

import edge_agent_opcua.history as history_module
from edge_agent.backfill import Backfill
from edge_agent.clock import SystemClock
from edge_agent.contract import NO_HISTORY, HasHistory, HistoryPart, NotConnected, Origin, Quality, Tag
from edge_agent.intake import Intake, TagState
from edge_agent.poller import Link
from edge_agent.store import Store, StoreThread
from edge_agent_opcua import OpcuaDriver
from edge_agent_opcua.wire import DataValue

FIRST = "nsu=urn:test:first;s="


async def told(driver: OpcuaDriver, tags: tuple[Tag, ...], start: int, end: int) -> list[HistoryPart]:
    async with aclosing(driver.history(tags, start, end)) as parts:
        return [part async for part in parts]


def values(parts: list[HistoryPart], tag: Tag) -> list[Any]:
    return [reading.value for part in parts if part.tag is tag for reading in part.readings]


@pytest.fixture
async def recording() -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    """An asyncua server that keeps a history of `Count`."""
    server, nodes = await build(["urn:test:first"])
    async with server:
        await server.historize_node_data_change(nodes["Count"], period=timedelta(days=1), count=10_000)
        yield server, nodes


async def write(server: Any, node: Any, first: int, last: int) -> None:
    for value in range(first, last + 1):
        await server.write_attribute_value(node.nodeid, now_with(value, ua.VariantType.Int32))
        await asyncio.sleep(0.002)


def test_driver_has_the_power() -> None:
    plc = device("opc.tcp://127.0.0.1:1", a={"address": "i=2258"}, b={"address": "i=2258", "history": "never"})
    driver = OpcuaDriver([plc])
    assert isinstance(driver, HasHistory)
    assert [driver.has_history(tag) for tag in plc.tags] == [True, False]


async def test_history_is_paged_in_order_complete_and_half_open(
    recording: tuple[Any, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "PAGE", 7)
    server, nodes = recording
    await write(server, nodes["Count"], 1, 50)
    await asyncio.sleep(0.2)
    plc = device(endpoint_of(server), count={"address": FIRST + "Count"}, none={"address": FIRST + "Value"},
                 gone={"address": FIRST + "NoSuchNode"})  # fmt: skip
    count, none, gone = plc.tags
    driver = OpcuaDriver([plc])
    await driver.connect()
    try:
        now = time.time_ns()
        parts = await told(driver, plc.tags, now - 60 * S, now)
        assert values(parts, count)[-50:] == list(range(1, 51))
        assert len([part for part in parts if part.tag is count]) > 5, "in pages"
        assert [part.complete for part in parts if part.tag is count].index(True) >= 7, "only the last"
        readings = [reading for part in parts if part.tag is count for reading in part.readings]
        assert {reading.origin for reading in readings} == {Origin.HISTORY}
        times = [reading.time for reading in readings]
        assert times == sorted(times, key=lambda each: each or 0)
        assert [part.error for part in parts if part.tag is none] == [NO_HISTORY]
        assert next(part.error for part in parts if part.tag is gone) is not None
        tenth, twentieth = times[-41], times[-31]
        assert tenth is not None
        assert twentieth is not None
        assert values(await told(driver, (count,), tenth, twentieth), count) == list(range(10, 20))
        assert values(await told(driver, (count,), now - 7_200 * S, now - 3_600 * S), count) == []
        shown = await driver.device_time(plc)
        assert shown is not None
        assert abs(shown - time.time_ns()) < 2 * S
    finally:
        await driver.close()


async def test_history_of_nodes_for_which_the_server_has_no_continuation_point_is_asked_one_by_one(
    recording: tuple[Any, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "PAGE", 7)
    server, nodes = recording
    await server.historize_node_data_change(nodes["Value"], period=timedelta(days=1), count=10_000)
    await write(server, nodes["Count"], 1, 30)
    for text in "abc":
        await server.write_attribute_value(nodes["Value"].nodeid, now_with(text, ua.VariantType.String))
    await asyncio.sleep(0.2)
    manager = server.iserver.history_manager
    whole = manager.read_history

    async def one_at_a_time(params: Any) -> Any:
        results = await whole(params)
        for result in results[1:]:
            result.StatusCode, result.HistoryData = ua.StatusCode(ua.StatusCodes.BadNoContinuationPoints), None
        return results

    monkeypatch.setattr(manager, "read_history", one_at_a_time)
    plc = device(endpoint_of(server), value={"address": FIRST + "Value"}, count={"address": FIRST + "Count"})
    value, count = plc.tags
    driver = OpcuaDriver([plc])
    await driver.connect()
    try:
        now = time.time_ns()
        parts = await told(driver, plc.tags, now - 60 * S, now)
    finally:
        await driver.close()
    assert values(parts, count)[-30:] == list(range(1, 31))
    assert values(parts, value)[-3:] == ["a", "b", "c"]
    assert [part.error for part in parts if part.error] == []


@needs_node_opcua
async def test_history_of_a_node_opcua_server_comes_whole_in_small_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "PAGE", 10)
    with NodeServer(tmp_path, max_per_call=1) as server:
        server.tell("record 95")
        plc = device(server.url, recorded={"address": FIRST + "Recorded"}, plain={"address": FIRST + "Double"})
        recorded, plain = plc.tags
        driver = OpcuaDriver([plc])
        await driver.connect()
        try:
            now = time.time_ns() + 10 * S  # it records ahead of the clock, a value each millisecond
            parts = await told(driver, plc.tags, now - 60 * S, now)
            assert values(parts, recorded)[-95:] == list(range(1, 96))
            assert [part.error for part in parts if part.tag is plain] == [NO_HISTORY]
            async with aclosing(driver.history((recorded,), now - 60 * S, now)) as early:
                async for part in early:
                    assert len(part.readings) <= 10
                    break
            assert len(values(await told(driver, (recorded,), now - 60 * S, now), recorded)) >= 95
        finally:
            await driver.close()


@needs_node_opcua
async def test_server_that_dies_in_the_middle_is_not_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "PAGE", 10)
    with NodeServer(tmp_path) as server:
        server.tell("record 200")
        plc = device(server.url, recorded={"address": FIRST + "Recorded"})
        driver = OpcuaDriver([plc])
        await driver.connect()
        now = time.time_ns() + 10 * S
        with pytest.raises(NotConnected):
            async with aclosing(driver.history(plc.tags, now - 60 * S, now)) as parts:
                async for _ in parts:
                    server.stop()
        await driver.close()


async def test_what_was_missed_while_the_link_was_down_is_stored_as_if_it_had_been_seen(
    recording: tuple[Any, dict[str, Any]], tmp_path: Path
) -> None:
    """The whole lane: link, intake, store; the server lives on while nobody is connected."""
    server, nodes = recording
    plc = device(endpoint_of(server), count={"address": FIRST + "Count", "queue": 100})
    (tag,) = plc.tags
    store = Store(tmp_path / "data")
    store.begin(time.time_ns())
    ids = store.register([(tag.name, True)])
    clock = SystemClock()
    thread = StoreThread(store, clock, S // 10)
    intake = Intake({tag: TagState(tag, ids[tag.name], machine=True, refresh_ns=60 * S, max_skew_ns=2 * S)})
    lanes = [asyncio.create_task(thread.run())]

    def stored() -> list[Any]:
        rows = store.readings.steps(tag.name, 0, 2**62)
        return [value if quality < Quality.BAD else cause for _, value, quality, cause in rows]

    async def linked() -> asyncio.Task[None]:
        driver = OpcuaDriver([plc])
        fill = Backfill(driver, [plc], intake, thread, clock, 86_400 * S).run
        return asyncio.create_task(Link("l", driver, [plc], intake, thread.append, clock, fill=fill).run())

    try:
        link = await linked()
        await write(server, nodes["Count"], 1, 5)
        async with asyncio.timeout(10):
            while 5 not in await thread.call(stored):  # noqa: ASYNC110 - the lanes fill it
                await asyncio.sleep(0.05)
        link.cancel()
        await asyncio.gather(link, return_exceptions=True)
        thread.append(intake.lost([tag], time.time_ns(), "device_offline"))
        await asyncio.sleep(0.1)
        await write(server, nodes["Count"], 6, 30)
        link = await linked()
        async with asyncio.timeout(15):
            while 20 not in await thread.call(stored) or store.holes.pending([tag.name]):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        link.cancel()
        await asyncio.gather(link, return_exceptions=True)
        found = await thread.call(stored)
        assert "device_offline" not in found
        good = [value for value in found if isinstance(value, int)]
        first = next(value for value in good if value)
        assert first <= 5
        assert [value for value in dict.fromkeys(good) if value] == list(range(first, 31))
    finally:
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
        await thread.close()


def test_history_that_goes_back_in_time_is_an_error_of_its_tag_and_of_nothing_else() -> None:
    (tag,) = device("opc.tcp://127.0.0.1:1", a={"address": "i=2258"}).tags
    ticks = 133_000_000_000_000_000
    newest: dict[Tag, int] = {}

    def page(*offsets: int) -> HistoryPart:
        samples = [DataValue(offset, 0, ticks + offset) for offset in offsets]
        return history_module._part(tag, history_module._Result(0, b"more", samples), 0, 2**62, newest)

    assert [reading.value for reading in page(3, 1, 2).readings] == [1, 2, 3], "within a page the order is mended"
    assert [reading.value for reading in page(3, 4).readings] == [3, 4]
    assert page(2, 5) == HistoryPart(tag, [], error="history_out_of_order")


@pytest.mark.parametrize(
    ("status", "ticks", "error"),
    [
        (0x00A60000, 133_000_000_000_000_000, "GoodMoreData"),
        (0, 0, "history_without_time"),
        (0, 133_000_000_000_000_000, None),
    ],
)
def test_history_is_complete_only_where_nothing_is_missing_from_it(status: int, ticks: int, error: str | None) -> None:
    (tag,) = device("opc.tcp://127.0.0.1:1", a={"address": "i=2258"}).tags
    samples = [DataValue(1, 0, 133_000_000_000_000_000), DataValue(2, 0, ticks + 1 if ticks else 0)]
    part = history_module._part(tag, history_module._Result(status, None, samples), 0, 2**62, {})
    assert (part.error, part.complete) == (error, error is None)
    assert next(reading.value for reading in part.readings) == 1, "what came stands"
