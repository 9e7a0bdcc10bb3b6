"""packing-cell: a scale and a parts counter, each on a serial line (a pseudo terminal).

The scale speaks MT-SICS: `SI` (the weight now: `S S` stable, `S D` dynamic), `S` (the stable weight, or `S I` while it
moves), `I4` and `@` (the serial number); anything else is `ES`.

The counter speaks Modbus RTU as device id 1 and is silent for every other id:

| register | holds |
|---|---|
| holding 0-1 | boxes, uint32, high word first (ABCD) |
| holding 2 | rejects, uint16 |
| holding 3 | status: 1 producing, 2 delay, 3 down, 4 setup, 5 planned stop, 6 idle |

Any speed will do; open both lines without parity, for a pseudo terminal has none and setting it is an error.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable

from edge_agent.simulator.machine import STATUS_CODES, Snapshot
from edge_agent.simulator.plant import PACKING, Plant

SERIAL_NUMBER = "SIM0042"
_TARGET_KG, _SPREAD_KG, _TOO_LIGHT_KG = 2.5, 0.008, 2.31
_LANDING, _LEAVING = 0.25, 0.85
"""Of the time a box takes: until here it lands, from here it is on its way out."""
_LONGEST_COMMAND = 80

_DEVICE_ID = 1
_READ_HOLDING = 3
_ILLEGAL_FUNCTION, _ILLEGAL_ADDRESS, _ILLEGAL_VALUE = 1, 2, 3
_SHORTEST_FRAME, _MOST_REGISTERS = 4, 125
_SILENCE_S = 0.1
"""After this long without a byte, what came before is not part of the frame."""


def weight(seen: Snapshot) -> tuple[float, bool]:
    """What the scale shows, in kg, and whether it is stable. Boxes that are scrap are too light."""
    progress = seen.progress
    if progress is None or progress >= _LEAVING:
        return 0.0, progress is None
    nominal = _TOO_LIGHT_KG if seen.part_is_scrap else _TARGET_KG
    box_kg = round(random.Random(seen.produced).gauss(nominal, _SPREAD_KG), 3)
    if progress < _LANDING:
        return round(box_kg * progress / _LANDING, 3), False
    return box_kg, True


def scale(plant: Plant) -> Callable[[bytes], bytes]:
    """The scale as a function from what was received to what is sent; keeps an unfinished command."""
    unfinished = b""

    def answer(command: bytes) -> bytes:
        if command in (b"I4", b"@"):
            return f'I4 A "{SERIAL_NUMBER}"\r\n'.encode("ascii")
        if command not in (b"S", b"SI"):
            return b"ES\r\n"
        kg, stable = weight(plant.look(PACKING.name))
        if command == b"S" and not stable:
            return b"S I\r\n"
        return f"S {'S' if stable else 'D'} {kg:10.3f} kg\r\n".encode("ascii")

    def receive(data: bytes) -> bytes:
        nonlocal unfinished
        *commands, unfinished = (unfinished + data).split(b"\r\n")
        unfinished = unfinished[-_LONGEST_COMMAND:]
        return b"".join(answer(command) for command in commands)

    return receive


def crc16(data: bytes) -> bytes:
    """The checksum of a Modbus RTU frame, low byte first. Over a frame with its checksum it is 00 00."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return struct.pack("<H", crc)


def counter(plant: Plant, monotonic: Callable[[], float] = time.monotonic) -> Callable[[bytes], bytes]:
    """The counter as a function from what was received to what is sent; keeps an unfinished frame."""
    frame, last = b"", 0.0

    def receive(data: bytes) -> bytes:
        nonlocal frame, last
        now = monotonic()
        frame = (data if now - last > _SILENCE_S else frame + data)[-256:]
        last = now
        if len(frame) < _SHORTEST_FRAME or crc16(frame) != b"\0\0":
            return b""
        device_id, request, frame = frame[0], frame[1:-2], b""
        if device_id != _DEVICE_ID:
            return b""
        response = bytes([device_id]) + _respond(request, plant)
        return response + crc16(response)

    return receive


def _registers(seen: Snapshot) -> bytes:
    boxes, rejects = (PACKING.first_produced + seen.produced) % 2**32, (PACKING.first_scrap + seen.scrap) % 2**16
    return struct.pack(">IHH", boxes, rejects, STATUS_CODES[seen.state])


def _respond(request: bytes, plant: Plant) -> bytes:
    function = request[0]
    if function != _READ_HOLDING:
        return bytes([function | 0x80, _ILLEGAL_FUNCTION])
    if len(request) != 5:
        return bytes([function | 0x80, _ILLEGAL_VALUE])
    address, count = struct.unpack(">HH", request[1:])
    if not 1 <= count <= _MOST_REGISTERS:
        return bytes([function | 0x80, _ILLEGAL_VALUE])
    content = _registers(plant.look(PACKING.name))[2 * address : 2 * (address + count)]
    if len(content) != 2 * count:
        return bytes([function | 0x80, _ILLEGAL_ADDRESS])
    return bytes([function, len(content)]) + content
