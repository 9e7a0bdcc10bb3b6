"""The production record of a job's whole time, where only what people said of it has changed."""

from __future__ import annotations

from pathlib import Path

from fakes import FakeClock
from floor import BY_PERSON, Floor, configured
from test_summarizer import NOON


async def test_reason_that_is_told_after_a_job_is_in_its_window_though_the_job_says_the_same(tmp_path: Path) -> None:
    floor = Floor(tmp_path / "data", configured(tmp_path / "config", BY_PERSON), FakeClock(NOON))
    await floor.tell("job-start", 0, job="WO-1")
    floor.run(0, 60)
    floor.run(60, 120, status=3)
    floor.run(120, 200)
    await floor.until(180)
    await floor.tell("job-end", 180)
    floor.run(200, 300)
    await floor.until(280)
    (window,) = floor.truth("job").values()
    assert window["downtime"]["by_reason_s"] == {"unclassified": 60.0}
    await floor.tell("reason", 60, 120, reason="no material")
    floor.run(300, 400)
    issued = await floor.until(400)
    (window,) = floor.truth("job").values()
    assert (window["revision"], window["revised_because"]) == (1, "entry")
    assert window["downtime"]["by_reason_s"] == {"no material": 60.0}
    assert not [data for data in issued if "response" in data], "the job itself says what it said"
    await floor.thread.close()
