"""OPC UA monitored items against node-opcua: types, queues, deadbands, and one bad node among good ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from node_server import NodeServer, needs_node_opcua
from pydantic import ValidationError

import edge_agent_opcua.driver as driver_module
from edge_agent.contract import Device, Quality, Reading, Tag
from edge_agent_opcua import OpcuaDriver
from edge_agent_opcua.settings import OpcuaSettings, OpcuaTagSettings

FIRST = "nsu=urn:test:first;s="


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeServer]:
    with NodeServer(tmp_path_factory.mktemp("node")) as made:
        yield made


def device(url: str, poll: str = "100 ms", **tags: dict[str, Any]) -> Device:
    settings = OpcuaSettings.model_validate({"driver": "opcua", "url": url, "security": "none", "poll": poll})
    made = (Tag(f"plc.{name}", OpcuaTagSettings.model_validate(each), settings.poll) for name, each in tags.items())
    return Device("plc", settings, tuple(made))


class Taken:
    """What a running stream has brought so far, by short tag name."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []

    def of(self, name: str) -> list[Any]:
        return [one.cause if one.quality is Quality.BAD else one.value for one in self.readings
                if one.tag.short_name == name]  # fmt: skip

    async def until(self, condition: Callable[[], bool], limit_s: float = 8) -> None:
        async with asyncio.timeout(limit_s):
            while not condition():  # noqa: ASYNC110 - the stream fills the list
                await asyncio.sleep(0.02)


@asynccontextmanager
async def streaming(plc: Device) -> AsyncIterator[Taken]:
    driver, taken = OpcuaDriver([plc]), Taken()
    await driver.connect()

    async def take() -> None:
        async with aclosing(driver.stream()) as batches:
            async for batch in batches:
                taken.readings += batch

    task = asyncio.create_task(take())
    try:
        yield taken
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await driver.close()


@needs_node_opcua
async def test_value_of_every_type_comes_as_it_is(server: NodeServer) -> None:
    names = ("Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double",
             "String", "DateTime", "Guid", "ByteString", "LocalizedText", "Numbers", "Mode")  # fmt: skip
    tags: dict[str, Any] = {name: {"address": FIRST + name} for name in names}
    async with streaming(device(server.url, **tags)) as taken:
        await taken.until(lambda: all(taken.of(name) for name in names))
        found = [taken.of(name)[-1] for name in names]
    assert found == [
        True, -8, 8, -16, 16, -32, 32, -64, 64, 1.5, 2.25, "text", "2026-11-23T07:00:00.5Z",
        "72962b91-fa75-4ae6-8d28-b404dc7daf63", b"\x01\x02\x03", "open", (1.0, 2.5, -3.0), 2,
    ]  # fmt: skip


@needs_node_opcua
async def test_server_deadband_keeps_small_changes_away(server: NodeServer) -> None:
    plc = device(
        server.url,
        absolute={"address": FIRST + "Level", "server_deadband": 1.5},
        percent={"address": FIRST + "Level", "server_deadband": "5 %"},  # of 0 to 200: 10
        every={"address": FIRST + "Level"},
    )
    server.tell("write Level 20")
    async with streaming(plc) as taken:
        await taken.until(lambda: bool(taken.of("every")))
        for value in (40, 41, 43, 60, 20):  # node-opcua reports the first change whatever its size
            server.tell(f"write Level {value}")
            await taken.until(lambda value=value: value in taken.of("every"))  # type: ignore[misc]
        await asyncio.sleep(0.5)
    assert taken.of("every") == [20, 40, 41, 43, 60, 20]
    assert taken.of("absolute") == [20, 40, 43, 60, 20]
    assert taken.of("percent") == [20, 40, 60, 20]


@needs_node_opcua
async def test_percent_deadband_of_a_node_without_a_range_is_bad_by_name_and_the_others_go_on(
    server: NodeServer,
) -> None:
    plc = device(
        server.url,
        wrong={"address": FIRST + "Double", "server_deadband": "2 %"},
        gone={"address": FIRST + "NoSuchNode"},
        good={"address": FIRST + "Int32"},
    )
    async with streaming(plc) as taken:
        await taken.until(lambda: bool(taken.of("good")) and len(taken.of("wrong")) >= 1 and bool(taken.of("gone")))
        await taken.until(lambda: str(taken.of("wrong")[-1]).startswith("Bad"))
    assert taken.of("good") == [-32]
    assert taken.of("gone")[-1] == "BadNodeIdUnknown"


async def test_item_that_the_server_refused_is_found_when_its_node_appears(monkeypatch: pytest.MonkeyPatch) -> None:
    from opcua_server import build, endpoint_of, ua

    monkeypatch.setattr(driver_module, "RETRY_S", 0.3)
    server, _ = await build(["urn:test:first"])
    async with server:
        plc = device(endpoint_of(server), late={"address": FIRST + "Late"}, good={"address": FIRST + "Count"})
        async with streaming(plc) as taken:
            await taken.until(lambda: bool(taken.of("good")) and bool(taken.of("late")))
            assert set(taken.of("late")) == {"BadNodeIdUnknown"}
            index = await server.get_namespace_index("urn:test:first")
            await server.nodes.objects.add_variable(ua.NodeId("Late", index), "Late", 42)
            await taken.until(lambda: 42 in taken.of("late"))


@needs_node_opcua
async def test_values_between_two_deliveries_are_kept_up_to_the_queue_and_what_is_lost_is_said(
    server: NodeServer,
) -> None:
    plc = device(
        server.url,
        "1 s",
        small={"address": FIRST + "Int32", "sampling": "50 ms", "queue": 2},
        large={"address": FIRST + "Int32", "sampling": "50 ms", "queue": 100},
    )
    async with streaming(plc) as taken:
        await taken.until(lambda: bool(taken.of("large")))
        for value in range(1, 11):
            server.tell(f"write Int32 {value}")
            await asyncio.sleep(0.06)
        await taken.until(lambda: 10 in taken.of("large") and 10 in taken.of("small"))
    assert len(taken.of("large")) > len([value for value in taken.of("small") if value != "overflow"])
    assert "overflow" in taken.of("small")
    server.tell("write Int32 -32")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"server_deadband": "2"}, "percentage of the EURange"),
        ({"server_deadband": "200 %"}, "percentage of the EURange"),
        ({"server_deadband": -1.0}, "more than 0"),
        ({"server_deadband": 0.5, "mode": "read"}, "server_deadband belongs to"),
        ({"queue": 0}, "greater than or equal to 1"),
        ({"queue": 5, "mode": "read"}, "queue belongs to"),
    ],
)
def test_settings_of_an_item_that_cannot_be_meant_say_what_to_write(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        OpcuaTagSettings.model_validate({"address": "i=2258", **settings})
