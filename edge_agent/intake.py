"""What happens to a reading between its driver and the store: time, scale, plausibility, report by exception.

A reading is stored when its value or quality changes beyond the deadband, and at least every refresh, so that the
stored readings of a tag are a step function with explicit holes. Loss is written down as BAD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any

from edge_agent.contract import NS_PER_S, Quality, Reading, Tag, Value
from edge_agent.store.readings import Row
from edge_agent.store.values import PACKED, pack

SIGN_OF_LIFE_NS = 10 * NS_PER_S
"""How far apart the signs of life of a stream may be, as its contract says."""
SHOWN = 32
KINDS: frozenset[type] = frozenset({bool, int, float, str, bytes, tuple, type(None)})
NOTHING = object()
"""The value of a tag that has never been stored: equal to none."""


class TagState:
    """What is known of one tag: how its readings are treated, the one that was stored last, and what was lost.

    Attributes:
        lost_since: since when nothing is known, until its history has been asked for; None: nothing is missing.
        lost_after: the newest time that the device itself had given by then.
        device_time: the newest time that it has given.
        server_time: the newest that its server has given, where there is one between.
        resumed: whether it has given one since the loss.
        shown: the first one after each of the last losses: what the device showed, though it may have happened earlier.
    """

    __slots__ = (
        "cause", "deadband", "device_time", "divisor", "id", "lost_after", "lost_since", "machine", "max_skew_ns",
        "name", "offset", "place", "quality", "raw", "refresh_ns", "resumed", "scale", "scaled", "server_time", "shown",
        "simple", "skew_ns", "stored", "stream", "unit", "value",
    )  # fmt: skip

    def __init__(self, tag: Tag, number: int, *, machine: bool, refresh_ns: int, max_skew_ns: int) -> None:
        settings = tag.settings
        self.name, self.place, self.id, self.machine = tag.name, tag.place, number, int(machine)
        self.unit = settings.unit
        scale = 1.0 if settings.scale is None else settings.scale
        # 202 * 0.1 is 20.200000000000003, 202 / 10 is 20.2: a scale that is one over a whole number divides by it.
        whole = scale != 0 and abs(1 / scale) >= 1 and 1 / round(1 / scale) == scale
        self.scale, self.divisor = (1.0, float(round(1 / scale))) if whole else (scale, 1.0)
        self.offset = 0.0 if settings.offset is None else settings.offset
        self.scaled = (scale, self.offset) != (1.0, 0.0)
        self.deadband = (settings.deadband or 0.0) * (1 + 1e-12)
        self.stream = settings.store == "every"
        self.refresh_ns = -1 if self.stream else refresh_ns
        self.max_skew_ns = max_skew_ns
        self.skew_ns = 0
        self.lost_since: int | None = None
        self.lost_after: int | None = None
        self.device_time: int | None = None
        self.server_time: int | None = None
        self.resumed = False
        self.shown: tuple[int, ...] = ()
        self.value: Any = NOTHING
        self.quality = Quality.BAD
        self.cause: str | None = None
        self.stored = 0
        self.raw: Value = None
        self.simple = not (self.scaled or self.deadband or self.stream)


class Intake:
    """Readings in, rows for the store out; one object for the whole agent, owned by the event loop.

    Attributes:
        received: how many readings came in.
        stored: how many of them became rows.
        turned: the tags that have gone bad or come back since the list was last emptied.
    """

    def __init__(self, states: Mapping[Tag, TagState]) -> None:
        self.states = states
        self.received = 0
        self.stored = 0
        self.turned: list[tuple[Tag, Quality, str | None]] = []

    def accept(self, readings: Sequence[Reading], received: int) -> list[Row]:
        """The rows that these readings, received together at the wall time `received`, add to the store."""
        rows: list[Row] = []
        states, append, good = self.states, rows.append, Quality.GOOD
        value: Any
        for tag, time, value, quality, cause, _, server in readings:
            state = states[tag]
            kind, stored = value.__class__, state.stored
            # Most readings of a busy plant: a whole number that was polled, as good as the one before, and another.
            # They take this short way, which costs half of the long one below and comes to the same.
            if (
                kind is int
                and quality is good is state.quality
                and cause is state.cause
                and time is None
                and value != state.value
                and received > stored
                and state.simple
            ):
                state.value, state.stored = value, received
                append((state.id, received, value, 0, cause, None, state.machine, None, None))
                continue
            if state.stream and not state.resumed and time is not None and time == state.device_time:
                state.resumed = True  # each event counts once: the device shows its last one again after a reconnect
                continue
            if kind is not int and kind is not float and kind not in KINDS:
                value, quality, cause = _plain(value, quality, cause)
                kind = value.__class__
            state.raw = value
            if kind is float and not isfinite(value):
                value, quality, cause = None, Quality.BAD, "not_a_number"
            elif state.scaled and (kind is int or kind is float):
                value = value * state.scale / state.divisor + state.offset  # as `converted`, without its call
            if (
                value == state.value
                and quality == state.quality
                and received - stored < state.refresh_ns
                and cause == state.cause
            ):
                continue
            if state.deadband and received - stored < state.refresh_ns and _within(value, quality, state):
                continue
            if quality == Quality.BAD or state.quality == Quality.BAD:
                self.turned.append((tag, Quality(quality), cause))
            # From here on it is `_row` written out: a call for each row would cost a quarter of the whole.
            late = source = None
            if time is None and received > stored:
                at = received
            else:
                at = _dated(state, _plausible(state, time, received), received)
                late = None if at == received else received
                source = None if time is None else _after(at, time)
                if server is not None:
                    state.server_time, server = server, _after(at, server)
            state.value, state.quality, state.cause, state.stored = value, quality, cause, at
            cell = value if kind is int or kind not in PACKED else pack(value)
            # A plain int for the quality, because SQLite binds an enumeration's member several times slower.
            number = 0 if quality is good else int(quality)
            append((state.id, at, cell, number, cause, late, state.machine, source, server))
        self.received += len(readings)
        self.stored += len(rows)
        return rows

    def hold(self, tags: Iterable[Tag], received: int) -> list[Row]:
        """The rows of a link that lives without news: what holds is stored again before its refresh is due.

        The next such sign of life may come 10 s later, and until then the value must not go stale.
        """
        rows = []
        for tag in tags:
            state = self.states[tag]
            early = min(SIGN_OF_LIFE_NS, state.refresh_ns // 2)
            if state.stream or state.value is NOTHING or received - state.stored < state.refresh_ns - early:
                continue
            rows.append(_row(state, None, state.value, state.quality, state.cause, received))
        return rows

    def lost(self, tags: Iterable[Tag], last_seen: int, cause: str) -> list[Row]:
        """The rows that say why nothing is known of these tags after `last_seen`, the time of the last good poll."""
        rows = []
        for tag in tags:
            state = self.states[tag]
            state.resumed = False
            if state.quality == Quality.BAD and state.cause == cause:
                continue
            if state.lost_since is None and state.value is not NOTHING:
                state.lost_since, state.lost_after = last_seen + 1, state.device_time
            rows.append(_row(state, last_seen + 1, None, Quality.BAD, cause, last_seen + 1))
        return rows

    def leapt(self, tags: Iterable[Tag], before: int, now: int) -> list[Row]:
        """The rows for a time that never was: the agent's own went from `before` to `now` in one moment.

        Nothing is known of it; what held then still holds after it.
        """
        rows = []
        for tag in tags:
            state = self.states[tag]
            if state.stream or state.value is NOTHING or state.quality == Quality.BAD:
                continue
            value, quality, cause = state.value, state.quality, state.cause
            rows.append(_row(state, None, None, Quality.BAD, "agent_down", before + 1))
            rows.append(_row(state, None, value, quality, cause, now))
        return rows

    def set_forward(self, ns: int, began: int) -> None:
        """Date what was accepted since `began` later by `ns`, as `later` does with its rows."""
        for state in self.states.values():
            if state.stored:
                state.stored += ns
            if state.lost_since is not None and state.lost_since > began + 1:
                state.lost_since += ns
            if state.device_time is not None:
                state.skew_ns -= ns


def later(row: Row, ns: int) -> Row:
    """The row dated later by `ns`. What the device's and its server's clocks said stays as it is."""
    tag, time, cell, quality, cause, received, machine, source, server = row
    return (
        tag,
        time + ns,
        cell,
        quality,
        cause,
        None if received is None else received + ns,
        machine,
        None if source is None else _after(time + ns, time + source),
        None if server is None else _after(time + ns, time + server),
    )


def converted(state: TagState, reading: Reading) -> tuple[Value, Quality, str | None]:
    """Value, quality and cause of a reading as they are stored: scaled, and finite or BAD."""
    value, quality, cause = reading.value, reading.quality, reading.cause
    if value.__class__ not in KINDS:
        value, quality, cause = _plain(value, quality, cause)
    if isinstance(value, float) and not isfinite(value):
        return None, Quality.BAD, "not_a_number"
    if state.scaled and isinstance(value, int | float) and not isinstance(value, bool):
        value = value * state.scale / state.divisor + state.offset
    return value, quality, cause


def _plain(value: Any, quality: Quality, cause: str | None) -> tuple[Value, Quality, str | None]:
    """What a driver gave that is no `Value`, as one: a number of NumPy's, a member of an enumeration; else BAD."""
    plain: dict[type, Callable[[Any], Value]] = {Integral: int, Real: float, str: str, bytes: bytes}
    for kind, make in plain.items():
        if isinstance(value, kind):
            return make(value), quality, cause
    return None, Quality.BAD, f"unsupported_type {type(value).__name__}"


