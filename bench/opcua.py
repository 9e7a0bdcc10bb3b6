"""What an OPC UA reading costs from the socket to the durable row, beside the bare asyncua subscription."""

from __future__ import annotations

import time
from pathlib import Path

from .agent import configure, running_agent
from .figures import Figure
from .modbus import loop_read
from .processes import Failed, broker, cpu_s, python, said, wait_for

ITEMS = 1_000
COMMIT_S = 0.5
WARM_UP_S = 3.0
COST_BAR, MEMORY_BAR_MB = 1.4, 100.0


def device_yaml(endpoint: str, items: int, interval_s: float) -> str:
    """One device with so many items."""
    poll = f"{interval_s * 1000:g} ms"
    head = f'devices:\n  plant: {{driver: opcua, url: "{endpoint}", security: none, poll: {poll}, tags: {{\n'
    return head + "".join(f'    i{n}: {{address: "nsu=urn:test:first;s=Item{n}"}},\n' for n in range(items)) + "  }}\n"


def run(folder: Path, seconds: float, items: int = ITEMS, interval_s: float = 1.0) -> list[Figure]:
    """CPU per reading, and memory. Agent and subscription run side by side against the same server."""
    server_command = ("tests/opcua_server.py", "--items", str(items), "--interval", str(interval_s))
    with python(*server_command) as server, broker(folder) as url:
        endpoint = said(server, "endpoint")
        directory = configure(folder, url, device=device_yaml(endpoint, items, interval_s))
        loop_command = ("-m", "bench.peers.opcua_loop", endpoint, str(items), str(interval_s * 1000))
        with running_agent(directory) as agent, python(*loop_command) as loop:
            agent.wait_until_connected(1)
            wait_for("the first readings", lambda: agent.moment().received >= 2 * items or None)
            loop_read(loop)
            time.sleep(min(WARM_UP_S, seconds))
            read, moment, used = loop_read(loop), agent.moment(), cpu_s(loop.pid)
            time.sleep(seconds)
            after, used_after, read_after = agent.moment(), cpu_s(loop.pid), loop_read(loop)
            resident, most = agent.memory_mb()
    received, stored = after.received - moment.received, after.stored - moment.stored
    waiting = items * (2 + 2 * COMMIT_S / interval_s)  # what waits for its commit at either end
    if abs(received - stored) > waiting:
        raise Failed(f"{received} readings were received and {stored} stored: not all values changed")
    if not received or read_after == read:
        raise Failed("nothing changed while the clock ran")
    ours, theirs = (after.cpu_s - moment.cpu_s) / received, (used_after - used) / (read_after - read)
    return [
        Figure("OPC UA, CPU per reading", ours * 1e6, "µs", theirs * 1e6, "µs, bare asyncua subscription", COST_BAR),
        Figure("OPC UA, resident memory", resident, "MB", bar=MEMORY_BAR_MB),
        Figure("OPC UA, most memory ever", most, "MB", bar=MEMORY_BAR_MB),
    ]
