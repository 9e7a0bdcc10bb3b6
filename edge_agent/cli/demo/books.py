"""The subscriber's books: the truth of every window by key and revision, and its comparison with the plant's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from edge_agent.timestamps import parse
from edge_agent.uplink.subscriber import Received

WINDOW = "10s"
POLL_NS = 2_000_000_000
"""After the freeze, the agent has read the last count of every machine by then."""


class Compared(NamedTuple):
    """One machine: the parts that the plant made and those in the records."""

    machine: str
    made: int
    received: int

    @property
    def agrees(self) -> bool:
        """To the part."""
        return self.made == self.received


class Books:
    """What the subscriber knows: for each key the record of the highest epoch and revision."""

    def __init__(self) -> None:
        self.latest: dict[str, dict[str, Any]] = {}
        self.newest: list[dict[str, Any]] = []
        self.events = 0
        self._rank: dict[str, tuple[int, int]] = {}

    def enter(self, received: Iterable[Received]) -> None:
        """Take in what has arrived; repeats and older revisions change nothing."""
        for message in received:
            event = json.loads(message.payload)
            if event["type"] != "edge.production.v1":
                continue
            self.events += 1
            self.newest = [event, *self.newest[:9]]
            data = event["data"]
            rank = (event["epoch"], data["revision"])
            if rank >= self._rank.get(data["key"], (0, -1)):
                self._rank[data["key"]], self.latest[data["key"]] = rank, data

    def of(self, machine: str) -> list[dict[str, Any]]:
        """The true 10 s windows of a machine."""
        return [
            data
            for data in self.latest.values()
            if data["machine"] == machine and data["window"] == WINDOW and not data["withdrawn"]
        ]

    def produced(self, machine: str) -> int:
        """The parts in the 10 s windows of a machine."""
        return sum(data["quantity"]["produced"] for data in self.of(machine))

    def closed(self, frozen_ns: int, truth: Mapping[str, int]) -> bool:
        """Whether every machine has a window that ends after the agent must have seen the freeze."""
        return all(any(parse(data["end"]) >= frozen_ns + POLL_NS for data in self.of(machine)) for machine in truth)

    def compare(self, truth: Mapping[str, int]) -> list[Compared]:
        """Each machine's parts, made and received."""
        return [Compared(machine, made, self.produced(machine)) for machine, made in truth.items()]