def _within(value: Any, quality: Quality, state: TagState) -> bool:
    """Whether a number of the same quality lies within the deadband of the one stored last."""
    return (
        quality == state.quality != Quality.BAD
        and isinstance(value, int | float)
        and isinstance(state.value, int | float)
        and abs(value - state.value) <= state.deadband
    )


def _row(state: TagState, time: int | None, value: Any, quality: Quality, cause: str | None, received: int) -> Row:
    """The row of a value, and its place as the one stored last."""
    time = _dated(state, time, received)
    state.value, state.quality, state.cause, state.stored = value, quality, cause, time
    late = None if time == received else received
    return (
        state.id,
        time,
        pack(value) if value.__class__ in PACKED else value,
        int(quality),
        cause,
        late,
        state.machine,
        None,
        None,
    )


def _dated(state: TagState, time: int | None, received: int) -> int:
    """The time of a row: the device's or that of receipt, after the tag's last, so that no row hides a newer one."""
    if time is None or time <= state.stored:
        return received if received > state.stored else state.stored + 1
    return time


def _after(time: int, given: int) -> int | None:
    """How many nanoseconds after the row's time another clock's lies; None where no column could hold it."""
    after = given - time
    return after if -(2**63) <= after < 2**63 else None


def _plausible(state: TagState, time: int | None, received: int) -> int | None:
    """The device's time, unless its clock is too far off."""
    if time is None:
        return None
    if not state.resumed:
        state.resumed = True
        state.shown = (*state.shown[1 - SHOWN :], time)
    state.device_time = time
    state.skew_ns = time - received
    return time if -state.max_skew_ns <= state.skew_ns <= state.max_skew_ns else None
