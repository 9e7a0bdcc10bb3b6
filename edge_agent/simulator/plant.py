"""The machines of the simulated plant and the clock that they share: start, freeze, and the truth."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edge_agent.contract import EdgeAgentError
from edge_agent.simulator.machine import NS_PER_S, Kind, Machine, Snapshot

PRESS = Kind("press-01", 0.82, 1.15, first_produced=184_467, first_scrap=3_120)
OVEN = Kind("oven", 2.7, 3.4, first_produced=50_312, first_scrap=871)
PACKING = Kind("packing-cell", 1.35, 1.75, first_produced=999_950, first_scrap=412)


class PlantError(EdgeAgentError):
    """The plant cannot be served here: a port is taken, or the folder is not ours. The message says what to do."""


class Plant:
    """All machines. They stand idle, with their counters where they are, until `start` and after `freeze`."""

    def __init__(self, seed: int, monotonic: Callable[[], int] = time.monotonic_ns) -> None:
        self.machines = {kind.name: Machine(kind, seed) for kind in (PRESS, OVEN, PACKING)}
        self._monotonic = monotonic
        self._ran_ns = 0
        self._running_since: int | None = None

    @property
    def running(self) -> bool:
        return self._running_since is not None

    def start(self) -> None:
        """Let the machines run, from where they are."""
        if self._running_since is None:
            self._running_since = self._monotonic()

    def freeze(self) -> None:
        """Stop all machines where they are."""
        self._ran_ns = self.elapsed_ns()
        self._running_since = None

    def elapsed_ns(self) -> int:
        """For how long the machines have run, in nanoseconds; time spent frozen does not count."""
        since = self._running_since
        return self._ran_ns + (self._monotonic() - since if since is not None else 0)

    def look(self, name: str) -> Snapshot:
        """What the machine's own sensors see now."""
        seen = self.machines[name].at(self.elapsed_ns())
        return seen if self.running else seen._replace(state="idle", alarm=0, progress=None)

    def truth(self) -> dict[str, Any]:
        """What really happened since the start, for each machine: parts, scrap, and seconds in each state."""
        elapsed_ns = self.elapsed_ns()
        seen = {name: machine.at(elapsed_ns) for name, machine in self.machines.items()}
        return {
            "elapsed_s": elapsed_ns / NS_PER_S,
            "running": self.running,
            "machines": {
                name: {
                    "produced": now.produced,
                    "good": now.good,
                    "scrap": now.scrap,
                    "time_s": {state: ns / NS_PER_S for state, ns in now.time_ns.items()},
                }
                for name, now in seen.items()
            },
        }
