"""`examples/consumer.py` against a real broker: what it posts adds up to the truth, whatever comes, in any order."""

from __future__ import annotations

import csv
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from brokers import Mosquitto, needs_mosquitto
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from test_ledger import HOUR, Floor
from test_uplink_tls import Authority
from worked_example import example

from edge_agent.capture import topic_of
from edge_agent.listing import send_again
from examples.consumer import POSTED, QUANTITIES, STATES, UNREADABLE, Ledger

ROOT = Path(__file__).parent.parent
WINDOW = "5min"
END = "acme/lyon/press-hall/line-a/end/production/5min/2030-01-01T00:00:00Z"
FIGURES = (*QUANTITIES, *(f"{state}_s" for state in STATES))
Event = dict[str, Any]


def sent(window: str = WINDOW) -> list[tuple[str, bytes]]:
    """What the worked example publishes for a subscriber to one size of window: topics and payloads, in order."""
    return [
        (one.topic, one.payload)
        for one in example()[0]
        if one.type != "production" or one.topic.endswith(f"/production/{window}")
    ]


def events(window: str = WINDOW) -> list[Event]:
    return [json.loads(payload) for _, payload in sent(window)]


def truth(given: list[Event]) -> dict[str, Event]:
    """The event of the highest (epoch, revision) of each key."""
    latest: dict[str, Event] = {}
    for event in given:
        key = event["data"]["key"]
        known = latest.get(key)
        if known is None or _version(event) > _version(known):
            latest[key] = event
    return latest


def _version(event: Event) -> tuple[int, int]:
    return event["epoch"], event["data"]["revision"]


def kept(folder: Path) -> dict[str, tuple[int, int, Event]]:
    """The facts in the consumer's table: epoch, revision and data by key."""
    with sqlite3.connect(folder / "truth.db") as db:
        rows = db.execute("SELECT key, epoch, revision, data FROM truth").fetchall()
    return {key: (epoch, revision, json.loads(data)) for key, epoch, revision, data in rows}


def assert_posted(folder: Path, given: list[Event]) -> None:
    """The CSV adds up to the truth of each window and of each job, and the table is the truth of everything."""
    latest = truth(given)
    assert kept(folder) == {key: (*_version(event), event["data"]) for key, event in latest.items()}
    sums: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: dict.fromkeys(FIGURES, 0))
    rows = [row for row in postings(folder) if row["machine"] == "press-01"]
    assert len({row["record"] for row in rows}) == len(rows), "a record is posted once"
    for row in rows:
        own = sums[row["type"], row["start"]]
        own.update({name: own[name] + float(row[name]) for name in FIGURES})
    facts = [(event["type"].split(".")[1], event["data"]) for event in latest.values()]
    facts = [(kind, data) for kind, data in facts if kind in POSTED and data["machine"] == "press-01"]
    for kind, data in facts:
        posted = sums.pop((kind, data["start"]), dict.fromkeys(FIGURES, 0))
        assert posted == pytest.approx(_figures(data), abs=1e-6), data["key"]
    assert not sums, "something is posted that is no fact"
    assert {kind for kind, _ in facts} == set(POSTED)


def _figures(data: dict[str, Any]) -> dict[str, float]:
    if data["withdrawn"] or data["quantity"] is None:
        return dict.fromkeys(FIGURES, 0)
    items = {name: data["quantity"][name] or 0 for name in QUANTITIES}
    return items | {f"{state}_s": seconds for state, seconds in data["time_s"].items()}


def take(ledger: Ledger, event: Event) -> None:
    ledger.take(topic_of(event), json.dumps(event).encode())


def consumer(folder: Path, port: int, *options: str) -> subprocess.Popen[bytes]:
    """Its process; what it says is in the file `said`."""
    command = [
        sys.executable, str(ROOT / "examples" / "consumer.py"), "--broker", "127.0.0.1", "--port", str(port),
        "--window", WINDOW, "--database", str(folder / "truth.db"), "--csv", str(folder / "postings.csv"), *options,
    ]  # fmt: skip
    with (folder / "said").open("ab") as said:
        return subprocess.Popen(command, stderr=said)


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
    event["data"] |= {"key": f"{END}/{machine}", "machine": machine, "start": "2030-01-01T00:00:00Z"}
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


