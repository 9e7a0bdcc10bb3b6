"""Where people tell the agent something: what they say is checked, appended, published, and changes what was said."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from edge_agent import record
from edge_agent.clock import Clock
from edge_agent.config.labels import REASON_LENGTH, reason_path
from edge_agent.config.models import MachineSettings
from edge_agent.contract import NS_PER_S, EdgeAgentError
from edge_agent.entries import KINDS, SPANS, Entry, Kind, in_force, of_kind
from edge_agent.envelope import Envelope
from edge_agent.equipment import DELAY, DOWN
from edge_agent.equipment.work import jobs
from edge_agent.production import COUNTER_LOOKBACK_READINGS, History, Machine
from edge_agent.production.downtime import stops_of
from edge_agent.store import Draft, Issued, Store
from edge_agent.summarizer.site import Site
from edge_agent.timestamps import parse, rfc3339

LONGEST_TEXT = 1_000
MOST_FIELDS = 20
AHEAD_NS = 5 * NS_PER_S
"""A person's clock may be this much ahead of the gateway's."""
RECENT_NS = 7 * 86_400 * NS_PER_S
"""How far back the last stop is looked for, where a reason comes without a time."""
SEEN_NS = 3_600 * NS_PER_S
"""How far back the readings are looked at for a stop that no record tells yet."""
MOST_AHEAD_NS = 366 * 86_400 * NS_PER_S
"""How far ahead a stop may be planned."""
LARGEST = 2**63 - 1
"""The largest number, and the last time in ns, that the store keeps."""
MS = 1_000_000
"""People's times are whole milliseconds."""
_QUANTITIES = ("produced", "scrap", "rework")
_NOT_TEXT = {"Cc", "Cs", "Zl", "Zp"}
"""Of Unicode's categories: control characters, halves of pairs, separators of lines and paragraphs."""


class EntryRefused(EdgeAgentError):
    """What was told cannot be taken; the message says why and what to say instead."""


@dataclass(frozen=True)
class Request:
    """What a person says: the kind, of which machine, who, for when (ns; None: now), and what its kind holds."""

    kind: Kind
    machine: str
    by: str
    start: int | None
    end: int | None
    body: Mapping[str, Any]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Request:
        """A request as the command line sends it.

        Raises:
            EntryRefused: there is no such kind, or it is no request.
        """
        kind, body = given.get("kind"), given.get("body") or {}
        if kind not in KINDS:
            raise EntryRefused(f"{kind!r} is no kind of entry; there are: {', '.join(KINDS)}")
        if not isinstance(body, Mapping):
            raise EntryRefused(f"the body of an entry is an object, not {body!r}")
        by = _text(given.get("by") or given.get("peer") or "unknown", "who says it", REASON_LENGTH)
        start, end = _instant(given.get("start")), _instant(given.get("end"))
        return cls(kind, str(given.get("machine") or ""), by, start, end, body)


