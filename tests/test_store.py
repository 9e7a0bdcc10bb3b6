"""The store: durable rows, numbers never given twice, explicit holes, damage put aside."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import START, FakeClock, S, row, settle
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract import Quality, Value
from edge_agent.store import Draft, Issued, Row, Store, StoreDamaged, StoreError, StoreThread
from edge_agent.store.files import LOCK
from edge_agent.store.values import pack, unpack

OLD = Path(__file__).parent / "databases"
"""What earlier versions wrote, as SQL: a store must be carried forward from each."""
GOOD, BAD = int(Quality.GOOD), int(Quality.BAD)


def freeze(draft: Draft, issued: Issued) -> bytes:
    return json.dumps(
        {"id": f"{issued.epoch}:{issued.number}", "sequence": issued.sequence, "data": draft.data}
    ).encode()


def draft(number: int = 1, topic: str = "t", key: str | None = None, revision: int = 0) -> Draft:
    return Draft("production", topic, "s", {"n": number}, key, revision)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "data") as store:
        store.begin(START)
        yield store


def issue(store: Store, *drafts: Draft, now: int = START) -> None:
    with store.transaction():
        store.issue(drafts, freeze, now)


def identities_of(store: Store) -> list[str]:
    return [json.loads(record.payload)["id"] for record in store.records.page()]


@given(
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.tuples(st.integers(), st.booleans(), st.floats(allow_nan=False)),
    )
)
def test_value_packed_and_stored_comes_back_as_it_was(value: Value) -> None:
    with sqlite3.connect(":memory:") as db:
        cell = db.execute("SELECT ?", (pack(value),)).fetchone()[0]
    db.close()
    back = unpack(cell)
    assert back == value
    assert type(back) is type(value)


def test_steps_begin_with_what_holds_at_the_start(store: Store) -> None:
    tag = store.register([("plc.count", True)])["plc.count"]
    rows = [row(tag, START + second * S, second) for second in range(10)]
    store.append(rows, START + 10 * S)
    found = store.readings.steps("plc.count", START + 5 * S + 1, START + 8 * S)
    assert [value for _, value, _, _ in found] == [5, 6, 7]


def test_steps_reach_back_over_bad_readings_to_good_ones(store: Store) -> None:
    tag = store.register([("plc.count", True)])["plc.count"]
    good: list[Row] = [row(tag, START + second * S, second) for second in range(4)]
    bad: list[Row] = [row(tag, START + (4 + second) * S, None, BAD, "device_offline") for second in range(4)]
    store.append(good + bad, START + 10 * S)
    found = store.readings.steps("plc.count", START + 8 * S, START + 9 * S, good_before=2)
    assert [value for _, value, _, _ in found] == [2, 3, None, None, None, None]


def test_steps_in_time_order_whatever_the_order_of_arrival(store: Store) -> None:
    tag = store.register([("plc.count", True)])["plc.count"]
    for second in (3, 1, 2):
        store.append([row(tag, START + second * S, second)], START + 4 * S)
    assert [step[1] for step in store.readings.steps("plc.count", START, START + 9 * S)] == [1, 2, 3]


def test_integer_of_64_bits_without_sign_is_stored_exactly(store: Store) -> None:
    tag = store.register([("plc.count", True)])["plc.count"]
    store.append([row(tag, START, 2**64 - 1)], START)
    assert store.readings.steps("plc.count", START, START + S)[0][1] == 2**64 - 1


def test_integer_of_64_bits_without_sign_leaves_the_cells_beside_it_as_they_are(store: Store) -> None:
    ids = store.register([("plc.count", True), ("plc.on", True), ("plc.raw", True)])
    values: list[Value] = [2**64 - 1, True, b"raw"]
    rows: list[Row] = [
        row(number, START, value if type(value) is int else pack(value))
        for number, value in zip(ids.values(), values, strict=True)
    ]
    store.append(rows, START)
    assert [store.readings.steps(name, START, START + S)[0][1] for name in ids] == values


def test_tag_that_a_machine_draws_on_later_brings_its_earlier_readings(store: Store) -> None:
    tag = store.register([("plc.count", False)])["plc.count"]
    store.append([row(tag, START, 7, machine=0)], START)
    assert store.readings.steps("plc.count", START, START + S) == []
    store.register([("plc.count", True)])
    assert store.readings.steps("plc.count", START, START + S)[0][1] == 7


def test_start_after_a_stop_says_that_nothing_is_known_since_the_last_sign_of_life(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
        tag = store.register([("plc.count", True)])["plc.count"]
        store.append([row(tag, START, 7)], START + 3 * S)
    with Store(tmp_path) as store:
        store.begin(START + 60 * S)
        last = store.readings.newest("plc.count")
    assert last == (START + 3 * S + 1, None, BAD, "agent_down")


def test_device_that_a_fault_disables_is_misconfigured_from_now_on(store: Store) -> None:
    ids = store.register([("plc.count", True), ("other.count", True)])
    store.append([row(number, START, 7) for number in ids.values()], START)
    with store.transaction():
        store.readings.mark_misconfigured({"plc"}, START + S)
    assert store.readings.newest("plc.count") == (START + S, None, BAD, "misconfigured")
    assert store.readings.newest("other.count") == (START, 7, GOOD, None)


def test_identity_is_fixed_on_disk_and_numbers_are_skipped_never_reused(tmp_path: Path) -> None:
    seen: list[str] = []
    for _ in range(3):
        with Store(tmp_path) as store:
            store.begin(START)
            issue(store, draft(), draft())
            seen = identities_of(store)
    assert len(seen) == len(set(seen)) == 6
    assert {identity.split(":")[0] for identity in seen} == {"1"}


def test_store_syncs_each_commit_to_the_disk(store: Store) -> None:
    # FULL is 2. With NORMAL a power cut takes everything since the last checkpoint, and no kill of a process shows it.
    pragma = {
        name: store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")
    }
    assert pragma == {"synchronous": 2, "journal_mode": "wal"}


def test_identity_and_its_folder_are_synced_before_a_number_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    with Store(tmp_path) as store:
        synced.clear()
        store.begin(START)
        assert synced == [(tmp_path / "identity.json").stat().st_ino, tmp_path.stat().st_ino]


@pytest.mark.parametrize("lost", ["edge-agent.db", "identity.json"])
def test_identity_begins_a_new_epoch_when_either_file_is_lost(tmp_path: Path, lost: str) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
        issue(store, draft())
        first = set(identities_of(store))
    for path in tmp_path.glob(lost + "*"):
        path.unlink()
    with Store(tmp_path) as store:
        assert store.begin(START).epoch == 2
        issue(store, draft(), draft())
        assert len(first & {i for i in identities_of(store) if i.startswith("2:")}) == 0


def test_identity_begins_a_new_epoch_when_the_database_is_rolled_back(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
    yesterday = (tmp_path / "edge-agent.db").read_bytes()
    with Store(tmp_path) as store:
        store.begin(START)
        issue(store, draft())
        issued = set(identities_of(store))
    for path in tmp_path.glob("edge-agent.db-*"):
        path.unlink()
    (tmp_path / "edge-agent.db").write_bytes(yesterday)
    with Store(tmp_path) as store:
        store.begin(START)
        issue(store, draft())
        assert not issued & set(identities_of(store))


def test_identity_that_cannot_be_written_is_not_given(tmp_path: Path) -> None:
    blocked = tmp_path / "identity.new"
    with Store(tmp_path) as store:
        store.begin(START)
        issue(store, *[draft(n) for n in range(990)])
        blocked.mkdir()
        for _ in range(3):
            with pytest.raises(OSError, match="identity"):
                issue(store, *[draft(n) for n in range(20)])
        blocked.rmdir()
        issue(store, *[draft(n) for n in range(20)])
    with Store(tmp_path) as store:
        assert store.begin(START).epoch == 1
        issue(store, draft())
        found = identities_of(store)
        assert len({*found}) == len(found) == 1_000


def test_loss_is_named_also_where_the_start_that_finds_it_is_interrupted(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
        issue(store, draft())
    for path in tmp_path.glob("edge-agent.db*"):
        path.unlink()
    (tmp_path / "identity.new").mkdir()
    with Store(tmp_path) as store, pytest.raises(OSError, match="identity"):
        store.begin(START)
    (tmp_path / "identity.new").rmdir()
    with Store(tmp_path) as store:
        assert store.begin(START).epoch > 1
        assert [(loss.what, loss.epoch) for loss in store.losses.pending(10)] == [("records", 1), ("readings", None)]


def test_loss_is_named_also_of_an_epoch_in_which_nothing_was_issued(tmp_path: Path) -> None:
    for _ in range(2):
        with Store(tmp_path) as store:
            store.begin(START)
        for path in tmp_path.glob("edge-agent.db*"):
            path.unlink()
    with Store(tmp_path) as store:
        store.begin(START)
        assert [(loss.what, loss.epoch) for loss in store.losses.pending(10)] == [("records", 2), ("readings", None)]


def test_epoch_is_beyond_all_where_the_second_file_is_gone_and_the_database_is_an_older_copy(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        assert store.begin(START, first_epoch=500).epoch == 500
    (tmp_path / "identity.json").unlink()
    with Store(tmp_path) as store:
        assert store.begin(START, first_epoch=900).epoch == 900


@pytest.mark.parametrize("value", ["x", 1.5, b"\0"])
def test_fact_that_is_no_number_any_more_is_as_if_it_were_lost(tmp_path: Path, value: object) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
        issue(store, draft())
    with sqlite3.connect(tmp_path / "edge-agent.db") as db:
        db.execute("UPDATE fact SET value = ?", (value,))
    db.close()
    with Store(tmp_path) as store:
        assert store.begin(START).epoch == 2
        assert [loss.epoch for loss in store.losses.pending(10)] == [1, None]


def test_identity_reserves_further_blocks_as_numbers_run_out(store: Store) -> None:
    issue(store, *[draft(number) for number in range(2_500)])
    assert store.identity is not None
    assert store.identity.reserved > 2_500
    assert json.loads((store.folder / "identity.json").read_text())["reserved"] == store.identity.reserved


def test_records_count_their_sequence_by_topic(store: Store) -> None:
    issue(store, draft(topic="a"), draft(topic="b"), draft(topic="a"))
    assert [(record.topic, record.sequence) for record in store.records.page()] == [("a", 1), ("b", 1), ("a", 2)]


def test_records_stay_in_the_outbox_until_they_are_answered(store: Store) -> None:
    issue(store, draft(1), draft(2), draft(3))
    first = store.delivery.waiting(0, 10)
    store.delivery.answer([first[0].position], START, 0)
    store.delivery.bury([first[1].position], START, 0x87, "Not authorized")
    assert [one.position for one in store.delivery.waiting(0, 10)] == [first[2].position]
    assert store.delivery.figures() == {"waiting": 1, "refused": 1}


def test_records_issued_in_a_transaction_that_fails_leave_no_trace(store: Store) -> None:
    with pytest.raises(RuntimeError), store.transaction():
        store.issue([draft()], freeze, START)
        raise RuntimeError
    assert store.records.page() == []


def test_records_latest_revision_of_a_key_is_its_truth(store: Store) -> None:
    issue(store, draft(1, key="k"), draft(2, key="k", revision=1), draft(3, key="other"))
    assert store.records.latest("k") == {"n": 2}
    assert store.records.latest("none") is None


def test_store_in_use_names_the_process_and_the_cure(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(StoreError, match=r"in use by another agent \(process \d+\).*agent\.data"):
        Store(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_lock_that_root_has_made_belongs_to_whom_the_folder_does(tmp_path: Path) -> None:
    os.chown(tmp_path, 65_534, 65_534)
    with Store(tmp_path):
        made = (tmp_path / LOCK).stat()
    assert (made.st_uid, made.st_gid) == (65_534, 65_534)


def test_lock_follows_no_link(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("of somebody else, and long enough")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / LOCK).symlink_to(other)
    with pytest.raises(StoreError, match="symbolic link"):
        Store(tmp_path / "data")
    assert other.read_text() == "of somebody else, and long enough"


@pytest.mark.parametrize("content", [b"this is no database, whatever its name may say" * 100, b"\0" * 8192])
def test_store_that_is_no_database_is_kept_aside_and_an_empty_one_begins(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "edge-agent.db").write_bytes(content)
    with Store(tmp_path) as store:
        store.begin(START)
        assert store.damaged is not None
        assert store.damaged.read_bytes() == content
        issue(store, draft())


def damage(path: Path) -> None:
    """Overwrite the roots of all tables and spare the schema: the file still opens as a database."""
    with sqlite3.connect(path) as db:
        roots = [row[0] for row in db.execute("SELECT rootpage FROM sqlite_master WHERE name NOT LIKE '%migrations%'")]
    db.close()
    with path.open("r+b") as file:
        for root in roots:
            file.seek((root - 1) * 4096)
            file.write(b"\x5a" * 4096)


def test_store_damaged_inside_is_told_to_a_reader_and_left_alone(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
    damage(store.path)
    with pytest.raises(StoreError, match="sets it aside"), Store(tmp_path, create=False) as store:
        store.readings.page()
    assert store.path.exists()


async def test_store_damaged_inside_ends_the_commits_and_is_put_aside(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.begin(START)
    damage(store.path)
    clock = FakeClock()
    store = Store(tmp_path)
    thread = StoreThread(store, clock, S // 2)
    run = asyncio.create_task(thread.run())
    with pytest.raises(StoreDamaged):
        await thread.call(store.begin, START + S)
    await clock.advance(1)
    with pytest.raises(StoreDamaged):
        await run
    await thread.close()
    assert (tmp_path / "edge-agent.db.damaged-1").exists()
    with Store(tmp_path) as empty:
        assert empty.begin(START + S).epoch == 2


async def test_thread_without_a_place_on_the_disk_says_so_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    thread = StoreThread(store, FakeClock(), S // 2)
    (tmp_path / "identity.new").mkdir()  # as good as a full disk, for root, too
    with pytest.raises(StoreError, match="directory"):
        await thread.call(store.begin, START)
    (tmp_path / "identity.new").rmdir()
    await thread.close()


def test_store_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "edge-agent.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (id)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's database"):
        Store(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [3, 4, 5, 6, 7])
def test_store_of_an_earlier_version_is_carried_forward(tmp_path: Path, version: int) -> None:
    with sqlite3.connect(tmp_path / "edge-agent.db") as db:
        db.executescript((OLD / f"version-{version}.sql").read_text())
    db.close()
    with Store(tmp_path) as store:
        store.begin(START + 60 * S)
        tag = store.register([("plc.count", True)])["plc.count"]
        store.append([(tag, START + 70 * S, 9, GOOD, None, None, 1, -5, 8)], START + 70 * S)
        found = [(row.value, row.source_time, row.server_time) for row in store.readings.page(tags=["plc.count"])]
        assert found == [(7, None, None), (None, None, None), (9, START + 70 * S - 5, START + 70 * S + 8)]
        assert [record.topic for record in store.records.page()] == ["t"]
        assert [one.sound for one in store.delivery.waiting(0, 10)] == [True]
        issue(store, draft())
        assert [record.sequence for record in store.records.page()][-1] == 1, "of a new epoch"


def test_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "edge-agent.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="newer version"):
        Store(tmp_path)


def test_store_that_is_not_there_is_not_made_for_a_reader(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store in"):
        Store(tmp_path / "nothing", create=False)
    assert not (tmp_path / "nothing").exists()


def test_prune_keeps_the_newest_reading_of_each_machines_tag(store: Store) -> None:
    ids = store.register([("plc.old", True), ("plc.new", True), ("plc.spare", False)])
    old = [row(ids["plc.old"], START, 1), row(ids["plc.spare"], START, 1, machine=0)]
    store.append(old, START)
    store.append([row(ids["plc.new"], START + 100 * S, 2)], START + 100 * S)
    store.append([row(ids["plc.new"], START + 200 * S, 3)], START + 200 * S)
    with store.transaction():
        store.readings.prune(START + 200 * S, 1_000)
    assert [(reading.tag, reading.value) for reading in store.readings.page()] == [("plc.old", 1), ("plc.new", 3)]


def test_prune_keeps_the_newest_value_of_a_tag_that_has_been_bad_since(store: Store) -> None:
    tag = store.register([("plc.count", True)])["plc.count"]
    rows: list[Row] = [row(tag, START, 1), row(tag, START + S, 41)]
    store.append(rows, START)
    store.append([row(tag, START + 2 * S, None, BAD, "device_offline")], START + 100 * S)
    store.append([], START + 200 * S)
    store.append([row(tag, START + 300 * S, None, BAD, "agent_down")], START + 300 * S)
    with store.transaction():
        store.readings.prune(START + 300 * S, 1_000)
    assert [reading.value for reading in store.readings.page()] == [41, None]


def test_page_lists_a_span_of_time_and_chosen_tags(store: Store) -> None:
    ids = store.register([("plc.a", False), ("plc.b", False)])
    for second in range(300):
        rows = [row(number, START + second * S, second, machine=0) for number in ids.values()]
        store.append(rows, START + second * S)
    found = store.readings.page(tags=["plc.b"], since=START + 100 * S, until=START + 103 * S)
    assert [(reading.tag, reading.value) for reading in found] == [("plc.b", 100), ("plc.b", 101), ("plc.b", 102)]


async def test_thread_commits_in_groups_and_gives_a_sign_of_life_each_second(tmp_path: Path) -> None:
    clock = FakeClock()
    store = Store(tmp_path)
    store.begin(START)
    tag = store.register([("plc.a", True)])["plc.a"]
    thread = StoreThread(store, clock, S // 2)
    for second in range(3):
        thread.append([row(tag, START + second, second)])
    assert store.readings.newest("plc.a") is None
    await thread.flush()
    assert store.readings.newest("plc.a") == (START + 2, 2, GOOD, None)
    await thread.close()


async def test_thread_stopped_while_a_commit_waits_for_its_turn_loses_no_reading(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.begin(START)
    tag = store.register([("plc.a", True)])["plc.a"]
    thread = StoreThread(store, FakeClock(), S // 2)
    busy = threading.Event()
    long_work = asyncio.create_task(thread.call(busy.wait))
    thread.append([row(tag, START, 1)])
    commit = asyncio.create_task(thread.flush())
    await settle()
    commit.cancel()
    with suppress(asyncio.CancelledError):
        await commit
    busy.set()
    await long_work
    await thread.close()
    with Store(tmp_path) as store:
        assert store.readings.newest("plc.a") == (START, 1, GOOD, None)


async def test_thread_drops_and_marks_what_memory_cannot_hold(tmp_path: Path) -> None:
    clock = FakeClock()
    store = Store(tmp_path)
    store.begin(START)
    tag = store.register([("plc.a", True)])["plc.a"]
    thread = StoreThread(store, clock, S // 2, max_waiting=5)
    for second in range(8):
        thread.append([row(tag, START + second, second)])
    await thread.flush()
    await thread.flush()
    assert thread.dropped == 3
    assert store.readings.newest("plc.a") == (START + 5, None, BAD, "overflow")
    await thread.close()
