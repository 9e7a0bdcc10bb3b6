"""`edge-agent simulate` as a process: commands on stdin, signals, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient

from edge_agent.simulator.plant import PRESS

PROGRAM = [sys.executable, "-m", "edge_agent", "simulate"]


@asynccontextmanager
async def process(*options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(*PROGRAM, *options, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def line_of(running: asyncio.subprocess.Process) -> str:
    assert running.stdout is not None
    return (await asyncio.wait_for(running.stdout.readline(), 15)).decode()


async def answer_to(running: asyncio.subprocess.Process, command: str) -> dict[str, Any]:
    assert running.stdin is not None
    running.stdin.write(f"{command}\n".encode())
    answer: dict[str, Any] = json.loads(await line_of(running))
    return answer


async def test_process_held_started_frozen_and_stopped_obeys(tmp_path: Path) -> None:
    folder = tmp_path / "plant"
    options = ("--stdin", "--hold", "--modbus-port", "0", "--opcua-port", "0", "--serial-dir", str(folder))
    async with process(*options) as running:
        endpoints = json.loads(await line_of(running))
        assert endpoints["scale"] == str(folder / "scale")
        held = await answer_to(running, "truth")
        assert (held["running"], held["elapsed_s"]) == (False, 0)
        assert (await answer_to(running, "bogus"))["answer"] == "error"
        assert (await answer_to(running, "start"))["answer"] == "start"
        client = AsyncModbusTcpClient("127.0.0.1", port=int(endpoints["press"].rpartition(":")[2]))
        assert await client.connect()
        try:
            async with asyncio.timeout(5):
                while (await client.read_holding_registers(0, count=1)).registers[0] == PRESS.first_produced % 2**16:
                    pass
            await answer_to(running, "freeze")
            low, high = (await client.read_holding_registers(0, count=2)).registers
        finally:
            client.close()
        truth = await answer_to(running, "truth")
        assert (high << 16) + low - PRESS.first_produced == truth["machines"]["press-01"]["produced"]
        for machine in truth["machines"].values():
            assert sum(machine["time_s"].values()) == pytest.approx(truth["elapsed_s"])
        assert (await answer_to(running, "stop"))["elapsed_s"] == truth["elapsed_s"]
        assert await asyncio.wait_for(running.wait(), 5) == 0
    assert not folder.exists()


async def test_process_interrupted_says_truth_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "plant"
    async with process("--modbus-port", "0", "--opcua-port", "0", "--serial-dir", str(folder)) as running:
        assert "running" in await line_of(running)
        assert running.stdout is not None
        introduction = await asyncio.wait_for(running.stdout.readuntil(b"what was made.\n"), 5)
        assert str(folder / "counter").encode() in introduction
        assert sorted(path.name for path in folder.iterdir()) == ["counter", "scale"]
        running.send_signal(signal.SIGINT)
        output, errors = await asyncio.wait_for(running.communicate(), 5)
        assert running.returncode == 0
        assert errors == b""
        assert b"packing-cell" in output
    assert not folder.exists()


async def test_process_under_control_terminated_ends_without_waiting_for_stdin(tmp_path: Path) -> None:
    folder = tmp_path / "plant"
    options = ("--stdin", "--modbus-port", "0", "--opcua-port", "0", "--serial-dir", str(folder))
    async with process(*options) as running:
        assert json.loads(await line_of(running))["counter"] == str(folder / "counter")
        running.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.wait(), 5) == 0
        _, errors = await running.communicate()
        assert errors == b""
    assert not folder.exists()


async def test_process_end_of_stdin_ends_it_only_under_control(tmp_path: Path) -> None:
    options = ("--modbus-port", "0", "--opcua-port", "0", "--serial-dir", str(tmp_path / "plant"))
    async with process(*options, "--stdin") as controlled, process(*options[:-1], str(tmp_path / "alone")) as alone:
        for running in (controlled, alone):
            await line_of(running)
            assert running.stdin is not None
            running.stdin.close()
        assert await asyncio.wait_for(controlled.wait(), 5) == 0
        assert alone.returncode is None
    assert not (tmp_path / "plant").exists()