@needs_mosquitto
@pytest.mark.parametrize("seed", [1, 2])
def test_sum_of_postings_is_the_truth_over_repeats_any_order_and_a_kill(
    tmp_path: Path, broker: Mosquitto, seed: int
) -> None:
    messages = sent() * 2
    windows = next(message for message in messages if message[0].endswith(WINDOW))
    random.Random(seed).shuffle(messages)
    half = len(messages) // 2
    first = consumer(tmp_path, broker.port)
    publisher = Publisher(broker.port)
    second = None
    marks = [end_mark(*windows, machine) for machine in ("half", "end")]
    try:
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
    assert_posted(tmp_path, [*events(), *(json.loads(payload) for _, payload in marks)])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("window", ["1h", "shift", "job"])
def test_postings_and_table_are_the_truth_in_any_order_over_restarts(tmp_path: Path, window: str, seed: int) -> None:
    given = [*events(window), *_taken_back(window)]
    chance = random.Random(seed)
    arriving = given * 2
    chance.shuffle(arriving)
    ledger = _ledger(tmp_path)
    for event in arriving:
        take(ledger, event)
        if chance.random() < 0.1:
            ledger.write()
        if chance.random() < 0.1:  # also with postings that are not written yet
            ledger.close()
            ledger = _ledger(tmp_path)
    ledger.write()
    ledger.close()
    assert_posted(tmp_path, given)


def _taken_back(window: str) -> list[Event]:
    """Its last window and its last job cease after all, in a new epoch, in which revisions begin anew."""
    last = {event["type"]: event for event in events(window) if event["type"].split(".")[1] in POSTED}
    return [
        event | {"id": f"gw1:2:{number}", "epoch": 2, "data": event["data"] | {"withdrawn": True, "revision": 0}}
        for number, event in enumerate(last.values(), start=1)
    ]


def _ledger(folder: Path) -> Ledger:
    return Ledger(folder / "truth.db", folder / "postings.csv")


def test_csv_that_a_kill_cut_off_is_mended_and_nothing_is_posted_twice(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path)
    for event in events():
        take(ledger, event)
    ledger.write()
    ledger.close()
    whole = (tmp_path / "postings.csv").read_text()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1, len(whole)):
        (tmp_path / "postings.csv").write_text(whole[:cut])
        _ledger(tmp_path).close()
        assert (tmp_path / "postings.csv").read_text() == whole


def test_withdrawn_fact_is_posted_back_to_nothing(tmp_path: Path) -> None:
    event = next(event for event in events("1h") if event["type"] == "edge.production.v1")
    ledger = _ledger(tmp_path)
    take(ledger, event)
    take(ledger, event | {"id": "gw1:1:99", "data": event["data"] | {"revision": 5, "withdrawn": True}})
    take(ledger, event | {"id": "gw1:1:98", "data": event["data"] | {"revision": 4}})
    ledger.write()
    ledger.close()
    rows = postings(tmp_path)
    assert [row["why"] for row in rows] == ["first", "withdrawn"]
    assert sum(int(row["produced"]) for row in rows) == 0 < int(rows[0]["produced"])
    assert sum(float(row["producing_s"]) for row in rows) == 0


def test_job_is_posted_when_it_ends_and_its_correction_by_the_difference(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path)
    for event in events():
        if event["data"].get("job") == "WO-1001" and event["type"] == "edge.job.v1":
            take(ledger, event)
            ledger.write()
    ledger.close()
    rows = postings(tmp_path)
    assert [(row["job"], row["why"]) for row in rows] == [("WO-1001", "ended"), ("WO-1001", "entry")]
    changes = [tuple(int(row[name]) for name in QUANTITIES) for row in rows]
    assert changes == [(3944, 3909, 35, 0), (0, -12, 12, 0)]


def test_stops_that_are_none_any_more_are_out_of_the_sum_of_downtime(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path)
    for event in events():
        take(ledger, event)
    ledger.close()
    page = (ROOT / "docs" / "posting.md").read_text()
    query = next(part.partition("```")[0] for part in page.split("```sql\n")[1:] if "'downtime'" in part)
    with sqlite3.connect(tmp_path / "truth.db") as db:
        found = db.execute(query).fetchall()
    assert found == [("hydraulics/leak", 1, 1_080.0), ("material/missing", 1, 270.0)]


