"""A broker that is away for a day: what a machine has made meanwhile arrives, once, and can be proven from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from brokers import Mosquitto, Subscriber, needs_mosquitto
from fakes import FakeClock
from test_summarizer import CONFIG, NOON, Bench
from uplink_peers import make_uplink, running

from edge_agent.capture import against_manifests, against_store, read
from edge_agent.config import load
from edge_agent.ledger import Ledger
from edge_agent.listing import issued_page
from edge_agent.outbox import StoreOutbox
from edge_agent.timestamps import parse

HOURS = 25
STEP_S = 600


@needs_mosquitto
async def test_records_of_a_day_without_a_broker_arrive_and_are_all_there(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "all.yaml").write_text(CONFIG)
    bench = Bench(tmp_path / "data", load(tmp_path / "config"), FakeClock(NOON))
    ledger = Ledger(bench.thread, bench.summarizer._envelope, bench.clock, lambda: None)
    for begin in range(0, HOURS * 3_600, STEP_S):
        for second in range(begin, begin + STEP_S, 5):
            bench.put("plc.count", second, 7 * second // 5)
            bench.put("plc.status", second, 1)
        await bench.clock.advance(STEP_S)
        await bench.summarizer.close_due()
        await bench.thread.call(ledger.look)
    waiting = bench.store.delivery.figures()["waiting"]
    assert waiting > HOURS * (360 + 60)
    with Mosquitto(tmp_path) as broker, Subscriber(broker.port, "edge/v1/acme/#") as subscriber:
        async with running(make_uplink(StoreOutbox(bench.thread, bench.clock), broker.url)) as uplink:
            assert await uplink.drain(60)
        lines: list[bytes] = []
        while len(lines) < waiting:
            lines += [
                bytes(one.payload) for one in (subscriber.next(), *subscriber.taken()) if b"specversion" in one.payload
            ]
    events = read(lines, "received")
    issued: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        items, after = issued_page(bench.store, {}, after)
        issued += items
    found = against_store(events, issued)
    assert (found.good, found.doubled, found.right) == (True, 0, waiting)
    assert against_manifests(events).good
    made = [json.loads(line)["data"] for line in lines]
    for size in ("10s", "1min", "1h"):
        ends = [parse(data["end"]) for data in made if data.get("window") == size]
        last = (max(ends) - NOON) // 5_000_000_000  # the reading at a window's end belongs to the next
        counted = sum(data["quantity"]["produced"] for data in made if data.get("window") == size)
        assert counted == 7 * (last - 1), size
    await bench.thread.close()
