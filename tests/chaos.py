"""Faults at random upon a real agent, and an oracle that knows the truth: `make chaos FOR=30m`.

    PYTHONPATH=. python tests/chaos.py --for 10m --faults kill,cut,outage --seed 3

A Modbus server counts parts in a process of its own; a subscriber with a persistent session keeps all that arrives. The
agent has a disk and a clock of its own, where the machine allows it. It is killed, loses power, has its files damaged
(bench/damages.py), its disk filled or turned read-only, its clock set; the broker is restarted, stands still,
or refuses. Often two of these at once. In the end the counter stands still too, and what arrived is compared: with the
store, record by record, and with the counter, to the part. Prints a scoreboard; exit code 1 on any breach.

| fault | what |
|---|---|
| kill | SIGKILL, and a new start |
| cut | a power cut: only what had been synced is left; with `clock`, sometimes a start without a date |
| damage | a kill, and damage of a random kind at a random place |
| readonly | the kernel finds an error in the file system; mended after a kill |
| outage, freeze | the broker ends, or stands still with its sockets open |
| refuse | the broker's access list forbids the records; what was refused is sent again in the end |
| full | somebody else fills the disk |
| clock | it is set to 1970, an hour ahead or two hours back |
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from brokers import Mosquitto, Subscriber
from faked_clock import FakedClock, has_faketime
from image_disk import Disk, can_mount
from test_whole_path import CONFIG, Agent, Server, until

from bench.damages import DAMAGES
from edge_agent import control
from edge_agent.capture import against_store, read, topic_of
from edge_agent.contract import parse_duration
from edge_agent.settling import BOOT
from edge_agent.store.files import DATABASE

SUDDEN = ("kill", "cut", "damage", "readonly")
LASTING = ("outage", "freeze", "refuse", "full", "clock")
FAULTS = (*SUDDEN, *LASTING)
RATE = 40
MACHINES = 5
"""They count the same parts, so that there are more records."""
PATIENCE_S = 120.0
START_S = 60.0
NAME, PASSWORD = "subscriber", "known"
"""mosquitto 2.0.11 throws away what comes for a nameless subscriber between its own restart and that one's return."""
_SUBSCRIBER = f"user {NAME}\ntopic read #\n"
ALLOWED = f"topic readwrite #\n{_SUBSCRIBER}"
REFUSED = f"topic readwrite edge/v1/acme/lyon/_agents/#\n{_SUBSCRIBER}"


