"""A central system in a page: keeps the truth of every window, and posts the differences to a CSV, as to an ERP.

    python examples/consumer.py --broker localhost --window 1h --database truth.db --csv postings.csv

The highest (epoch, revision) of a key is its truth, so records may come twice, late, in any order, and again after a
restart. Choose one size of window: each alone holds every part. Needs paho-mqtt 2.
"""

from __future__ import annotations

import argparse
import csv
import json
import sqlite3
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

QUANTITIES = ("produced", "good", "scrap")
STATES = (
    "producing", "short_stop", "delay", "down", "setup", "idle", "planned_stop", "not_scheduled", "unknown",
)  # fmt: skip
FIGURES = (*QUANTITIES, *(f"{state}_ms" for state in STATES))
COLUMNS = ("record", "machine", "window", "start", *QUANTITIES, *(f"{state}_s" for state in STATES), "reason")


class Ledger:
    """The truth by key, and what follows from it to post: both change in one transaction, or neither does."""

    def __init__(self, database: Path, postings: Path) -> None:
        self._db, self._postings = sqlite3.connect(database), postings
        figures = ", ".join(f"{name} INTEGER NOT NULL" for name in FIGURES)
        self._db.execute(
            f"CREATE TABLE IF NOT EXISTS truth (key TEXT PRIMARY KEY, epoch INTEGER, revision INTEGER, {figures})"
        )
        self._db.execute("CREATE TABLE IF NOT EXISTS posting (number INTEGER PRIMARY KEY, line TEXT NOT NULL)")
        self._written = self._mended()
        self.write()

    def take(self, event: dict[str, Any]) -> None:
        """Take a production record: nothing happens unless it is newer than what is known of its key."""
        data = event["data"]
        names = ", ".join(FIGURES)
        with self._db:  # one transaction
            known = self._db.execute(
                f"SELECT epoch, revision, {names} FROM truth WHERE key = ?", (data["key"],)
            ).fetchone()
            version = (event["epoch"], data["revision"])
            if known is not None and version <= known[:2]:
                return
            now = figures_of(data)
            before = known[2:] if known is not None else (0,) * len(FIGURES)
            self._db.execute(
                f"REPLACE INTO truth VALUES ({', '.join('?' * (len(FIGURES) + 3))})", (data["key"], *version, *now)
            )
            change = [new - old for new, old in zip(now, before, strict=True)]
            if any(change):
                items, states = change[: len(QUANTITIES)], [part / 1000 for part in change[len(QUANTITIES) :]]
                reason = "withdrawn" if data["withdrawn"] else data["revised_because"] or "first"
                line = [event["id"], data["machine"], data["window"], data["start"], *items, *states, reason]
                self._db.execute("INSERT INTO posting (line) VALUES (?)", (json.dumps(line),))

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
    """Items, and milliseconds in each state: whole numbers, so that differences add up. What is withdrawn is 0."""
    if data["withdrawn"]:
        return [0] * len(FIGURES)
    items = [int(data["quantity"][name] or 0) for name in QUANTITIES]  # beyond 2^53 they come as strings
    return items + [round(data["time_s"][state] * 1000) for state in STATES]


def listen(ledger: Ledger, host: str, port: int, prefix: str, window: str) -> mqtt.Client:
    """A client, connected; run its loop. A message is acknowledged after it was posted, so that none is lost."""
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, f"consumer-{window}", protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True
    )

    def on_message(client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        ledger.take(json.loads(message.payload))
        ledger.write()
        client.ack(message.mid, message.qos)

    session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    session.SessionExpiryInterval = 7 * 86_400  # the broker keeps for us what comes while we are away
    client.on_connect = lambda client, *_: client.subscribe(f"{prefix}/+/+/+/+/+/production/{window}", qos=1)
    client.on_message = on_message
    client.connect(host, port, clean_start=False, properties=session)
    return client


def main() -> None:
    parser = argparse.ArgumentParser(description="Post production records to a CSV.")
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
