"""A desk with a summarizer over one store, on a clock that is moved: what is told, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from fakes import FakeClock, S
from test_summarizer import NOON, Bench

from edge_agent import __version__, record
from edge_agent.config import load
from edge_agent.desk import Desk, Request
from edge_agent.entries import Entry, Kind
from edge_agent.envelope import Envelope
from edge_agent.timestamps import rfc3339

CONFIG = """
agent: {name: gw1, enterprise: acme, site: lyon, timezone: Europe/Paris}
mqtt: {url: "mqtt://127.0.0.1:1"}
calendar:
  production_day_starts: "06:00"
  shifts: {early: {from: "06:00", to: "14:00"}, late: {from: "14:00", to: "22:00"}, night: {from: "22:00", to: "06:00"}}
devices:
  plc:
    driver: modbus
    url: tcp://127.0.0.1:1
    tags:
      count: {address: "holding:0", type: uint32}
      status: {address: "holding:2"}
      rejects: {address: "holding:3", type: uint32}
      alarm: {address: "holding:5"}
machines:
  press:
    area: hall
    line: a
    state: {tag: plc.status, map: {1: producing, 2: delay, 3: down}}
    counts:
      produced: {tag: plc.count, max_rate: 100 /s, rollover: 65536}
      scrap: {tag: plc.rejects, max_rate: 100 /s, rollover: 65536}
    reason:
      tag: plc.alarm
      map: {17: hydraulics/low pressure}
      tree: [guard open, planned/retooling]
      planned_stop: [planned]
    planned_run_time_per_item: 1 s
    short_stop: 1 min
    goal: 3600 /h
    summarize: [1 min, 1 h, shift, job]
  saw:
    area: hall
    line: a
    state: {tag: plc.status, map: {1: producing, 2: delay, 3: down}}
    counts: {produced: {tag: plc.count, max_rate: 100 /s}}
    short_stop: 1 min
    job: {tag: plc.rejects}
    summarize: [1 min]
"""


class DeskBench(Bench):
    """A bench whose machines are told things."""

    def __init__(self, folder: Path, clock: FakeClock, text: str = CONFIG) -> None:
        (folder / "config").mkdir(exist_ok=True)
        (folder / "config" / "all.yaml").write_text(text)
        configuration = load(folder / "config")
        super().__init__(folder / "data", configuration, clock)
        self.configuration = configuration
        self.ids |= self.store.register([("plc.rejects", True), ("plc.alarm", True)])
        publisher = record.Publisher("gw1", "acme", "lyon", "edge/v1", __version__, configuration.hash)
        self.desk = Desk(self.summarizer.site, self.store, Envelope(publisher, clock), clock)

    def run(self, start: int, end: int, status: int = 1, step: int = 10) -> None:
        """The machine from start to end, in seconds after noon: an item a second while its status is 1."""
        for second in range(start, end, step):
            self.made = getattr(self, "made", 1_000) + (step if status == 1 else 0)
            self.put("plc.count", second, self.made)
            self.put("plc.status", second, status)
            self.put("plc.rejects", second, 0)

    async def tell(
        self, kind: str, at: float | None = None, until: float | None = None, machine: str = "press", by: str = "ann",
        **body: Any,
    ) -> Entry:  # fmt: skip
        """Tell the desk, as the agent does; `at` and `until` in seconds after noon."""
        start, end = (None if time is None else NOON + round(time * S) for time in (at, until))
        request = Request.of({"kind": kind, "machine": machine, "by": by, "start": start, "end": end, "body": body})
        return await self.take(request)

    async def take(self, request: Request) -> Entry:
        await self.thread.flush()
        entry = await self.thread.call(self.desk.take, request)
        self.summarizer.reopened(entry.machine, entry.start_ns)
        return entry

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The data of the records of a type, in order of issue."""
        return [event["data"] for event in self.events() if event["type"] == f"edge.{kind}.v1"]

    def last(self, kind: str) -> list[dict[str, Any]]:
        """The last word on each key of a type."""
        return list({data["key"]: data for data in self.of(kind)}.values())

    def reopened(self, machine: str = "press") -> list[tuple[float, float]]:
        """What is to be looked at again, in seconds after noon."""
        return [((each.start - NOON) / S, (each.end - NOON) / S) for each in self.store.entries.reopened(machine)]


def said(kind: str, machine: str = "press", by: str = "ann", **given: Any) -> Request:
    """A request for now."""
    return Request(cast(Kind, kind), machine, by, None, None, given)


def clock_time(seconds: float) -> str:
    """The time so many seconds after noon, as records write it."""
    return rfc3339(NOON + round(seconds * S))