class Desk:
    """Takes entries. Every method belongs to the store's thread."""

    def __init__(self, site: Site, store: Store, envelope: Envelope, clock: Clock) -> None:
        self._site = site
        self._store = store
        self._envelope = envelope
        self._clock = clock

    def take(self, request: Request, made: int | None = None) -> Entry:
        """Check a request, append it as an entry, publish its record, and re-open what it changes.

        Args:
            request: what a person says.
            made: when it was said; None: now.

        Raises:
            EntryRefused: it cannot be taken.
        """
        now = self._clock.now() if made is None else made
        if request.kind == "withdraw" and not request.machine:
            request = replace(request, machine=self._earlier(request).machine)
        settings, machine = self._machine(request.machine)
        start, end = self._time(request, machine, now)
        body = _BODIES[request.kind](self, request, settings, machine, start)
        with self._store.transaction():
            entry = self._store.entries.append(machine.name, request.kind, request.by, now, start, end, body)
            self._reopen(machine, entry, now)
            self._publish(machine, entry, now)
        return entry

    def _publish(self, machine: Machine, entry: Entry, now: int) -> None:
        def freeze(draft: Draft, issued: Issued) -> bytes:
            return self._envelope.freeze(draft.type, draft.subject, draft.data, issued)

        epoch = self._store.identity.epoch if self._store.identity else 0
        data = record.entry_data(machine.subject, epoch, entry)
        topic = record.entry_topic(self._site.publisher.prefix, machine.subject)
        self._store.issue([Draft("entry", topic, machine.subject, data, data["key"])], freeze, now)

    def _reopen(self, machine: Machine, entry: Entry, now: int) -> None:
        """Have looked at again what an entry may change."""
        start, end = entry.start_ns, max(entry.end_ns, entry.start_ns + 1)
        if entry.kind == "note":
            return
        if entry.kind == "withdraw":
            earlier = self._store.entries.numbered(int(entry.body["entry"]))
            if earlier is not None:
                self._reopen(machine, earlier, now)
            return
        if entry.kind in ("job-start", "job-end"):
            later = of_kind(in_force(self._store.entries.of(machine.name, start, now + 1)), "job-start", "job-end")
            end = min([now, *(each.start_ns for each in later if each.start_ns > start)]) + 1
        if entry.kind == "counter-replaced":
            end = self._decided(str(entry.body["tag"]), start, now) + 1
        if start < now:
            self._store.entries.reopen(machine.name, start, max(end, start + 1), "entry", now)

    def _decided(self, tag: str, start: int, now: int) -> int:
        """When so many readings had come that a jump at `start` was decided, and booked or put aside; else now."""
        time: int | None = start - 1
        for _ in range(COUNTER_LOOKBACK_READINGS):
            time = None if time is None else self._store.readings.next_good(tag, time)
        return now if time is None else time

    # --------------------------------------------------------------------------------------------- checks

    def _machine(self, name: str) -> tuple[MachineSettings, Machine]:
        settings = self._site.configuration.machines.get(name)
        if f"machines.{name}" in self._site.configuration.disabled:
            raise EntryRefused(f"{name} is disabled, because its configuration is wrong; `edge-agent check` says where")
        if settings is None:
            raise EntryRefused(f"there is no machine {name!r}{_nearest(name, self._site.configuration.machines)}")
        return settings, self._site.basis.machines[name]

    def _time(self, request: Request, machine: Machine, now: int) -> tuple[int, int]:
        """From when to when an entry speaks."""
        start, end = request.start, request.end
        if request.kind == "reason" and start is None:
            if end is not None:
                raise EntryRefused(f"since when, until {rfc3339(end)}? give --from too, or neither for the last stop")
            start, end = self._last_stop(machine, now)
        if request.kind == "withdraw":
            start = end = self._withdrawn(request, machine).start_ns
        start = (now if start is None else start) // MS * MS
        end = end and -(-end // MS) * MS
        if request.kind not in SPANS:
            end = start
        elif end is None and request.kind == "planned-stop":
            raise EntryRefused("until when is it planned? give --to, or --for such as 2 h")
        end = start + MS if end is None else end
        if request.kind in SPANS and end <= start:
            raise EntryRefused(f"it would end at {rfc3339(end)}, before it begins at {rfc3339(start)}")
        self._refuse_future(request.kind, start, end, now)
        self.refuse_final(start, now)
        return start, end

    def refuse_final(self, start: int, now: int) -> None:
        """Refuse what is of a time that cannot change any more.

        Raises:
            EntryRefused: it is.
        """
        horizon = self._site.horizon(now)
        if start < horizon:
            raise EntryRefused(
                f"{rfc3339(start)} is before {rfc3339(horizon)}, and what was before that is final "
                "(buffer.keep_readings); correct it where it was posted"
            )

    @staticmethod
    def _refuse_future(kind: Kind, start: int, end: int, now: int) -> None:
        """Only a planned stop is known before it comes; and what was said of one may be withdrawn before."""
        if kind == "planned-stop" and end > now + MOST_AHEAD_NS:
            raise EntryRefused(f"{rfc3339(end)} is more than a year from now; is the year right?")
        if kind in ("planned-stop", "withdraw"):
            return
        if start > now + AHEAD_NS:
            raise EntryRefused(f"{rfc3339(start)} is still to come; only a planned-stop may be said in advance")
        if end > now + AHEAD_NS + MS:
            raise EntryRefused(
                f"{rfc3339(end)} is still to come, and so are its stops; without --to it is the stop that goes on"
            )

    def _last_stop(self, machine: Machine, now: int) -> tuple[int, int]:
        """The time of the stop that goes on, or was the last.

        Readings are asked before records: a stop that has only begun, or has just ended, has no record yet.
        """
        prefix = f"{machine.subject}/downtime/"
        stops = self._store.records.latest_between(prefix, rfc3339(now - RECENT_NS), rfc3339(now))
        told = [
            (parse(stop["start"]), parse(stop["end"]) if stop["end"] else now)
            for stop in stops
            if not stop["withdrawn"]
        ]
        seen = self._seen_stop(machine, now)
        if seen is None and not told:
            raise EntryRefused(f"{machine.name} has had no stop in a week; say for when: --from and --to")
        start, end = seen or max(told)
        start = min([start, *(begin for begin, until in told if begin <= start <= until)])
        return start, max(start, min(now, end)) + 1

    def _seen_stop(self, machine: Machine, now: int) -> tuple[int, int] | None:
        """The last stop that the readings of the last hour show, breaks aside; None where there is none."""
        since = now - SEEN_NS
        rows = self._store.readings.steps_of(machine.tags, since, now)
        entries = self._store.entries.of(machine.name, since, now)
        history = History(machine, self._site.calendar, rows, (since, now), now, entries)
        last = history.stops[-1] if history.stops else None
        if last is not None and last.open and history.timeline.labels[-1] in (DELAY, DOWN):
            return last.start_ns, now
        facts = stops_of(history)
        return (facts[-1].start_ns, facts[-1].end_ns or now) if facts else None

    def _earlier(self, request: Request) -> Entry:
        number = request.body.get("entry")
        earlier = self._store.entries.numbered(int(number or 0)) if _whole(number, 1, LARGEST) else None
        if earlier is None:
            raise EntryRefused(f"there is no entry {number}; `edge-agent records --type entry` lists them")
        return earlier

    def _withdrawn(self, request: Request, machine: Machine) -> Entry:
        earlier, number = self._earlier(request), request.body.get("entry")
        if earlier.machine != machine.name:
            raise EntryRefused(f"entry {number} is of {earlier.machine}, not of {machine.name}")
        if earlier.kind == "withdraw":
            raise EntryRefused(f"entry {number} withdraws another; say that one anew instead")
        told = self._store.entries.of(machine.name, earlier.start_ns, earlier.start_ns + 1)
        if earlier.number not in {entry.number for entry in in_force(told)}:
            raise EntryRefused(f"entry {number} is withdrawn already")
        return earlier

    # --------------------------------------------------------------------------------------------- bodies

    def _reason(self, request: Request, settings: MachineSettings, *_: Any) -> dict[str, Any]:
        return {"reason": _reason_of(request.body.get("reason"), settings)}

    def _planned(self, request: Request, settings: MachineSettings, *_: Any) -> dict[str, Any]:
        reason = request.body.get("reason")
        return {} if reason is None else {"reason": _reason_of(reason, settings)}

    def _items(self, request: Request, *_: Any) -> dict[str, Any]:
        reason = request.body.get("reason")
        body: dict[str, Any] = {"count": _count(request.body.get("count"))}
        return body if reason is None else body | {"reason": _path(reason)}

    def _correction(self, request: Request, *_: Any) -> dict[str, Any]:
        quantity = request.body.get("quantity") or "produced"
        if quantity not in _QUANTITIES:
            raise EntryRefused(f"{quantity!r} cannot be corrected; there are: {', '.join(_QUANTITIES)}")
        return {"count": _count(request.body.get("count")), "quantity": quantity}

    def _job_start(self, request: Request, settings: MachineSettings, machine: Machine, start: int) -> dict[str, Any]:
        _refuse_tag_jobs(machine)
        body: dict[str, Any] = {"job": _text(request.body.get("job"), "the job's name, such as WO-1001", REASON_LENGTH)}
        for name in ("operation", "product"):
            if request.body.get(name) is not None:
                body[name] = _text(request.body[name], f"the {name}", REASON_LENGTH)
        planned = request.body.get("planned_quantity")
        if planned is not None:
            if _count(planned) < 0:
                raise EntryRefused(f"a planned quantity is at least 1, not {planned}")
            body["planned_quantity"] = planned
        fields = request.body.get("fields") or {}
        if not isinstance(fields, Mapping) or len(fields) > MOST_FIELDS:
            raise EntryRefused(f"a job has at most {MOST_FIELDS} fields, each a name and its text")
        return body | ({"fields": {_text(k, "a field"): _text(v, k) for k, v in fields.items()}} if fields else {})

    def _job_end(self, request: Request, settings: MachineSettings, machine: Machine, start: int) -> dict[str, Any]:
        _refuse_tag_jobs(machine)
        told = in_force(self._store.entries.of(machine.name, start, start + 1))
        if not any(job.end_ns is None for job in jobs(machine.worked, {}, told, start + 1)):
            raise EntryRefused(f"{machine.name} has no job in work at {rfc3339(start)}")
        return {}

    def _replaced(self, request: Request, settings: MachineSettings, *_: Any) -> dict[str, Any]:
        counters = {
            count.tag: count.rollover
            for several in settings.counts.values()
            for count in several
            if count.kind == "counter"
        }
        tag = request.body.get("tag") or (next(iter(counters)) if len(counters) == 1 else None)
        if tag not in counters:
            what = f"{tag} is none" if tag else "say which with --tag"
            raise EntryRefused(f"{what} of the counters: {', '.join(counters) or 'this machine has none'}")
        value, most = request.body.get("value"), (counters[tag] or LARGEST) - 1
        if value is not None and not _whole(value, 0, most):
            raise EntryRefused(f"{tag} shows a whole number from 0 to {most}, not {value!r}")
        return {"tag": tag} if value is None else {"tag": tag, "value": value}

    def _note(self, request: Request, *_: Any) -> dict[str, Any]:
        return {"text": _text(request.body.get("text"), "the text")}

    def _withdraw(self, request: Request, settings: MachineSettings, machine: Machine, start: int) -> dict[str, Any]:
        return {"entry": self._withdrawn(request, machine).number}


_BODIES: Mapping[Kind, Callable[..., dict[str, Any]]] = {
    "reason": Desk._reason,
    "scrap": Desk._items,
    "rework": Desk._items,
    "correction": Desk._correction,
    "planned-stop": Desk._planned,
    "job-start": Desk._job_start,
    "job-end": Desk._job_end,
    "counter-replaced": Desk._replaced,
    "note": Desk._note,
    "withdraw": Desk._withdraw,
}


def _refuse_tag_jobs(machine: Machine) -> None:
    if machine.worked.job_tag is not None:
        raise EntryRefused(f"the jobs of {machine.name} begin and end by the tag {machine.worked.job_tag}")


def _reason_of(given: Any, settings: MachineSettings) -> str:
    """A reason that this machine's stops may have."""
    reason, known = _path(given), settings.reason.reasons if settings.reason else ()
    if settings.reason is None or not settings.reason.tree or reason in known:
        return reason
    raise EntryRefused(
        f"{reason!r} is none of the reasons of this machine{_nearest(reason, known)}; they stand in its reason.tree"
    )


def _path(given: Any) -> str:
    try:
        return reason_path(_text(given, "the reason"))
    except ValueError as error:
        raise EntryRefused(str(error)) from error


def _count(given: Any) -> int:
    if not _whole(given, -(10**12), 10**12) or given == 0:
        raise EntryRefused(f"{given!r} is no number of items: a whole number, below 0 to take back")
    return int(given)


def _whole(given: Any, least: int, most: int) -> bool:
    """Whether it is a whole number from `least` to `most`."""
    return isinstance(given, int) and not isinstance(given, bool) and least <= given <= most


def _instant(given: Any) -> int | None:
    """A time in ns, as far as it is one at all."""
    if given is not None and not _whole(given, 0, LARGEST):
        raise EntryRefused(f"{given!r} is no time from 1970 to 2262, in ns")
    return int(given) if given is not None else None


def _text(given: Any, what: str, longest: int = LONGEST_TEXT) -> str:
    text = str(given).strip() if given is not None else ""
    if not text:
        raise EntryRefused(f"{what} is missing")
    if len(text) > longest:
        raise EntryRefused(f"{what} has at most {longest} characters, not {len(text)}")
    if any(unicodedata.category(character) in _NOT_TEXT for character in text):
        raise EntryRefused(f"{what} is text on one line, without control characters")
    return text


def _nearest(given: str, known: Any) -> str:
    by_folded = {str(name).casefold(): name for name in known}
    near = get_close_matches(given.casefold(), by_folded, 1)
    return f"; did you mean {by_folded[near[0]]!r}?" if near else f"; there are: {', '.join(known) or 'none'}"
