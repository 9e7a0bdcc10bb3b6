"""A real agent whose machine's clock is set while it runs, and lost at a start."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from brokers import needs_mosquitto
from faked_clock import FakedClock, needs_faketime
from test_whole_path import Site, until

from edge_agent.settling import BOOT
from edge_agent.store.files import DATABASE


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Site, FakedClock]]:
    with ExitStack() as stack:
        site, clock = Site(tmp_path, stack, rate=50), FakedClock(tmp_path)
        site.agent.environment |= clock.environment
        yield site, clock


@needs_faketime
@needs_mosquitto
def test_clock_that_is_set_and_lost_costs_no_part_and_doubles_no_window(place: tuple[Site, FakedClock]) -> None:
    site, clock = place
    began = site.server.tell("freeze")
    site.agent.start()
    until(site.agent.has_read)
    time.sleep(1.5)
    site.server.tell("resume")
    for seconds in (-7_200, 3_600, -time.time() + 100):
        clock.set(seconds)
        before, since = site.agent.status(), time.monotonic()
        time.sleep(2.5)
        after, passed_s = site.agent.status(), time.monotonic() - since
        assert after["clock"] == "stepped"
        assert after["clock_ahead_s"] == pytest.approx(-seconds, abs=3)
        assert (after["now"] - before["now"]) / 1e9 == pytest.approx(passed_s, abs=2), "as the monotonic clock goes"
        clock.set(0)
    until(lambda: site.production(), 20, "a window")

    site.agent.end(signal.SIGKILL)
    with sqlite3.connect(site.agent.folder / "data" / DATABASE) as db:  # as if the machine had been started again
        assert db.execute("UPDATE fact SET value = 1 WHERE name = ?", (BOOT,)).rowcount == 1
    db.close()
    clock.lose()
    site.agent.start()
    until(site.agent.has_read)
    assert not site.agent.status()["settled"]
    windows = len(site.production())
    time.sleep(3.0)
    assert len(site.production()) == windows, "no window closes before it is known what time it is"
    clock.set(0)
    until(lambda: site.agent.status()["settled"], 5, "a time that is settled")
    assert site.agent.status()["clock_ahead_s"] == pytest.approx(0, abs=0.1)
    assert site.reconcile(began) > 0
    starts = sorted((data["start"], data["end"]) for data in site.production().values())
    assert all(end <= start for (_, end), (start, _) in pairwise(starts))
    away_s = sum(data["completeness"]["missing_s"]["agent_down"] for data in site.production().values())
    assert away_s < 5.0, "what was read without a date has its time"
    assert site.agent.end(signal.SIGTERM) == 0
