"""The simulated plant: its truth, and that clients written by others read just that truth over each protocol."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import serial
from asyncua.client.client import Client
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from edge_agent.simulator.line import private_folder, serial_line
from edge_agent.simulator.machine import STATUS_CODES
from edge_agent.simulator.oven import zone_temperature
from edge_agent.simulator.packing import counter, crc16, scale
from edge_agent.simulator.plant import OVEN, PACKING, PRESS, Plant, PlantError
from edge_agent.simulator.press import motor_current, oil_temperature, serve_press
from edge_agent.simulator.serve import ServedPlant, serve

S = 1_000_000_000
NAMES = ("press-01", "oven", "packing-cell")


class Time:
    """A monotonic clock that moves when told."""

    ns = 0

    def __call__(self) -> int:
        return self.ns


# ------------------------------------------------------------------------------------------------ the truth


def test_plant_same_seed_gives_same_life() -> None:
    one, same, other = Plant(7), Plant(7), Plant(8)
    moments = [11 * S, 400 * S, 90 * S + 1, 3_600 * S]
    lives = [[plant.machines[name].at(t) for name in NAMES for t in moments] for plant in (one, same, other)]
    assert lives[0] == lives[1]
    assert lives[0] != lives[2]


@pytest.mark.parametrize("name", NAMES)
def test_machine_at_any_time_states_sum_to_elapsed_and_counts_rise(name: str) -> None:
    machine = Plant(3).machines[name]
    before = machine.at(0)
    assert (before.produced, before.scrap, sum(before.time_ns.values())) == (0, 0, 0)
    for elapsed_ns in range(0, 900 * S, 377_000_017):
        now = machine.at(elapsed_ns)
        assert sum(now.time_ns.values()) == elapsed_ns
        assert 0 <= now.produced - before.produced <= 1
        assert 0 <= now.scrap - before.scrap <= now.produced - before.produced
        assert all(now.time_ns[state] >= before.time_ns[state] for state in STATUS_CODES)
        before = now
    assert {state for state, ns in before.time_ns.items() if ns} == set(STATUS_CODES) - {"idle"}
    assert before.scrap > 0


@pytest.mark.parametrize("name", NAMES)
def test_machine_within_ninety_seconds_produces_and_stops(name: str) -> None:
    life = [Plant(1).machines[name].at(t * S).state for t in range(90)]
    runs = [state for state, previous in zip(life[1:], life, strict=False) if state != previous]
    assert life[0] == "producing"
    assert len(runs) >= 3
    assert life.count("producing") > 45


def test_plant_frozen_and_started_again_goes_on_where_it_was() -> None:
    clock = Time()
    plant = Plant(1, clock)
    clock.ns = 5 * S
    assert plant.elapsed_ns() == 0
    plant.start()
    clock.ns = 35 * S
    plant.freeze()
    frozen = plant.truth()
    clock.ns = 99 * S
    assert plant.truth() == frozen
    assert plant.look("press-01").state == "idle"
    plant.start()
    clock.ns = 100 * S
    assert plant.elapsed_ns() == 31 * S
    assert plant.look("press-01") == Plant(1).machines["press-01"].at(31 * S)


# --------------------------------------------------------------------------- what clients by others read


@pytest.fixture(params=[0, 47, 200], ids=lambda seconds: f"after {seconds} s")
async def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ServedPlant]:
    """A plant that ran for some time and was frozen."""
    clock = Time()
    async with serve(Plant(1, clock), modbus_port=0, opcua_port=0, serial_dir=tmp_path / "plant") as plant:
        await plant.start()
        clock.ns = request.param * S + 123_456_789
        await plant.freeze()
        yield plant


def truth_of(plant: ServedPlant, name: str) -> tuple[int, int]:
    made = plant.plant.truth()["machines"][name]
    assert made["good"] == made["produced"] - made["scrap"]
    return made["produced"], made["scrap"]


async def test_served_values_after_freeze_agree_with_truth(frozen: ServedPlant) -> None:
    await _press_agrees(frozen)
    await _oven_agrees(frozen)
    await _counter_agrees(frozen)
    await asyncio.to_thread(_scale_agrees, frozen.endpoints.scale)


async def _press_agrees(plant: ServedPlant) -> None:
    produced, scrap = truth_of(plant, "press-01")
    seen = plant.plant.look("press-01")
    port = int(plant.endpoints.press.rpartition(":")[2])
    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    assert await client.connect()
    try:
        holding = (await client.read_holding_registers(0, count=11, device_id=1)).registers
        assert holding[0] + (holding[1] << 16) == PRESS.first_produced + produced
        assert holding[2] == PRESS.first_scrap + scrap
        assert (holding[7], holding[8]) == (0, 0)
        assert holding[10] == round(10 * oil_temperature(seen.elapsed_ns))
        inputs = (await client.read_input_registers(5, count=17, device_id=1)).registers
        assert inputs[0] == STATUS_CODES["idle"]
        (current,) = struct.unpack(">f", struct.pack(">HH", *inputs[15:17]))
        assert current == pytest.approx(motor_current(seen))
        words = (await client.read_holding_registers(100, count=8, device_id=1)).registers
        assert struct.pack(">8H", *words).rstrip(b"\0").decode() == seen.recipe
        assert not (await client.read_coils(3, count=1, device_id=1)).bits[0]
        for request in (client.read_holding_registers(11), client.write_register(0, 7), client.write_coil(3, True)):
            assert (await request).exception_code == 2
    finally:
        client.close()


async def _oven_agrees(plant: ServedPlant) -> None:
    produced, scrap = truth_of(plant, "oven")
    elapsed_ns = plant.plant.elapsed_ns()
    async with Client(plant.endpoints.oven) as client:
        index = await client.get_namespace_index("http://example.org/oven")
        expected: dict[str, Any] = {
            "s=Status": STATUS_CODES["idle"],
            "i=2001": OVEN.first_produced + produced,
            "i=2002": OVEN.first_scrap + scrap,
            **{f"s={zone}": zone_temperature(zone, elapsed_ns) for zone in ("Zone1.Temp", "Zone2.Temp", "Zone3.Temp")},
        }
        nodes = [client.get_node(f"ns={index};{identifier}") for identifier in expected]
        assert dict(zip(expected, await client.read_values(nodes), strict=True)) == expected
        assert (await nodes[0].read_data_value()).SourceTimestamp is not None


async def _counter_agrees(plant: ServedPlant) -> None:
    produced, scrap = truth_of(plant, "packing-cell")
    client = AsyncModbusSerialClient(plant.endpoints.counter, baudrate=19200, parity="N")
    for _ in range(2):  # closed and opened again
        assert await client.connect()
        try:
            high, low, *rest = (await client.read_holding_registers(0, count=4, device_id=1)).registers
            assert (high << 16) + low == PACKING.first_produced + produced
            assert rest == [PACKING.first_scrap + scrap, STATUS_CODES["idle"]]
            assert (await client.read_holding_registers(4, count=1, device_id=1)).exception_code == 2
            assert (await client.read_input_registers(0, count=1, device_id=1)).exception_code == 1
        finally:
            client.close()


def _scale_agrees(path: str) -> None:
    for _ in range(3):  # closed and opened again
        with serial.Serial(path, 9600, timeout=2) as port:
            port.write(b"SI\r\nI4\r\nnonsense\r\n")
            assert port.readline() == b"S S      0.000 kg\r\n"
            assert port.readline() == b'I4 A "SIM0042"\r\n'
            assert port.readline() == b"ES\r\n"


async def test_press_while_down_shows_alarm_bit_code_and_guard() -> None:
    clock = Time()
    plant = Plant(1, clock)
    plant.start()
    life = {t: plant.machines["press-01"].at(t * S) for t in range(900)}
    async with serve_press(plant, 0) as url:
        client = AsyncModbusTcpClient("127.0.0.1", port=int(url.rpartition(":")[2]))
        assert await client.connect()
        try:
            for alarm in (17, 18):
                clock.ns = next(t for t, seen in life.items() if seen.alarm == alarm) * S
                registers = (await client.read_holding_registers(7, count=2)).registers
                assert registers == [1 << 3, alarm]
                assert (await client.read_coils(3, count=1)).bits[0] == (alarm == 18)
                assert (await client.read_input_registers(5, count=1)).registers == [STATUS_CODES["down"]]
        finally:
            client.close()


def test_scale_while_packing_shows_boxes_and_light_scrap() -> None:
    clock = Time()
    plant = Plant(1, clock)
    plant.start()
    answer = scale(plant)
    seen = []
    for clock.ns in range(0, 400 * S, 100_000_000):
        status, kg = answer(b"SI\r\n").decode().split()[1:3]
        now = plant.look("packing-cell")
        seen.append((status, float(kg), now.part_is_scrap))
        assert (answer(b"S\r\n") == b"S I\r\n") == (status == "D")
    boxes = {scrap: [kg for status, kg, light in seen if status == "S" and kg and light == scrap] for scrap in (0, 1)}
    assert all(2.45 < kg < 2.55 for kg in boxes[0])
    assert boxes[1]
    assert all(2.26 < kg < 2.36 for kg in boxes[1])
    assert any(status == "D" for status, _, _ in seen)


def test_scale_command_in_pieces_is_answered_once() -> None:
    answer = scale(Plant(1))
    assert [answer(piece) for piece in (b"S", b"I\r", b"\n")] == [b"", b"", b"S S      0.000 kg\r\n"]


def test_counter_other_id_and_damage_is_silent() -> None:
    clock = Time()
    answer = counter(Plant(1), lambda: clock.ns / S)
    request = b"\x01\x03\x00\x02\x00\x01"
    good = request + crc16(request)
    assert crc16(b"123456789") == b"\x37\x4b"
    reply = answer(good)
    assert (reply[:3], crc16(reply)) == (b"\x01\x03\x02", b"\0\0")
    other = b"\x02" + request[1:]
    assert answer(other + crc16(other)) == b""
    assert answer(good[:-1] + b"\x00") == b""
    clock.ns = S  # after a silence the line is clean again
    assert answer(good[:3]) == b""
    assert answer(good[3:]) == reply


# ------------------------------------------------------------------------------------------- mishaps


async def test_serve_port_taken_names_the_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for ports in ({"modbus_port": port, "opcua_port": 0}, {"modbus_port": 0, "opcua_port": port}):
            with pytest.raises(PlantError, match=str(port)):
                async with serve(Plant(1), serial_dir=tmp_path / "plant", **ports):
                    pass
    assert not (tmp_path / "plant").exists()


async def test_serve_folder_others_may_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    for place in (folder, tmp_path / "link"):
        with pytest.raises(PlantError, match="folder"):
            async with serve(Plant(1), modbus_port=0, opcua_port=0, serial_dir=place):
                pass


async def test_serial_line_link_left_by_killed_plant_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "scale"
    link.symlink_to("/dev/pts/left-by-a-killed-plant")
    with serial_line(link, scale(Plant(1))) as path:
        await asyncio.to_thread(_scale_agrees, path)
    assert not link.is_symlink()


async def test_serial_line_file_in_the_way_is_refused_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "scale"
    file.write_text("mine")
    with pytest.raises(PlantError, match="in the way"), serial_line(file, scale(Plant(1))):
        pass
    assert file.read_text() == "mine"


async def test_serial_line_nobody_reads_goes_on_when_read_again(tmp_path: Path) -> None:
    with serial_line(tmp_path / "scale", lambda data: data * 100) as path:
        await asyncio.to_thread(_flood, path)
        await asyncio.to_thread(_echo, path)


def _flood(path: str) -> None:
    with serial.Serial(path, 9600, write_timeout=2) as port:
        for _ in range(50):
            port.write(b"x" * 100)


def _echo(path: str) -> None:
    with serial.Serial(path, 9600, timeout=0.2) as port:
        while port.read(4096):
            pass
        port.timeout = 2
        port.write(b"y")
        assert port.read(100) == b"y" * 100


def test_private_folder_in_use_is_refused(tmp_path: Path) -> None:
    with private_folder(tmp_path / "plant"):
        with pytest.raises(PlantError, match="another plant"), private_folder(tmp_path / "plant"):
            pass
        assert (tmp_path / "plant").exists()


def test_private_folder_made_by_us_goes_and_others_stay(tmp_path: Path) -> None:
    with private_folder(tmp_path / "ours") as ours:
        assert ours.stat().st_mode & 0o777 == 0o700
    assert not ours.exists()
    with private_folder(tmp_path):
        pass
    assert tmp_path.exists()
