"""Faults at random upon a real agent, and an oracle that knows the truth: `make chaos FOR=30m`.

    python tests/chaos.py --for 10m --faults kill,outage,damage --seed 3

A Modbus server counts parts in a process of its own; a subscriber with a persistent session keeps all that arrives.
The agent is killed, its files are damaged (as test_damage.py does it), the broker is restarted or stands still. In the
end the counter stands still too, and what arrived is compared: with the store, record by record, and with the counter,
to the part. Prints a scoreboard; exit code 1 on any breach.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from brokers import Mosquitto, Subscriber
from test_damage import DAMAGES
from test_whole_path import CONFIG, Agent, Server, until

from edge_agent import control
from edge_agent.capture import against_store, read
from edge_agent.contract import parse_duration

FAULTS = ("kill", "outage", "damage")
RATE = 40
PATIENCE_S = 120.0


class Chaos:
    """One run of faults."""

    def __init__(self, folder: Path, stack: ExitStack, seed: int, faults: tuple[str, ...]) -> None:
        self._chance = random.Random(seed)
        self._faults = faults
        self.counts: Counter[str] = Counter()
        self.slowest_start_s = 0.0
        self._server = Server(RATE)
        stack.callback(self._server.close)
        kept = (f"persistence_location {folder}/", "persistence true", "max_inflight_messages 200")
        self._broker = stack.enter_context(Mosquitto(folder, *kept))
        self._subscriber = stack.enter_context(Subscriber(self._broker.port, "edge/v1/#", persistent=True))
        (folder / "config").mkdir()
        text = CONFIG.format(broker=self._broker.port, server=self._server.port)
        (folder / "config" / "all.yaml").write_text(text)
        self.agent = Agent(folder)
        stack.callback(self.agent.close)

    def run(self, seconds: float) -> dict[str, Any]:
        """Do it for so long; the scoreboard."""
        began = self._server.tell("freeze")
        self._start()
        time.sleep(1.0)  # the baseline is durable: a commit comes every half second
        self._server.tell("resume")
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            time.sleep(self._chance.uniform(0.3, 6.0))
            getattr(self, f"_{self._chance.choice(self._faults)}")()
        ended = self._server.tell("freeze")
        return self._judge(ended - began)

    # --------------------------------------------------------------------------------------------------- faults

    def _start(self) -> None:
        began = time.monotonic()
        self.agent.start()
        until(self.agent.has_read, 40, "an agent that reads")
        self.slowest_start_s = max(self.slowest_start_s, time.monotonic() - began)

    def _kill(self) -> None:
        self.agent.end(signal.SIGKILL)
        self.counts["kills"] += 1
        self._start()

    def _damage(self) -> None:
        self.agent.end(signal.SIGKILL)
        self.counts["kills"] += 1
        damage = self._chance.choice([each for each in DAMAGES if each.__name__ != "value_flipped"])
        try:
            damage(self.agent.folder / "data", self._chance)
            self.counts[f"damage: {damage.__name__}"] += 1
        except (OSError, ValueError):
            pass  # no such file, or an empty one, at the moment
        self._start()

    def _outage(self) -> None:
        if self._chance.random() < 0.5:
            self._broker.stop()
            self.counts["broker restarts"] += 1
            time.sleep(self._chance.uniform(0.1, 3.0))
            if self._chance.random() < 0.5 and "kill" in self._faults:  # two faults at once
                self._kill()
            self._broker.start()
        else:
            self._broker.freeze()
            self.counts["broker freezes"] += 1
            time.sleep(self._chance.uniform(0.1, 3.0))
            self._broker.thaw()

    # --------------------------------------------------------------------------------------------------- oracle

    def _judge(self, made: int) -> dict[str, Any]:
        frozen = time.time()
        lines: list[bytes] = []

        def received() -> list[dict[str, Any]]:
            lines.extend(bytes(message.payload) for message in self._subscriber.taken())
            return [json.loads(line) for line in lines]

        def settled() -> bool:
            time.sleep(0.5)
            ends = [event["data"]["end"] for event in received() if event["type"] == "edge.production.v1"]
            late = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(frozen + 1))
            status = self.agent.status()
            return max(ends, default="") > late and status.get("buffer", {}).get("waiting") == 0

        until(settled, PATIENCE_S, "everything delivered")
        time.sleep(1.0)
        events = received()
        issued = list(control.ask(self.agent.folder / "data" / "agent.sock", "issued"))
        found = against_store(read(lines, "received"), issued)
        by_id: dict[str, set[bytes]] = defaultdict(set)
        for line, event in zip(lines, events, strict=True):
            by_id[event["id"]].add(line)
        latest: dict[str, dict[str, Any]] = {}
        for event in events:
            data = event["data"]
            if event["type"] == "edge.production.v1":
                known = latest.get(data["key"])
                if known is None or (event["epoch"], data["revision"]) >= (known["epoch"], known["data"]["revision"]):
                    latest[data["key"]] = event
        counted = sum(event["data"]["quantity"]["produced"] for event in latest.values())
        damaged = [event["data"] for event in events if event["type"] == "edge.gap.v1"
                   and event["data"]["cause"] == "damaged"]  # fmt: skip
        board: dict[str, Any] = dict(sorted(self.counts.items())) | {
            "slowest start, s": round(self.slowest_start_s, 1),
            "epochs": len({event["epoch"] for event in events}),
            "records in the store": len(issued),
            "events received": len(events),
            "came again": found.doubled,
            "lost": found.missing,
            "altered, or one identity twice": found.altered + sum(len(each) > 1 for each in by_id.values()),
            "gap records of damage": len(damaged),
            "parts made": made,
            "parts in records": counted,
        }
        unexplained = counted != made and not damaged
        board["breach"] = bool(board["lost"] or board["altered, or one identity twice"] or unexplained)
        return board


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description="Faults at random upon a real agent.")
    parser.add_argument("--for", dest="duration", default="2m")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--faults", default=",".join(FAULTS))
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        chaos = Chaos(folder, stack, given.seed, tuple(given.faults.split(",")))
        board = chaos.run(parse_duration(re.sub(r"(\d)m$", r"\1 min", given.duration)) / 1e9)
    sys.stdout.write(f"seed {given.seed}\n" + "".join(f"{name:32} {value}\n" for name, value in board.items()))
    return 1 if board["breach"] else 0


if __name__ == "__main__":
    sys.exit(main())
