"""The daemon in this process, on a clock that moves when told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fakes import START, FakeClock, S

from edge_agent.agent import Agent
from edge_agent.config import load

CONFIGURATION = """
agent: {{name: gw1, enterprise: acme, site: lyon, data: "{data}"}}
mqtt: {{url: "mqtt://127.0.0.1:1"}}
"""


async def test_agent_whose_clock_is_not_set_waits_and_stores_nothing_until_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    (tmp_path / "agent.yaml").write_text(CONFIGURATION.format(data=data))
    clock = FakeClock(now=86_400 * S)
    agent = Agent(load(tmp_path), clock)
    run = asyncio.create_task(agent.run())
    await clock.advance(3)
    assert not data.exists()
    assert "the clock is not set (1970-01-02T00:00:00.000Z)" in caplog.text
    clock.step_wall(START)
    await clock.advance(1)
    agent.stop()
    await asyncio.wait_for(run, 10)
    assert (data / "edge-agent.db").exists()


async def test_agent_stopped_while_its_clock_is_not_set_ends(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(CONFIGURATION.format(data=tmp_path / "data"))
    clock = FakeClock(now=S)
    agent = Agent(load(tmp_path), clock)
    run = asyncio.create_task(agent.run())
    await clock.advance(1)
    agent.stop()
    await clock.advance(1)
    await asyncio.wait_for(run, 5)
    assert not (tmp_path / "data").exists()
