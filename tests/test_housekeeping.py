"""Age, size and a full disk: what goes, in which order, what is said of it, and what never goes."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import START, FakeClock, S, row

from edge_agent import housekeeping
from edge_agent.clock import Trust
from edge_agent.config.models import BufferSettings
from edge_agent.housekeeping import DAY_NS, Housekeeper
from edge_agent.store import Draft, Issued, Store, StoreError, StoreThread, room
from edge_agent.store.files import BALLAST
from edge_agent.store.records import Progress
from edge_agent.store.room import BALLAST_BYTES
from edge_agent.timestamps import rfc3339

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own takes root")


class Floor:
    """A store with everything in it that can go, and its housekeeper."""

    def __init__(self, folder: Path, max_size: str = "20 MB", alive: int | None = None) -> None:
        self.clock = FakeClock()
        self.store = Store(folder)
        self.store.begin(self.clock.now())
        self.thread = StoreThread(self.store, self.clock, S // 2)
        self.ids = self.store.register([("plc.count", True), ("plc.spare", False)])
        settings = BufferSettings.model_validate({"max_size": max_size, "keep_readings": "1 d"})
        self.keeper = Housekeeper(self.thread, settings, self.clock, alive)

    def readings(self, tag: str, count: int, time: int) -> None:
        machine = int(tag == "plc.count")
        rows = [row(self.ids[tag], time + n, n, machine=machine) for n in range(count)]
        self.store.append(rows, self.clock.now())

    def records(self, count: int, kind: str = "production", size: int = 1_000) -> None:
        def freeze(_: Draft, issued: Issued) -> bytes:
            return json.dumps({"id": f"gw1:{issued.epoch}:{issued.number}", "x": "y" * size}).encode()

        with self.store.transaction():
            self.store.issue([Draft(kind, f"t/{kind}", "s", {})] * count, freeze, self.clock.now())

    def left(self) -> dict[str, int]:
        count = self.store._connection.execute
        found = dict(count("SELECT 'readings of ' || machine, count(*) FROM reading GROUP BY machine").fetchall())
        found |= dict(count("SELECT type || (CASE WHEN answered IS NULL THEN '' ELSE ' accepted' END), count(*) "
                            "FROM record GROUP BY 1").fetchall())  # fmt: skip
        return found

    async def keep(self) -> None:
        while await self.keeper._do_some():
            pass


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    made = Floor(tmp_path)
    yield made
    made.store.close()


async def test_store_beyond_its_size_loses_the_least_valuable_first_and_says_so(floor: Floor) -> None:
    now = floor.clock.now()
    floor.readings("plc.spare", 50_000, now)
    floor.readings("plc.count", 50_000, now - 5 * DAY_NS)
    floor.records(3_000)
    with floor.store.transaction():
        floor.store.delivery.answer(range(1, 2_001), now, 0)
    floor.readings("plc.count", 50_000, now)
    floor.records(1_000, "process")
    floor.records(1)
    await floor.keep()
    whole = floor.left()
    assert whole["readings of 0"] == 50_000, "it fits"
    classes = ["spare_readings", "old_readings", "accepted_records", "open_readings", "process_records", "records"]
    seen: list[str] = []
    size = floor.store.room.used()
    while size > 400_000:
        size = int(size * 0.9)
        floor.keeper._settings = floor.keeper._settings.model_copy(update={"max_size": size})
        await floor.keep()
        assert floor.store.room.used() <= size
        facts = floor.store._connection.execute("SELECT name FROM fact WHERE name LIKE 'sacrificed.%'").fetchall()
        gone = {name.partition(".")[2] for (name,) in facts}
        seen += [name for name in classes if name in gone and name not in seen]
        if "old_readings" in seen:
            assert "readings of 0" not in floor.left(), "one kind is gone before the next begins to go"
        if "open_readings" in seen:
            assert "production accepted" not in floor.left()
        if "process_records" in seen:
            assert floor.left()["readings of 1"] == 1
        if "records" in seen:
            assert "process" not in floor.left()
    assert seen == classes
    losses = floor.store.losses.pending(10_000)
    for kind in ("process", "production"):
        named = sum(loss.rows or 0 for loss in losses if loss.topic == f"t/{kind}")
        assert named == whole[kind] - floor.left().get(kind, 0)
    assert sum(loss.rows or 0 for loss in losses if loss.what == "readings") == whole["readings of 1"] - 1
    assert {loss.cause for loss in losses} == {"disk_full"}
    assert floor.store.readings.newest("plc.count") is not None, "what holds now stays"


@pytest.mark.parametrize(("trust", "deleted"), [("synchronized", True), ("unsynchronized", False), ("stepped", False)])
async def test_clock_that_is_set_forward_deletes_nothing_unless_it_is_known_to_be_right(
    floor: Floor, trust: Trust, deleted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floor.clock, "trust", lambda: trust)
    floor.readings("plc.spare", 100, floor.clock.now())
    floor.records(5)
    with floor.store.transaction():
        floor.store.delivery.answer(range(1, 6), floor.clock.now(), 0)
    floor.clock.step_wall(365 * DAY_NS)
    await floor.keep()
    count, kept = (1, 1) if deleted else (100, 5)
    left = {"readings of 0": count, "production accepted": kept}
    assert floor.left() == left, "the newest of each stays"


async def test_what_is_older_than_it_is_kept_goes_as_time_passes(floor: Floor) -> None:
    floor.readings("plc.spare", 100, floor.clock.now())
    await floor.clock.advance(3 * 86_400)
    await floor.keep()
    assert floor.left() == {"readings of 0": 1}


async def test_start_with_a_clock_far_ahead_of_the_last_sign_of_life_believes_the_latter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = Floor(tmp_path, alive=START - 400 * DAY_NS)
    monkeypatch.setattr(floor.clock, "trust", lambda: "unsynchronized")
    floor.readings("plc.spare", 100, START - 399 * DAY_NS)
    await floor.keep()
    assert floor.left() == {"readings of 0": 100}
    floor.store.close()


async def test_page_that_is_torn_is_found_without_anybody_needing_it(floor: Floor) -> None:
    floor.readings("plc.spare", 100_000, floor.clock.now())
    floor.store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with floor.store.path.open("r+b") as file:
        file.seek(200 * 4_096)
        file.write(bytes(4_096))
    floor.store._connection.execute("PRAGMA shrink_memory")
    with pytest.raises(StoreError):
        for _ in range(20):
            await floor.keeper._do_some()


@needs_root
async def test_disk_that_is_full_is_left_again_with_the_ballast(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)], check=True)
    try:
        floor = Floor(place / "data", "1 GB")
        floor.readings("plc.spare", 50_000, floor.clock.now())
        floor.records(2_000)
        await floor.keep()
        assert (floor.store.folder / BALLAST).stat().st_size == BALLAST_BYTES
        floor.store.room.give_back()  # no write-ahead log has room for anything any more
        free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
        (place / "theirs").write_bytes(bytes(free))
        task = asyncio.create_task(floor.thread.run())
        for second in range(60):
            floor.thread.append([row(floor.ids["plc.count"], floor.clock.now() + n, n) for n in range(2_000)])
            await floor.clock.advance(1)
            await asyncio.sleep(0.02)
            await floor.keeper._do_some()
            if second > 5 and floor.thread.failing is None:
                break
        assert floor.thread.failing is None, "it stores again, on the same disk"
        assert floor.left()["production"] == 2_000, "records stay"
        for first in range(1, 2_001, 250):  # as the broker answers
            with floor.store.transaction():
                floor.store.delivery.answer(range(first, first + 250), floor.clock.now(), 0)
            await floor.keeper._do_some()
        (place / "theirs").unlink()
        for _ in range(5):
            await floor.keeper._do_some()
        assert (floor.store.folder / BALLAST).exists()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        floor.store.close()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@needs_root
async def test_agent_begins_on_a_full_disk_with_the_ballast(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)], check=True)
    try:
        floor = Floor(place / "data", "1 GB")
        floor.records(10)
        await floor.keep()
        await floor.thread.close()
        with (place / "theirs").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4_096))
        with Store(place / "data") as store:
            assert "the ballast is freed" in caplog.text
            store.with_room(store.begin, START)
            store.append([row(1, START, 1)], START)
            assert store.delivery.figures()["waiting"] == 10
        with (place / "theirs").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4_096))
        with (
            pytest.raises((StoreError, sqlite3.Error), match=r"full|No space|unable|I/O"),
            Store(place / "data") as store,
        ):
            store.with_room(store.begin, START)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


async def test_file_shrinks_when_its_size_is_made_smaller(floor: Floor) -> None:
    floor.readings("plc.spare", 200_000, floor.clock.now())
    before = floor.store.room.size()
    floor.keeper._settings = floor.keeper._settings.model_copy(update={"max_size": before // 2})
    for _ in range(2):  # rows go, and then their pages
        await floor.keep()
    assert floor.store.room.size() <= before // 2


async def test_databases_that_were_put_aside_are_bounded_too_and_the_newest_stays(floor: Floor) -> None:
    for number in range(4):
        path = floor.store.folder / f"edge-agent.db.damaged-{number}"
        path.write_bytes(bytes(8_000_000))
        os.utime(path, (number, number))
    await floor.keep()
    assert sorted(path.name[-1] for path in floor.store.folder.glob("*.damaged-*")) == ["2", "3"]


async def test_age_is_reckoned_from_the_time_that_is_settled(floor: Floor) -> None:
    floor.clock.trusted = "unsynchronized"
    floor.clock.step_wall(21 * DAY_NS)
    assert floor.keeper.now() == START
    floor.keeper.begin_to_age()
    assert floor.keeper.now() == START + 21 * DAY_NS


def opened(floor: Floor, *borders: int) -> None:
    with floor.store.transaction():
        for number, border in enumerate(borders):
            floor.store.records.set_progress("press", f"{number}", Progress(border))


async def test_what_open_windows_need_does_not_go_for_what_others_write(floor: Floor) -> None:
    floor.readings("plc.count", 3_000, START)
    floor.records(10)
    opened(floor, START + 2_000, START + 1_000)
    with floor.store.transaction():
        floor.store.room.sacrifice(0, 0, needed=False)
    times = [one.time - START for one in floor.store.readings.page(limit=5_000)]
    assert times == list(range(999, 3_000))
    assert floor.left()["production"] == 10


async def test_counter_can_still_be_counted_over_every_open_window_when_its_readings_had_to_go(floor: Floor) -> None:
    floor.readings("plc.count", 3_000, START)
    floor.store.append([row(floor.ids["plc.count"], START + 3_000, None, 2, "device_offline")], START)
    floor.readings("plc.spare", 1, START)
    opened(floor, START + 1_000, START + 2_500)
    with floor.store.transaction():
        gone = floor.store.room.sacrifice(0, 2**62)
    left = [(one.time - START, one.value) for one in floor.store.readings.page(tags=["plc.count"], limit=5_000)]
    assert left == [(999, 999), (2_499, 2_499), (2_999, 2_999), (3_000, None)]
    assert gone["old_readings"] == 3_001 - 4


async def test_dead_letters_go_after_what_was_accepted_and_only_when_a_gap_record_has_named_them(floor: Floor) -> None:
    floor.records(400)
    delivery, now = floor.store.delivery, floor.clock.now()
    with floor.store.transaction():
        delivery.answer(range(1, 101), now, 0)
        delivery.bury(range(101, 301), now, 0x87, "not authorized")
        delivery.named(delivery.unnamed(100))

    def left(until: int) -> set[int]:
        with floor.store.transaction():
            floor.store.room.sacrifice(until, 0, needed=False)
        return {one.position for one in floor.store.records.page(limit=1_000)}

    assert left(floor.store.room.used() - 50_000) == {*range(101, 401)}
    assert left(0) == {*range(201, 401)}


async def test_job_that_is_open_is_a_border_too(floor: Floor) -> None:
    floor.readings("plc.count", 3_000, START)
    opened(floor, START + 2_500)
    for key, topic, is_open in (("1", "t/1", True), ("2", "t/2", False)):
        start = rfc3339(START + 1_000 * int(key))
        data = json.dumps({"data": {"open": is_open}}).encode()
        with floor.store.transaction():
            draft = Draft("job", topic, "s", {}, f"s/job/{start}")
            floor.store.issue([draft], lambda *_, made=data: made, START)
    with floor.store.transaction():
        floor.store.room.sacrifice(0, 2**62)
    assert [one.time - START for one in floor.store.readings.page(limit=5_000)] == [999, 2_499, 2_999]


async def test_number_of_the_newest_row_is_never_given_again(floor: Floor) -> None:
    floor.readings("plc.spare", 10_000, floor.clock.now())
    floor.records(100)
    with floor.store.transaction():
        floor.store.delivery.answer(range(1, 101), floor.clock.now(), 0)
    newest = floor.store.delivery.newest(), floor.store.readings.last_id()
    with floor.store.transaction():
        floor.store.room.sacrifice(0, 2**62)
        floor.store.records.prune(2**62, 1_000)
    assert (floor.store.delivery.newest(), floor.store.readings.last_id()) == newest


async def test_run_that_ended_well_is_not_checked_and_one_that_did_not_is(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    assert floor.keeper._checked is False
    await floor.keep()
    await floor.thread.close()
    floor = Floor(tmp_path)
    assert floor.keeper._checked is True
    floor.store.close()
    floor = Floor(tmp_path)
    assert floor.keeper._checked is False
    floor.store.close()


async def test_look_that_a_stop_has_cut_short_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "CHECK_S", -1.0)  # as with a store that takes longer than that
    monkeypatch.setattr(housekeeping, "LOOK_ROWS", 10)
    floor = Floor(tmp_path)
    floor.readings("plc.count", 30_000, START)
    assert await floor.keeper._do_some(), "there is more to look at"
    await floor.thread.close()
    floor = Floor(tmp_path)
    assert floor.keeper._checked is False
    monkeypatch.setattr(housekeeping, "LOOK_ROWS", 10_000)
    await floor.keep()
    await floor.thread.close()
    floor = Floor(tmp_path)
    assert floor.keeper._checked is True
    floor.store.close()


async def test_last_reading_of_a_lost_device_holds_nothing_behind_it(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_LOOKED_AT", 2_000)
    lost = floor.store.register([("lost.state", True), ("plc.count", True)])["lost.state"]
    floor.store.append([row(lost, START, None, 2, "device_offline")], START)
    floor.readings("plc.count", 10_000, START + 1)
    floor.records(5)
    with floor.store.transaction():
        gone = floor.store.room.sacrifice(floor.store.room.used() - 300_000, 0)
    assert gone["open_readings"] > 5_000, "more than are looked at behind the oldest that stays"
    assert [*gone] == ["open_readings"]
    assert floor.left()["production"] == 5


async def test_machine_that_is_not_configured_any_more_holds_nothing(floor: Floor) -> None:
    floor.readings("plc.count", 1_000, START)
    opened(floor, START + 990, START - 5 * DAY_NS)
    with floor.store.transaction():
        floor.store.room.sacrifice(0, 0, needed=False)
    assert floor.left()["readings of 1"] == 11


async def test_losses_that_go_on_are_one_until_they_are_named(floor: Floor) -> None:
    losses = floor.store.losses
    with floor.store.transaction():
        for number in range(100):
            losses.add("readings", "disk_full", start=START + number, until=START + number + 1, count=10)
            losses.add(
                "records", "disk_full", start=START, count=2, topic="t", epoch=1, first=2 * number, last=2 * number + 1
            )
        losses.add("records", "disk_full", start=START, count=1, topic="t", epoch=1, first=900, last=900)
        losses.add("records", "damaged", start=START, epoch=1)
        losses.add("records", "damaged", start=START, epoch=2)
    found = [(one.what, one.rows, one.first, one.last, one.until - START) for one in losses.pending(100)]
    assert found == [
        ("readings", 1_000, None, None, 100), ("records", 200, 0, 199, 1), ("records", 1, 900, 900, 1),
        ("records", None, None, None, 1), ("records", None, None, None, 1),
    ]  # fmt: skip


async def test_log_of_a_damaged_database_goes_with_it_and_the_newest_stays_whole(floor: Floor) -> None:
    for name, size, time in (
        ("1", 900_000, 100),
        ("1-wal", 200_000, 300),
        ("2", 1_950_000, 150),
        ("2-wal", 100_000, 200),
    ):
        path = floor.store.folder / f"edge-agent.db.damaged-{name}"
        path.write_bytes(bytes(size))
        os.utime(path, (time, time))
    assert sorted(floor.store.room.forget_damaged(2_000_000)) == [
        "edge-agent.db.damaged-1", "edge-agent.db.damaged-1-wal",
    ]  # fmt: skip
    assert len([*floor.store.folder.glob("*damaged-2*")]) == 2
