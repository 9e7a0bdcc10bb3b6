"""What the agent says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agreement import whole_agrees
from brokers import Mosquitto, Subscriber, needs_mosquitto
from fakes import START, FakeClock, S, device
from test_whole_path import CONFIG, Agent, Server, until

from edge_agent.contract import Reading
from edge_agent.health import Health
from edge_agent.intake import Intake, TagState


@needs_mosquitto
def test_health_is_retained_and_says_how_devices_buffer_and_uplink_do(tmp_path: Path) -> None:
    server, agent = Server(10), Agent(tmp_path)
    (tmp_path / "config").mkdir()
    try:
        with Mosquitto(tmp_path) as broker:
            (tmp_path / "config" / "all.yaml").write_text(CONFIG.format(broker=broker.port, server=server.port))
            agent.start()
            until(agent.has_read)
            with Subscriber(broker.port, "edge/v1/acme/lyon/_agents/gw1/health") as subscriber:
                message = subscriber.next()
        event = json.loads(message.payload)
        whole_agrees(event)
        data = event["data"]
        assert message.retain
        assert set(data["devices"]) == {"plc"}
        assert data["devices"]["plc"]["skew_s"] is None, "a Modbus device gives no time"
        assert data["buffer"]["max_bytes"] == 2_000_000_000
        assert data["buffer"]["bytes"] > 0
        assert "sequence" not in event
    finally:
        agent.close()
        server.close()


def test_skew_of_a_device_is_that_of_its_newest_times(tmp_path: Path) -> None:
    one, other = device("plc"), device("other")
    states = {tag: TagState(tag, n, machine=True, refresh_ns=60 * S, max_skew_ns=2 * S)
              for n, tag in enumerate((*one.tags, *other.tags))}  # fmt: skip
    intake = Intake(states)
    intake.accept([Reading(one.tags[0], START - 7 * S, 1)], START)
    health = Health([], intake, Any, Any, Any, FakeClock(), 0)  # type: ignore[arg-type]
    assert (health._skew_s("plc"), health._skew_s("other")) == (-7.0, None)
