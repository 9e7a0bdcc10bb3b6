"""A store carried to a replacement gateway."""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from fakes import START, S, row
from test_store import draft, issue

from edge_agent.store import Store, StoreError
from edge_agent.store.files import DATABASE, IDENTITY, LOCK, StoreInUse, take_lock
from edge_agent.store.identity import first_epoch
from edge_agent.store.transfer import bring_in, export


def filled(folder: Path) -> list[bytes]:
    with Store(folder) as store:
        store.begin(START)
        store.append([row(store.register([("plc.count", True)])["plc.count"], START, 7)], START)
        issue(store, draft(1), draft(2))
        payloads = [one.payload for one in store.records.page()]
    key = folder / "opcua" / "own" / "private" / "edge-agent.pem"
    key.parent.mkdir(parents=True)
    key.write_text("secret")
    (folder / "edge-agent.db.damaged-1").write_text("old")
    return payloads


def test_store_goes_to_another_gateway_with_all_that_waits_and_a_new_epoch(tmp_path: Path) -> None:
    payloads = filled(tmp_path / "old")
    assert export(tmp_path / "old", tmp_path / "gw1.tar.gz") == []
    assert stat.S_IMODE((tmp_path / "gw1.tar.gz").stat().st_mode) == 0o600
    names = bring_in(tmp_path / "gw1.tar.gz", tmp_path / "new", START)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [DATABASE, IDENTITY, LOCK, "opcua"]
    assert sorted(names) == ["edge-agent.db", "identity.json", "opcua/own/private/edge-agent.pem"]
    key = tmp_path / "new" / "opcua" / "own" / "private" / "edge-agent.pem"
    assert (key.read_text(), stat.S_IMODE(key.stat().st_mode)) == ("secret", 0o600)
    with Store(tmp_path / "new") as store:
        assert store.begin(START + S).epoch == first_epoch(START) + 1
        assert [one.payload for one in store.delivery.waiting(0, 10)] == payloads
        assert store.readings.page()[0].value == 7
        assert store.losses.pending(10) == [], "nothing is gone"


def test_export_of_a_running_agent_and_import_over_a_store_are_refused(tmp_path: Path) -> None:
    filled(tmp_path / "old")
    with Store(tmp_path / "old"), pytest.raises(StoreError, match="in use by another agent"):
        export(tmp_path / "old", tmp_path / "gw1.tar.gz")
    export(tmp_path / "old", tmp_path / "gw1.tar.gz")
    with pytest.raises(StoreError, match="has a store already"):
        bring_in(tmp_path / "gw1.tar.gz", tmp_path / "old", START)
    with pytest.raises(StoreError, match="File exists"):
        export(tmp_path / "old", tmp_path / "gw1.tar.gz")