class Chaos:
    """One run of faults; those that this machine does not allow are left out, and named on the scoreboard."""

    def __init__(self, folder: Path, stack: ExitStack, seed: int, faults: tuple[str, ...]) -> None:
        self._chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.slowest_start_s = 0.0
        self._server = Server(RATE)
        stack.callback(self._server.close)
        self._access = folder / "access"
        self._access.write_text(ALLOWED)
        self._access.chmod(0o700)
        passwords = folder / "passwords"
        make_passwords = ["mosquitto_passwd", "-c", "-b", str(passwords), NAME, PASSWORD]
        subprocess.run(make_passwords, check=True, capture_output=True)
        kept = (f"persistence_location {folder}/", "persistence true", "max_inflight_messages 200",
                f"acl_file {self._access}", f"password_file {passwords}")  # fmt: skip
        self._broker = stack.enter_context(Mosquitto(folder, *kept))
        subscriber = Subscriber(self._broker.port, "edge/v1/#", persistent=True, username=NAME, password=PASSWORD)
        self._subscriber = stack.enter_context(subscriber)
        (folder / "config").mkdir()
        devices, _, machine = CONFIG.format(broker=self._broker.port, server=self._server.port).partition("machines:\n")
        several = (machine.replace("press:", f"press-{number}:") for number in range(MACHINES))
        text = f"{devices}machines:\n{''.join(several)}"
        (folder / "config" / "all.yaml").write_text(text)
        self.agent = Agent(folder)
        without: set[str] = set()
        if can_mount():
            self._disk = Disk(folder, folder / "data")
            stack.callback(self._disk.close)
        else:
            without |= {"cut", "readonly", "full"}
        if has_faketime():
            self._fake = FakedClock(folder)
            self.agent.environment |= self._fake.environment
        else:
            without.add("clock")
        self.left_out = sorted(without & set(faults))
        self._faults = tuple(each for each in faults if each not in without)
        stack.callback(self.agent.close)

    def run(self, seconds: float) -> dict[str, Any]:
        """Do it for so long; the scoreboard."""
        began = self._server.tell("freeze")
        self.agent.start()
        self._ensure()
        baseline = self.agent.status()["now"]
        until(lambda: self.agent.status()["buffer"]["committed"] > baseline, 20, "a baseline that is durable")
        self._server.tell("resume")
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            time.sleep(self._chance.uniform(0.2, 2.5))
            self._do_some()
        ended = self._server.tell("freeze")
        return self._judge(ended - began, seconds)

    def _do_some(self) -> None:
        fault = self._chance.choice(self._faults)
        self.counts[fault] += 1
        if fault in SUDDEN:
            getattr(self, f"_{fault}")()
            self._ensure(timed=fault != "readonly")
            return
        with getattr(self, f"_{fault}")():
            time.sleep(self._chance.uniform(0.3, 3.0))
            others = [each for each in self._faults if each in SUDDEN]
            if others and self._chance.random() < 0.5:
                other = self._chance.choice(others)
                self.counts[other] += 1
                self.counts["two at once"] += 1
                getattr(self, f"_{other}")()
                time.sleep(self._chance.uniform(0.3, 3.0))
        self._ensure()

    def _ensure(self, *, timed: bool = False) -> None:
        """An agent that reads; one that has ended is started again, as systemd does it."""
        began = time.monotonic()
        while not self.agent.has_read():
            if not self.agent.runs:
                self.counts["starts again"] += 1
                time.sleep(1.0)
                self.agent.start()
            assert time.monotonic() < began + START_S, f"no agent that reads; its log ends with\n{self._log_end()}"
            time.sleep(0.05)
        if timed:
            self.slowest_start_s = max(self.slowest_start_s, time.monotonic() - began)

    def _log_end(self) -> str:
        return "".join((self.agent.folder / "log").read_text().splitlines(keepends=True)[-30:])

    # ------------------------------------------------------------------------------------------- sudden faults

    def _kill(self) -> None:
        self._end()
        self.agent.start()

    def _end(self) -> None:
        if self.agent.runs:
            self.agent.end(signal.SIGKILL)

    def _cut(self) -> None:
        self._end()
        self._disk.lose_power()
        without_date = "clock" in self._faults and self._chance.random() < 0.3 and self._another_boot()
        if without_date:
            self.counts["starts without a date"] += 1
            self._fake.lose()
        self.agent.start()
        if without_date:
            time.sleep(self._chance.uniform(1.0, 5.0))
            self._fake.set(0)

    def _another_boot(self) -> bool:
        """Have the store believe that the machine was started since; False where it has no such fact yet."""
        try:
            with sqlite3.connect(self.agent.folder / "data" / DATABASE) as db:
                found = db.execute("UPDATE fact SET value = 1 WHERE name = ?", (BOOT,)).rowcount
            db.close()
        except sqlite3.Error:  # the disk is full, or the file damaged
            return False
        return found == 1

    def _damage(self) -> None:
        self._end()
        damage = self._chance.choice([each for each in DAMAGES if each.__name__ != "value_flipped"])
        try:
            damage(self.agent.folder / "data", self._chance)
            self.counts[f"damage: {damage.__name__}"] += 1
        except (OSError, ValueError, sqlite3.Error):
            self.counts["damage"] -= 1  # no such file, or an empty one, at the moment
        if "clock" in self._faults:
            self._fake.set(0)  # at another date libfaketime has time.sleep, by which a salvage is awaited, never end
        self.agent.start()

    def _readonly(self) -> None:
        self._disk.break_down()
        time.sleep(self._chance.uniform(0.5, 4.0))
        assert self.agent.runs, "a disk that is read-only must not end the agent"
        self._end()
        self._disk.mend()
        self.agent.start()

    # ------------------------------------------------------------------------------------------ lasting faults

    @contextmanager
    def _outage(self) -> Iterator[None]:
        self._broker.stop()
        yield
        self._broker.start()

    @contextmanager
    def _freeze(self) -> Iterator[None]:
        self._broker.freeze()
        yield
        self._broker.thaw()

    @contextmanager
    def _refuse(self) -> Iterator[None]:
        self._set_access(REFUSED)
        yield
        self._set_access(ALLOWED)

    def _set_access(self, text: str) -> None:
        self._access.write_text(text)
        os.kill(self._broker.pid, signal.SIGHUP)

    @contextmanager
    def _full(self) -> Iterator[None]:
        self._disk.fill()
        yield
        self._disk.free()

    @contextmanager
    def _clock(self) -> Iterator[None]:
        ahead_s = self._chance.choice([None, 3_600, -7_200])
        if ahead_s is None:
            self._fake.lose()
        else:
            self._fake.set(ahead_s)
        yield
        self._fake.set(0)

    # --------------------------------------------------------------------------------------------------- oracle

    def _judge(self, made: int, seconds: float) -> dict[str, Any]:
        socket = self.agent.folder / "data" / "agent.sock"
        frozen = self.agent.status()["now"] / 1e9
        again = 0
        asks = iter(range(10))  # what the disk has changed is refused each time
        lines: list[bytes] = []

        def received() -> list[dict[str, Any]]:
            lines.extend(bytes(message.payload) for message in self._subscriber.taken())
            return [json.loads(line) for line in lines]

        def settled() -> bool:
            """Whether every machine's window after the freeze is here, and nothing waits any more."""
            nonlocal again
            time.sleep(0.5)
            ends: dict[str, str] = {}
            for event in received():
                if event["type"] == "edge.production.v1":
                    ends[event["data"]["machine"]] = max(ends.get(event["data"]["machine"], ""), event["data"]["end"])
            late = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(frozen + 1))
            status = self.agent.status()
            here = len(ends) == MACHINES and min(ends.values()) > late
            buffer = status.get("buffer", {"waiting": None, "refused": 0})
            if buffer["refused"] and next(asks, None) is not None:  # an answer of before may come into the store late
                (answer,) = control.ask(socket, "replay", dead=True)
                again += answer["records"]
                return False
            return here and buffer["waiting"] == 0

        try:
            until(settled, PATIENCE_S, "everything delivered")
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.agent.status()}; the log ends with\n{self._log_end()}") from error
        for _ in range(20):  # what the broker has accepted is on its way to the subscriber
            time.sleep(1.0)
            issued = list(control.ask(socket, "issued"))
            events = received()
            found = against_store(read(lines, "received"), issued)
            if not (found.missing or found.waiting):
                break
        by_id: dict[str, set[bytes]] = defaultdict(set)
        for line, event in zip(lines, events, strict=True):
            by_id[event["id"]].add(line)
        counted: Counter[str] = Counter()
        for event in _latest(events).values():
            counted[event["data"]["machine"]] += event["data"]["quantity"]["produced"]
        gaps = Counter(event["data"]["cause"] for event in events if event["type"] == "edge.gap.v1")
        unnamed, meant = _holes(events)
        board: dict[str, Any] = {
            "ran for, s": round(seconds),
            **dict(sorted(self.counts.items())),
            "broker that had to be killed": self._broker.lost_its_memory,
            "left out on this machine": ", ".join(self.left_out) or "nothing",
            "slowest start after a kill, s": round(self.slowest_start_s, 1),
            "log, bytes per hour": round((self.agent.folder / "log").stat().st_size / seconds * 3_600),
            "epochs": len({event["epoch"] for event in events}),
            "refused, sent again": again,
            "records that the store still has": len(issued),
            "records delivered": len({event["id"] for event in events if event.get("sequence")}),
            "came again": found.doubled,
            "lost": found.missing,
            "of these": ", ".join(found.which["missing"]) or "none",
            "still waiting": found.waiting,
            "sequences neither here nor named": len(unnamed),
            "of those": ", ".join(unnamed[:20]) or "none",
            "not here, named with their epoch": meant,
            "altered, or one identity twice": found.altered + sum(len(each) > 1 for each in by_id.values()),
            "gap records": ", ".join(f"{count} {cause}" for cause, count in sorted(gaps.items())) or "none",
            "parts made": made,
            "parts in records": ", ".join(map(str, sorted(set(counted.values())))),
        }
        # After damage some cannot be told, and that is said; but none is counted twice.
        unexplained = max(counted.values()) > made or ([*counted.values()] != [made] * MACHINES and not gaps["damaged"])
        board["breach"] = bool(
            found.missing or found.waiting or unnamed or board["altered, or one identity twice"] or unexplained
        )
        return board


