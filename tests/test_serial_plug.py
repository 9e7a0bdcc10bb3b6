"""Unplugged and plugged in again: the serial driver under the real poller, and names that lead elsewhere."""

from __future__ import annotations

import asyncio
import os
import time
import tty
from pathlib import Path

import pytest
from serial_instrument import Instrument, serial_device

from edge_agent.clock import SystemClock
from edge_agent.contract import NotConnected
from edge_agent.intake import Intake, TagState
from edge_agent.poller import Link
from edge_agent.store import Row
from edge_agent_serial import SerialDriver

_S = 1_000_000_000


async def _until(rows: list[Row], cause: str | None, limit_s: float) -> float:
    """How long it takes until the last row has this cause, in seconds."""
    began = time.monotonic()
    while not rows or rows[-1][4] != cause:
        if time.monotonic() - began > limit_s:
            pytest.fail(f"no {cause} within {limit_s} s; the last row is {rows[-1:]}")
        await asyncio.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.parametrize("away_s", [0.3, 7.0])
async def test_replug_under_the_poller_is_seen_within_1_s_and_back_within_5(tmp_path: Path, away_s: float) -> None:
    one = Instrument(tmp_path / "scale")
    one.script = lambda request: one.send(b"S S       5.00 g\r\n")
    one.plug()
    device = serial_device(
        str(one.path), {"w": {"address": "weight"}}, profile="sics", poll="100 ms", timeout="200 ms", drain="50 ms"
    )
    rows: list[Row] = []
    states = {device.tags[0]: TagState(device.tags[0], 1, machine=True, refresh_ns=60 * _S, max_skew_ns=2 * _S)}
    link = Link("scale", SerialDriver([device]), [device], Intake(states), rows.extend, SystemClock())
    task = asyncio.create_task(link.run())
    try:
        await _until(rows, None, 3)
        one.unplug()
        await _until(rows, "device_offline", 1)
        await asyncio.sleep(away_s)
        one.plug()
        await _until(rows, None, 5)
        assert rows[-1][2] == 5.0
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        one.unplug()


async def test_name_that_leads_to_another_port_is_not_connected_within_a_second(tmp_path: Path) -> None:
    one = Instrument(tmp_path / "scale")
    one.plug()
    far, near = os.openpty()
    tty.setraw(near)
    device = serial_device(str(one.path), {"c": {"address": "c"}}, pattern="(?P<c>.*)")
    driver = SerialDriver([device])
    try:
        await driver.connect()
        stream = driver.stream()

        async def first() -> None:
            await anext(stream)

        waiting = asyncio.create_task(first())
        await asyncio.sleep(0.05)
        one.path.unlink()
        one.path.symlink_to(os.ttyname(near))
        os.write(far, b"another device\r\n")
        with pytest.raises(NotConnected, match="leads to another port"):
            await asyncio.wait_for(waiting, 1)
    finally:
        await driver.close()
        one.unplug()
        os.close(far)
        os.close(near)
