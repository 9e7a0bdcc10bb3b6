"""`examples/consumer.py` against a real broker: what it posts adds up to the truth, whatever comes, in any order."""

from __future__ import annotations

import asyncio
import csv
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from brokers import Mosquitto, needs_mosquitto
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_agent.backtest import Trial
from edge_agent.config import load
from edge_agent.store import Store
from edge_agent.store.records import StoredRecord
from examples.consumer import Ledger

ROOT = Path(__file__).parent.parent
LAST = "acme/lyon/hall/a/press/production/1min/2030-01-01T00:00:00Z"


@pytest.fixture
def stored(tmp_path: Path) -> list[StoredRecord]:
    """What the daemon would publish in one case, with revisions and an end mark that nothing follows."""
    case = ROOT / "tests" / "cases" / "reading_comes_late"
    with (case / "readings.csv").open() as lines:
        trial = Trial(load(case / "config"), tmp_path / "store", revisions=True)
        asyncio.run(trial.run(lines, "readings.csv"))
    with Store(tmp_path / "store", create=False) as store:
        return [one for one in store.records.page() if one.type == "production"]


def consumer(folder: Path, port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            sys.executable, str(ROOT / "examples" / "consumer.py"), "--broker", "127.0.0.1", "--port", str(port),
            "--window", "1min", "--database", str(folder / "truth.db"), "--csv", str(folder / "postings.csv"),
        ]
    )  # fmt: skip


def postings(folder: Path) -> list[dict[str, str]]:
    path = folder / "postings.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def wait_for(folder: Path, machine: str) -> None:
    """Wait until the posting of this machine is in the CSV."""
    deadline = time.monotonic() + 20
    while not any(row["machine"] == machine for row in postings(folder)):
        assert time.monotonic() < deadline, "the consumer posts nothing"
        time.sleep(0.02)


def end_mark(topic: str, like: bytes, machine: str) -> tuple[str, bytes]:
    event = json.loads(like)
    event["data"] |= {"key": f"{LAST}/{machine}", "machine": machine, "start": "2030-01-01T00:00:00Z"}
    return topic, json.dumps(event).encode()


class Publisher:
    """Publishes in order, and waits until the broker has it all."""

    def __init__(self, port: int) -> None:
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, messages: list[tuple[str, bytes]]) -> None:
        for sent in [self._client.publish(topic, payload, qos=1) for topic, payload in messages]:
            sent.wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as running:
        yield running


def truth(stored: list[StoredRecord]) -> dict[str, dict[str, Any]]:
    latest: dict[str, dict[str, Any]] = {}
    for one in sorted(stored, key=lambda one: (one.epoch, one.revision or 0)):
        data = json.loads(one.payload)["data"]
        latest[data["start"]] = data
    return latest


@needs_mosquitto
@pytest.mark.parametrize("seed", [1, 2])
def test_sum_of_postings_is_the_truth_over_repeats_any_order_and_a_kill(
    tmp_path: Path, broker: Mosquitto, stored: list[StoredRecord], seed: int
) -> None:
    messages = [(one.topic, one.payload) for one in stored] * 2
    random.Random(seed).shuffle(messages)
    half = len(messages) // 2
    first = consumer(tmp_path, broker.port)
    publisher = Publisher(broker.port)
    second = None
    try:
        marks = [end_mark(*messages[0], machine) for machine in ("half", "end")]
        deadline = time.monotonic() + 20
        while not postings(tmp_path):  # until the consumer has subscribed
            publisher.send(marks[:1])
            assert time.monotonic() < deadline, "the consumer does not subscribe"
            time.sleep(0.05)
        publisher.send(messages[:half])
        first.send_signal(signal.SIGKILL)
        first.wait(10)
        publisher.send(messages[half:])  # the broker keeps these
        second = consumer(tmp_path, broker.port)
        publisher.send([*messages[: half // 2], marks[1]])
        wait_for(tmp_path, "end")
    finally:
        publisher.close()
        for process in (first, second):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(10)
    assert any(one.revision for one in stored)
    rows = [row for row in postings(tmp_path) if row["machine"] == "press"]
    assert len({row["record"] for row in rows}) == len(rows), "a record is posted once"
    for start, data in truth(stored).items():
        own = [row for row in rows if row["start"] == start]
        for name in ("produced", "good", "scrap"):
            assert sum(int(row[name]) for row in own) == (data["quantity"][name] or 0)
        for state, seconds in data["time_s"].items():
            assert sum(float(row[f"{state}_s"]) for row in own) == pytest.approx(seconds, abs=1e-6)
    assert {row["start"] for row in rows} == set(truth(stored))


def test_csv_that_a_kill_cut_off_is_mended_and_nothing_is_posted_twice(
    tmp_path: Path, stored: list[StoredRecord]
) -> None:
    ledger = Ledger(tmp_path / "truth.db", tmp_path / "postings.csv")
    for one in stored:
        ledger.take(json.loads(one.payload))
    ledger.write()
    ledger.close()
    whole = (tmp_path / "postings.csv").read_text()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1, len(whole)):
        (tmp_path / "postings.csv").write_text(whole[:cut])
        Ledger(tmp_path / "truth.db", tmp_path / "postings.csv").close()
        assert (tmp_path / "postings.csv").read_text() == whole


def test_withdrawn_fact_is_posted_back_to_nothing(tmp_path: Path, stored: list[StoredRecord]) -> None:
    event = json.loads(stored[0].payload)
    ledger = Ledger(tmp_path / "truth.db", tmp_path / "postings.csv")
    ledger.take(event)
    ledger.take(event | {"id": "gw1:1:99", "data": event["data"] | {"revision": 5, "withdrawn": True}})
    ledger.take(event | {"id": "gw1:1:98", "data": event["data"] | {"revision": 4}})
    ledger.write()
    ledger.close()
    rows = postings(tmp_path)
    assert [row["reason"] for row in rows] == ["first", "withdrawn"]
    assert sum(int(row["produced"]) for row in rows) == 0 < int(rows[0]["produced"])
    assert sum(float(row["producing_s"]) for row in rows) == 0
