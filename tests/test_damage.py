"""A store after damage to its files: it begins, nothing that is left is altered, and what is gone is named."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import START, FakeClock, S, row
from image_disk import Disk, needs_loop

from bench.damages import DAMAGES, PAGE, checkpointed, overwrite
from edge_agent.clock import EARLIEST_NS, PROVISIONAL_NS
from edge_agent.ledger import POSITION
from edge_agent.outbox import StoreOutbox
from edge_agent.store import Draft, Issued, Store, StoreDamaged, StoreError, StoreThread, first_page, identity
from edge_agent.store.files import BALLAST, DATABASE, connect, put_aside
from edge_agent.store.identity import first_epoch
from edge_agent.store.records import Progress
from edge_agent.store.salvage import _Salvage
from edge_agent.summarizer.late import SEEN

TOPICS = ("t/a", "t/b", "t/c")


def freeze(draft: Draft, issued: Issued) -> bytes:
    return json.dumps({"id": f"{issued.epoch}:{issued.number}", "s": issued.sequence, "x": "y" * 700}).encode()


def filled(folder: Path) -> dict[tuple[int, str, int], bytes]:
    """A store with readings and records, some of them answered; killed, so that its log is still there."""
    store = Store(folder)
    store.begin(START)
    tag = store.register([("plc.count", True)])["plc.count"]
    for second in range(3_000):
        if second % 10 == 0:
            store.append([row(tag, START + (second + n) * S, second + n) for n in range(10)], START + second * S)
        if second % 25 == 0:
            drafts = [Draft("production", topic, "s", {}, f"k{second}{topic}") for topic in TOPICS]
            with store.transaction():
                store.issue(drafts, freeze, START + second * S)
    with store.transaction():
        store.delivery.answer(range(1, 101), START, 0)
    found = {(one.epoch, one.topic, one.sequence or 0): one.payload for one in store.records.page(limit=10_000)}
    copy = folder.parent / f"{folder.name}-killed"
    shutil.copytree(folder, copy)  # as a kill leaves it
    store.close()
    shutil.rmtree(folder)
    copy.rename(folder)
    return found


def begun(folder: Path) -> Store:
    """A store that has begun and whose every page has been read, as the agent does it."""
    for _ in range(3):
        store = Store(folder)
        try:
            store.begin(START + 4_000 * S)
            assert store.check(60)
            done: dict[str, int] = {}
            while store.look_at_pages(done, 1_000):
                pass
            store.delivery.waiting(0, 10_000)
            return store
        except sqlite3.DatabaseError as error:
            store.translated(error)
            store.close()
    raise AssertionError("it does not begin")


@pytest.mark.parametrize("seed", range(int(os.environ.get("DAMAGE_SEEDS", "3"))))
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_store_begins_after_any_damage_and_says_what_is_gone(
    tmp_path: Path, damage: Callable[[Path, random.Random], None], seed: int
) -> None:
    folder = tmp_path / "data"
    issued = filled(folder)
    damage(folder, random.Random(seed))
    store = begun(folder)
    try:
        assert store.identity is not None
        left = {(one.epoch, one.topic, one.sequence or 0): one for one in store.records.page(limit=10_000)}
        sound = {place for place, one in left.items() if one.payload == issued[place]}
        waiting = {one.position: one.sound for one in store.delivery.waiting(0, 10_000)}
        for place, one in left.items():
            assert place in sound or one.position not in waiting or not waiting[one.position], "altered, and not seen"
        lost = store.losses.pending(1_000)
        named = {
            (loss.epoch, loss.topic, sequence)
            for loss in lost
            if loss.topic is not None
            for sequence in range(loss.first or 0, (loss.last or 0) + 1)
        }
        gone = issued.keys() - left.keys() - named
        if gone:
            whole = [loss for loss in lost if loss.what == "records" and loss.topic is None and loss.epoch == 1]
            assert whole, f"{len(gone)} records are gone, and no loss says so"
        if issued.keys() - left.keys():
            assert store.identity.epoch > 1, "a new epoch"
        with store.transaction():
            store.issue([Draft("production", topic, "s", {}) for topic in TOPICS], freeze, START + 4_001 * S)
        new = [one for one in store.records.page(limit=10_000) if one.issued > START + 4_000 * S]
        assert not {(one.epoch, one.topic, one.sequence) for one in new} & issued.keys(), "an identity given twice"
        if list(folder.glob(f"{DATABASE}.damaged-*")):
            assert lost or not (issued.keys() - left.keys())
    finally:
        store.close()


def test_salvage_brings_back_all_but_the_damaged_page(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    issued = filled(folder)
    checkpointed(folder)
    path = folder / DATABASE
    content = path.read_bytes()
    page = next(n for n in range(len(content) // PAGE) if b"yyyyyyyy" in content[n * PAGE : (n + 1) * PAGE])
    overwrite(path, page * PAGE, bytes(PAGE))
    store = begun(folder)
    left = store.records.page(limit=10_000)
    assert len(issued) - 30 < len(left) < len(issued)
    assert store.figures()["readings"] > 2_900
    assert store.damaged is not None
    assert store.damaged.exists()
    store.close()


def newest_leaf(path: Path, table: str) -> int:
    """The page with the newest rows of a table."""
    with sqlite3.connect(path) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    db.close()
    content = path.read_bytes()
    while content[(page - 1) * PAGE] == 0x05:  # an inner page of a table: its last child
        page = int.from_bytes(content[(page - 1) * PAGE + 8 : (page - 1) * PAGE + 12], "big")
    return int(page)


@pytest.mark.parametrize(
    ("damage", "records", "readings"),
    [("record", 1_990, 30_000), ("reading", 2_000, 29_800), ("both", 1_990, 29_800), ("cut off", 1_960, 29_500)],
)
def test_damage_to_the_newest_rows_of_a_table_costs_those_alone(
    tmp_path: Path, damage: str, records: int, readings: int
) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
        tag = store.register([("plc.count", True)])["plc.count"]
        for second in range(100):
            with store.transaction():
                store.issue([Draft("production", TOPICS[n % 3], "s", {}) for n in range(20)], freeze, START)
            store.append([row(tag, START + second * S + n, n) for n in range(300)], START + (second + 1) * S)
    path = tmp_path / DATABASE
    if damage == "cut off":
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 5 * PAGE)
    else:
        for page in [newest_leaf(path, table) for table in ("record", "reading") if damage in (table, "both")]:
            overwrite(path, (page - 1) * PAGE, bytes(PAGE))
    store = begun(tmp_path)
    assert records <= store.delivery.figures()["waiting"] <= 2_000
    ((found, newest),) = store._connection.execute("SELECT count(*), max(time) FROM reading").fetchall()
    assert readings <= found <= 30_001, "with the one of the outage"
    lost = [loss for loss in store.losses.pending(100) if loss.what == "readings"]
    if damage != "record":
        assert [(loss.start > START + 90 * S, loss.until) for loss in lost] == [(True, START + 100 * S + 1)]
        assert lost[0].start < newest
    store.close()


def test_row_with_a_number_that_makes_no_sense_costs_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    issued = filled(folder)
    checkpointed(folder)
    with sqlite3.connect(folder / DATABASE) as db:
        db.execute("UPDATE record SET position = position + 1099511627776 WHERE position = 360")
    db.close()
    connect(tmp_path / "new").close()
    copied = _Salvage(folder / DATABASE, tmp_path / "new", 7).run()
    assert copied["record"] == len(issued)
    assert copied["reading"] >= 3_000


def test_salvage_does_not_bring_marks_beyond_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    issued = filled(folder)
    checkpointed(folder)
    with sqlite3.connect(folder / DATABASE) as db:
        db.executemany("INSERT INTO dead_letter VALUES (?, 1)", [(3,), (len(issued),)])
        db.executemany("INSERT INTO fact VALUES (?, ?)", [(POSITION, len(issued)), (SEEN, 3_000)])
        db.execute("INSERT INTO entry VALUES (7, 'm', 'reason', 'p', 1, 1, 2, '{}')")
        db.execute("DELETE FROM entry")
    db.close()
    for page in [newest_leaf(folder / DATABASE, table) for table in ("record", "reading")]:
        overwrite(folder / DATABASE, (page - 1) * PAGE, bytes(PAGE))
    new = tmp_path / "new"
    connect(new).close()
    _Salvage(folder / DATABASE, new, 7).run()
    with sqlite3.connect(new) as db:
        ((position, reading),) = db.execute("SELECT (SELECT max(position) FROM record), (SELECT max(id) FROM reading)")
        facts = dict(db.execute("SELECT name, value FROM fact"))
        assert position < len(issued)
        assert (facts[POSITION], facts[SEEN]) == (position, reading)
        assert db.execute("SELECT position FROM dead_letter").fetchall() == [(3,)]
        assert db.execute("SELECT name, seq FROM sqlite_sequence").fetchall() == [("entry", 7)]
    db.close()


def test_losses_of_one_time_are_one_loss(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
        store.register([("plc.spare", False)])
        for second in range(3):
            store.append([row(1, START + second * S, n, machine=0) for n in range(3_000)], START)
    path = tmp_path / DATABASE
    with sqlite3.connect(path) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'reading'").fetchone()
    db.close()
    page = path.read_bytes()[(root - 1) * PAGE : root * PAGE]
    for n in (30, 32, 34):  # between them pages with readings of the same time
        cell = int.from_bytes(page[12 + 2 * n : 14 + 2 * n], "big")
        overwrite(path, (int.from_bytes(page[cell : cell + 4], "big") - 1) * PAGE, bytes(PAGE))
    store = begun(tmp_path)
    (loss,) = [loss for loss in store.losses.pending(10) if loss.what == "readings"]
    (rows,) = store._connection.execute("SELECT count(*) FROM reading").fetchone()
    rows -= 2  # each start says that nothing was known before it
    assert (loss.start, loss.until, loss.rows) == (START + S, START + S + 1, 9_000 - rows)
    store.close()


def test_losses_of_unknown_records_of_two_epochs_have_a_start_of_their_own(tmp_path: Path) -> None:
    starts = []
    for turn in range(2):
        with Store(tmp_path) as store:
            store.begin(START)
            with store.transaction():
                store.issue([Draft("production", "t/a", "s", {})] * 30, freeze, START + turn)
        with sqlite3.connect(tmp_path / DATABASE) as db:
            (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'record'").fetchone()
        db.close()
        overwrite(tmp_path / DATABASE, (root - 1) * PAGE, bytes(PAGE))
        store = begun(tmp_path)
        whole = [loss for loss in store.losses.pending(10) if loss.what == "records" and loss.topic is None]
        starts += [loss.start for loss in whole if loss.start < START]
        with store.transaction():
            store.losses.named(store.losses.pending(100))
        store.close()
    assert starts == [1, 2]


def test_salvage_of_a_table_that_cannot_be_read_ends_in_time_with_what_came_before_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    issued = filled(folder)
    with Store(folder) as store:
        store.append([row(1, START + n, n, machine=0) for n in range(1_000_000)], START)
    checkpointed(folder)
    with sqlite3.connect(folder / DATABASE) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'reading'").fetchone()
    db.close()
    page = (folder / DATABASE).read_bytes()[(root - 1) * PAGE : root * PAGE]
    cells = [int.from_bytes(page[12 + 2 * n : 14 + 2 * n], "big") for n in range(int.from_bytes(page[3:5], "big"))]
    assert page[0] == 0x05, "an inner page of a table"
    assert len(cells) > 5
    for cell in cells:  # all children but the last, so that it is known how many rows there are
        overwrite(folder / DATABASE, (int.from_bytes(page[cell : cell + 4], "big") - 1) * PAGE, bytes(PAGE))
    copied, took_s = salvaged_within(folder, 60)
    assert copied["record"] == len(issued)
    assert 0 < copied["reading"] < 600_000, "those of the last page that there is"
    assert took_s < 10, "row by row it would take longer than there is time"
    copied, took_s = salvaged_within(folder, -1)
    assert copied["record"] == copied["reading"] == 0
    assert took_s < 10


def salvaged_within(folder: Path, seconds: float) -> tuple[dict[str, int], float]:
    """What is salvaged of a store, and how long it takes; what is not is named."""
    new = folder.parent / f"{seconds}.db"
    connect(new).close()
    began = time.monotonic()
    copied = _Salvage(folder / DATABASE, new, seconds).run()
    took_s = time.monotonic() - began
    with sqlite3.connect(new) as db:
        (named,) = db.execute("SELECT total(count) FROM loss WHERE what = 'readings'").fetchone()
    db.close()
    assert named + copied["reading"] >= 1_003_000
    return copied, took_s


@pytest.mark.parametrize(
    ("at", "count"), [(0, 1), (0, 16), (10, 30), (0, 100), (100, 400), (0, 4_096), (33 * 4_096, 2 * 4_096)]
)
@pytest.mark.parametrize("by", [b"\0", b"\xa5"])
def test_damage_to_the_pages_of_the_schema_costs_nothing(tmp_path: Path, at: int, count: int, by: bytes) -> None:
    folder = tmp_path / "data"
    issued = filled(folder)
    checkpointed(folder)
    overwrite(folder / DATABASE, at, by * count)
    content = (folder / DATABASE).read_bytes()
    store = begun(folder)
    assert store.damaged is not None
    assert store.damaged.read_bytes() == content, "it is kept as it was found"
    left = {(one.epoch, one.topic, one.sequence): one.payload for one in store.records.page(limit=10_000)}
    assert left == issued
    assert store.figures()["readings"] >= 3_000
    assert store.identity is not None
    assert store.identity.epoch == 2
    assert store.losses.pending(10) == []
    assert not [*folder.glob("*.pages*")]
    store.close()


@pytest.mark.parametrize("bit", range(12))
def test_number_of_pages_in_the_header_costs_nothing(tmp_path: Path, bit: int) -> None:
    folder = tmp_path / "data"
    issued = filled(folder)
    checkpointed(folder)
    number = int.from_bytes((folder / DATABASE).read_bytes()[28:32], "big")
    overwrite(folder / DATABASE, 28, (number ^ 1 << bit).to_bytes(4, "big"))
    content = (folder / DATABASE).read_bytes()
    put_aside(folder / DATABASE)
    with Store(folder) as store:
        assert len(store.records.page(limit=10_000)) == len(issued)
        assert store.readings.count() == 3_000
        assert store.damaged is not None
        assert store.damaged.read_bytes() == content
        assert store.losses.pending(10) == []


@pytest.mark.parametrize("version", [3, 4, 5, 6, 7])
def test_store_of_an_earlier_version_that_is_cut_off_is_salvaged(tmp_path: Path, version: int) -> None:
    with sqlite3.connect(tmp_path / DATABASE) as db:
        db.executescript((Path(__file__).parent / "databases" / f"version-{version}.sql").read_text())
    db.close()
    with Store(tmp_path) as store:
        store.begin(START)
        for _ in range(20):
            with store.transaction():
                store.issue([Draft("production", "t/a", "s", {})] * 20, freeze, START)
    with (tmp_path / DATABASE).open("r+b") as file:
        file.truncate((tmp_path / DATABASE).stat().st_size - 2 * PAGE)
    store = begun(tmp_path)
    assert store.delivery.figures()["waiting"] >= 385
    store.close()


def test_pages_that_were_changed_by_a_salvage_that_was_killed_are_put_back(tmp_path: Path) -> None:
    small(tmp_path)
    damaged, content = tmp_path / DATABASE, (tmp_path / DATABASE).read_bytes()
    connect(tmp_path / "new").close()
    overwrite(damaged, 0, bytes(100))
    before = damaged.read_bytes()
    with suppress(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(first_page, "_is_ours", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(first_page, "put_back", lambda _: None)
        with first_page.mended(damaged, tmp_path / "new"):
            pass
    assert damaged.read_bytes() != before
    first_page.put_back(damaged)
    assert damaged.read_bytes() == before != content


async def test_first_pages_of_a_store_of_another_epoch_are_not_believed(tmp_path: Path) -> None:
    small(tmp_path)
    known = identity.read(tmp_path / identity.IDENTITY)
    assert known is not None
    identity.write(tmp_path / identity.IDENTITY, replace(known, epoch=7))
    overwrite(tmp_path / DATABASE, 0, bytes(100))
    thread = await started(tmp_path)
    assert thread.store.identity is not None
    assert thread.store.identity.epoch == 8
    assert thread.store.records.page(limit=10) == []
    assert thread.store.losses.pending(10)
    await thread.close()


def test_first_page_of_another_programs_database_is_not_mended(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    filled(folder)
    with sqlite3.connect(tmp_path / "theirs") as db:
        for number in range(40):
            db.execute(f"CREATE TABLE t{number} (a, b)")
            db.executemany(f"INSERT INTO t{number} VALUES (?, ?)", [(n, "x" * 50) for n in range(100)])
    db.close()
    for path in folder.glob(f"{DATABASE}*"):
        path.unlink()
    shutil.move(tmp_path / "theirs", folder / DATABASE)
    overwrite(folder / DATABASE, 0, bytes(100))
    store = begun(folder)
    assert store.records.page(limit=10) == []
    assert store.readings.count() == 0
    assert store.losses.pending(10), "what the second file knows of is named"
    store.close()


def test_salvage_ends_with_an_agent_that_is_killed(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
        store.append([row(1, START + n, n, machine=0) for n in range(1_000_000)], START)
    (tmp_path / "old").mkdir()
    shutil.copyfile(tmp_path / DATABASE, tmp_path / "old" / DATABASE)
    connect(tmp_path / "new").close()
    program = (
        "import sys, pathlib as p; from edge_agent.store.salvage import salvage; salvage(*map(p.Path, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "old" / DATABASE), str(tmp_path / "new")]
    agent = subprocess.Popen(command)
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
    while not (child := children.read_text().strip()):
        time.sleep(0.01)
    while not (maps := Path(f"/proc/{child}/maps")).exists() or "sqlite" not in maps.read_text():
        time.sleep(0.01)
    agent.kill()
    agent.wait()
    until = time.monotonic() + 20
    while (found := Path(f"/proc/{child}/stat")).exists() and " Z " not in found.read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
    with sqlite3.connect(tmp_path / "new") as db:
        assert db.execute("SELECT count(*) FROM reading").fetchone() == (0,), "what it copied is committed at its end"
    db.close()


def test_older_copy_of_the_database_is_found_out_also_one_of_an_earlier_epoch(tmp_path: Path) -> None:
    folder, copy = tmp_path / "data", tmp_path / "copy.db"
    issued = filled(folder)
    checkpointed(folder)
    shutil.copyfile(folder / DATABASE, copy)
    for path in folder.glob(f"{DATABASE}*"):
        path.unlink()
    with Store(folder) as store:
        assert store.begin(START).epoch == 2
        with store.transaction():
            store.issue([Draft("production", "t/a", "s", {})], freeze, START)
    shutil.copyfile(copy, folder / DATABASE)
    with Store(folder) as store:
        assert store.begin(START).epoch == 3
        assert [(loss.what, loss.epoch) for loss in store.losses.pending(10)] == [("records", 2), ("readings", None)]
        assert len(store.records.page(limit=1_000)) == len(issued)


async def test_row_that_makes_no_sense_is_damage_where_sqlite_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    issued = filled(folder)
    checkpointed(folder)
    for sql, change in (("BLOB NOT NULL", "BLOB"), ("BLOB", "BLOB NOT NULL")):
        with sqlite3.connect(folder / DATABASE) as db:
            if change == "BLOB NOT NULL":
                db.execute("UPDATE record SET payload = NULL WHERE position = 200")
            db.execute("PRAGMA writable_schema = ON")
            given = (f'"payload" {sql}', f'"payload" {change}')
            db.execute("UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = 'record'", given)
        db.close()
    store = Store(folder)
    store.begin(START + 4_000 * S)
    thread = StoreThread(store, FakeClock(), S)
    assert sum(one.payload is None for one in await thread.call(store.delivery.issued_after, 0, 1_000)) == 1
    with pytest.raises(StoreDamaged, match=r"NULL value in record\.payload"):
        await thread.call(int, None)  # type: ignore[arg-type]
    with suppress(StoreError):
        await thread.close()
    store = begun(folder)
    assert len(store.records.page(limit=10_000)) == len(issued) - 1
    assert [loss.rows for loss in store.losses.pending(10) if loss.what == "records" and loss.rows] == [1]
    store.close()


def test_reading_whose_time_is_no_number_any_more_is_damage_that_is_salvaged(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    filled(folder)
    with sqlite3.connect(folder / DATABASE) as db:
        db.execute("UPDATE reading SET time = 'x' WHERE id = 50")
    db.close()
    store = begun(folder)
    assert [loss.rows for loss in store.losses.pending(10) if loss.what == "readings"] == [1]
    assert store.readings.count() >= 3_000
    store.close()


def test_readings_of_a_tag_that_is_lost_do_not_fall_to_another(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    filled(folder)
    with Store(folder) as store:
        store.register([("plc.count", True), ("plc.other", True)])
        store.append([row(2, START + n * S, 7) for n in (3_100, 3_101)], START + 3_101 * S)
    with sqlite3.connect(folder / DATABASE) as db:
        db.execute("DELETE FROM tag WHERE name = 'plc.count'")
        db.execute("UPDATE reading SET time = 'x' WHERE time = ?", (START + 3_100 * S,))  # so that it is salvaged
    db.close()
    store = begun(folder)
    assert store.register([("plc.count", True), ("plc.other", True)]) == {"plc.other": 2, "plc.count": 3}
    assert [one.tag for one in store.readings.page() if one.value is not None] == ["plc.other"]
    assert sum(loss.rows or 0 for loss in store.losses.pending(10) if loss.what == "readings") >= 3_000
    store.close()


async def test_mark_that_is_no_number_any_more_is_damage_that_is_salvaged(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    filled(folder)
    with Store(folder) as store, store.transaction():
        store.records.set_progress("press", "10s", Progress(START))
        store.records.set_progress("press", "1min", Progress(START))
    with sqlite3.connect(folder / DATABASE) as db:
        db.execute("UPDATE progress SET closed_until = 1.5 WHERE window = '10s'")
    db.close()
    store = Store(folder)
    store.begin(START + 4_000 * S)
    thread = StoreThread(store, FakeClock(), S)
    with pytest.raises(StoreDamaged, match="a mark of press is no number"):
        await thread.call(store.records.progress, "press", "10s")
    with suppress(StoreError):
        await thread.close()
    store = begun(folder)
    assert store.records.progress("press", "10s") is None
    assert store.records.progress("press", "1min") == Progress(START)
    store.close()


async def test_error_of_our_own_is_no_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.begin(START)
    thread = StoreThread(store, FakeClock(), S)
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            await thread.call(int, "x")
    await thread.close()
    assert not [*tmp_path.glob("*.damaged-*")]


def test_record_of_which_the_disk_has_made_nonsense_is_as_if_it_had_gone(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
        with store.transaction():
            draft = Draft("production", "t", "s", {}, "s/production/10s/a", 4)
            store.issue([draft], lambda *_: b'{"data": {"withdrawn": false}}', START + S)
        assert store.records.latest("s/production/10s/a") == {"withdrawn": False}
        store._connection.execute("UPDATE record SET payload = ?", (b'{"data": {"withdraun": false}}',))
        assert store.records.latest("s/production/10s/a") is None
        assert store.records.latest_between("s/production/10s/", "", "z") == []
        assert store.records.first_revision(START) == 5
        assert store.records.first_revision(START + 2 * S) == 0


def test_records_that_were_undone_are_not_missed_afterwards(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
        with store.transaction():
            store.issue([Draft("production", "t/a", "s", {})], freeze, START)
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.issue([Draft("production", "t/a", "s", {})] * 2, freeze, START)
            raise ZeroDivisionError
        store.append([row(1, START, 1)], START)
    with Store(tmp_path) as store:
        assert store.begin(START).epoch == 1
        assert store.losses.pending(10) == []


def flipped(path: Path, needle: bytes, offset: int, which: int = 0, mask: int = 0x80) -> None:
    """One bit of one place where a text stands in a file."""
    content = bytearray(path.read_bytes())
    at = -1
    for _ in range(which + 1):
        at = content.index(needle, at + 1)
    content[at + offset] ^= mask
    path.write_bytes(content)


def small(folder: Path) -> None:
    with Store(folder) as store:
        store.begin(START)
        ids = store.register([("plc.count", True)])
        store.append([row(ids["plc.count"], START + n, n) for n in range(10)], START)
        store.append([row(ids["plc.count"], START + 50, None, 2, "device_offline")], START)
        store.remember_configuration("sha256:abcdef", "{}", START, "basis")
        with store.transaction():
            drafts = [Draft("production", "edge/v1/acme/topicA", "s", {}, f"key{n}") for n in range(3)]
            store.issue(drafts, freeze, START)


async def started(folder: Path) -> StoreThread:
    """A store as the agent starts with it: what turns out to be damaged is put aside, once."""
    for _ in range(2):
        store = Store(folder)
        thread = StoreThread(store, FakeClock(), S)
        try:
            await thread.call(store.begin, START + S)
            await thread.call(store.remember_configuration, "sha256:abcdef", "{}", START, "basis")
            await thread.call(store.register, [("plc.count", True)])
            thread.append([row(1, START + 2 * S, 1)])
            await thread.flush()
        except StoreDamaged:
            with suppress(StoreError):
                await thread.close()
        else:
            return thread
    raise AssertionError("two starts in vain")


@pytest.mark.parametrize("which", range(5))
async def test_bit_in_the_text_of_a_row_stops_neither_a_start_nor_the_rest(tmp_path: Path, which: int) -> None:
    small(tmp_path)
    needles = [b"edge/v1/acme/topicA", b"plc.count", b"sha256:abcdef", b"device_offline", b"key1"]
    flipped(tmp_path / DATABASE, needles[which], 2, which=1 if which == 0 else 0)
    thread = await started(tmp_path)
    waiting = await StoreOutbox(thread, FakeClock()).waiting(-1, 10)
    assert len(waiting) == (2 if which == 0 else 3), "what is damaged is a dead letter, and the rest is sent"
    await thread.close()


@pytest.mark.parametrize("at", [18, 19, 47, 60, 62, 63, 68, 71])
async def test_bit_in_the_header_is_damage_where_the_second_file_says_that_it_is_ours(tmp_path: Path, at: int) -> None:
    small(tmp_path)
    content = bytearray((tmp_path / DATABASE).read_bytes())
    content[at] ^= 1 if at != 47 else 8
    (tmp_path / DATABASE).write_bytes(content)
    thread = await started(tmp_path)
    assert thread.store.delivery.figures()["waiting"] == 3
    assert thread.store.readings.count() >= 10
    await thread.close()


@pytest.mark.parametrize("offset", [14, 25, 40, 45, 60, 90, 120, 200])
async def test_bit_in_the_text_of_the_schema_ends_in_a_start(tmp_path: Path, offset: int) -> None:
    small(tmp_path)
    flipped(tmp_path / DATABASE, b'CREATE TABLE "reading"', offset)
    thread = await started(tmp_path)
    await thread.close()


def test_newest_epoch_is_beyond_all_before_also_where_nothing_is_known(tmp_path: Path) -> None:
    first, later = first_epoch(START), first_epoch(START + S)
    assert first > 20_000_000
    assert later == first + 1
    undated = {first_epoch(S), first_epoch(2 * S), first_epoch(PROVISIONAL_NS)}
    assert len(undated) == 3
    assert 0 < min(undated) <= max(undated) < first_epoch(EARLIEST_NS)
    with Store(tmp_path / "first") as store:
        assert store.begin(START, first_epoch=first).epoch == first
    with Store(tmp_path / "first") as store:
        assert store.begin(START + S, first_epoch=later + 100).epoch == first, "what is known goes on"


@pytest.mark.parametrize("stopped", ["no mark", "renaming", "renamed"])
def test_putting_aside_that_was_stopped_in_the_middle_loses_nothing(tmp_path: Path, stopped: str) -> None:
    folder = tmp_path / "data"
    issued = filled(folder)
    renamed: list[Path] = []
    real = Path.rename

    def rename(self: Path, to: Path) -> Path:
        if stopped == "renaming" and renamed:
            raise KeyboardInterrupt
        renamed.append(self)
        return real(self, to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with suppress(KeyboardInterrupt):
            put_aside(folder / DATABASE)
    if stopped == "no mark":
        (folder / "salvage").unlink()
        for path in folder.glob("*damaged-1*"):
            real(path, folder / path.name.replace(".damaged-1", ""))
    with Store(folder) as store:
        store.begin(START + 4_000 * S)
        assert len(store.records.page(limit=10_000)) == len(issued)
        assert store.readings.count() >= 3_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path, tmp_path / "disk")
    yield disk
    disk.close()


def full(disk: Disk) -> None:
    """To the last block."""
    disk.fill()
    with (disk.at / "more").open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1_024))


@needs_loop
def test_salvaged_database_outlives_a_power_cut(tmp_path: Path, disk: Disk) -> None:
    folder = disk.at / "data"
    issued = filled(folder)
    with Store(folder) as store:  # more than SQLite writes without a checkpoint
        store.append([row(1, START + n, n, machine=0) for n in range(200_000)], START)
    put_aside(folder / DATABASE)
    subprocess.run(["sync"], check=True)
    program = (
        "import os, sys, pathlib as p; from edge_agent.store import Store; "
        f"store = Store(p.Path(sys.argv[1])); store.begin({START + 4_000 * S}); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)
    disk.lose_power()
    with Store(folder) as store:
        assert store.begin(START + 4_001 * S).epoch == 2
        assert len(store.records.page(limit=10_000)) == len(issued)
        assert store.check(60)
        assert store.losses.pending(10) == []
    assert not (folder / "salvage").exists()


@needs_loop
@pytest.mark.parametrize("room_bytes", [0, 1_500_000], ids=["none", "too little"])
@pytest.mark.parametrize("ballast", [False, True])
def test_damage_on_a_full_disk_waits_for_room(tmp_path: Path, disk: Disk, room_bytes: int, ballast: bool) -> None:
    folder = disk.at / "data"
    issued = filled(folder)
    with Store(folder) as store:
        store.append([row(1, START + n, n, machine=0) for n in range(50_000)], START)
    damaged = put_aside(folder / DATABASE)
    (disk.at / "spare").write_bytes(bytes(room_bytes))
    if ballast:
        (folder / BALLAST).write_bytes(bytes(4 * 2**20))
    full(disk)
    (disk.at / "spare").unlink()
    if not ballast:
        for _ in range(2):
            with pytest.raises(StoreError, match=r"damaged-1 is damaged and could not be salvaged yet: .*make room"):
                Store(folder)
            assert damaged.exists()
            assert (folder / "salvage").exists()
        disk.free()
    with Store(folder) as store:
        assert len(store.records.page(limit=10_000)) == len(issued)
        assert not (folder / BALLAST).exists()


@needs_loop
def test_database_that_is_found_damaged_on_a_full_disk_is_put_aside_with_the_room_of_the_ballast(disk: Disk) -> None:
    folder = disk.at / "data"
    small(folder)
    (folder / BALLAST).write_bytes(bytes(4 * 2**20))
    full(disk)
    assert put_aside(folder / DATABASE).exists()
    assert not (folder / BALLAST).exists()
    (folder / DATABASE).write_bytes(b"x")
    full(disk)
    with pytest.raises(StoreError, match=r"cannot be put aside: .*make room"):
        put_aside(folder / DATABASE)
    assert (folder / DATABASE).exists()


def test_number_of_a_database_that_was_put_aside_is_not_used_again(tmp_path: Path) -> None:
    for number in (1, 2, 4):
        if number == 4:
            (tmp_path / f"{DATABASE}.damaged-1").unlink()
            (tmp_path / f"{DATABASE}.damaged-3-wal").touch()
        small(tmp_path)
        assert put_aside(tmp_path / DATABASE).name == f"{DATABASE}.damaged-{number}"
        (tmp_path / "salvage").unlink()


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("how", ["emptied", "gone"])
def test_log_of_a_database_that_is_gone_or_empty_is_kept(tmp_path: Path, how: str, create: bool) -> None:
    folder = tmp_path / "data"
    filled(folder)
    log = (folder / f"{DATABASE}-wal").read_bytes()
    (folder / DATABASE).write_bytes(b"")
    if how == "gone":
        (folder / DATABASE).unlink()
    if how == "gone" and not create:
        with pytest.raises(StoreError, match="no store"):
            Store(folder, create=False)
        assert (folder / f"{DATABASE}-wal").read_bytes() == log
        return
    Store(folder, create=create).close()
    assert (folder / f"{DATABASE}.damaged-1-wal").read_bytes() == log
    Store(folder).close()
    assert [path.name for path in folder.glob("*.damaged-*")] == [f"{DATABASE}.damaged-1-wal"]


def test_log_of_a_sound_database_is_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    issued = filled(folder)
    assert (folder / f"{DATABASE}-wal").stat().st_size
    with Store(folder) as store:
        assert len(store.records.page(limit=10_000)) == len(issued)
    assert not [*folder.glob("*.damaged-*")]


@pytest.mark.parametrize("mark", [b"", b"\xff\xfe\0", b"a\0b", b"nowhere/x", b".", b"../edge-agent.db.damaged-1"])
def test_mark_that_names_no_database_of_ours_counts_for_nothing(tmp_path: Path, mark: bytes) -> None:
    small(tmp_path)
    (tmp_path / "salvage").write_bytes(mark)
    for _ in range(2):
        with Store(tmp_path) as store:
            assert store.delivery.figures()["waiting"] == 3
    put_aside(tmp_path / DATABASE)
    with Store(tmp_path) as store:
        assert store.delivery.figures()["waiting"] == 3
    assert not (tmp_path / "salvage").exists()


async def test_rows_of_a_commit_that_was_given_up_are_not_lost(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.begin(START)
    thread, real, gate = StoreThread(store, FakeClock(), S), store.append, threading.Event()

    def fails(*_: object) -> None:
        gate.wait(5)
        raise sqlite3.OperationalError("database or disk is full")

    store.append = fails  # type: ignore[assignment]
    thread.append([row(1, START + n, n) for n in range(100)])
    commit = asyncio.create_task(thread.flush())
    await asyncio.sleep(0.05)
    commit.cancel()
    await asyncio.gather(commit, return_exceptions=True)
    gate.set()
    store.append = real  # type: ignore[method-assign]
    await asyncio.sleep(0.1)
    await thread.flush()
    assert store.readings.count() == 100
    await thread.close()


async def test_memory_stays_bounded_for_as_long_as_the_disk_fails(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.begin(START)
    thread, real = StoreThread(store, FakeClock(), S, max_waiting=2_000), store.append

    def fails(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    store.append = fails  # type: ignore[assignment]
    for second in range(100):
        thread.append([row(tag, START + second * S, second) for tag in range(500)])
        with suppress(StoreError):
            await thread.flush()
    assert len(thread._waiting) == 2_000
    assert len(thread._overflow) == 500
    assert thread.dropped == 96 * 500
    store.append = real  # type: ignore[method-assign]
    await thread.flush()
    await thread.close()
    with Store(tmp_path) as store:
        assert store.readings.count() == 2_500
