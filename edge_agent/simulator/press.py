"""press-01: a PLC on Modbus TCP.

| register | holds |
|---|---|
| coil 3 | guard open |
| holding 0-1 | parts, uint32, low word first (CDAB) |
| holding 2 (Modicon 40003) | rejects, uint16 |
| holding 7 bit 3 | the common alarm |
| holding 8 | alarm code, uint16: 0 none, 17 low pressure, 18 guard open |
| holding 10 | oil temperature, int16, 0.1 °C |
| holding 100-107 | recipe, string of 16 bytes |
| input 5 | status, uint16: 1 producing, 2 delay, 3 down, 4 setup, 5 planned stop, 6 idle |
| input 20-21 | motor current, float32 (ABCD), A |

Registers 0 to 10 and inputs 0 to 21 all exist, those unnamed are 0; others are an illegal data address, and so is every
write. Like most PLCs on TCP it answers to any device id.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edge_agent.simulator.machine import ALARM_GUARD_OPEN, NS_PER_S, STATUS_CODES, Snapshot
from edge_agent.simulator.plant import PRESS, Plant, PlantError

_READ_COILS, _READ_HOLDING, _READ_INPUTS = 1, 3, 4


def oil_temperature(elapsed_ns: int) -> float:
    """In degrees Celsius: a slow swing that crosses 65 for some seconds in every five minutes."""
    seconds = elapsed_ns / NS_PER_S
    return 54 + 11 * math.sin(2 * math.pi * seconds / 300) + 1.5 * math.sin(2 * math.pi * seconds / 23)


def motor_current(seen: Snapshot) -> float:
    """In amperes: a stroke each cycle while producing, a trickle otherwise."""
    return 0.8 if seen.progress is None else 14 + 9 * math.sin(math.pi * seen.progress)


def _words(raw: bytes) -> list[int]:
    return [word for (word,) in struct.iter_unpack(">H", raw)]


def _holding(seen: Snapshot) -> dict[int, list[int]]:
    high, low = _words(struct.pack(">I", (PRESS.first_produced + seen.produced) % 2**32))
    tenths = round(oil_temperature(seen.elapsed_ns) * 10)
    return {
        0: [low, high],
        2: [(PRESS.first_scrap + seen.scrap) % 2**16],
        7: [1 << 3 if seen.alarm else 0],
        8: [seen.alarm],
        10: _words(struct.pack(">h", tenths)),
        100: _words(seen.recipe.encode("ascii").ljust(16, b"\0")),
    }


def _input(seen: Snapshot) -> dict[int, list[int]]:
    return {5: [STATUS_CODES[seen.state]], 20: _words(struct.pack(">f", motor_current(seen)))}


def _coils(seen: Snapshot) -> dict[int, list[int]]:
    return {0: [1 << 3 if seen.alarm == ALARM_GUARD_OPEN else 0]}


_TABLES = {_READ_COILS: _coils, _READ_HOLDING: _holding, _READ_INPUTS: _input}


def _device(plant: Plant) -> SimDevice:
    async def fill(
        function: int, start: int, address: int, count: int, registers: list[int], values: object
    ) -> ExcCodes | None:
        if values is not None:
            return ExcCodes.ILLEGAL_ADDRESS
        if (table := _TABLES.get(function)) is not None:
            for first, words in table(plant.look(PRESS.name)).items():
                registers[first - start : first - start + len(words)] = words
        return None

    def registers_from(address: int, count: int) -> SimData:
        return SimData(address, count=count, values=0, datatype=DataType.REGISTERS)

    coils, discrete_inputs = ([SimData(0, values=[False] * 16, datatype=DataType.BITS)] for _ in range(2))
    holding = [registers_from(0, 11), registers_from(100, 8)]
    return SimDevice(0, simdata=(coils, discrete_inputs, holding, [registers_from(0, 22)]), action=fill)


@asynccontextmanager
async def serve_press(plant: Plant, port: int) -> AsyncIterator[str]:
    """The press on a port of 127.0.0.1 (0: any free one), while the context lasts; gives its URL.

    Raises:
        PlantError: the port is taken.
    """
    server = ModbusTcpServer(_device(plant), address=("127.0.0.1", port))
    try:
        await server.serve_forever(background=True)
    except RuntimeError as error:
        raise PlantError(f"the press cannot listen on 127.0.0.1:{port}; choose another port for Modbus TCP") from error
    listener = server.transport
    if not isinstance(listener, asyncio.Server):
        raise PlantError("pymodbus gave no listening socket")
    try:
        yield f"tcp://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]
