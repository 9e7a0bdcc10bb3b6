"""A store carried to a replacement gateway."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from fakes import START, S, row
from test_store import draft, issue

from edge_agent.store import Store, StoreError
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
    assert export(tmp_path / "old", tmp_path / "gw1.tar.gz") == (tmp_path / "gw1.tar.gz").stat().st_size
    assert stat.S_IMODE((tmp_path / "gw1.tar.gz").stat().st_mode) == 0o600
    names = bring_in(tmp_path / "gw1.tar.gz", tmp_path / "new")
    assert sorted(names) == ["edge-agent.db", "identity.json", "opcua/own/private/edge-agent.pem"]
    key = tmp_path / "new" / "opcua" / "own" / "private" / "edge-agent.pem"
    assert (key.read_text(), stat.S_IMODE(key.stat().st_mode)) == ("secret", 0o600)
    with Store(tmp_path / "new") as store:
        assert store.begin(START + S).epoch == 2
        assert [one.payload for one in store.delivery.waiting(0, 10)] == payloads
        assert store.readings.page()[0].value == 7
        assert store.losses.pending(10) == [], "nothing is gone"


def test_export_of_a_running_agent_and_import_over_a_store_are_refused(tmp_path: Path) -> None:
    filled(tmp_path / "old")
    with Store(tmp_path / "old"), pytest.raises(StoreError, match="in use by another agent"):
        export(tmp_path / "old", tmp_path / "gw1.tar.gz")
    export(tmp_path / "old", tmp_path / "gw1.tar.gz")
    with pytest.raises(StoreError, match="has a store already"):
        bring_in(tmp_path / "gw1.tar.gz", tmp_path / "old")
    with pytest.raises(StoreError, match="File exists"):
        export(tmp_path / "old", tmp_path / "gw1.tar.gz")


@pytest.mark.parametrize("name", ["../evil", "/evil", "opcua/../../evil"])
def test_import_of_what_is_no_export_writes_nothing_elsewhere(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "bad.tar.gz", "w:gz") as archive:
        for each in (name, "edge-agent.db", "identity.json"):
            member = tarfile.TarInfo(each)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(StoreError, match="which no export does"):
        bring_in(tmp_path / "bad.tar.gz", tmp_path / "new" / "data")
    assert not list(tmp_path.rglob("evil"))
    (tmp_path / "none").write_bytes(os.urandom(100))
    with pytest.raises(StoreError):
        bring_in(tmp_path / "none", tmp_path / "other")
