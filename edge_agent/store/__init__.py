"""The store: one SQLite file with readings, records and the outbox; the only door to the database.

`Store` is plain and synchronous and belongs to one thread; `StoreThread` is its asyncio front with the group commit.
"""

from sqlite3 import sqlite_version as SQLITE_VERSION

from edge_agent.store.database import Store
from edge_agent.store.entries import Reopened
from edge_agent.store.files import StoreDamaged, StoreError
from edge_agent.store.holes import OUTAGES, Hole
from edge_agent.store.readings import Row, StoredReading
from edge_agent.store.records import Draft, Issued, StoredRecord
from edge_agent.store.thread import StoreThread

__all__ = [
    "OUTAGES",
    "SQLITE_VERSION",
    "Draft",
    "Hole",
    "Issued",
    "Reopened",
    "Row",
    "Store",
    "StoreDamaged",
    "StoreError",
    "StoreThread",
    "StoredReading",
    "StoredRecord",
]
