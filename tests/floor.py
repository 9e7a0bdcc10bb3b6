"""A machine with alarms, orders and people, on a bench whose clock is moved; and its records by fact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agreement import agree
from fakes import FakeClock, S
from test_summarizer import CONFIG, NOON, Bench

from edge_agent import bases
from edge_agent.config import Configuration, load
from edge_agent.entries import Kind
from edge_agent.summarizer.site import basis_of
from edge_agent.timestamps import parse

TAGS = CONFIG.replace(
    'status: {address: "holding:2"}',
    'status: {address: "holding:2"}, alarm: {address: "holding:3"}, order: {address: "holding:4"}',
).replace("summarize: [10 s, 1 min, 1 h]", "summarize: [10 s, 1 min, 1 h, job]\n    settle: 1 s")
REASONS = """
    reason:
      tag: plc.alarm
      map: {17: guard open, 30: tool change}
      planned_stop: [tool change]
"""
BY_TAG = TAGS + REASONS + "    job: {tag: plc.order}\n"
BY_PERSON = TAGS + REASONS
SHIFTS = """
calendar:
  shifts:
    early: {from: "06:00", to: "13:05"}
    late: {from: "13:10", to: "22:00"}
"""


def configured(folder: Path, text: str) -> Configuration:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "all.yaml").write_text(text)
    return load(folder)


class Floor(Bench):
    """A bench with alarms, orders and people; its clock moves second by second, as the daemon's does."""

    def __init__(self, folder: Path, configuration: Configuration, clock: FakeClock) -> None:
        super().__init__(folder, configuration, clock)
        self.ids = self.store.register([(f"plc.{tag}", True) for tag in ("count", "status", "alarm", "order")])
        self.configuration, self.killed = configuration, False
        basis = bases.write(basis_of(configuration, self.summarizer.site.publisher))
        self.store.remember_configuration(configuration.hash, "{}", clock.now(), basis)

    def run(self, start: int, end: int, status: int = 1) -> None:
        """Count and status each second."""
        for second in range(start, end):
            if status == 1:
                self.put("plc.count", second, 1_000 + second)
            self.put("plc.status", second, status)

    async def until(self, second: float, step: float = 5) -> list[dict[str, Any]]:
        """What is issued until the clock stands so many seconds after noon."""
        issued = []
        while (now := (self.clock.now() - NOON) / S) < second:
            self.summarizer.look("press")
            issued += await self.close_at(min(second, now + step))
        return issued

    async def tell(self, kind: Kind, start: float, end: float | None = None, **body: Any) -> None:
        """Append an entry as the desk does, and have its time looked at again."""
        begin, until = NOON + round(start * S), NOON + round((start if end is None else end) * S)

        def append() -> None:
            with self.store.transaction():
                self.store.entries.append("press", kind, "ana", self.clock.now(), begin, until, body)
                self.store.entries.reopen("press", begin, max(until, begin + 1), "entry", self.clock.now())

        await self.thread.call(append)
        self.summarizer.reopened("press", begin)

    async def again(self) -> Floor:
        """The same folder after the agent was killed and started."""
        await self.thread.flush()
        await self.thread.call(self.store.close)
        self.thread._executor.shutdown()
        self.killed = True
        return Floor(self.store.folder, self.configuration, self.clock)

    def facts(self, kind: str, withdrawn: bool = False, check: bool = True) -> list[dict[str, Any]]:
        """The truth: of each key the highest revision, by start."""
        latest: dict[str, dict[str, Any]] = {}
        for event in self.events():
            if event["type"] == f"edge.{kind}.v1":
                data = event["data"]
                if check:
                    agree(data, kind)
                assert data["revision"] == (latest[data["key"]]["revision"] + 1 if data["key"] in latest else 0)
                latest[data["key"]] = data
        return sorted(
            (data for data in latest.values() if withdrawn or not data["withdrawn"]),
            key=lambda data: parse(data["start"]),
        )


def clock_times(found: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(data["start"][11:-1], data["end"] and data["end"][11:-1]) for data in found]


def of(issued: list[dict[str, Any]], word: str) -> list[dict[str, Any]]:
    return [data for data in issued if f"/{word}/" in data["key"]]
