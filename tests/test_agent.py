"""The daemon in this process, on a clock that moves when told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from brokers import Mosquitto, needs_mosquitto
from fakes import START, FakeClock, S
from uplink_peers import until

from edge_agent import control
from edge_agent.agent import Agent
from edge_agent.config import load
from edge_agent.store import Draft, Store

CONFIGURATION = """
agent: {{name: gw1, enterprise: acme, site: lyon, data: "{data}"}}
mqtt: {{url: "mqtt://127.0.0.1:1"}}
"""


async def begun(folder: Path, clock: FakeClock) -> tuple[Agent, asyncio.Task[None]]:
    """An agent that listens, with its data in `data`."""
    (folder / "agent.yaml").write_text(CONFIGURATION.format(data=folder / "data"))
    agent = Agent(load(folder), clock)
    run = asyncio.create_task(agent.run())
    await until(lambda: (folder / "data" / "agent.sock").exists())
    return agent, run


async def test_agent_whose_clock_is_not_set_says_so_and_goes_on_when_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, clock = tmp_path / "data", FakeClock(now=86_400 * S)
    agent, run = await begun(tmp_path, clock)
    await clock.advance(3)
    assert "the clock says 1970-01-02T00:00:00.000Z, which is before this program was made" in caplog.text
    clock.step_wall(START)
    await clock.advance(1)
    agent.stop()
    await asyncio.wait_for(run, 10)
    with Store(data) as store:
        assert (store.fact("alive") or 0) >= START


async def test_entry_is_refused_while_nobody_knows_what_time_it_is(tmp_path: Path) -> None:
    data, clock = tmp_path / "data", FakeClock(now=86_400 * S)
    agent, run = await begun(tmp_path, clock)

    def tell() -> None:
        list(control.ask(data / "agent.sock", "entry", kind="note", machine="press", body={"text": "x"}))

    with pytest.raises(control.ControlError, match="the gateway's clock is not set"):
        await asyncio.to_thread(tell)
    agent.stop()
    await clock.advance(1)
    await asyncio.wait_for(run, 10)


async def test_agent_stopped_while_its_clock_is_not_set_ends(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(CONFIGURATION.format(data=tmp_path / "data"))
    clock = FakeClock(now=S)
    agent = Agent(load(tmp_path), clock)
    run = asyncio.create_task(agent.run())
    await clock.advance(1)
    agent.stop()
    await clock.advance(1)
    await asyncio.wait_for(run, 5)
    with Store(tmp_path / "data") as store:
        assert store.readings.count() == 0


@needs_mosquitto
async def test_agent_that_stops_delivers_what_waits_first(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Store(data) as store:
        store.begin(START)
        with store.transaction():
            drafts = [Draft("production", f"edge/v1/t/{number}", "s", {}) for number in range(300)]
            store.issue(drafts, lambda draft, issued: b"{}", START)
    with Mosquitto(tmp_path) as broker:
        text = CONFIGURATION.format(data=data).replace("mqtt://127.0.0.1:1", broker.url)
        (tmp_path / "agent.yaml").write_text(text)
        agent = Agent(load(tmp_path))
        run = asyncio.create_task(agent.run())
        await until(lambda: (data / "agent.sock").exists())
        agent.stop()
        await asyncio.wait_for(run, 15)
    with Store(data) as store:
        assert store.delivery.figures()["waiting"] == 0
