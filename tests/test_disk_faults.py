"""A real agent on a disk that fails: what goes on, what is said, and what is there afterwards."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from brokers import needs_mosquitto
from image_disk import Disk, needs_loop
from test_whole_path import Site, until


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Site, Disk]]:
    with ExitStack() as stack:
        site = Site(tmp_path, stack, rate=50)
        disk = Disk(tmp_path, tmp_path / "data")
        stack.callback(disk.close)
        stack.callback(site.agent.close)  # before the disk
        yield site, disk


@needs_loop
@needs_mosquitto
def test_file_system_that_turns_read_only_stops_nothing_but_the_storing(place: tuple[Site, Disk]) -> None:
    site, disk = place
    began = site.server.tell("freeze")
    site.agent.start()
    until(site.agent.has_read)
    time.sleep(1.0)
    site.server.tell("resume")
    site.broker.stop()
    until(lambda: site.agent.status()["buffer"]["waiting"] >= 1, 25, "a record that waits")
    disk.break_down()
    until(lambda: site.agent.status()["buffer"]["error"], 10, "an error that is told")
    waiting = site.agent.status()["buffer"]["waiting"]
    site.broker.start()
    site.subscribe()
    until(lambda: len(site.production()) >= waiting, 20, "what waits is delivered all the same")
    before = site.agent.status()
    time.sleep(4.0)
    after = site.agent.status()
    assert after["buffer"]["error"]
    assert after["devices"][0]["polls"] > before["devices"][0]["polls"]
    assert after["cpu_s"] - before["cpu_s"] < 2.0, "no loop that is busy"
    log = (site.agent.folder / "log").read_text().splitlines()
    assert len([line for line in log if "readings cannot be stored" in line]) == 1
    assert len(log) < 40, log
    site.agent.end(signal.SIGKILL)
    disk.mend()
    site.agent.start()
    until(site.agent.has_read)
    assert site.reconcile(began) > 0
