"""What was found to records in the outbox: what is new, and what is now said otherwise. In the store's thread."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from edge_agent import record, shifts
from edge_agent.production import Interval, Machine, WindowData
from edge_agent.store import Draft, Store
from edge_agent.store.records import DOUBTED_UNTIL, Progress
from edge_agent.summarizer.events import Events, next_revision, stated
from edge_agent.summarizer.line import Again, Found, Job, JobFound, Line
from edge_agent.summarizer.site import Site
from edge_agent.timestamps import parse, rfc3339

HOUR_NS = 3_600 * 1_000_000_000
_LABELS = ("job", "downtime", "segments")
"""Of a production record: what may change although no time and no item does."""


class Issuer:
    """Makes the drafts of one piece of work."""

    def __init__(self, site: Site, store: Store) -> None:
        self._site = site
        self._store = store
        self._prefix = site.publisher.prefix
        self._events = Events(site, store)
        self.jobs_wanted = self._events.jobs_wanted

    def drafts(self, line: Line, job: Job, found: Found, now: int) -> list[Draft]:
        """Everything that is new or different, and the marks moved; within a transaction of the caller."""
        present = self._site.configuration.hash
        drafts = [*self._events.stops(line, job, found.stops, now)]
        for key, said, one in [*self._events.jobs(line, job, found, now)]:
            drafts += [] if said is None else [said]
            drafts += self._job_window(line, key, one, job, now)  # also where only its labels have changed
        filled: list[Draft] = []
        for each in job.again:
            draft = self._revision(line, each, found.windows[each.window, each.configuration], now)
            if draft is not None:
                filled += [draft] if each.before is None else []
                drafts.append(draft)
        drafts += self._filled_gaps(line, filled)
        for size, windows in job.due.items():
            if windows:
                data = [found.windows[window, present] for window in windows]
                drafts += self._new(line, size, data, {draft.key for draft in filled}, now)
        self._store.entries.looked_at(job.ids)
        if job.regular:
            for name, value in zip(facts_of(line), (job.look[1], found.unsettled or 0), strict=True):
                self._store.set_fact(name, value)
        return drafts

    # -------------------------------------------------------------------------------------------- windows

    def _new(
        self, line: Line, size: str, windows: list[WindowData], filled: Collection[str | None], now: int
    ) -> Iterable[Draft]:
        """The records of windows that close now; runs of windows under an hour without anything become one gap.

        But not those that may have been published by records that the store has lost. What was made in them is counted
        in the window in which it comes to light, so what was said of them holds no more, and that must be said.
        """
        name = line.of.machine.name
        doubted = self._doubted(line, windows[0].start_ns)
        closed, since, why = self._store.records.progress(name, size) or Progress(0)
        drafts: list[Draft] = []
        for window in windows:
            certain = not doubted[0] < window.end_ns <= doubted[1]
            cause = _blank_cause(window) if _under_an_hour(size) and certain else None
            if since is not None and why is not None and (cause != why or window.end_ns - since > HOUR_NS):
                drafts += self._new_gap(line, size, (since, window.start_ns), why, filled)
                since = None
            if cause is None:
                hash = self._site.configuration.hash
                drafts.append(self._window(line, Again(size, _span(window), "entry", hash, None), window, now))
            elif since is None:
                since, why = window.start_ns, cause
            closed = window.end_ns
        self._store.records.set_progress(name, size, Progress(closed, since, None if since is None else why))
        return drafts

    def _doubted(self, line: Line, start: int) -> Interval:
        """Where windows from `start` on may have been published in an epoch that the store does not know the end of.

        Only behind a reading from which a counter goes on: where there is none, nothing is counted twice.
        """
        until = self._store.fact(DOUBTED_UNTIL) or 0
        counted = [rules.tag for rules in line.of.machine.rules]
        first = self._store.readings.first_good(counted) if start < until else None
        return (until if first is None else first, until)

    def _revision(self, line: Line, each: Again, window: WindowData, now: int) -> Draft | None:
        """The next revision of a window that was looked at again; None when it says what was said before."""
        if each.before is None:
            # Windows of the calendar are always published: one that was not belongs to a calendar edited since.
            if each.size not in shifts.FIXED_WINDOWS_S or _blank_cause(window):
                return None
            return self._window(line, each, window, now)
        before = each.before["data"]
        draft = self._window(line, each, window, now)
        said, says = stated(before), stated(json.loads(record.freeze(draft.data)))
        if _under_an_hour(each.size):
            said, says = _without_labels(said), _without_labels(says)
        return None if said == says else draft

    def _window(self, line: Line, each: Again, window: WindowData, now: int) -> Draft:
        calendar, machine = self._site.basis_under(each.configuration).calendar, self._machine(line, each.configuration)
        before = each.before and each.before["data"]
        # A job is final with the day of its begin: after that its first readings are not kept.
        span = (window.start_ns, window.start_ns) if each.size == "job" else _span(window)
        until = self._site.revisable_until(calendar, *span)
        data = record.production_data(
            machine,
            calendar,
            each.size,
            window,
            next_revision(
                before, record.previous_of, each.why, until, now, self._store.records.first_revision(window.start_ns)
            ),
        )
        topic = record.production_topic(self._prefix, machine.subject, each.size)
        return Draft(
            "production", topic, machine.subject, data, data["key"], data["revision"], configuration=each.configuration
        )

    def _machine(self, line: Line, configuration: str) -> Machine:
        return self._site.machine(configuration, line.of.machine)

    # ----------------------------------------------------------------------------------------------- gaps

    def _new_gap(
        self, line: Line, size: str, span: Interval, cause: str, filled: Collection[str | None]
    ) -> Iterator[Draft]:
        """The gap of windows that were not published, unless late readings have filled all of them by now."""
        keys = [
            record.production_key(line.of.machine.subject, size, window[0])
            for window in shifts.windows(self._site.calendar, size, *span)
            if window[1] <= span[1]
        ]
        count = sum(1 for key in keys if key not in filled and self._store.records.latest(key) is None)
        if count:
            yield self._gap(line, size, span, cause, count)

    def _gap(self, line: Line, size: str, span: Interval, cause: str, count: int, **revised: Any) -> Draft:
        machine = line.of.machine
        data = record.gap_data(
            machine.subject, size, *span, cause,
            machine=machine.name, window=size, count=count, produced=0,
            topic=record.production_topic(self._prefix, machine.subject, size), **revised,
        )  # fmt: skip
        return Draft("gap", self._gap_topic, machine.subject, data, data["key"], data["revision"])

    @property
    def _gap_topic(self) -> str:
        return record.agent_topic(self._site.publisher, "gap")

    def too_late(self, line: Line, start: int, end: int, count: int) -> Draft:
        """The gap of readings that came after all they could change was final."""
        machine = line.of.machine
        data = record.gap_data(
            machine.subject, "readings", start, end, "too_late", machine=machine.name, count=count, produced=0
        )
        before = self._store.records.latest(data["key"])
        if before is not None:
            data |= {"revision": before["revision"] + 1, "count": before["count"] + count}
        return Draft("gap", self._gap_topic, machine.subject, data, data["key"], data["revision"])

    def _filled_gaps(self, line: Line, filled: Iterable[Draft]) -> Iterator[Draft]:
        """What gaps name less since windows in them were published after all; withdrawn where nothing is left."""
        by_key: dict[str, tuple[dict[str, Any], int]] = {}
        for draft in filled:
            prefix = f"{line.of.machine.subject}/gap/{draft.data['window']}/"
            start = parse(draft.data["start"])
            for data in self._store.records.latest_between(prefix, rfc3339(start), rfc3339(start)):
                if parse(data["start"]) <= start < parse(data["end"]) and not data["withdrawn"]:
                    by_key[data["key"]] = (data, by_key.get(data["key"], (data, 0))[1] + 1)
        for data, count in by_key.values():
            left = max(0, int(data["count"]) - count)
            yield self._gap(
                line, data["window"], (parse(data["start"]), parse(data["end"])), data["cause"], left,
                revision=data["revision"] + 1, withdrawn=not left,
            )  # fmt: skip

    # ------------------------------------------------------------------------------------------------ jobs

    def _job_window(self, line: Line, job_key: str, each: JobFound | None, job: Job, now: int) -> Iterator[Draft]:
        """The production record of a job's whole time, where it is wanted; its key has the start of the job's."""
        key = record.production_key(line.of.machine.subject, "job", parse(job_key.rpartition("/")[2]))
        if each is None or each.window is None:
            yield from self._events.withdrawn_window(line, key, job.why, now)
            return
        if "job" not in line.of.settings.summarize:
            return
        hash, before = each.configuration or self._site.configuration.hash, self._store.records.latest_event(key)
        why = job.why or "late_reading"
        draft = self._window(line, Again("job", _span(each.window), why, hash, before), each.window, now)
        draft.data["key"] = key
        if before is None or stated(before["data"]) != stated(json.loads(record.freeze(draft.data))):
            yield replace(draft, key=key)


def _span(window: WindowData) -> Interval:
    return window.start_ns, window.end_ns


def _under_an_hour(size: str) -> bool:
    return shifts.FIXED_WINDOWS_S.get(size, 3_600) < 3_600


def _blank_cause(window: WindowData) -> str | None:
    """Why nothing was observed in a window: its state unknown throughout, and no part booked in it; else None."""
    counted = any(tally is not None and tally != (0, 0, 0) for tally in window.quantities.values())
    if counted or window.times_ns["unknown"] != window.end_ns - window.start_ns:
        return None
    return max(window.missing_ns, key=window.missing_ns.__getitem__)


def _without_labels(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in _LABELS}


def facts_of(line: Line) -> tuple[str, str]:
    """The names under which the store remembers until when stops were looked for, and what is unsettled."""
    name = line.of.machine.name
    return f"looked.{name}", f"unsettled.{name}"
