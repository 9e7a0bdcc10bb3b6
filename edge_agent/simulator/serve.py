"""The whole plant in one asyncio process: all machines over their protocols, until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_agent.simulator.control import obey
from edge_agent.simulator.line import private_folder, serial_line
from edge_agent.simulator.oven import serve_oven
from edge_agent.simulator.packing import counter, scale
from edge_agent.simulator.plant import Plant
from edge_agent.simulator.press import serve_press

DEFAULT_SEED = 1
DEFAULT_MODBUS_PORT = 5020
DEFAULT_OPCUA_PORT = 4840
DEFAULT_SERIAL_DIR = Path("/tmp/edge-agent-plant")  # noqa: S108 - private_folder refuses one that is not ours


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the plant's devices are reached."""

    press: str
    """Modbus TCP, such as tcp://127.0.0.1:5020"""
    oven: str
    """OPC UA, such as opc.tcp://127.0.0.1:4840"""
    scale: str
    """The path of a serial port: MT-SICS"""
    counter: str
    """The path of a serial port: Modbus RTU, device id 1"""


class ServedPlant:
    """A plant whose machines can be reached. `freeze` and `start` are seen by the clients when they return."""

    def __init__(self, plant: Plant, endpoints: Endpoints, publish: Callable[[], Any]) -> None:
        self.plant = plant
        self.endpoints = endpoints
        self._publish = publish

    async def start(self) -> None:
        """Let the machines run."""
        self.plant.start()
        await self._publish()

    async def freeze(self) -> None:
        """Stop the machines where they are."""
        self.plant.freeze()
        await self._publish()


@asynccontextmanager
async def serve(plant: Plant, *, modbus_port: int, opcua_port: int, serial_dir: Path) -> AsyncIterator[ServedPlant]:
    """The plant over all its protocols while the context lasts; port 0 takes any free one.

    Raises:
        PlantError: a port is taken or the folder is not ours.
    """
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(private_folder(serial_dir))
        press = await stack.enter_async_context(serve_press(plant, modbus_port))
        oven = await stack.enter_async_context(serve_oven(plant, opcua_port))
        scale_path = stack.enter_context(serial_line(folder / "scale", scale(plant)))
        counter_path = stack.enter_context(serial_line(folder / "counter", counter(plant)))
        yield ServedPlant(plant, Endpoints(press, oven.url, scale_path, counter_path), oven.publish)


@contextmanager
def _stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def simulate(
    *,
    seed: int = DEFAULT_SEED,
    modbus_port: int = DEFAULT_MODBUS_PORT,
    opcua_port: int = DEFAULT_OPCUA_PORT,
    serial_dir: Path = DEFAULT_SERIAL_DIR,
    hold: bool = False,
    control: bool = False,
    ready: Callable[[Endpoints], None] = lambda endpoints: None,
) -> dict[str, Any]:
    """Serve the plant until SIGTERM or SIGINT (with `control` also `stop` or the end of stdin); gives the truth.

    `ready` is called once everything answers. With `hold` the machines stand idle until the command `start`. With
    `control`, stdin and stdout carry the lines of control.py, the endpoints first.

    Raises:
        PlantError: a port is taken or the folder is not ours.
    """
    for noisy in ("asyncua", "pymodbus"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    stop = asyncio.Event()
    plant = Plant(seed)
    with _stopped_by_signals(stop):
        async with serve(plant, modbus_port=modbus_port, opcua_port=opcua_port, serial_dir=serial_dir) as served:
            if not hold:
                await served.start()
            ready(served.endpoints)
            if control:
                await obey(served, asdict(served.endpoints), stop)
            else:
                await stop.wait()
            plant.freeze()
    return plant.truth()