def _holes(events: list[dict[str, Any]]) -> tuple[list[str], int]:
    """Sequences that have not arrived: those that no gap record names, and how many are meant with a whole epoch.

    Where a whole database is gone, its epoch is named and those before it are meant.
    """
    here: dict[tuple[int, str], set[int]] = defaultdict(set)
    gone_until = 0
    for event in events:
        if event.get("sequence"):
            here[event["epoch"], topic_of(event)].add(int(event["sequence"]))
    for data in (event["data"] for event in events if event["type"] == "edge.gap.v1"):
        if data["what"] == "records" and data["first_sequence"] is None:
            gone_until = max(gone_until, data["epoch"])
        elif data["what"] == "records":
            here[data["epoch"], data["topic"]].update(
                range(int(data["first_sequence"]), int(data["last_sequence"]) + 1)
            )
    holes = [
        (epoch, f"{topic} {sequence} of epoch {epoch}")
        for (epoch, topic), known in sorted(here.items())
        for sequence in sorted({*range(1, max(known))} - known)
    ]
    unnamed = [name for epoch, name in holes if epoch > gone_until]
    return unnamed, len(holes) - len(unnamed)


def scoreboard(board: dict[str, Any]) -> str:
    """A line for each figure."""
    return "".join(f"{name:32} {value}\n" for name, value in board.items())


def _latest(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The truth of every window, by key."""
    latest: dict[str, dict[str, Any]] = {}
    for event in events:
        data = event["data"]
        if event["type"] == "edge.production.v1":
            known = latest.get(data["key"])
            if known is None or (event["epoch"], data["revision"]) >= (known["epoch"], known["data"]["revision"]):
                latest[data["key"]] = event
    return latest


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(description="Faults at random upon a real agent.")
    parser.add_argument("--for", dest="duration", default="2m")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--log", type=Path, help="where to keep the agent's log")
    parser.add_argument("--faults", default=",".join(FAULTS))
    given = parser.parse_args()
    faults = tuple(given.faults.split(","))
    if unknown := set(faults) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        chaos = Chaos(folder, stack, given.seed, faults)
        if given.log:
            stack.callback(lambda: shutil.copyfile(folder / "log", given.log))
        board = chaos.run(parse_duration(re.sub(r"(\d)m$", r"\1 min", given.duration)) / 1e9)
    sys.stdout.write(f"seed {given.seed}\n{scoreboard(board)}")
    return 1 if board["breach"] else 0


if __name__ == "__main__":
    sys.exit(main())
