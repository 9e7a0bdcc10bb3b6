"""Where people tell the agent something: what they say is checked, appended, published, and changes what was said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from edge_agent import record
from edge_agent.clock import Clock
from edge_agent.config.labels import reason_path
from edge_agent.config.models import MachineSettings
from edge_agent.contract import NS_PER_S, EdgeAgentError
from edge_agent.entries import KINDS, SPANS, Entry, Kind, in_force, of_kind
from edge_agent.envelope import Envelope
from edge_agent.equipment.work import jobs
from edge_agent.production import Machine
from edge_agent.store import Draft, Issued, Store
from edge_agent.summarizer.site import Site
from edge_agent.timestamps import parse, rfc3339

LONGEST_TEXT = 1_000
MOST_FIELDS = 20
AHEAD_NS = 5 * NS_PER_S
"""A person's clock may be this much ahead of the gateway's."""
RECENT_NS = 7 * 86_400 * NS_PER_S
"""How far back the last stop is looked for, where a reason comes without a time."""
MS = 1_000_000
"""People's times are whole milliseconds."""
_QUANTITIES = ("produced", "scrap", "rework")


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
            EntryRefused: there is no such kind.
        """
        kind = given.get("kind")
        if kind not in KINDS:
            raise EntryRefused(f"{kind!r} is no kind of entry; there are: {', '.join(KINDS)}")
        by = _text(given.get("by") or given.get("peer") or "unknown", "who")
        return cls(kind, str(given["machine"]), by, given.get("start"), given.get("end"), given.get("body") or {})


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
            later = of_kind(self._store.entries.of(machine.name, start, now + 1), "job-start", "job-end")
            end = min([now, *(each.start_ns for each in later if each.start_ns > start)]) + 1
        if entry.kind == "counter-replaced":
            end = (self._store.readings.next_good(str(entry.body["tag"]), start - 1) or now) + 1
        if start < now:
            self._store.entries.reopen(machine.name, start, max(end, start + 1), "entry", now)

    # --------------------------------------------------------------------------------------------- checks

    def _machine(self, name: str) -> tuple[MachineSettings, Machine]:
        settings = self._site.configuration.machines.get(name)
        if settings is None:
            raise EntryRefused(f"there is no machine {name!r}{_nearest(name, self._site.configuration.machines)}")
        return settings, self._site.basis.machines[name]

    def _time(self, request: Request, machine: Machine, now: int) -> tuple[int, int]:
        """From when to when an entry speaks."""
        start, end = request.start, request.end
        if request.kind == "reason" and start is None:
            start, end = self._last_stop(machine, now)
        if request.kind == "withdraw":
            start = end = self._withdrawn(request, machine).start_ns
        start = (now if start is None else start) // MS * MS
        end = end and -(-end // MS) * MS
        if request.kind not in SPANS:
            end = start
        elif end is None and request.kind == "planned-stop":
            raise EntryRefused("until when is it planned? give --to, or --for such as 2 h")
        end = start + 1 if end is None else end
        if request.kind in SPANS and end <= start:
            raise EntryRefused(f"it would end at {rfc3339(end)}, before it begins at {rfc3339(start)}")
        if request.kind != "planned-stop" and start > now + AHEAD_NS:
            raise EntryRefused(f"{rfc3339(start)} is still to come; only a planned-stop may be said in advance")
        horizon = self._site.horizon(now)
        if start < horizon:
            raise EntryRefused(
                f"{rfc3339(start)} is before {rfc3339(horizon)}, and what was before that is final "
                "(buffer.keep_readings); correct it where it was posted"
            )
        return start, end

    def _last_stop(self, machine: Machine, now: int) -> tuple[int, int]:
        """The time of the stop that goes on, or was the last."""
        prefix = f"{machine.subject}/downtime/"
        stops = self._store.records.latest_between(prefix, rfc3339(now - RECENT_NS), rfc3339(now))
        stops = [stop for stop in stops if not stop["withdrawn"]]
        if not stops:
            raise EntryRefused(f"{machine.name} has had no stop in a week; say for when: --from and --to")
        last = stops[-1]
        start = parse(last["start"])
        return start, max(start, min(now, parse(last["end"]) if last["end"] else now)) + 1

    def _earlier(self, request: Request) -> Entry:
        number = request.body.get("entry")
        earlier = self._store.entries.numbered(number) if isinstance(number, int) else None
        if earlier is None:
            raise EntryRefused(f"there is no entry {number}; `edge-agent records --type entry` lists them")
        return earlier

    def _withdrawn(self, request: Request, machine: Machine) -> Entry:
        earlier, number = self._earlier(request), request.body.get("entry")
        if earlier.machine != machine.name:
            raise EntryRefused(f"entry {number} is of {earlier.machine}, not of {machine.name}")
        if earlier.kind == "withdraw":
            raise EntryRefused(f"entry {number} withdraws another; say that one anew instead")
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
        body: dict[str, Any] = {"job": _text(request.body.get("job"), "the job's name, such as WO-1001")}
        for name in ("operation", "product"):
            if request.body.get(name) is not None:
                body[name] = _text(request.body[name], f"the {name}")
        planned = request.body.get("planned_quantity")
        if planned is not None:
            body["planned_quantity"] = _count(planned)
        fields = request.body.get("fields") or {}
        if len(fields) > MOST_FIELDS:
            raise EntryRefused(f"a job has at most {MOST_FIELDS} fields")
        return body | ({"fields": {_text(k, "a field"): _text(v, k) for k, v in fields.items()}} if fields else {})

    def _job_end(self, request: Request, settings: MachineSettings, machine: Machine, start: int) -> dict[str, Any]:
        _refuse_tag_jobs(machine)
        told = in_force(self._store.entries.of(machine.name, start, start + 1))
        if not any(job.end_ns is None for job in jobs(machine.worked, {}, told, start + 1)):
            raise EntryRefused(f"{machine.name} has no job in work at {rfc3339(start)}")
        return {}

    def _replaced(self, request: Request, settings: MachineSettings, *_: Any) -> dict[str, Any]:
        counters = [count.tag for several in settings.counts.values() for count in several if count.kind == "counter"]
        tag = request.body.get("tag") or (counters[0] if len(counters) == 1 else None)
        if tag not in counters:
            what = f"{tag} is none" if tag else "say which with --tag"
            raise EntryRefused(f"{what} of the counters: {', '.join(counters) or 'this machine has none'}")
        value = request.body.get("value")
        if value is not None and (not isinstance(value, int) or value < 0):
            raise EntryRefused(f"a counter shows a whole number of at least 0, not {value!r}")
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
    if isinstance(given, bool) or not isinstance(given, int) or given == 0 or abs(given) > 10**12:
        raise EntryRefused(f"{given!r} is no number of items: a whole number, below 0 to take back")
    return given


def _text(given: Any, what: str) -> str:
    text = str(given).strip() if given is not None else ""
    if not text or len(text) > LONGEST_TEXT or not text.isprintable():
        raise EntryRefused(f"{what} is missing, or is not one line of at most {LONGEST_TEXT} characters")
    return text


def _nearest(given: str, known: Any) -> str:
    near = get_close_matches(given, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known) or 'none'}"
