"""oven: a PLC on OPC UA, without security, in the namespace `http://example.org/oven`.

| node | holds |
|---|---|
| s=Zone1.Temp, s=Zone2.Temp, s=Zone3.Temp | zone temperatures, Double, °C |
| s=Status | Int32: 1 producing, 2 delay, 3 down, 4 setup, 5 planned stop, 6 idle |
| i=2001 | trays, UInt32 |
| i=2002 | rejected trays, UInt32 |

The values are written each 250 ms, with the time of writing as their source timestamp.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC

from asyncua import ua
from asyncua.server.server import Server

from edge_agent.simulator.machine import NS_PER_S, STATUS_CODES, Snapshot
from edge_agent.simulator.plant import OVEN, Plant, PlantError

NAMESPACE = "http://example.org/oven"
_CYCLE_S = 0.25
_CURRENT_TIME = ua.NodeId.from_string("i=2258")
_SET_POINTS = {"Zone1.Temp": 182.0, "Zone2.Temp": 215.0, "Zone3.Temp": 198.0}
_PERIODS_S = {"Zone1.Temp": 41.0, "Zone2.Temp": 67.0, "Zone3.Temp": 29.0}


def zone_temperature(zone: str, elapsed_ns: int) -> float:
    """In degrees Celsius: the controller hunts around its set point."""
    seconds = elapsed_ns / NS_PER_S
    return round(_SET_POINTS[zone] + 2.5 * math.sin(2 * math.pi * seconds / _PERIODS_S[zone]), 2)


def _variants(seen: Snapshot) -> dict[str | int, ua.Variant]:
    return {
        **{zone: ua.Variant(zone_temperature(zone, seen.elapsed_ns), ua.VariantType.Double) for zone in _SET_POINTS},
        "Status": ua.Variant(STATUS_CODES[seen.state], ua.VariantType.Int32),
        2001: ua.Variant((OVEN.first_produced + seen.produced) % 2**32, ua.VariantType.UInt32),
        2002: ua.Variant((OVEN.first_scrap + seen.scrap) % 2**32, ua.VariantType.UInt32),
    }


_BROWSE_NAMES = {2001: "Trays", 2002: "Rejected"}


class Oven:
    """The oven's server, after `serve_oven` has started it."""

    def __init__(self, plant: Plant, server: Server, nodes: dict[str | int, ua.NodeId], port: int) -> None:
        self.url = f"opc.tcp://127.0.0.1:{port}"
        self._plant = plant
        self._server = server
        self._nodes = nodes
        self._publishing = asyncio.Lock()

    async def publish(self) -> None:
        """Write what the plant shows now to all nodes."""
        async with self._publishing:
            now = ua.DateTime.now(UTC)
            for key, variant in _variants(self._plant.look(OVEN.name)).items():
                value = ua.DataValue(variant, SourceTimestamp=now, ServerTimestamp=now)
                await self._server.write_attribute_value(self._nodes[key], value)
            clock = ua.DataValue(ua.Variant(now, ua.VariantType.DateTime))
            await self._server.write_attribute_value(_CURRENT_TIME, clock)

    async def run(self) -> None:
        """Publish for ever, on the clock."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self.publish()
            due = max(due + _CYCLE_S, loop.time())
            await asyncio.sleep(due - loop.time())


async def _build(plant: Plant, server: Server) -> dict[str | int, ua.NodeId]:
    await server.init()
    server.set_server_name("Simulated oven")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    server.set_identity_tokens([ua.AnonymousIdentityToken])
    # its own clock task would delay the end by up to a second; `publish` writes the time
    server.disable_clock()
    namespace = await server.register_namespace(NAMESPACE)
    folder = await server.nodes.objects.add_object(f"ns={namespace};s=Oven", f"{namespace}:Oven")
    nodes: dict[str | int, ua.NodeId] = {}
    for key, variant in _variants(plant.look(OVEN.name)).items():
        name = _BROWSE_NAMES[key] if isinstance(key, int) else key
        node_id = f"ns={namespace};{'i' if isinstance(key, int) else 's'}={key}"
        node = await folder.add_variable(node_id, f"{namespace}:{name}", variant.Value, variant.VariantType)
        nodes[key] = node.nodeid
    return nodes


@asynccontextmanager
async def serve_oven(plant: Plant, port: int) -> AsyncIterator[Oven]:
    """The oven on a port of 127.0.0.1 (0: any free one), while the context lasts.

    Raises:
        PlantError: the port is taken.
    """
    with socket.socket() as probe:  # asyncua would log a stack trace of its own
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            text = f"the oven cannot listen on 127.0.0.1:{port} ({error.strerror}); choose another port for OPC UA"
            raise PlantError(text) from error
    server = Server()
    nodes = await _build(plant, server)
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    await server.start()
    try:
        oven = Oven(plant, server, nodes, server.bserver.port if server.bserver else port)
        await oven.publish()
        cycle = asyncio.create_task(oven.run(), name="oven")
        try:
            yield oven
        finally:
            cycle.cancel()
            with suppress(asyncio.CancelledError):
                await cycle
    finally:
        await server.stop()
