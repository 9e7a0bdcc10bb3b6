"""`replay`, `verify` and `records --dead` with a real agent, a real broker and a real subscriber."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import Mosquitto, Subscriber, needs_mosquitto
from test_cli import Folder, server, until

__all__ = ["server"]
TOPIC = "edge/v1/acme/lyon/hall/a/press/production/10s"
pytestmark = needs_mosquitto


@pytest.fixture
def folder(tmp_path: Path, server: int) -> Iterator[Folder]:
    made = Folder(tmp_path, server)
    yield made
    made.close()


def broker_of(folder: Folder, *lines: str) -> Mosquitto:
    found = re.search(r"mqtt://127\.0\.0\.1:(\d+)", (folder.config / "all.yaml").read_text())
    assert found is not None
    return Mosquitto(folder.config.parent, *lines, port=int(found[1]))


def test_what_a_subscriber_received_is_proven_and_what_it_lacks_is_sent_again(folder: Folder) -> None:
    capture = folder.config.parent / "capture.jsonl"
    with broker_of(folder) as broker, Subscriber(broker.port) as subscriber:
        agent = folder.run_agent()
        until(lambda: folder.status().get("uplink", {}).get("accepted"), "an accepted record", 30)
        taken = [message.payload for message in subscriber.taken() if message.topic == TOPIC]
        capture.write_bytes(b"\n".join(taken) + b"\n")
        run = folder.ask("verify", str(capture))
        assert run.returncode == 0, run.stdout + run.stderr
        assert f"{len(taken)} received: {len(taken)} as they were issued, 0 came again, 0 missing" in run.stdout
        said = folder.ask("replay", "--since", "1 h", "--topic", TOPIC)
        assert re.fullmatch(r"\d+ records are sent again now\n", said.stdout), said.stderr
        again = until(lambda: [m for m in subscriber.taken() if m.topic == TOPIC and m.payload == taken[0]], "it again")
        assert ("backlog", "true") in again[0].properties.UserProperty
        agent.terminate()
        agent.communicate()
    whole = capture.read_bytes()
    capture.write_bytes(whole + whole.replace(b'"produced":', b'"produced":1', 1))
    run = folder.ask("verify", str(capture), "--json")
    assert run.returncode == 1
    assert json.loads(run.stdout)["altered"] == 1
    capture.write_bytes(whole + whole.splitlines()[-1][:-20])
    run = folder.ask("verify", str(capture))
    assert run.returncode == 1
    assert f"unreadable: {capture}:{len(taken) + 1}: no event (" in run.stdout
    assert "unreadable: 1 lines are no events" in run.stdout
    capture.write_bytes(re.sub(rb'"id":"[^:]+:', b'"id":"gw9:', whole))
    run = folder.ask("verify", str(capture), "--json")
    assert (run.returncode, json.loads(run.stdout)["altered"]) == (1, len(taken))
    capture.write_text("nonsense\n")
    run = folder.ask("verify", str(capture))
    assert run.returncode == 1
    assert "capture.jsonl:1: no event" in run.stderr
    assert folder.ask("replay").returncode == 78


def test_record_that_the_broker_refuses_is_a_dead_letter_until_the_broker_is_put_right(folder: Folder) -> None:
    rules = folder.config.parent / "acl"
    rules.write_text("topic write edge/v1/acme/lyon/_agents/#\ntopic read #\n")
    with broker_of(folder, f"acl_file {rules}"):
        folder.run_agent()
        until(lambda: folder.status().get("uplink", {}).get("refused"), "a dead letter", 30)
        dead = until(lambda: folder.lines("records", "--dead"), "it in the list")
        assert "not authorized" in dead[0]["reason"]
        (gap, *_) = until(lambda: folder.lines("records", "--type", "gap"), "a gap record", 15)
        data = gap["event"]["data"]
        assert (data["what"], data["topic"], data["cause"]) == ("records", TOPIC, "not_authorized")
    rules.write_text("topic readwrite #\n")
    with broker_of(folder, f"acl_file {rules}") as broker, Subscriber(broker.port) as subscriber:
        until(lambda: folder.status()["uplink"]["connected"], "the broker again", 30)
        assert "records are sent again now" in folder.ask("replay", "--dead").stdout
        identity = dead[0]["event"]["id"]
        found = until(lambda: [m for m in subscriber.taken() if identity.encode() in m.payload], "it at last")
        assert json.loads(found[0].payload) == dead[0]["event"]
        until(lambda: not folder.lines("records", "--dead"), "no dead letters")
