"""Which requests read a group of tags: as few as the limits allow, worked out once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as initial
from math import inf
from typing import cast

from edge_agent.contract import ConfigError, Reading, Tag
from edge_agent_modbus.address import Field, Span, Table
from edge_agent_modbus.decode import Wanted, decoder
from edge_agent_modbus.frames import Request
from edge_agent_modbus.settings import ModbusDevice, ModbusTag

BITS_PER_REGISTER = 16
FIRST_RETRY_S = 60.0
LAST_RETRY_S = 3600.0
"""A plan that had to be split is tried whole again after the first time, and then after twice as long each time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may span."""

    unit: int
    registers: int
    gap: int
    single: bool = False
    """Whether each value takes a request of its own."""
    forbidden: tuple[Span, ...] = ()
    """What no request may touch, as addresses on the wire."""

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

    @property
    def divisible(self) -> bool:
        """Whether less of it can be asked for: there is a value that is not all of it."""
        return any(field.start > self.start or field.end < self.end for _, field in self.wanted)

    def middle(self) -> int:
        """Where to split the tags: near the middle, and not between two that begin at one address."""
        wanted, half = self.wanted, len(self.wanted) // 2
        ends = [n for n in range(1, len(wanted)) if wanted[n].field.start != wanted[n - 1].field.start]
        return min(ends, key=lambda n: abs(n - half), default=half)

    def __repr__(self) -> str:
        return f"Block({self.table.name}:{self.start} to {self.end - 1}, {len(self.wanted)} tags)"


def plan_blocks(wanted: Iterable[Wanted], limits: Limits) -> list[Block]:
    """The fewest requests that read all of these, in order of table and address."""
    ordered = sorted(wanted, key=lambda want: (want.field.table.name, want.field.start, -want.field.end))
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
            and until - start <= (end - start if limits.single else most)
            and not any(span.touches(table, start, until) for span in limits.forbidden)
            and not any(span.inside(table, start, until) for span in refused)
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
    """What is asked, in turn; the first one is asked first."""
    refused: dict[Block, int] = initial(default_factory=dict)
    """What the device refuses, each value apart, by the code of the exception: it is not asked for."""
    untidy: bool = False
    """Whether something was split since blocks were last put together."""
    _spans: set[Span] = initial(default_factory=set)
    _whole_at: float = inf
    _retry_s: float = FIRST_RETRY_S

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin as if nothing had been refused yet."""
        self.blocks = plan_blocks(self.wanted, self.limits)
        self.refused.clear()
        self._spans.clear()
        self.untidy = False
        self._whole_at, self._retry_s = inf, FIRST_RETRY_S

    def begin(self, now_s: float) -> list[Block]:
        """The requests of this poll; now and then all of them as if nothing had been refused."""
        if now_s >= self._whole_at:
            retry_s = min(2 * self._retry_s, LAST_RETRY_S)
            self.forget()
            self._retry_s = retry_s
        if not self.blocks and self.refused:  # something must be asked, or a dead device would look alive
            block, code = next(iter(self.refused.items()))
            del self.refused[block]
            self.refused[block] = code  # to the end: the next time it is another one
            return [block]
        return self.blocks.copy()

    def split(self, block: Block, now_s: float) -> list[Block]:
        """Two requests instead of one that was refused as a whole."""
        middle, unit = block.middle(), self.limits.unit
        halves = [Block(block.wanted[:middle], unit), Block(block.wanted[middle:], unit)]
        at = self.blocks.index(block)
        self.blocks[at : at + 1] = halves
        self._spans.add(Span(block.table, block.start, block.end))
        self.untidy = True
        self._try_again(now_s)
        return halves

    def refuse(self, block: Block, code: int, now_s: float) -> None:
        """Keep apart what the device will not give; it is tried again with all the others, ever more seldom."""
        if block not in self.refused:
            self.blocks.remove(block)
            self._try_again(now_s)
        self.refused[block] = code

    def keep_apart(self, block: Block, now_s: float) -> None:
        """Go on asking for what the device failed to give, but by itself: it may be a matter of moments."""
        self._spans.add(Span(block.table, block.start, block.end))
        self._try_again(now_s)

    def readmit(self, block: Block) -> None:
        """Ask again for what was refused, since the device gives it."""
        del self.refused[block]
        self.blocks.append(block)
        self._whole_at = 0.0  # it may be that all of it is there again

    def with_refused(self, answers: list[tuple[Block, bytes | int | None]]) -> list[tuple[Block, bytes | int | None]]:
        """The answers of a poll, and beside them what was refused before and not asked for now."""
        asked = {block for block, _ in answers}
        for block in [block for block, answer in answers if block in self.refused and isinstance(answer, bytes)]:
            self.readmit(block)
        return answers + [(block, code) for block, code in self.refused.items() if block not in asked]

    def _try_again(self, now_s: float) -> None:
        self._whole_at = now_s + self._retry_s

    def put_off(self, block: Block) -> None:
        """Begin the next poll with this block, and end it with those before it, which have had their turn."""
        at = self.blocks.index(block)
        self.blocks = self.blocks[at:] + self.blocks[:at]

    def rejoin(self) -> None:
        """Put together what splitting took apart, without asking for anything that was refused or never read."""
        self.untidy = False
        ordered = sorted(self.blocks, key=lambda block: (block.table.name, block.start))
        self.blocks = _merge([block.wanted for block in ordered], replace(self.limits, gap=0), self._spans)


def plan_of(settings: ModbusDevice, tags: Iterable[Tag]) -> Plan:
    """The plan for these tags of a device."""
    wanted = tuple(Wanted(tag, field_in(settings, tag)) for tag in tags)
    limits = Limits(
        settings.device_id, settings.max_read, settings.max_gap, settings.single_reads, settings.forbidden_spans()
    )
    return Plan(wanted, limits)


def field_in(settings: ModbusDevice, tag: Tag) -> Field:
    """What a tag occupies in its device, as addresses on the wire.

    Raises:
        ConfigError: the device has no such address, forbids it, or cannot give so much in one request.
    """
    try:
        field = cast("ModbusTag", tag.settings).field().shifted(settings.address_offset)
    except ValueError as error:
        raise ConfigError(f"{tag.name}: {error}") from error
    for given, span in zip(settings.forbidden, settings.forbidden_spans(), strict=True):
        if span.touches(field.table, field.start, field.end):
            raise ConfigError(f"{tag.name}: its address lies in forbidden, {given}: change one of them")
    most, what = (16 * settings.max_read, "bits") if field.table.bits else (settings.max_read, "registers")
    if field.count > most:
        raise ConfigError(
            f"{tag.name}: it takes {field.count} {what}, and the device gives {most} in one request (max_read), so "
            "that they would not be of one moment: make it shorter"
        )
    return field
