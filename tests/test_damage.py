"""A store after damage to its files: it begins, nothing that is left is altered, and what is gone is named."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import START, FakeClock, S, row

from bench.damages import DAMAGES, PAGE, checkpointed, overwrite
from edge_agent.store import Draft, Issued, Store, StoreDamaged, StoreError, StoreThread
from edge_agent.store.files import DATABASE, connect
from edge_agent.store.salvage import _Salvage

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
    took_s = []
    for seconds in (1e9, 0.2):
        new = tmp_path / f"{seconds}.db"
        connect(new).close()
        began = time.monotonic()
        copied = _Salvage(folder / DATABASE, new, seconds).run()
        took_s.append(time.monotonic() - began)
        assert copied["record"] == len(issued)
        assert copied["reading"] < 600_000
    assert took_s[1] < took_s[0] / 2, "row by row it would take longer than there is time"


@pytest.mark.parametrize(
    ("at", "count"), [(0, 1), (0, 16), (10, 30), (0, 100), (100, 400), (0, 4_096), (33 * 4_096, 2 * 4_096)]
)
@pytest.mark.parametrize("by", [b"\0", b"\xa5"])
def test_damage_to_the_pages_of_the_schema_costs_nothing(tmp_path: Path, at: int, count: int, by: bytes) -> None:
    folder = tmp_path / "data"
    issued = filled(folder)
    checkpointed(folder)
    overwrite(folder / DATABASE, at, by * count)
    store = begun(folder)
    assert store.damaged is not None
    left = {(one.epoch, one.topic, one.sequence): one.payload for one in store.records.page(limit=10_000)}
    assert left == issued
    assert store.figures()["readings"] >= 3_000
    assert store.identity is not None
    assert store.identity.epoch == 2
    assert store.losses.pending(10) == []
    assert not [*folder.glob("*.mended*")]
    store.close()


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
    with pytest.raises(StoreDamaged, match=r"NULL value in record\.payload"):
        await thread.call(store.delivery.issued_after, 0, 1_000)
    with suppress(StoreError):
        await thread.close()
    store = begun(folder)
    assert len(store.records.page(limit=10_000)) == len(issued) - 1
    assert [loss.rows for loss in store.losses.pending(10) if loss.what == "records" and loss.rows] == [1]
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
            store.issue([draft], lambda *_: b'{"data": 1\xff', START + S)
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
