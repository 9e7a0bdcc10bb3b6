"""A central system in a page: keeps the truth of every fact, and posts the differences to a CSV, as to an ERP.

    python examples/consumer.py --broker localhost --window 1h --database truth.db --csv postings.csv

The highest (epoch, revision) of a key is its truth, so records may come twice, late, in any order, and again after a
restart. The table `truth` has every fact with its data as JSON: production, downtime, jobs, entries, gaps. The CSV has
what to post of production, by time, and of jobs, by order: the same items from two sides, so post each to its own
account. Choose one size of window: each alone holds every item.

Each hour the agent says in a manifest what it has issued. What of it has not arrived, and is not named in a gap record,
is printed; `edge-agent replay` sends it again. What is no record is set aside in the table `unreadable`. Needs
paho-mqtt 2.
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
from paho.mqtt.reasoncodes import ReasonCode

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
UNREADABLE = (
    ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)  # fmt: skip
LONGEST = 10**7  # more records of one topic than any hour has
BAD_CREDENTIALS = (0x86, 0x87, 0x8C)
STANDING_GAPS = "SELECT data FROM truth WHERE type = 'gap' AND withdrawn = 0"


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
        self._db.execute("CREATE TABLE IF NOT EXISTS unreadable (topic TEXT, payload BLOB, why TEXT)")
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
                self._lacks(event["source"], data, "")  # what cannot be judged is refused now, not each hour
                return
            known = self._db.execute("SELECT epoch, revision, data FROM truth WHERE key = ?", (data["key"],)).fetchone()
            if known is not None and version <= known[:2]:
                return
            row = (data["key"], kind, *version, withdrawn, json.dumps(data))
            self._db.execute("REPLACE INTO truth VALUES (?, ?, ?, ?, ?, ?)", row)
            if kind == "gap":
                named_by(data)
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
            text = json.dumps(line, ensure_ascii=False)  # what the CSV cannot hold fails here, where it is set aside
            self._db.execute("INSERT INTO posting (line) VALUES (?)", (text,))

    def set_aside(self, topic: str, payload: bytes, why: str) -> None:
        """Keep what is no record where somebody can look at it."""
        with self._db:
            self._db.execute("INSERT INTO unreadable VALUES (?, ?, ?)", (topic, payload, why))

    def missing(self, window: str) -> list[str]:
        """What manifests name of our topics that has neither arrived nor is named in a gap; empty: it is proven."""
        found = []
        for key, source, text in self._db.execute("SELECT key, source, data FROM unproven ORDER BY key").fetchall():
            lacks = self._lacks(source, json.loads(text), window)
            if not lacks:
                with self._db:
                    self._db.execute("DELETE FROM unproven WHERE key = ?", (key,))
            found += lacks
        return found

    def _lacks(self, source: str, manifest: dict[str, Any], window: str) -> list[str]:
        return [
            lack
            for topic, told in manifest["topics"].items()
            if "/production/" not in topic or topic.endswith(f"/production/{window}") or not window
            for lack in self._lacks_of((source, manifest["epoch"], topic), told)
        ]

    def _lacks_of(self, place: tuple[str, int, str], told: dict[str, Any]) -> list[str]:
        (_, epoch, topic), first, last = place, int(told["first"]), int(told["last"])
        here = {
            sequence: f"{id}\n{sha256}\n".encode()
            for sequence, id, sha256 in self._db.execute(
                "SELECT sequence, id, sha256 FROM arrived WHERE source = ? AND epoch = ? AND topic = ? "
                "AND sequence BETWEEN ? AND ? ORDER BY sequence",
                (*place, first, last),
            )
        }
        if last - first > LONGEST:
            raise ValueError(f"{topic} {first} to {last} is no hour")
        gaps = [named_by(json.loads(text)) for (text,) in self._db.execute(STANDING_GAPS)]
        named = [sequences for of, sequences in gaps if of == (epoch, topic)]
        begun = self._begun(place, last)
        absent = [sequence for sequence in range(max(first, begun), last + 1) if sequence not in here]
        # What the agent lost after it had delivered it is in no manifest, but in a gap.
        unnamed = [line for sequence, line in here.items() if not any(sequence in gap for gap in named)]
        right = told["sha256"] in [hashlib.sha256(b"".join(lines)).hexdigest() for lines in (here.values(), unnamed)]
        if begun <= first and not absent and not right:
            return [f"{topic} {first} to {last} of epoch {epoch} is not what was issued"]
        absent = [sequence for sequence in absent if not any(sequence in gap for gap in named)]
        return [f"{topic} {sequence} of epoch {epoch} is missing" for sequence in absent]

    def _begun(self, place: tuple[str, int, str], last: int) -> int:
        """The first sequence that was for us: of the epoch in which we began the first that came, later each."""
        (epoch,) = self._db.execute("SELECT min(epoch) FROM arrived WHERE source = ?", place[:1]).fetchone()
        if place[1] > epoch:
            return 1
        of = "source = ? AND epoch = ? AND topic = ?"
        (sequence,) = self._db.execute(f"SELECT min(sequence) FROM arrived WHERE {of}", place).fetchone()
        return last + 1 if sequence is None else int(sequence)

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


def named_by(gap: dict[str, Any]) -> tuple[tuple[int, str], range]:
    """Which records a gap names: their epoch and topic, and their sequences."""
    of, first, last = (gap["epoch"], gap["topic"]), gap["first_sequence"], gap["last_sequence"]
    return of, range(int(first), int(last) + 1) if gap["what"] == "records" and first else range(0)


def listen(ledger: Ledger, given: argparse.Namespace) -> mqtt.Client:
    """A client, connected; run its loop. A message is acknowledged after it was posted, so that none is lost."""
    window = given.window
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, f"consumer-{window}", protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True
    )
    if given.username:
        password = given.password_file.read_text().rstrip("\r\n") if given.password_file else None
        client.username_pw_set(given.username, password)
    if given.ca or given.certificate:
        client.tls_set(given.ca, given.certificate, given.key)
    topics = [(f"{given.prefix}/{topic.format(window=window)}", 1) for topic in TOPICS]

    def on_connect(client: mqtt.Client, _userdata: Any, _flags: Any, answer: ReasonCode, _properties: Any) -> None:
        if answer.value in BAD_CREDENTIALS:
            sys.exit(f"the broker refuses us: {answer}")
        if answer.is_failure:
            say(f"the broker refuses us, for now: {answer}")
        else:
            client.subscribe(topics)

    def on_message(client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        try:
            ledger.take(message.topic, bytes(message.payload))
        except UNREADABLE as error:
            ledger.set_aside(message.topic, bytes(message.payload), repr(error))
            say(f"{message.topic}: no record, set aside: {error!r}")
        ledger.write()
        if message.topic.endswith("/manifest"):
            for lack in ledger.missing(window):
                say(lack)
        client.ack(message.mid, message.qos)

    session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    session.SessionExpiryInterval = 7 * 86_400  # the broker keeps for us what comes while we are away
    client.on_connect = on_connect
    client.on_message = on_message
    client.connect(given.broker, given.port, clean_start=False, properties=session)
    return client


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description="Post records of production and jobs to a CSV.")
    parser.add_argument("--broker", default="localhost")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--username")
    parser.add_argument("--password-file", type=Path)
    parser.add_argument("--ca", help="who signs the broker's certificate: a file of certificates; TLS from here on")
    parser.add_argument("--certificate", help="our own, for a broker that asks for one")
    parser.add_argument("--key", help="of our certificate")
    parser.add_argument("--prefix", default="edge/v1")
    parser.add_argument("--window", default="1h", help="one size, such as 10min, 1h or shift")
    parser.add_argument("--database", type=Path, default=Path("truth.db"))
    parser.add_argument("--csv", type=Path, default=Path("postings.csv"))
    given = parser.parse_args()
    listen(Ledger(given.database, given.csv), given).loop_forever()


if __name__ == "__main__":
    main()
