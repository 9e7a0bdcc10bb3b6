"""A central system in a page: keeps the truth of every fact, and posts the differences to a CSV, as to an ERP.

    python examples/consumer.py --broker localhost --window 1h --database truth.db --csv postings.csv

The highest (epoch, revision) of a key is its truth, so records may come twice, late, in any order, and again after a
restart. The table `truth` has every fact with its data as JSON: production, downtime, jobs, entries, gaps. The CSV has
what to post of production, by time, and of jobs, by order: the same items from two sides, so post each to its own
account. Choose one size of window: each alone holds every item.

Each hour the agent says in a manifest what it has issued. What of it has not arrived, and is not named in a gap record,
is printed; `edge-agent replay` sends it again. Needs paho-mqtt 2.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

QUANTITIES = ("produced", "good", "scrap", "rework")
STATES = (
    "producing", "short_stop", "delay", "down", "setup", "idle", "planned_stop", "not_scheduled", "unknown",
)  # fmt: skip
POSTED = ("production", "job")
COLUMNS = ("record", "type", "machine", "window", "start", "job", *QUANTITIES, *(f"{each}_s" for each in STATES), "why")
TOPICS = (
    "+/+/+/+/+/production/{window}", "+/+/+/+/+/downtime", "+/+/+/+/+/job", "+/+/+/+/+/entry", "+/+/_agents/+/gap",
    "+/+/_agents/+/manifest",
)  # fmt: skip


class Ledger:
    """The truth by key, and what follows from it to post: both change in one transaction, or neither does."""

    def __init__(self, database: Path, postings: Path) -> None:
        self._db, self._postings = sqlite3.connect(database), postings
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS truth (key TEXT PRIMARY KEY, type TEXT NOT NULL, epoch INTEGER NOT NULL, "
            "revision INTEGER NOT NULL, withdrawn INTEGER NOT NULL, data TEXT NOT NULL)"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS posting (number INTEGER PRIMARY KEY, line TEXT NOT NULL)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS arrived (source TEXT, epoch INTEGER, topic TEXT, sequence INTEGER, id TEXT, "
            "sha256 TEXT, PRIMARY KEY (source, epoch, topic, sequence))"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS unproven (key TEXT PRIMARY KEY, source TEXT, data TEXT)")
        self._written = self._mended()
        self.write()

    def take(self, topic: str, payload: bytes) -> None:
        """Take a record as it came: nothing is posted unless it is newer than what is known of its key."""
        event = json.loads(payload)
        kind, data = event["type"].split(".")[1], event["data"]
        version, withdrawn = (event["epoch"], data["revision"]), data.get("withdrawn", False)
        with self._db:  # one transaction
            where = (event["source"], event["epoch"], topic, int(event["sequence"]))
            digest = hashlib.sha256(payload).hexdigest()
            self._db.execute("INSERT OR IGNORE INTO arrived VALUES (?, ?, ?, ?, ?, ?)", (*where, event["id"], digest))
            if kind == "manifest":
                told = (data["key"], event["source"], json.dumps(data))
                self._db.execute("INSERT OR IGNORE INTO unproven VALUES (?, ?, ?)", told)
                return
            known = self._db.execute("SELECT epoch, revision, data FROM truth WHERE key = ?", (data["key"],)).fetchone()
            if known is not None and version <= known[:2]:
                return
            row = (data["key"], kind, *version, withdrawn, json.dumps(data))
            self._db.execute("REPLACE INTO truth VALUES (?, ?, ?, ?, ?, ?)", row)
            if kind in POSTED:
                self._post(event["id"], kind, data, json.loads(known[2]) if known is not None else {})

    def _post(self, record: str, kind: str, data: dict[str, Any], before: dict[str, Any]) -> None:
        """Note down by how much the figures of a fact differ from what was posted of it."""
        change = [new - old for new, old in zip(figures_of(data), figures_of(before), strict=True)]
        if any(change):
            items, states = change[: len(QUANTITIES)], [part / 1000 for part in change[len(QUANTITIES) :]]
            why = "withdrawn" if data["withdrawn"] else data["revised_because"] or "first"
            fact = (data["machine"], data.get("window"), data["start"], data["job"])
            line = [record, kind, *fact, *items, *states, why]
            self._db.execute("INSERT INTO posting (line) VALUES (?)", (json.dumps(line),))

    def missing(self, window: str) -> list[str]:
        """What manifests name of our topics that has neither arrived nor is named in a gap; empty: it is proven."""
        found = []
        for key, source, text in self._db.execute("SELECT key, source, data FROM unproven ORDER BY key").fetchall():
            lacks = [
                lack
                for topic, told in json.loads(text)["topics"].items()
                if "/production/" not in topic or topic.endswith(f"/production/{window}")
                for lack in self._lacks(source, json.loads(text)["epoch"], topic, told)
            ]
            if not lacks:
                with self._db:
                    self._db.execute("DELETE FROM unproven WHERE key = ?", (key,))
            found += lacks
        return found

    def _lacks(self, source: str, epoch: int, topic: str, told: dict[str, Any]) -> list[str]:
        first, last = int(told["first"]), int(told["last"])
        place, digest = (source, epoch, topic), hashlib.sha256()
        of = "source = ? AND epoch = ? AND topic = ?"
        here = set()
        for sequence, id, sha256 in self._db.execute(
            f"SELECT sequence, id, sha256 FROM arrived WHERE {of} AND sequence BETWEEN ? AND ? ORDER BY sequence",
            (*place, first, last),
        ):
            here.add(sequence)
            digest.update(f"{id}\n{sha256}\n".encode())
        absent = set(range(first, last + 1)) - here
        if not absent and digest.hexdigest() != told["sha256"]:
            return [f"{topic} {first} to {last} of epoch {epoch} is not what was issued"]
        for (text,) in self._db.execute("SELECT data FROM truth WHERE type = 'gap' AND withdrawn = 0"):
            gap = json.loads(text)
            if gap["what"] == "records" and (gap["epoch"], gap["topic"]) == (epoch, topic):
                absent -= set(range(int(gap["first_sequence"]), int(gap["last_sequence"]) + 1))
        return [f"{topic} {sequence} of epoch {epoch} is missing" for sequence in sorted(absent)]

    def write(self) -> None:
        """Append what was posted since to the CSV. Here an ERP would be called, with `record` against repeats."""
        with self._postings.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for number, line in self._db.execute(
                "SELECT number, line FROM posting WHERE number > ? ORDER BY number", (self._written,)
            ):
                writer.writerow(json.loads(line))
                self._written = number

    def _mended(self) -> int:
        """How many postings the CSV holds; a line that a kill has cut off is taken away."""
        text = self._postings.read_text() if self._postings.exists() else ""
        whole = text[: text.rfind("\n") + 1] or ",".join(COLUMNS) + "\n"
        if whole != text:
            self._postings.write_text(whole)
        return whole.count("\n") - 1

    def close(self) -> None:
        self._db.close()


def figures_of(data: dict[str, Any]) -> list[int]:
    """Items, and milliseconds in each state: whole numbers, so that differences add up.

    All 0 for what is withdrawn, for a job that is still in work, and for a fact of which nothing is known yet.
    """
    if not data or data["withdrawn"] or data["quantity"] is None:
        return [0] * (len(QUANTITIES) + len(STATES))
    items = [int(data["quantity"][name] or 0) for name in QUANTITIES]  # beyond 2^53 they come as strings
    return items + [round(data["time_s"][state] * 1000) for state in STATES]


def listen(ledger: Ledger, host: str, port: int, prefix: str, window: str) -> mqtt.Client:
    """A client, connected; run its loop. A message is acknowledged after it was posted, so that none is lost."""
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, f"consumer-{window}", protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True
    )
    topics = [(f"{prefix}/{topic.format(window=window)}", 1) for topic in TOPICS]

    def on_message(client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        ledger.take(message.topic, bytes(message.payload))
        ledger.write()
        if message.topic.endswith("/manifest"):
            for lack in ledger.missing(window):
                print(lack, file=sys.stderr, flush=True)  # noqa: T201
        client.ack(message.mid, message.qos)

    session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    session.SessionExpiryInterval = 7 * 86_400  # the broker keeps for us what comes while we are away
    client.on_connect = lambda client, *_: client.subscribe(topics)
    client.on_message = on_message
    client.connect(host, port, clean_start=False, properties=session)
    return client


def main() -> None:
    parser = argparse.ArgumentParser(description="Post records of production and jobs to a CSV.")
    parser.add_argument("--broker", default="localhost")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--prefix", default="edge/v1")
    parser.add_argument("--window", default="1h", help="one size, such as 10min, 1h or shift")
    parser.add_argument("--database", type=Path, default=Path("truth.db"))
    parser.add_argument("--csv", type=Path, default=Path("postings.csv"))
    given = parser.parse_args()
    ledger = Ledger(given.database, given.csv)
    listen(ledger, given.broker, given.port, given.prefix, given.window).loop_forever()


if __name__ == "__main__":
    main()
