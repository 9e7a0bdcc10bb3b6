"""The agent's account of its records: manifests, gaps of dead letters, and captures compared with them."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agreement import whole_agrees
from fakes import START, FakeClock, S

from edge_agent.capture import Capture, against_manifests, against_store, read
from edge_agent.envelope import Envelope
from edge_agent.ledger import SLICE, Ledger
from edge_agent.listing import issued_page, records_page, send_again, send_some_again, span_to_send_again
from edge_agent.outbox import StoreOutbox
from edge_agent.record import Publisher
from edge_agent.store import Draft, Store, StoreThread, delivery
from edge_agent.store.delivery import DAMAGED
from edge_agent.store.proof import proved
from edge_agent.uplink.poison import HANGS_UP

HOUR = 3_600
PUBLISHER = Publisher("gw1", "acme", "lyon", "edge/v1", "0.1.0", "sha256:0")
SUBJECT = "acme/lyon/hall/a/press"


class Floor:
    """A store that issues records, its ledger, and what a subscriber receives of it."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(START // (HOUR * S) * HOUR * S)
        self.store = Store(folder)
        self.store.begin(self.clock.now())
        self.thread = StoreThread(self.store, self.clock, S // 2)
        self.envelope = Envelope(PUBLISHER, self.clock)
        self.outbox = StoreOutbox(self.thread, self.clock)
        self.woken = 0
        self.ledger = self.new_ledger()
        self.number = 0

    def lose_identity(self) -> None:
        """As after damage to the second file: another epoch begins."""
        self.store.close()
        (self.store.folder / "identity.json").unlink()
        self.open()

    def open(self) -> None:
        """Begin again."""
        self.store = Store(self.store.folder)
        self.store.begin(self.clock.now())
        self.thread = StoreThread(self.store, self.clock, S // 2)
        self.outbox = StoreOutbox(self.thread, self.clock)
        self.ledger = self.new_ledger()

    def new_ledger(self) -> Ledger:
        def wake() -> None:
            self.woken += 1

        return Ledger(self.thread, self.envelope, self.clock, wake)

    def issue(self, *windows: str) -> None:
        """A production record of each of these sizes of window."""
        drafts = []
        for window in windows:
            self.number += 1
            topic = f"edge/v1/{SUBJECT}/production/{window}"
            data = {"key": f"k{self.number}", "window": window, "revision": 0, "withdrawn": False, "quantity": None}
            drafts.append(Draft("production", topic, SUBJECT, data))
        with self.store.transaction():
            self.store.issue(drafts, self.ledger._freeze, self.clock.now())

    def payloads(self, kind: str | None = None) -> list[bytes]:
        return [one.payload for one in self.store.records.page(type=kind, limit=100_000)]

    def data(self, kind: str) -> list[dict[str, Any]]:
        found = [json.loads(payload) for payload in self.payloads(kind)]
        for event in found:
            whole_agrees(event)
        return [event["data"] for event in found]

    def received(self, *without: int) -> Capture:
        """Everything, but the records at these positions."""
        lines = [one.payload for one in self.store.records.page(limit=100_000) if one.position not in without]
        return read(lines, "capture")


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    made = Floor(tmp_path)
    yield made
    made.store.close()


async def test_manifest_of_an_hour_is_issued_when_it_is_over_and_proves_what_was_issued_in_it(floor: Floor) -> None:
    floor.issue("10s", "1h")
    assert floor.ledger.look() == 0
    await floor.clock.advance(HOUR - 1)
    floor.issue("10s")
    assert floor.ledger.look() == 0
    await floor.clock.advance(2)
    assert floor.ledger.look() == 1
    (manifest,) = floor.data("manifest")
    assert (manifest["count"], manifest["first_number"], manifest["last_number"]) == (3, 1, 3)
    assert {topic.rpartition("/")[2]: (one["first"][-1], one["last"][-1], one["count"])
            for topic, one in manifest["topics"].items()} == {"10s": ("1", "2", 2), "1h": ("1", "1", 1)}  # fmt: skip
    found = against_manifests(floor.received())
    assert (found.good, found.right, found.not_captured) == (True, 3, [])


async def test_manifest_for_which_the_disk_had_no_room_is_issued_when_it_has(floor: Floor) -> None:
    floor.issue(*(f"{number}s" for number in range(200)))  # its manifest takes several pages
    await floor.clock.advance(HOUR + 1)
    db = floor.store._connection
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        floor.ledger.look()
    db.execute("PRAGMA max_page_count = 1000000")
    assert floor.ledger.look() == 1
    assert floor.data("manifest")[0]["count"] == 200


async def test_manifests_cover_every_record_once_over_restarts_epochs_and_steps_of_the_clock(floor: Floor) -> None:
    chance = random.Random(7)
    for step in range(60):
        for _ in range(chance.randrange(4)):
            floor.issue(*chance.choices(["10s", "1min", "1h"], k=chance.randrange(1, 5)))
        if step % 7 == 0:
            floor.clock.step_wall(chance.choice([-2, 1, 5]) * HOUR * S)
        if step % 11 == 0:
            floor.ledger = floor.new_ledger()  # as after a restart: what it had read of the hour is read again
        if step % 17 == 16:
            floor.lose_identity()
        await floor.clock.advance(chance.uniform(60, 3_000))
        floor.ledger.look()
    await floor.clock.advance(10 * HOUR)
    floor.ledger.look()
    covered: list[tuple[int, str, int]] = []
    for manifest in floor.data("manifest"):
        for topic, one in manifest["topics"].items():
            numbers = range(int(one["first"]), int(one["last"]) + 1)
            assert len(numbers) == one["count"]
            covered += [(manifest["epoch"], topic, number) for number in numbers]
    assert len(covered) == len(set(covered)), "no record is in two manifests"
    issued = {(one.epoch, one.topic, one.sequence or 0) for one in floor.store.records.page(limit=100_000)}
    assert len({epoch for epoch, *_ in issued}) == 4
    last = floor.store.records.page(type="manifest", limit=100_000)[-1]
    assert issued - set(covered) == {(last.epoch, last.topic, last.sequence)}, "only the last manifest is in none"
    assert len({manifest["key"] for manifest in floor.data("manifest")}) == len(floor.data("manifest"))
    assert against_manifests(floor.received()).good


async def test_manifest_of_many_records_is_made_in_slices(floor: Floor) -> None:
    floor.issue(*["10s"] * (2 * SLICE + 5))
    await floor.clock.advance(HOUR)
    assert [floor.ledger.look() for _ in range(3)] == [0, 0, 1]
    assert floor.data("manifest")[0]["count"] == 2 * SLICE + 5


async def test_capture_without_a_record_with_one_twice_and_with_one_altered_is_told_apart(floor: Floor) -> None:
    floor.issue(*["10s"] * 9)
    await floor.outbox.accepted(range(1, 10))
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    whole = floor.payloads()

    def compared(lines: list[bytes]) -> list[tuple[int, int, int, int]]:
        items, _ = issued_page(floor.store, {}, 0)
        both = [against_manifests(read(lines, "c")), against_store(read(lines, "c"), items)]
        return [(one.missing, one.doubled, one.altered, one.unlike) for one in both]

    assert compared(whole) == [(0, 0, 0, 0)] * 2
    assert compared([*whole, whole[3]]) == [(0, 1, 0, 0)] * 2
    assert compared([*whole[:4], *whole[5:]]) == [(1, 0, 0, 0)] * 2
    altered = whole[4].replace(b'"key":"k5"', b'"key":"k6"')
    assert compared([*whole[:4], altered, *whole[5:]]) == [(0, 0, 0, 9), (0, 0, 1, 0)]
    assert compared([*whole, altered]) == [(0, 0, 1, 0)] * 2


async def test_dead_letters_are_named_once_in_gap_records_and_leave_nothing_missing(floor: Floor) -> None:
    floor.issue(*["10s"] * 5, "1h")
    for position in (2, 3, 5):
        await floor.outbox.refused(position, 0x87, "not authorized")
    await floor.outbox.refused(6, HANGS_UP, "hangs up")
    await floor.outbox.accepted([1, 4])
    assert floor.ledger.look() == 3
    assert floor.ledger.look() == 0
    gaps = {(gap["topic"].rpartition("/")[2], gap["cause"], gap["first_sequence"][-1], gap["last_sequence"][-1],
             gap["count"]) for gap in floor.data("gap")}  # fmt: skip
    assert gaps == {
        ("10s", "not_authorized", "2", "3", 2), ("10s", "not_authorized", "5", "5", 1), ("1h", "hangs_up", "1", "1", 1),
    }  # fmt: skip
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    found = against_manifests(floor.received(2, 3, 5, 6))
    assert (found.good, found.named, found.not_captured) == (True, 3, [f"edge/v1/{SUBJECT}/production/1h"])
    assert against_manifests(floor.received(2, 3, 4, 5, 6)).missing == 1


async def test_dead_letters_are_listed_and_sent_again_and_named_anew_when_they_are_refused_again(floor: Floor) -> None:
    floor.issue("10s", "10s")
    before = floor.payloads()
    await floor.outbox.refused(1, 0x95, "too large")
    await floor.outbox.accepted([2])
    floor.ledger.look()
    items, _ = records_page(floor.store, {"dead": True}, 0)
    assert [item["event"]["data"]["key"] for item in items] == ["k1"]
    await floor.outbox.accepted([3])
    assert send_again(floor.store, {"dead": True}) == 1
    assert [one.payload for one in await floor.outbox.waiting(0, 10)] == before[:1], "the same bytes"
    assert records_page(floor.store, {"dead": True}, 0)[0] == []
    await floor.outbox.refused(1, 0x95, "too large")
    floor.ledger.look()
    assert [(gap["revision"], gap["count"]) for gap in floor.data("gap")] == [(0, 1), (1, 1)]


async def test_gap_of_dead_letters_of_which_a_part_is_refused_again_still_names_the_others(floor: Floor) -> None:
    for _ in range(4):
        floor.issue("10s")
        await floor.clock.advance(60)
    for position in (1, 2, 3, 4):
        await floor.outbox.refused(position, 0x87, "not authorized")
    floor.ledger.look()
    await floor.outbox.accepted([5])
    assert send_again(floor.store, {"dead": True, "until": START // (HOUR * S) * HOUR * S + 60 * S}) == 1
    await floor.outbox.refused(1, 0x87, "not authorized")
    floor.ledger.look()
    first, second = floor.data("gap")
    assert (first["key"], first["revision"], second["revision"]) == (second["key"], 0, 1)
    assert all(second[name] == first[name] for name in ("start", "end", "first_sequence", "last_sequence", "count"))
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    found = against_manifests(floor.received(2, 3, 4))
    assert (found.good, found.named) == (True, 3)


async def test_broker_that_refuses_gap_records_too_is_not_told_so_for_ever(floor: Floor) -> None:
    floor.issue("10s")
    await floor.outbox.refused(1, 0x87, "not authorized")
    for _ in range(5):
        floor.ledger.look()
        for waiting in await floor.outbox.waiting(0, 100):
            await floor.outbox.refused(waiting.position, 0x87, "not authorized")
    assert len(floor.data("gap")) == 1
    send_again(floor.store, {"dead": True, "topic": floor.store.records.page(type="gap")[0].topic})
    (gap,) = await floor.outbox.waiting(0, 100)
    await floor.outbox.accepted([gap.position])
    assert floor.ledger.look() == 0


async def test_records_that_the_disk_has_changed_do_not_hide_those_behind_them(floor: Floor) -> None:
    floor.issue(*["10s"] * 5)
    with floor.store.transaction():
        floor.store._connection.execute("UPDATE record SET payload = x'7b7d' WHERE position <= 3")
    assert [one.position for one in await floor.outbox.waiting(-1, 2)] == [4]
    assert [one.position for one in floor.store.records.page(dead=True)] == [1, 2, 3]


async def test_record_that_the_disk_has_changed_is_not_delivered_and_is_named(floor: Floor) -> None:
    floor.issue("10s", "10s", "10s")
    with floor.store.transaction():
        floor.store._connection.execute(
            "UPDATE record SET payload = CAST(replace(CAST(payload AS TEXT), 'k2', 'k9') AS BLOB) WHERE position = 2"
        )
    assert [one.position for one in await floor.outbox.waiting(0, 100)] == [1, 3]
    floor.ledger.look()
    (gap,) = floor.data("gap")
    assert (gap["cause"], gap["count"], gap["first_sequence"][-1]) == ("damaged", 1, "2")
    assert floor.store.records.page(dead=True)[0].reason_code == DAMAGED
    assert send_again(floor.store, {"dead": True}) == 0, "what it said is lost"
    with floor.store.transaction():
        floor.store._connection.execute("UPDATE record SET payload = x'00ff' WHERE position = 1")
    items, _ = records_page(floor.store, {}, 0)
    assert items[0]["event"] is None
    assert len(issued_page(floor.store, {}, 0)[0]) == len(items) - 2, "what the disk has changed proves nothing"
    await floor.clock.advance(HOUR)
    assert floor.ledger.look() == 1, "it does not stop the account of the others"


async def test_replay_sends_a_range_again_with_the_same_bytes_and_nothing_else(floor: Floor) -> None:
    for _ in range(4):
        floor.issue("10s", "1h")
        await floor.clock.advance(60)
    await floor.outbox.accepted(range(1, 9))
    begin = floor.clock.now() - 181 * S
    assert send_again(floor.store, {"since": begin, "until": begin + 120 * S, "topic": None}) == 4
    assert [one.position for one in await floor.outbox.waiting(0, 100)] == [3, 4, 5, 6]
    payloads = {one.position: one.payload for one in floor.store.records.page()}
    assert all(one.payload == payloads[one.position] for one in await floor.outbox.waiting(0, 100))


async def test_record_that_says_no_id_stops_no_account(floor: Floor) -> None:
    with floor.store.transaction():
        floor.store.issue([Draft("production", "t", "s", {})], lambda *_: b"{}", floor.clock.now())
    await floor.clock.advance(HOUR)
    assert floor.ledger.look() == 1


async def test_what_goes_for_room_is_named_once_an_hour_and_hides_nothing_else(floor: Floor) -> None:
    def lose(cause: str, count: int, first: int) -> None:
        with floor.store.transaction():
            floor.store.losses.add(
                "records", cause, start=START, count=count, topic="t", epoch=1, first=first, last=first + count - 1
            )

    lose("disk_full", 5, 1)
    assert floor.ledger.look() == 1
    for number in range(10):
        lose("disk_full", 2, 100 + 2 * number)
        await floor.clock.advance(60)
        assert floor.ledger.look() == 0
    lose("damaged", 1, 7)
    assert floor.ledger.look() == 1
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    named = [(one["cause"], one["count"], int(one["first_sequence"])) for one in floor.data("gap")]
    assert named == [("disk_full", 5, 1), ("damaged", 1, 7), ("disk_full", 20, 100)]


async def test_replay_of_many_records_is_many_transactions_with_others_between(floor: Floor) -> None:
    floor.issue(*["10s", "1h"] * delivery.SLICE)
    await floor.outbox.accepted(range(1, 2 * delivery.SLICE + 1))
    floor.issue("10s")
    topic = f"edge/v1/{SUBJECT}/production/1h"
    arguments = {"since": START - HOUR * S, "topic": topic}
    after, last = span_to_send_again(floor.store, arguments)
    assert (after, last) == (0, 2 * delivery.SLICE + 1)
    counts = []
    while after < last:
        some, after = send_some_again(floor.store, arguments, after, last)
        counts.append(some)
    assert counts == [delivery.SLICE // 2, delivery.SLICE // 2, 0]
    assert {one.topic for one in floor.store.delivery.waiting(0, 9_999) if one.position < last} == {topic}
    assert span_to_send_again(floor.store, {"dead": True}) == (0, 0)


async def test_replay_of_dead_letters_looks_at_them_alone(floor: Floor) -> None:
    floor.issue(*["10s"] * 3 * delivery.SLICE)
    await floor.outbox.accepted(range(1, 3 * delivery.SLICE + 1))
    for position in (7, 2 * delivery.SLICE, 3 * delivery.SLICE - 1):
        await floor.outbox.refused(position, 0x87, "not authorized")
    span = span_to_send_again(floor.store, {"dead": True})
    assert send_some_again(floor.store, {"dead": True}, *span) == (3, span[1])
    assert floor.store.delivery.figures() == {"waiting": 3, "refused": 0}


def changed_behind_the_index(folder: Path, change: str) -> None:
    """Change rows as the disk does: the index of those that wait does not follow."""
    path = folder / "edge-agent.db"
    with sqlite3.connect(path) as db:
        index = db.execute("SELECT * FROM sqlite_master WHERE name = 'outbox'").fetchone()
    db.close()
    for statement, values in (
        ("DELETE FROM sqlite_master WHERE name = 'outbox'", ()),
        (change, ()),
        ("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", index),
    ):
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA writable_schema = ON")
            db.execute(statement, values)
        db.close()


async def test_record_that_waits_by_its_index_and_not_by_its_row_is_sent_once_or_buried(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    floor.issue(*["10s"] * 6)
    floor.store.close()
    changed_behind_the_index(tmp_path, "UPDATE record SET answered = 0 WHERE position IN (2, 4)")
    changed_behind_the_index(tmp_path, "UPDATE record SET payload = x'00ff' WHERE position = 4")
    floor.open()
    try:
        assert floor.store.check(10), "a quick check sees nothing of it"
        assert "index outbox" in proved(floor.store, 10)["sqlite"]
        until = time.monotonic() + 5
        floor.store._connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        assert not await floor.outbox.waiting(3, 1, 4), "the damaged one alone"
        for position in (1, 2, 3, 5, 6):
            assert [one.position for one in await floor.outbox.waiting(-1, 1)] == [position]
            await floor.outbox.accepted([position])
        assert not await floor.outbox.waiting(-1, 1)
        assert [one.reason_code for one in floor.store.records.page(dead=True)] == [DAMAGED]
        assert proved(floor.store, 10)["sqlite"] == "ok"
    finally:
        floor.store.close()
