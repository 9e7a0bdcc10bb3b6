"""Which requests read a group of tags: as few as the limits allow, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as initial
from typing import cast

from edge_agent.contract import Reading, Tag
from edge_agent_modbus.address import Span, Table
from edge_agent_modbus.decode import Wanted, decoder
from edge_agent_modbus.frames import Request
from edge_agent_modbus.settings import ModbusDevice, ModbusTag

BITS_PER_REGISTER = 16
RETRY_WHOLE_POLLS = 60
"""A plan that had to be split is tried whole again after so many polls."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may span."""

    unit: int
    registers: int
    gap: int
    single: bool = False
    """Each value by itself."""
    forbidden: tuple[Span, ...] = ()
    """Never asked for, not even in between."""

    def of(self, table: Table) -> tuple[int, int]:
        """The most addresses, and the most unused ones between two tags."""
        factor = BITS_PER_REGISTER if table.bits else 1
        # A value is never split, so one that is longer than the device's own limit still takes one request.
        return self.registers * factor, self.gap * factor


class Block:
    """One request: the tags that it reads, and how its answer becomes readings."""

    __slots__ = ("count", "decode", "end", "request", "start", "table", "wanted")

    def __init__(self, wanted: Sequence[Wanted], unit: int) -> None:
        self.wanted = tuple(wanted)
        self.table: Table = self.wanted[0].field.table
        self.start = min(field.start for _, field in self.wanted)
        self.end = max(field.end for _, field in self.wanted)
        self.count = self.end - self.start
        self.request = Request(unit, self.table, self.start, self.count)
        self.decode: Callable[[bytes], list[Reading]] = decoder(self.wanted, self.start)

    def __repr__(self) -> str:
        return f"Block({self.table.name}:{self.start} to {self.end - 1}, {len(self.wanted)} tags)"


def plan_blocks(wanted: Iterable[Wanted], limits: Limits) -> list[Block]:
    """The fewest requests that read all of these, in order of table and address."""
    ordered = sorted(wanted, key=lambda want: (want.field.table.name, want.field.start, want.field.end))
    return _merge([(want,) for want in ordered], limits)


def _merge(groups: Sequence[tuple[Wanted, ...]], limits: Limits, refused: Collection[Span] = ()) -> list[Block]:
    """Blocks of neighbouring groups; the groups come in order and stay whole, and no block covers a refused span."""
    blocks: list[list[Wanted]] = []
    table: Table | None = None
    start = end = most = gap = 0
    for group in groups:
        first, until = group[0].field, max(end, _end(group))
        if (
            first.table is table
            and first.start - end <= gap
            and until - start <= most
            and not limits.single
            and not any(span.inside(table, start, until) for span in refused)
            and not any(span.overlaps(table, start, until) for span in limits.forbidden)
        ):
            blocks[-1].extend(group)
            end = until
            continue
        table, start, end = first.table, first.start, _end(group)
        most, gap = limits.of(table)
        blocks.append(list(group))
    return [Block(block, limits.unit) for block in blocks]


def _end(group: tuple[Wanted, ...]) -> int:
    return max(want.field.end for want in group)


@dataclass(eq=False, slots=True)
class Plan:
    """The requests of one group of tags, and what has been learned about them."""

    wanted: tuple[Wanted, ...]
    limits: Limits
    blocks: list[Block] = initial(init=False)
    refused: set[Block] = initial(default_factory=set)
    """Blocks of one tag that the device refuses, kept apart."""
    untidy: bool = False
    """Whether something was split since blocks were last put together."""
    later: list[Block] = initial(default_factory=list)
    """What the last read had no time for: it comes first."""
    _spans: set[Span] = initial(default_factory=set)
    _until_whole: int = 0

    def __post_init__(self) -> None:
        self.blocks = plan_blocks(self.wanted, self.limits)

    def begin(self) -> list[Block]:
        """The requests of this poll; now and then all of them as if nothing had been refused."""
        if self._until_whole:
            self._until_whole -= 1
            if not self._until_whole:
                self.blocks = plan_blocks(self.wanted, self.limits)
                self.refused.clear()
                self._spans.clear()
        if not self.later:
            return self.blocks.copy()
        waited, self.later = [block for block in self.later if block in self.blocks], []
        return waited + [block for block in self.blocks if block not in waited]

    def split(self, block: Block) -> list[Block]:
        """Two requests instead of one that was refused as a whole."""
        middle = len(block.wanted) // 2
        unit = self.limits.unit
        halves = [Block(block.wanted[:middle], unit), Block(block.wanted[middle:], unit)]
        at = self.blocks.index(block)
        self.blocks[at : at + 1] = halves
        self._spans.add(Span(block.table, block.start, block.end))
        self.untidy = True
        self._until_whole = RETRY_WHOLE_POLLS
        return halves

    def rejoin(self) -> None:
        """Put together what splitting took apart, without asking for anything that was refused or never read."""
        self.untidy = False
        readable = [block.wanted for block in self.blocks if block not in self.refused]
        joined = _merge(readable, replace(self.limits, gap=0), self._spans)
        self.blocks = joined + [block for block in self.blocks if block in self.refused]


def plan_of(settings: ModbusDevice, tags: Iterable[Tag]) -> Plan:
    """The plan for these tags of a device."""
    wanted = tuple(Wanted(tag, settings.shifted(cast("ModbusTag", tag.settings).field())) for tag in tags)
    limits = Limits(
        settings.device_id, settings.max_read, settings.max_gap, settings.single_reads, settings.forbidden_spans()
    )
    return Plan(wanted, limits)
