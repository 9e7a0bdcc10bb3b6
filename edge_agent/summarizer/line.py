"""One machine in work: what is due when, and one piece of work on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edge_agent.entries import Entry
from edge_agent.equipment import Row, Unmapped
from edge_agent.machines import Summarized
from edge_agent.production import Interval, WindowData
from edge_agent.production.downtime import StopFact
from edge_agent.production.jobs import JobFact
from edge_agent.record import Because

NEVER = 2**63 - 1
LONG_NS = 6 * 3_600 * 1_000_000_000
"""A longer window is computed in pieces of this length, so that it needs little memory."""


@dataclass
class Line:
    """One machine in work.

    `next_close` is when its next window closes, `look_at` when its stops and jobs are looked for, `reopen_at` when what
    is to be looked at again has been quiet for long enough; after a failure none of it before `retry_at`; all in ns of
    the wall time. `unsettled` is since when what was said may still change without a late reading; before `said_until`
    something was said.
    """

    of: Summarized
    next_close: int = 0
    look_at: int = NEVER
    reopen_at: int = NEVER
    retry_at: int = 0
    revised_at: int = 0
    said_until: int = 0
    unsettled: int | None = None
    looked_until: int | None = None
    unmapped: set[Unmapped] = field(default_factory=set)
    newest: dict[str, Any] | None = None

    @property
    def due(self) -> int:
        """When something is to be done."""
        return max(self.retry_at, min(self.next_close, self.look_at, self.reopen_at))


class Evidence(NamedTuple):
    """Readings and entries, and until when they are all there."""

    rows: Mapping[str, list[Row]]
    entries: Sequence[Entry]
    until: int


NOTHING = Evidence({}, (), 0)


class Again(NamedTuple):
    """A closed window that is looked at again: why, with which configuration, and what was said of it (the event)."""

    size: str
    window: Interval
    why: Because
    configuration: str
    before: dict[str, Any] | None


@dataclass(frozen=True)
class Job:
    """One piece of work: windows that close, windows that are looked at again, and where stops and jobs are looked for.

    `ids` are what is to be looked at again and is done with it; `why` is why stops and jobs are said again.
    """

    due: Mapping[str, list[Interval]]
    again: Sequence[Again]
    look: Interval
    why: Because | None
    rows: Mapping[str, list[Row]]
    entries: Sequence[Entry]
    known_until: int
    regular: bool
    more: bool = False
    ids: tuple[int, ...] = ()
    settled: bool = False
    """Whether what might still have changed is certain now."""
    work: Evidence = NOTHING
    """That of jobs, which reaches until now."""


class JobFound(NamedTuple):
    """A job, its whole time as one window where it is over, and what was said of it last."""

    fact: JobFact
    window: WindowData | None = None
    before: dict[str, Any] | None = None
    configuration: str | None = None
    """The hash of that with which it is computed; None: the present one."""


@dataclass
class Found:
    """What one piece of work has found."""

    windows: dict[tuple[Interval, str], WindowData] = field(default_factory=dict)
    """By window and configuration."""
    stops: list[StopFact] = field(default_factory=list)
    jobs: list[JobFound] = field(default_factory=list)
    ceased: list[dict[str, Any]] = field(default_factory=list)
    """The jobs that were published and are none any more."""
    unsettled: int | None = None