async def an_hour_with_a_dead_letter(folder: Path, records: int, dead: int) -> Floor:
    """So many records, of which the broker refused one; its gap record, and the manifest of all."""
    floor = Floor(folder)
    floor.issue(*["10s"] * records)
    await floor.outbox.refused(dead, 0x87, "not authorized")
    floor.ledger.look()
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    return floor


async def test_consumer_finds_out_by_the_manifest_what_is_missing_and_when_it_has_come(tmp_path: Path) -> None:
    floor = Floor(tmp_path / "agent")
    floor.issue(*["10s"] * 6, "1h", *["1min"] * 3)
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    await floor.outbox.accepted(range(1, 12))
    issued = [(one.topic, one.payload) for one in floor.store.records.page()]
    own = [each for each in issued if "/production/" not in each[0] or each[0].endswith("/10s")]
    ledger = _ledger(tmp_path)
    for each in (*own[:2], *own[3:]):
        ledger.take(*each)
    topic = own[0][0]
    assert ledger.missing("10s") == [f"{topic} 3 of epoch 1 is missing"], "of the sizes that are subscribed"
    send_again(floor.store, {"since": 0, "topic": topic})
    for one in await floor.outbox.waiting(0, 100):
        ledger.take(one.topic, one.payload)
    assert ledger.missing("10s") == []
    ledger.take(topic, own[0][1].replace(b"k1", b"k7"))
    assert ledger.missing("10s") == [], "what was proven stays so"
    ledger.close()
    floor.store.close()


async def test_consumer_misses_nothing_that_a_gap_record_names_and_sees_what_was_altered(tmp_path: Path) -> None:
    floor = await an_hour_with_a_dead_letter(tmp_path / "agent", 6, 3)
    issued = [(one.topic, one.payload) for one in floor.store.records.page() if one.position != 3]
    ledger = _ledger(tmp_path)
    for each in (issued[0], *issued[2:]):
        ledger.take(*each)
    assert [lack.rpartition("/")[2] for lack in ledger.missing("10s")] == ["10s 2 of epoch 1 is missing"]
    ledger.take(*issued[1])
    assert ledger.missing("10s") == []
    ledger.close()
    other = Ledger(tmp_path / "other.db", tmp_path / "other.csv")
    for topic, payload in ((one.topic, one.payload) for one in floor.store.records.page()):
        other.take(topic, payload.replace(b'"k2"', b'"k9"'))
    assert ["is not what was issued" in lack for lack in other.missing("10s")] == [True]
    other.close()
    floor.store.close()


async def test_consumer_misses_nothing_of_before_it_began_and_all_of_later_epochs(tmp_path: Path) -> None:
    floor = Floor(tmp_path / "agent")
    floor.issue(*["10s"] * 6)
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    floor.lose_identity()
    floor.issue(*["10s"] * 3)
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    issued = [(one.topic, one.payload) for one in floor.store.records.page()]
    ledger = _ledger(tmp_path)
    for topic, payload in issued[3:]:
        if b'"k7"' not in payload:
            ledger.take(topic, payload)
    assert [lack.rpartition("/")[2] for lack in ledger.missing("10s")] == ["10s 1 of epoch 2 is missing"]
    ledger.close()
    floor.store.close()


async def test_consumer_finds_no_fault_in_what_the_agent_lost_after_its_delivery(tmp_path: Path) -> None:
    floor = Floor(tmp_path / "agent")
    floor.issue(*["10s"] * 6)
    ledger = _ledger(tmp_path)
    for one in floor.store.records.page():
        ledger.take(one.topic, one.payload)
    with floor.store.transaction():
        floor.store._connection.execute("DELETE FROM record WHERE position = 3")
        floor.store.losses.add(
            "records", "damaged", start=1, count=1, topic=one.topic, epoch=1, first=3, last=3,
        )  # fmt: skip
    floor.ledger.look()
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    for one in floor.store.records.page(after=6):
        ledger.take(one.topic, one.payload)
    assert ledger.missing("10s") == []
    assert ledger._db.execute("SELECT count(*) FROM unproven").fetchone() == (0,)
    ledger.close()
    floor.store.close()


