"""A machine's settings, as people write them, to what the arithmetic needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from edge_agent.config import computed_windows
from edge_agent.config.labels import ReasonSettings
from edge_agent.config.models import CalendarSettings, CountSettings, MachineSettings, ModeSettings
from edge_agent.contract import NS_PER_S
from edge_agent.equipment import (
    CounterRules,
    CountRules,
    FromCount,
    IncrementRules,
    PulseRules,
    Rules,
    StateSource,
    StatusMap,
)
from edge_agent.equipment.named_maps import PRODUCTION
from edge_agent.equipment.rules import parse
from edge_agent.equipment.stops import ReasonRules
from edge_agent.equipment.work import WorkRules
from edge_agent.metrics import Definition
from edge_agent.production import Machine
from edge_agent.shifts import Calendar, Shift, minutes

POLLS_HELD = 3
"""A value holds for the refresh and this many polls without a new reading, then it is unknown."""


@dataclass(frozen=True, slots=True)
class Summarized:
    """One machine with the windows that are computed for it, by the names in records, and when they close."""

    machine: Machine
    settings: MachineSettings
    windows: tuple[str, ...]
    settle_ns: int


def tags_of(settings: MachineSettings) -> tuple[str, ...]:
    """The tags that a machine draws on, each once."""
    tags = [*_source(settings).tags]
    tags += [count.tag for several in settings.counts.values() for count in several]
    tags += [*settings.label_tags, *(part.tag for part in settings.process.values())]
    return tuple(dict.fromkeys(tags))


def summarized(
    name: str, settings: MachineSettings, subject: str, polls_ns: Mapping[str, int], refresh_ns: int
) -> Summarized:
    """A machine as the summarizer takes it.

    Args:
        name: the machine's.
        settings: what the configuration says of it.
        subject: its path, `enterprise/site/area/line/machine`.
        polls_ns: how often each tag is polled, in ns.
        refresh_ns: how often an unchanged reading is stored, in ns.
    """
    machine = Machine(
        name=name,
        subject=subject,
        state=_source(settings),
        hold_ns={tag: refresh_ns + POLLS_HELD * polls_ns[tag] for tag in tags_of(settings)}
        | dict.fromkeys(_increments(settings)),
        counts={
            str(quantity): tuple(_rules(count, settings) for count in several)
            for quantity, several in settings.counts.items()
        },
        reasons=_reasons(settings.reason),
        work=_work(settings),
        goal=settings.goal,
        definition=Definition(
            planned_run_time_ns=settings.planned_run_time_per_item,
            short_stop_ns=settings.short_stop,
            short_stop_counts_as=settings.short_stop_counts_as,
            setup_counts_as=settings.setup_counts_as,
            idle_counts_as=settings.idle_counts_as,
            planned_stop_counts_as=settings.planned_stop_counts_as,
            when_offline=settings.when_offline,
            state_from=_state_from(settings),
            stopped_after_ns=settings.stopped_after_ns,
        ),
    )
    return Summarized(machine, settings, computed_windows(settings), settings.settle)


def _reasons(given: ReasonSettings | None) -> ReasonRules:
    if given is None:
        return ReasonRules()
    return ReasonRules(given.tag, dict(given.map or {}), given.tree, given.planned_stop)


def _work(settings: MachineSettings) -> WorkRules:
    product, job = settings.product, settings.job
    return WorkRules(
        product_tag=product.tag if product else None,
        by_product_ns=dict(settings.product_run_times_ns),
        planned_run_time_ns=settings.planned_run_time_per_item,
        job_tag=job.tag if job else None,
        operation_tag=job.operation if job else None,
        planned_quantity_tag=job.planned_quantity if job else None,
        field_tags=dict(job.fields) if job else {},
    )


def _state_from(settings: MachineSettings) -> Literal["status", "status_and_mode", "rules", "count"]:
    if settings.state.when is not None:
        return "rules"
    if settings.state.from_count is not None:
        return "count"
    return "status" if settings.state.mode is None else "status_and_mode"


def _source(settings: MachineSettings) -> StateSource:
    state, mode = settings.state, settings.state.mode
    if state.when is not None:
        return Rules(tuple((word, parse(text)) for word, text in state.when.items()))
    if state.tag is not None and state.map is not None:
        return StatusMap(state.tag, dict(state.map), None if mode is None else StatusMap(mode.tag, _mode_words(mode)))
    if settings.stopped_after_ns is None:
        raise ValueError("a state comes from a status, from rules, or from the count with a planned run time")
    counts, products = tuple(_rules(count, settings) for count in settings.counted), settings.product_run_times_ns
    if settings.product is None or settings.product.tag is None or not products:
        return FromCount(counts, settings.stopped_after_ns)
    by_product = {name: settings.stopped_after(run_time_ns) or 0 for name, run_time_ns in products.items()}
    return FromCount(counts, settings.stopped_after_ns, settings.product.tag, by_product)


def _mode_words(mode: ModeSettings) -> dict[Any, str]:
    return {value: "producing" if word == PRODUCTION else word for value, word in mode.map.items()}


def _rules(count: CountSettings, settings: MachineSettings) -> CountRules:
    if count.kind == "pulse":
        return PulseRules(count.tag, count.items_per_count, count.reason)
    if count.kind == "increment":
        return IncrementRules(count.tag, count.max_rate, count.items_per_count, count.reason)
    max_rate = count.max_rate
    if max_rate is None and settings.shortest_run_time_ns is not None:
        max_rate = Fraction(3 * NS_PER_S, settings.shortest_run_time_ns)
    return CounterRules(count.tag, max_rate, count.rollover, count.reset, count.items_per_count, count.reason)


def _increments(settings: MachineSettings) -> list[str]:
    """The tags whose readings are quantities: they come when there is something, so that silence is no gap."""
    return [count.tag for several in settings.counts.values() for count in several if count.kind == "increment"]


def calendar_of(settings: CalendarSettings, zone: str) -> Calendar:
    """The site's calendar."""
    return Calendar(
        zone=zone,
        production_day_starts_min=minutes(settings.production_day_starts),
        shifts=tuple(
            Shift.of(name, shift.days, shift.from_, shift.to, shift.breaks) for name, shift in settings.shifts.items()
        ),
        closed=frozenset(settings.closed),
    )
