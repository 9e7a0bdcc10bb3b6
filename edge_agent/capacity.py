"""How long the buffer lasts without anything going: what a configuration writes, against `buffer.max_size`."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from edge_agent.config import Configuration, computed_windows
from edge_agent.config.models import BufferSettings
from edge_agent.contract import NS_PER_S
from edge_agent.housekeeping import FULL_RATIO
from edge_agent.machines import tags_of
from edge_agent.shifts import FIXED_WINDOWS_S

READING_BYTES, INDEX_BYTES, RECORD_BYTES = 31, 29, 4_200
"""What a row takes on disk, measured: a reading, its place in the index of what machines draw on, a record."""
_LONG_WINDOW_S = 8 * 3_600


class Capacity(NamedTuple):
    """Hours until `max_size` is reached: when every value changes at each poll, and when none ever does.

    Infinite where what `keep_readings` and `keep_records` ask for has room.
    """

    busy_h: float
    quiet_h: float


def capacity(configuration: Configuration) -> Capacity:
    """The hours of room of a configuration."""
    machines = configuration.machines.values()
    drawn_on = {tag for machine in machines for tag in tags_of(machine)}
    records = sum(
        RECORD_BYTES / FIXED_WINDOWS_S.get(size, _LONG_WINDOW_S)
        for machine in machines
        for size in computed_windows(machine)
    )
    busy = quiet = 0.0
    refresh_s = configuration.buffer.refresh / NS_PER_S
    for device in configuration.devices.values():
        for tag in device.tags:
            size = READING_BYTES + (INDEX_BYTES if tag.name in drawn_on else 0)
            busy += size * NS_PER_S / tag.poll_ns
            quiet += 0 if tag.settings.store == "every" else size / max(refresh_s, tag.poll_ns / NS_PER_S)
    return Capacity(_hours(configuration.buffer, busy, records), _hours(configuration.buffer, quiet, records))


def _hours(buffer: BufferSettings, readings: float, records: float) -> float:
    """Hours until so many bytes of readings and of records a second fill the buffer, less what is old meanwhile."""
    room, time_s = buffer.max_size * FULL_RATIO, 0.0
    rates = sorted([(buffer.keep_readings / NS_PER_S, readings), (buffer.keep_records / NS_PER_S, records)])
    for place, (kept_s, _) in enumerate(rates):  # from then on as much goes of this kind as comes
        rate = sum(each for _, each in rates[place:])
        if rate * (kept_s - time_s) > room:
            return (time_s + room / rate) / 3_600
        room, time_s = room - rate * (kept_s - time_s), kept_s
    return inf


def told(hours: float) -> str:
    """Hours for people: `53 h`, `12 days`."""
    return f"{hours:.0f} h" if hours < 100 else f"{hours / 24:,.0f} days"