@pytest.mark.parametrize("what", ["manifest", "gap"])
async def test_consumer_takes_no_manifest_or_gap_that_would_stop_it_later(tmp_path: Path, what: str) -> None:
    floor = await an_hour_with_a_dead_letter(tmp_path / "agent", 3, 2)
    (one,) = floor.store.records.page(type=what)
    event = json.loads(one.payload)
    ledger = _ledger(tmp_path)
    if what == "gap":
        broken = [{"first_sequence": "x"}, {"last_sequence": None}, {"epoch": [], "revision": {}}]
    else:
        topics = event["data"]["topics"]
        told = topics[min(topics)]
        changes: list[dict[str, Any]] = [{"first": "x"}, {"last": "9" * 12}, {"sha256": None, "last": None}]
        broken = [{"topics": {"t": told | change}} for change in changes]
        broken += [{"epoch": [1]}, {"topics": []}]
    for change in broken:
        with pytest.raises(UNREADABLE):
            ledger.take(one.topic, json.dumps(event | {"data": event["data"] | change}).encode())
    assert kept(tmp_path) == {}
    assert ledger.missing("10s") == []
    ledger.take(one.topic, one.payload)
    ledger.close()
    floor.store.close()


@needs_mosquitto
def test_message_that_is_no_record_is_set_aside_and_stops_nothing(tmp_path: Path, broker: Mosquitto) -> None:
    (windows,) = [message for message in sent() if message[0].endswith(WINDOW)][:1]
    nonsense = [b"", b"nonsense", b"[]", b"{}", b"[" * 100_000, b'{"type":"edge.job.v1","data":"x"}', b"\xff"]
    event = json.loads(end_mark(*windows, "half a letter")[1])
    nonsense.append(json.dumps(event | {"data": event["data"] | {"job": "\ud800"}}).encode())
    process = consumer(tmp_path, broker.port)
    publisher = Publisher(broker.port)
    try:
        deadline = time.monotonic() + 20
        while not postings(tmp_path):
            publisher.send([end_mark(*windows, "begun")])
            assert time.monotonic() < deadline, "the consumer does not subscribe"
            time.sleep(0.05)
        publisher.send([*((windows[0], payload) for payload in nonsense), end_mark(*windows, "end")])
        wait_for(tmp_path, "end")
        assert process.poll() is None
    finally:
        publisher.close()
        process.kill()
        process.wait(10)
    with sqlite3.connect(tmp_path / "truth.db") as db:
        assert [row[0] for row in db.execute("SELECT payload FROM unreadable")] == nonsense
    assert (tmp_path / "said").read_text().count("no record, set aside") == len(nonsense)


@needs_mosquitto
def test_consumer_that_the_broker_refuses_says_so_and_ends(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, anonymous=False) as broker:
        process = consumer(tmp_path, broker.port)
        assert process.wait(20) == 1
    assert (tmp_path / "said").read_text() == "the broker refuses us: Not authorized\n"


@needs_mosquitto
def test_consumer_shows_its_password_and_its_certificate(tmp_path: Path) -> None:
    passwords, authority = tmp_path / "passwords", Authority(tmp_path, "ca")
    subprocess.run(
        ["mosquitto_passwd", "-c", "-b", str(passwords), "erp", "right"], check=True, stderr=subprocess.DEVNULL
    )
    passwords.chmod(0o644)
    (tmp_path / "password").write_text("right\n")
    certificate, key = authority.issue("erp")
    own, own_key = authority.issue("broker")
    lines = [f"cafile {authority.ca}", f"certfile {own}", f"keyfile {own_key}", "require_certificate true",
             f"password_file {passwords}"]  # fmt: skip
    login = ["--username", "erp", "--password-file", str(tmp_path / "password")]
    with Mosquitto(tmp_path, *lines, anonymous=False) as broker:
        shown = ["--ca", str(authority.ca), "--certificate", str(certificate), "--key", str(key)]
        process = consumer(tmp_path, broker.port, *login, *shown)
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.username_pw_set("erp", "right")
        client.tls_set(str(authority.ca), str(certificate), str(key))
        try:
            client.connect("127.0.0.1", broker.port)
            client.loop_start()
            deadline = time.monotonic() + 20
            while not postings(tmp_path):
                client.publish(*next(message for message in sent() if message[0].endswith(WINDOW)), qos=1)
                assert process.poll() is None
                assert time.monotonic() < deadline, "the consumer does not subscribe"
                time.sleep(0.1)
        finally:
            client.loop_stop()
            process.kill()
            process.wait(10)
