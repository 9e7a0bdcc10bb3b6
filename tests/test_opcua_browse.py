"""Browsing an OPC UA server: a tree with types, units and values, and tags that can be pasted."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from node_server import NodeServer, needs_node_opcua
from opcua_server import build, endpoint_of, ua

from edge_agent.config import load
from edge_agent.contract import Browsed, Browses, ConfigError, NotConnected
from edge_agent_opcua import OpcuaDriver
from edge_agent_opcua.address import Address, address_text, parse_address
from edge_agent_opcua.settings import OpcuaSettings
from edge_agent_opcua.units import ucum

FIRST = "nsu=urn:test:first;s="


def settings(url: str) -> OpcuaSettings:
    return OpcuaSettings.model_validate({"driver": "opcua", "url": url, "security": "none"})


async def browsed(url: str, start: str | None = None, depth: int = 10, limit: int = 1_000) -> list[Browsed]:
    async with aclosing(OpcuaDriver.browse(settings(url), start, depth, limit, Path())) as things:
        return [thing async for thing in things]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeServer]:
    with NodeServer(tmp_path_factory.mktemp("node"), max_per_call=5) as made:
        yield made


def test_driver_has_the_power() -> None:
    assert isinstance(OpcuaDriver, Browses)


@needs_node_opcua
async def test_browse_shows_types_units_values_and_addresses_in_depth_first_order(server: NodeServer) -> None:
    things = await browsed(server.url)
    plant = next(thing for thing in things if thing.name == "Plant")
    assert (plant.address, plant.depth) == (None, 0)
    by_name = {thing.name: thing for thing in things if (thing.address or "").startswith("nsu=urn:test:first")}
    assert by_name["Double"][:4] == (1, "Double", FIRST + "Double", "Double")
    assert by_name["Double"].value == 2.25
    assert (by_name["Numbers"].type, by_name["Numbers"].value) == ("Double[3]", (1.0, 2.5, -3.0))
    assert (by_name["Mode"].type, by_name["Mode"].value) == ("Mode", 2)
    assert (by_name["Level"].unit, by_name["Level"].type) == ("Cel", "Double")
    assert by_name["Recorded"].history
    assert not by_name["Double"].history
    assert "EURange" not in {thing.name for thing in things}, "properties are no things of their own"
    assert [thing.value for thing in things if thing.name == "Value"] == ["urn:test:first", "urn:test:second"]


@needs_node_opcua
async def test_browse_is_bounded_by_depth_and_limit_and_says_so(server: NodeServer) -> None:
    shallow = await browsed(server.url, depth=1)
    assert {thing.depth for thing in shallow} == {0}
    assert next(thing for thing in shallow if thing.name == "Plant").cause == "not looked into: --depth 1"
    few = await browsed(server.url, limit=4)
    assert len(few) == 5
    assert few[-1].name == "…"
    assert "more than 4 things" in str(few[-1].cause)


@needs_node_opcua
async def test_browse_from_an_address_shows_what_lies_below_it(server: NodeServer) -> None:
    things = await browsed(server.url, "nsu=urn:test:second;s=Plant")
    assert [(thing.depth, thing.name, thing.value) for thing in things] == [(0, "Value", "urn:test:second")]
    with pytest.raises(ConfigError, match="no such namespace; it has: "):
        await browsed(server.url, "nsu=urn:test:third;s=Plant")
    with pytest.raises(ConfigError, match="ns=2"):
        await browsed(server.url, "ns=2;s=Plant")


async def test_browse_of_a_space_with_cycles_ends() -> None:
    server, _ = await build(["urn:test:first"])
    async with server:
        index = await server.get_namespace_index("urn:test:first")
        one = await server.nodes.objects.add_object(ua.NodeId("One", index), "One")
        two = await one.add_object(ua.NodeId("Two", index), "Two")
        await two.add_reference(one, ua.ObjectIds.Organizes)
        await two.add_variable(ua.NodeId("a;b%c", index), "odd", 5)
        things = await browsed(endpoint_of(server))
    assert [thing.name for thing in things].count("One") == 1
    assert next(thing for thing in things if thing.name == "odd").address == FIRST + "a;b%c"


async def test_browse_of_nobody_is_not_connected() -> None:
    with pytest.raises(NotConnected, match="nothing listens there"):
        await browsed("opc.tcp://127.0.0.1:9")


@given(
    st.text(min_size=1).filter(lambda uri: uri != "http://opcfoundation.org/UA/"),
    st.one_of(
        st.integers(0, 2**32 - 1),
        st.text(min_size=1),
        st.binary(min_size=1),
        st.builds(uuid.UUID, int=st.integers(0, 2**128 - 1)),
    ),
)
def test_address_as_it_is_printed_is_read_back(namespace: str, identifier: Any) -> None:
    assert parse_address(address_text(namespace, identifier)) == Address(namespace, identifier)


def test_address_of_ua_itself_needs_no_uri() -> None:
    assert address_text("http://opcfoundation.org/UA/", 2258) == "i=2258"


@pytest.mark.parametrize(
    ("number", "shown", "code"),
    [(4408652, "°C", "Cel"), (4933453, None, "kg"), (20529, "%", "%"), (4403510, None, "mm/s"), (-1, None, None),
     (0, "furlong", "furlong"), (1, "odd", "odd")],
)  # fmt: skip
def test_unit_is_its_ucum_code_or_what_the_server_shows(number: int, shown: str | None, code: str | None) -> None:
    assert ucum(number, shown) == code


@needs_node_opcua
def test_tags_that_browse_prints_can_be_pasted_and_checked(server: NodeServer, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_agent", "browse", server.url, "--security", "none"]
    tree = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert tree.returncode == 0, tree.stderr
    assert f"  Level: Double = 20.0 Cel   {FIRST}Level" in tree.stdout
    run = subprocess.run([*command, "--yaml"], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    tags = "".join(f"    {line}\n" for line in run.stdout.splitlines())
    (tmp_path / "all.yaml").write_text(
        'agent: {name: gw1, enterprise: acme, site: lyon}\nmqtt: {url: "mqtt://127.0.0.1:1"}\ndevices:\n'
        f"  plc:\n    driver: opcua\n    url: {server.url}\n    security: none\n{tags}"
    )
    configuration = load(tmp_path)
    assert not configuration.faults, [str(fault) for fault in configuration.faults]
    level = next(tag for tag in configuration.devices["plc"].tags if tag.short_name == "level")
    assert (level.settings.address, level.settings.unit) == (FIRST + "Level", "Cel")
    lines = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert {json.loads(line)["name"] for line in lines.splitlines()} >= {"Plant", "Double"}


async def test_browse_from_a_node_that_is_not_there_says_so() -> None:
    plant, _ = await build(["urn:test:first"])
    async with plant:
        with pytest.raises(ConfigError, match=r"s=Typo: BadNodeIdInvalid"):
            await browsed(endpoint_of(plant), FIRST + "Typo")


async def test_browse_of_a_node_outside_the_namespace_array_goes_on_with_the_others() -> None:
    plant, _ = await build(["urn:test:first"])
    await plant.nodes.objects.add_variable(ua.NodeId("Stray", 77), "Stray", 1)
    async with plant:
        things = {thing.name: thing for thing in await browsed(endpoint_of(plant))}
    assert things["Stray"].address is None
    assert things["Stray"].cause == "the server's NamespaceArray has no entry 77"
    assert things["Count"].value == 0
