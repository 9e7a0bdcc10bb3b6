"""Whether a dead or babbling link changes the pace of the others: one agent, ten links, one of which misbehaves."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import mean
from subprocess import Popen

from .agent import configure, running_agent
from .figures import Figure
from .processes import Failed, broker, python, said

LINKS, REGISTERS, POLL_MS = 10, 100, 100
BAR = 1.10
WARM_UP_S = 3.0
SETTLE_S = 1.0
"""After each change of mood, before its time counts."""
ROUNDS = 3


def run(folder: Path, seconds: float, links: int = LINKS, rounds: int = ROUNDS) -> list[Figure]:
    """The mean deviation of the good links' polls from their clock, with a bad neighbour, beside without."""
    spans: dict[str, list[tuple[int, int]]] = {"well": [], "dead": [], "babble": []}
    with (
        python("-m", "bench.peers.modbus_server", str(links - 1)) as servers,
        python("-m", "bench.peers.bad_neighbour") as neighbour,
        broker(folder) as url,
    ):
        ports = [int(port) for port in said(servers, "ports").split()] + [int(said(neighbour, "port"))]
        with running_agent(configure(folder, url, devices=_devices(ports))) as agent:
            agent.wait_until_connected(links)
            time.sleep(min(WARM_UP_S, seconds / 2))
            for _ in range(rounds):
                for mood in ("well", "dead", "well", "babble"):
                    _tell(neighbour, mood)
                    time.sleep(min(SETTLE_S, seconds / 5))
                    began = time.time_ns()
                    time.sleep(seconds / rounds / 2)
                    spans[mood].append((began, time.time_ns()))
        jitter = {
            mood: mean(_jitter_us(agent.data, links - 1, span) for span in found) for mood, found in spans.items()
        }
    told = f"µs, all {links} links well"
    return [
        Figure(f"Isolation, jitter with 1 of {links} links dead", jitter["dead"], "µs", jitter["well"], told, BAR),
        Figure(f"Isolation, jitter with 1 of {links} babbling", jitter["babble"], "µs", jitter["well"], told, BAR),
    ]


def _devices(ports: Sequence[int]) -> str:
    lines = ["devices:"]
    for number, port in enumerate(ports):
        lines.append(f'  plc{number}: {{driver: modbus, url: "tcp://127.0.0.1:{port}", poll: {POLL_MS} ms, tags: {{')
        lines += [f'    r{register}: {{address: "holding:{register}"}},' for register in range(REGISTERS)]
        lines.append("  }}")
    return "\n".join(lines) + "\n"


def _tell(neighbour: Popen[str], mood: str) -> None:
    assert neighbour.stdin is not None
    neighbour.stdin.write(f"{mood}\n")
    neighbour.stdin.flush()
    if said(neighbour, "now") != mood:
        raise Failed(f"the neighbour did not become {mood}")


def _jitter_us(data: Path, links: int, span: tuple[int, int]) -> float:
    """How far polls were from a steady clock of their own, on average over the good links, in microseconds."""
    deviations: list[float] = []
    with closing(sqlite3.connect(data / "edge-agent.db")) as db:
        for number in range(links):
            sql = (
                "SELECT coalesce(received, time) FROM reading JOIN tag ON tag.id = reading.tag "
                "WHERE tag.name = ? AND quality = 0 AND reading.time BETWEEN ? AND ? ORDER BY reading.id"
            )
            times = [row[0] for row in db.execute(sql, (f"plc{number}.r0", *span))]
            phases = [time_ns % (POLL_MS * 1_000_000) for time_ns in times]
            if len(phases) < 3:
                raise Failed(f"plc{number} was polled {len(phases)} times in {(span[1] - span[0]) / 1e9:.1f} s")
            middle = sorted(phases)[len(phases) // 2]
            deviations += [abs(phase - middle) / 1000 for phase in phases]
    return mean(deviations)
