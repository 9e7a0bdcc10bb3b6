"""Modbus: the benchmark of attribution in its short form, and that it would see a wrong value."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import modbus_peers
import pytest
from modbus_peers import answer_to, make_device, oracle, rtu, values

from bench import attribution, modbus_lies
from bench.attribution import Wire, WiredDriver
from bench.modbus_lies import Answer
from bench.virtual import run_virtually


def test_attribution_of_late_and_damaged_answers_is_never_wrong(tmp_path: Path) -> None:
    figures = attribution.run(tmp_path, seconds=3, answers=3000)
    wrong = [figure for figure in figures if "wrong" in figure.name]
    right = [figure for figure in figures if "right" in figure.name]
    assert [(figure.value, figure.verdict) for figure in wrong] == [(0, "ok")] * 5
    assert [figure.value > 300 for figure in right] == [True] * 3


def test_attribution_without_the_drain_is_wrong() -> None:
    counts = run_virtually(attribution.virtual("rtu", 1000, drain_s=0.0))
    assert counts["wrong"] > 50


@pytest.mark.parametrize("scheme", ["rtu", "rtu+echo", "tcp"])
def test_attribution_sees_that_most_lies_give_no_value(scheme: str) -> None:
    counts = run_virtually(attribution.virtual(scheme, 1000, seed=7))
    assert counts["wrong"] == 0
    assert counts["lies"] == 1000
    assert counts["fault"] > 100
    assert counts["given up"] > 20
    assert counts["bad"] > 100


def test_attribution_asks_the_oracle_of_the_other_tests() -> None:
    assert all(modbus_lies.oracle(unit, n) == modbus_peers.oracle(unit, n) for unit in (1, 5) for n in range(0, 700, 7))
    assert modbus_lies.rtu(b"\5\3\2\1\2") == modbus_peers.rtu(b"\5\3\2\1\2")
    request = b"\5\3\0\7\0\3"
    assert modbus_lies.answer_to(request) == modbus_peers.answer_to(request)


def late_line(damaged_echo: bool) -> Wire:
    """A serial line whose first answer is late by half the drain of 100 ms, and whose others are nearly late."""
    asked: list[bytes] = []

    def say(frame: bytes) -> Answer:
        asked.append(frame)
        right = rtu(answer_to(frame[:6]))
        if len(asked) > 1:
            return [(0.001, frame)] * damaged_echo + [(0.09, right)]
        return [(0.001, flip(frame))] * damaged_echo + [(0.15, right)]

    return Wire(say, 8, outlives=True)


def flip(frame: bytes) -> bytes:
    return frame[:2] + bytes((frame[2] ^ 4,)) + frame[3:]


async def read_behind(given_up: str, drain: str) -> dict[str, object]:
    """What the second tag is said to be, after the read of the first was given up before its time-out."""
    echo = given_up == "damaged echo"
    device = make_device(
        "rtu:///dev/line?baud=115200", ["holding:1", "holding:30"], timeout="100 ms", drain=drain, echo=echo
    )
    driver = WiredDriver([device], late_line(echo))
    await driver.connect()
    reading = asyncio.ensure_future(driver.read(device, device.tags[:1]))
    await asyncio.sleep(0.005)
    if given_up == "cancelled":
        reading.cancel()
    elif given_up == "cut off":
        await driver.close()
    await asyncio.wait([reading])
    if given_up == "cut off":
        await driver.connect()
    return values(await driver.read(device, device.tags[1:]))


@pytest.mark.parametrize("given_up", ["cancelled", "cut off", "damaged echo"])
@pytest.mark.parametrize("drain", ["100 ms", "60 ms"])
def test_serial_answer_to_a_request_given_up_before_its_timeout_is_not_taken_for_the_next(
    given_up: str, drain: str
) -> None:
    assert run_virtually(read_behind(given_up, drain)) == {"t1": oracle(1, 30)}


def test_virtual_loop_jumps_to_the_next_timer() -> None:
    async def sleep_long() -> list[float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        seen: list[float] = []
        for delay_s in (3600.0, 60.0, 7200.0):
            loop.call_later(delay_s, lambda: seen.append(round(loop.time() - began)))
        await asyncio.sleep(8000)
        return seen

    began = time.monotonic()
    assert run_virtually(sleep_long()) == [60, 3600, 7200]
    assert time.monotonic() - began < 5


def test_virtual_loop_says_when_nothing_will_ever_happen() -> None:
    async def wait_for_nothing() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="nobody will do"):
        run_virtually(wait_for_nothing())
