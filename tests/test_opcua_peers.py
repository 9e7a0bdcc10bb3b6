"""The OPC UA driver against servers that nobody here wrote."""

from __future__ import annotations

from pathlib import Path

from node_server import NodeServer, needs_node_opcua
from test_driver_contract import registered

from edge_agent.contract import Device, Reading, Tag

pytestmark = needs_node_opcua


def device(url: str, *addresses: str, **settings: object) -> Device:
    kind = registered()["opcua"]
    given = {"driver": "opcua", "url": url, "security": "none", "poll": "200 ms", **settings}
    tags = tuple(
        Tag(f"plc.t{n}", kind.TagSettings.model_validate({"address": address, "mode": "read"}), 200_000_000)
        for n, address in enumerate(addresses)
    )
    return Device("plc", kind.Settings.model_validate(given), tags)


async def read_once(plc: Device) -> list[Reading]:
    driver = registered()["opcua"]([plc])
    try:
        await driver.connect()
        return list(await driver.read(plc, plc.tags))
    finally:
        await driver.close()


async def test_values_of_a_node_opcua_server_are_its_own(tmp_path: Path) -> None:
    with NodeServer(tmp_path) as server:
        names = ("Boolean", "Int16", "UInt64", "Int64", "Double", "String", "DateTime", "Numbers", "LocalizedText")
        plc = device(server.url, *(f"nsu=urn:test:first;s={name}" for name in names))
        found = [reading.value for reading in await read_once(plc)]
    assert found == [True, -16, 64, -64, 2.25, "text", "2026-11-23T07:00:00.5Z", (1.0, 2.5, -3.0), "open"]


async def test_server_that_comes_back_with_swapped_namespaces_gives_no_other_machines_value(tmp_path: Path) -> None:
    server = NodeServer(tmp_path)
    plc = device(server.url, "nsu=urn:test:first;s=Value", "nsu=urn:test:second;s=Value")
    driver = registered()["opcua"]([plc])
    try:
        for order in (("urn:test:first", "urn:test:second"), ("urn:test:second", "urn:test:first")):
            server.namespaces = order
            server.start()
            await driver.connect()
            assert [reading.value for reading in await driver.read(plc, plc.tags)] == [
                "urn:test:first", "urn:test:second",
            ]  # fmt: skip
            await driver.close()
            server.stop()
        server.namespaces = ("urn:test:second",)
        server.start()
        await driver.connect()
        gone, there = await driver.read(plc, plc.tags)
        assert (gone.value, gone.cause) == (None, "BadNodeIdUnknown")
        assert there.value == "urn:test:second"
    finally:
        await driver.close()
        server.stop()


async def test_servers_small_operation_limits_are_obeyed(tmp_path: Path) -> None:
    with NodeServer(tmp_path, max_per_call=3) as server:
        plc = device(server.url, *["nsu=urn:test:first;s=Int32"] * 10)
        assert [reading.value for reading in await read_once(plc)] == [-32] * 10
