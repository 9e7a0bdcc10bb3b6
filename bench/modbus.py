"""What a Modbus reading costs from the socket to the durable row, beside the bare pymodbus loop."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen

from .agent import RunningAgent, configure, running_agent, stored_times
from .figures import Figure
from .processes import Failed, broker, cpu_s, python, said

DEVICES, REGISTERS, BLOCK = 50, 200, 100
WARM_UP_S = 4.0
FRESHNESS_BAR_S = 0.75  # commit + 250 ms
COST_BAR, MEMORY_BAR_MB = 2.0, 100.0


def devices_yaml(ports: Sequence[int], registers: int = REGISTERS) -> str:
    """Devices `plc0` … with so many holding registers each."""
    lines = ["devices:"]
    for number, port in enumerate(ports):
        lines.append(f'  plc{number}: {{driver: modbus, url: "tcp://127.0.0.1:{port}", max_read: {BLOCK}, tags: {{')
        lines += [f'    r{register}: {{address: "holding:{register}"}},' for register in range(registers)]
        lines.append("  }}")
    return "\n".join(lines) + "\n"


def run(folder: Path, seconds: float, devices: int = DEVICES) -> list[Figure]:
    """CPU per reading, memory and freshness. Agent and loop run side by side against the same servers."""
    with python("-m", "bench.peers.modbus_server", str(devices)) as servers, broker(folder) as url:
        ports = said(servers, "ports").split()
        directory = configure(folder, url, devices=devices_yaml([int(port) for port in ports]))
        loop_command = ("-m", "bench.peers.modbus_loop", str(REGISTERS), str(BLOCK), *ports)
        with running_agent(directory) as agent, python(*loop_command) as loop:
            agent.wait_until_connected(devices)
            time.sleep(min(WARM_UP_S, seconds))
            ours, theirs = _cost(agent, loop, devices, seconds)
            resident, most = agent.memory_mb()
            seen = _durable_until(agent, min(seconds, 10.0))
        delay_s = _delay_s(stored_times(agent.data), seen)
    return [
        Figure("Modbus, CPU per reading", ours * 1e6, "µs", theirs * 1e6, "µs, bare pymodbus loop", COST_BAR),
        Figure("Modbus, resident memory", resident, "MB", bar=MEMORY_BAR_MB),
        Figure("Modbus, most memory ever", most, "MB", bar=MEMORY_BAR_MB),
        Figure("Modbus, 99 % durable within", delay_s, "s", bar=FRESHNESS_BAR_S),
    ]


def _cost(agent: RunningAgent, loop: Popen[str], devices: int, seconds: float) -> tuple[float, float]:
    """CPU seconds for each reading, of the agent and of the loop."""
    read, moment, used = loop_read(loop), agent.moment(), cpu_s(loop.pid)
    time.sleep(seconds)
    after, used_after, read_after = agent.moment(), cpu_s(loop.pid), loop_read(loop)
    received, stored = after.received - moment.received, after.stored - moment.stored
    if not received or read_after == read:
        raise Failed("nothing was read while the clock ran")
    if abs(received - stored) > 2 * devices * REGISTERS:  # what waits for its commit at either end
        raise Failed(f"{received} readings were received and {stored} stored: not all values changed")
    return (after.cpu_s - moment.cpu_s) / received, (used_after - used) / (read_after - read)


def loop_read(loop: Popen[str]) -> int:
    """The readings of a bare loop so far."""
    assert loop.stdin is not None
    loop.stdin.write("?\n")
    loop.stdin.flush()
    return int(said(loop, "read"))


def _durable_until(agent: RunningAgent, seconds: float) -> list[tuple[int, int]]:
    """Up to when readings were durable, by when that was seen, in ns, in order."""
    seen: list[tuple[int, int]] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        committed = agent.status()["buffer"]["committed"]
        if not seen or committed > seen[-1][0]:
            seen.append((committed, time.time_ns()))
        time.sleep(0.02)
    return seen


def _delay_s(received: list[int], seen: list[tuple[int, int]]) -> float:
    """The 99th percentile of the time from receipt until it was seen that the row is durable."""
    ends = [committed for committed, _ in seen]
    judged = [moment for moment in received if ends[0] < moment <= ends[-1]]
    if not judged:
        raise Failed("no reading was stored while durability was watched")
    delays = sorted(seen[bisect_left(ends, moment)][1] - moment for moment in judged)
    return delays[int(0.99 * (len(delays) - 1))] / 1e9
