"""The tables, as migrations: each runs once, in order, in a transaction of its own."""

from __future__ import annotations

from sqlite_utils import Database, Migrations

APPLICATION_ID = 0x45444741  # "EDGA": tells our database from another program's

VERSION = 8
"""The number of migrations; a database with more is a newer version's."""

migrations = Migrations("edge_agent")


@migrations()
def readings(db: Database) -> None:
    """Readings in order of arrival. Only tags that machines draw on are indexed: an index over ten thousand tags would
    touch ten thousand pages at each commit, and wear out a flash card for nobody.
    """
    db.table("tag").create({"id": int, "name": str, "machine": int}, pk="id", not_null={"name", "machine"})
    db.table("tag").create_index(["name"], unique=True)
    # BLOB affinity: SQLite keeps a value as it is given, an integer as an integer and a text as a text.
    db.table("reading").create(
        {
            "id": int, "tag": int, "time": int, "value": bytes, "quality": int,
            "cause": str, "received": int, "machine": int,
        },
        pk="id",
        not_null={"tag", "time", "quality", "machine"},
    )  # fmt: skip
    db.execute("CREATE INDEX reading_of_machine ON reading (tag, time) WHERE machine = 1")
    # Which reading was the newest at what time: finds a span of time in a table ordered by arrival.
    db.table("arrival").create({"time": int, "reading": int}, pk="time", not_null={"reading"})


@migrations()
def records(db: Database) -> None:
    """Records with their frozen bytes. The outbox is the index of those that the broker has not answered for."""
    db.table("record").create(
        {
            "position": int, "epoch": int, "number": int, "type": str, "key": str, "revision": int, "topic": str,
            "sequence": int, "issued": int, "payload": bytes, "answered": int, "reason_code": int, "reason": str,
        },
        pk="position",
        not_null={"epoch", "number", "type", "topic", "issued", "payload"},
    )  # fmt: skip
    db.table("record").create_index(["epoch", "number"], unique=True)
    db.execute("CREATE INDEX record_key ON record (key, epoch, revision) WHERE key IS NOT NULL")
    db.execute("CREATE INDEX outbox ON record (position) WHERE answered IS NULL")
    db.execute("CREATE INDEX record_issued ON record (issued)")
    db.table("topic").create({"epoch": int, "name": str, "sequence": int}, pk=("epoch", "name"), not_null={"sequence"})


@migrations()
def progress(db: Database) -> None:
    """How far each machine's windows are closed, the configurations by hash, and single facts of the agent."""
    db.table("progress").create(
        {"machine": str, "window": str, "closed_until": int, "unobserved_since": int, "unobserved_cause": str},
        pk=("machine", "window"),
        not_null={"closed_until"},
    )
    db.table("configuration").create({"hash": str, "time": int, "document": str}, pk="hash", not_null={"document"})
    db.table("fact").create({"name": str, "value": int}, pk="name", not_null={"value"})


@migrations()
def entries(db: Database) -> None:
    """What people told; what is to be looked at again; which configuration was in force when, and how it computes."""
    db.execute(
        "CREATE TABLE entry (number INTEGER PRIMARY KEY AUTOINCREMENT, machine TEXT NOT NULL, kind TEXT NOT NULL, "
        "said_by TEXT NOT NULL, made INTEGER NOT NULL, start INTEGER NOT NULL, until INTEGER NOT NULL, "
        "body TEXT NOT NULL)"
    )
    db.table("entry").create_index(["machine", "start"])
    db.table("reopened").create(
        {"id": int, "machine": str, "start": int, "until": int, "why": str, "made": int},
        pk="id",
        not_null={"machine", "start", "until", "why", "made"},
    )
    db.table("reopened").create_index(["machine"])
    db.table("configuration").add_column("basis", str)
    db.table("applied").create({"time": int, "hash": str}, pk="time", not_null={"hash"})


@migrations()
def holes(db: Database) -> None:
    """What outages left open, until the device's own history has been read."""
    db.table("hole").create(
        {"id": int, "tag": int, "start": int, "since": int, "reached": int, "until": int, "closed": int},
        pk="id",
        not_null={"tag", "start", "since", "reached", "until", "closed"},
    )
    db.table("hole").create_index(["tag", "until"])


@migrations()
def times_of_the_device(db: Database) -> None:
    """What the device's clock and its server's said, in nanoseconds after `time`: most are 0, which takes no byte."""
    db.table("reading").add_column("source", int)
    db.table("reading").add_column("server", int)


@migrations()
def delivery(db: Database) -> None:
    """A checksum of each record; the dead letters, which the broker will not have, and whether a gap names them."""
    db.table("record").add_column("crc", int)
    db.table("dead_letter").create({"position": int, "named": int}, pk="position", not_null={"named"})
    db.execute("CREATE INDEX dead_letter_unnamed ON dead_letter (position) WHERE named = 0")
    db.execute("INSERT INTO dead_letter SELECT position, 0 FROM record WHERE reason_code >= 128")


@migrations()
def losses(db: Database) -> None:
    """What is gone for good, until a gap record has named it."""
    db.table("loss").create(
        {
            "id": int, "what": str, "cause": str, "start": int, "until": int, "count": int, "topic": str, "epoch": int,
            "first": int, "last": int,
        },
        pk="id",
        not_null={"what", "cause", "start", "until"},
    )  # fmt: skip