@pytest.mark.parametrize("name", ["../evil", "/evil", "opcua/../../evil", "lock", "edge-agent.db-wal"])
def test_import_of_what_is_no_export_writes_nothing_elsewhere(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as archive:
        for each in (name, "edge-agent.db", "identity.json"):
            member = tarfile.TarInfo(each)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(StoreError, match="which no export does"):
        bring_in(tmp_path / "bad.tar.gz", tmp_path / "new" / "data", START)
    assert not list(tmp_path.rglob("evil"))
    (tmp_path / "none").write_bytes(os.urandom(100))
    with pytest.raises(StoreError):
        bring_in(tmp_path / "none", tmp_path / "other", START)


def epoch_begun(folder: Path, now: int) -> int:
    with Store(folder) as store:
        return store.begin(now).epoch


@pytest.mark.parametrize("now", [START, 0])
def test_import_begins_an_epoch_that_neither_the_old_gateway_nor_another_import_begins(
    tmp_path: Path, now: int
) -> None:
    filled(tmp_path / "old")
    export(tmp_path / "old", tmp_path / "gw1.tar.gz")
    bring_in(tmp_path / "gw1.tar.gz", tmp_path / "new", now)
    begun = [epoch_begun(tmp_path / "new", START)]
    if now:  # a clock that is not set tells no two imports from each other
        bring_in(tmp_path / "gw1.tar.gz", tmp_path / "another", now + S)
        begun.append(epoch_begun(tmp_path / "another", START))
    (tmp_path / "old" / DATABASE).unlink()
    begun.append(epoch_begun(tmp_path / "old", START))
    assert len({*begun}) == len(begun)


@pytest.mark.parametrize("seed", range(40))
def test_import_of_a_file_in_which_a_bit_has_flipped_is_refused_or_whole(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    filled(tmp_path / "old")
    export(tmp_path / "old", tmp_path / "gw1.tar.gz")
    content = bytearray((tmp_path / "gw1.tar.gz").read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    (tmp_path / "bad.tar.gz").write_bytes(content)
    new = tmp_path / "new"
    try:
        bring_in(tmp_path / "bad.tar.gz", new, START)
    except StoreError:
        assert [path.name for path in new.iterdir()] == [LOCK]
        bring_in(tmp_path / "gw1.tar.gz", new, START)
    assert (new / DATABASE).read_bytes() == (tmp_path / "old" / DATABASE).read_bytes()


def test_import_of_a_file_that_is_cut_off_brings_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "old")
    export(tmp_path / "old", tmp_path / "gw1.tar.gz")
    content = (tmp_path / "gw1.tar.gz").read_bytes()
    for size in (*range(0, len(content), len(content) // 20), len(content) - 1):
        (tmp_path / "cut.tar.gz").write_bytes(content[:size])
        with pytest.raises(StoreError):
            bring_in(tmp_path / "cut.tar.gz", tmp_path / "new", START)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [LOCK]


def test_import_that_was_stopped_by_force_begins_anew(tmp_path: Path) -> None:
    filled(tmp_path / "old")
    export(tmp_path / "old", tmp_path / "gw1.tar.gz")
    left = tmp_path / "new" / "import" / DATABASE
    left.parent.mkdir(parents=True)
    left.write_text("half of it")
    bring_in(tmp_path / "gw1.tar.gz", tmp_path / "new", START)
    assert not left.exists()
    assert epoch_begun(tmp_path / "new", START) > 2


@pytest.mark.parametrize("name", ["edge-agent.db-wal", "identity.json", "opcua", "edge-agent.db.damaged-1"])
def test_import_into_a_folder_with_something_in_it_is_refused(tmp_path: Path, name: str) -> None:
    filled(tmp_path / "old")
    export(tmp_path / "old", tmp_path / "gw1.tar.gz")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / name).write_text("left")
    with pytest.raises(StoreError, match=f"has {name} already: .* move aside"):
        bring_in(tmp_path / "gw1.tar.gz", tmp_path / "new", START)
    (tmp_path / "new" / name).unlink()
    (tmp_path / "new" / "ballast").write_text("ours")
    with take_lock(tmp_path / "new" / LOCK), pytest.raises(StoreInUse):
        bring_in(tmp_path / "gw1.tar.gz", tmp_path / "new", START)
    bring_in(tmp_path / "gw1.tar.gz", tmp_path / "new", START)


def test_links_are_left_out_of_an_export_and_named(tmp_path: Path) -> None:
    filled(tmp_path / "old")
    (tmp_path / "elsewhere.pem").write_text("trusted")
    (tmp_path / "old" / "opcua" / "trusted.pem").symlink_to(tmp_path / "elsewhere.pem")
    assert export(tmp_path / "old", tmp_path / "gw1.tar.gz") == ["opcua/trusted.pem"]


def test_export_without_the_epoch_is_refused_until_an_agent_has_begun(tmp_path: Path) -> None:
    filled(tmp_path / "old")
    (tmp_path / "old" / IDENTITY).unlink()
    with pytest.raises(StoreError, match="start the agent once"):
        export(tmp_path / "old", tmp_path / "gw1.tar.gz")
    epoch_begun(tmp_path / "old", START)
    export(tmp_path / "old", tmp_path / "gw1.tar.gz")
    bring_in(tmp_path / "gw1.tar.gz", tmp_path / "new", START)
    with pytest.raises(StoreError, match="start the agent once"):
        export(tmp_path / "new", tmp_path / "gw2.tar.gz")


def test_export_into_the_data_folder_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "old")
    (tmp_path / "link").symlink_to(tmp_path / "old" / "opcua")
    for target in (tmp_path / "old" / "gw1.tar.gz", tmp_path / "link" / "gw1.tar.gz"):
        with pytest.raises(StoreError, match="is in the data folder"):
            export(tmp_path / "old", target)
        assert not target.exists()


def test_export_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StoreError, match="No space left"):
        export(tmp_path / "old", tmp_path / "gw1.tar.gz")
    assert not (tmp_path / "gw1.tar.gz").exists()


def test_import_takes_little_memory(tmp_path: Path) -> None:
    filled(tmp_path / "old")
    (tmp_path / "old" / "opcua" / "large").write_bytes(os.urandom(2**20) * 24)
    export(tmp_path / "old", tmp_path / "gw1.tar.gz")
    tracemalloc.start()
    bring_in(tmp_path / "gw1.tar.gz", tmp_path / "new", START)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * 2**20
