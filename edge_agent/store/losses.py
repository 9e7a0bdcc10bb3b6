"""What is gone for good, by damage or because the disk was full: kept until a gap record has named it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import NamedTuple, TypeVar

T = TypeVar("T")


def consecutive(items: Iterable[T], place: Callable[[T], tuple[Hashable, int]]) -> Iterator[list[T]]:
    """Runs of items that are of one kind and whose numbers follow each other; `place` gives kind and number."""
    run: list[T] = []
    expected: tuple[Hashable, int] | None = None
    for item in items:
        kind, number = place(item)
        if run and (kind, number) != expected:
            yield run
            run = []
        run.append(item)
        expected = kind, number + 1
    if run:
        yield run


class Loss(NamedTuple):
    """A range of readings or records that nobody will see. `rows` is how many, None where it is not known."""

    id: int
    what: str
    """`readings` or `records`."""
    cause: str
    start: int
    """Integer nanoseconds since 1970 UTC; of records the time of issue."""
    until: int
    rows: int | None
    topic: str | None
    epoch: int | None
    first: int | None
    """The first sequence on the topic."""
    last: int | None


class Losses:
    """The losses of a store. Every method belongs to the store's thread, and to a transaction of the caller."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(
        self, what: str, cause: str, *, start: int, until: int | None = None, count: int | None = None,
        topic: str | None = None, epoch: int | None = None, first: int | None = None, last: int | None = None,
    ) -> None:  # fmt: skip
        """Remember a loss. What goes on with one that no gap record has named yet becomes part of it."""
        until = start + 1 if until is None else until
        if self._grown(what, cause, start, until, count, topic, epoch, first, last):
            return
        self._connection.execute(
            "INSERT INTO loss (what, cause, start, until, count, topic, epoch, first, last) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (what, cause, start, until, count, topic, epoch, first, last),
        )

    def _grown(
        self, what: str, cause: str, start: int, until: int, count: int | None, topic: str | None, epoch: int | None,
        first: int | None, last: int | None,
    ) -> bool:  # fmt: skip
        """Whether a loss of the same kind could be extended: of readings any, of records that whose numbers go on."""
        if count is None or (what == "records" and first is None):
            return False
        return bool(
            self._connection.execute(
                "UPDATE loss SET start = min(start, ?), until = max(until, ?), count = count + ?, last = ? "
                "WHERE id = (SELECT max(id) FROM loss WHERE what = ? AND cause = ? AND topic IS ? AND epoch IS ?) "
                "AND count IS NOT NULL AND last IS ?",
                (start, until, count, last, what, cause, topic, epoch, None if first is None else first - 1),
            ).rowcount
        )

    def pending(self, limit: int, but: str = "") -> list[Loss]:
        """The losses that no gap record has named yet, oldest first, without those of the cause `but`."""
        found = self._connection.execute(
            "SELECT id, what, cause, start, until, count, topic, epoch, first, last FROM loss "
            "WHERE cause != ? ORDER BY id LIMIT ?",
            (but, limit),
        )
        return [Loss(*row) for row in found]

    def named(self, losses: Iterable[Loss]) -> None:
        """A gap record names these."""
        self._connection.executemany("DELETE FROM loss WHERE id = ?", [(loss.id,) for loss in losses])
