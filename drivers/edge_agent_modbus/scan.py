"""Looking for devices, and for the addresses that they have: polite, bounded, and only reading.

First every id is asked for one register, twice where it is silent. Any answer proves a device, an exception too; the
exceptions of a gateway that reaches nobody (10 and 11) do not. Then, for each device and table, blocks are read; where
one is refused, its addresses are tried one by one, and from each that is there on in blocks that double until one is
refused, which is halved until the end is found. A table costs at most two requests for each of its addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import NamedTuple, Self

from edge_agent.contract import NS_PER_S, ConfigError, NotConnected, ScanFinding, ScanRequest, ScanStep
from edge_agent_modbus.address import LAST_ADDRESS, TABLES, Table, parse_address, parse_range
from edge_agent_modbus.frames import BUSY_CODES, GATEWAY_CODES, ILLEGAL_FUNCTION, Request, exception_name
from edge_agent_modbus.ports import Port, exchange_for, open_port
from edge_agent_modbus.settings import ModbusDevice
from edge_agent_modbus.wire import Nonsense, Refusal, Silence

LEAST_PAUSE_S = 0.02
_TRIES = 3
"""How often a busy device is asked, and one whose answer was damaged."""
_SILENCES_OF_A_TABLE = 20
"""So many requests in a row without an answer, and no more is asked of a table."""
_WHO_IS_THERE = ("holding", "input")
"""Where a device is looked for unless the request names tables: some are silent where they have nothing."""
_DAMAGED = b""
"""Instead of data, which always has a byte at least."""
Answer = bytes | int | None
"""Data, the code of an exception, or None: silence."""


class Line:
    """A link of the scan's own: one request at a time, opened again where the peer hangs up instead of answering."""

    def __init__(self, settings: ModbusDevice) -> None:
        self._target = settings.target()
        self._limit_s = settings.timeout / NS_PER_S
        self._pause_s = max(LEAST_PAUSE_S, settings.pause / NS_PER_S)
        self._drain_s = settings.drain_ns / NS_PER_S
        self._delay_s = settings.connect_delay / NS_PER_S
        self._offset = settings.address_offset
        self._exchange = exchange_for(self._target, settings.echo)
        self._port: Port | None = None

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _open(self) -> None:
        self._port = await open_port(self._target, self._limit_s, self._exchange)
        await asyncio.sleep(self._delay_s)

    async def _close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await port.close()

    async def ask(self, unit: int, table: Table, start: int, count: int) -> Answer:
        """What the device says; what was damaged or put off is asked again, a bounded number of times.

        Raises:
            NotConnected: the peer hung up and is not there any more.
        """
        request = Request(unit, table, start + self._offset, count)
        said: Answer = None
        for _ in range(_TRIES):
            said = await self._ask(request)
            if said != _DAMAGED and said not in BUSY_CODES:
                break
        return said

    async def _ask(self, request: Request) -> Answer:
        try:
            return await self._exchange.ask(request, self._limit_s, self._pause_s, self._drain_s)
        except Refusal as refusal:
            return refusal.code
        except Silence:
            return None
        except Nonsense as nonsense:
            if nonsense.lost:
                await self._reopen()
            return _DAMAGED
        except NotConnected:
            await self._reopen()
            return None

    async def _reopen(self) -> None:
        await self._close()
        await self._open()


class Run(NamedTuple):
    """Addresses that a device has, both included."""

    first: int
    last: int


class Walk:
    """Finds which of these runs of addresses a device has, by what it refuses; pure.

    `most` falls when the device turns out to give fewer addresses in one request than it has in a row.
    """

    def __init__(self, within: Sequence[Run], most: int) -> None:
        self.most = most
        self.runs: list[Run] = []
        self._runs = within

    def steps(self) -> Generator[tuple[int, int], bool, None]:
        """What to ask, as start and count; is sent whether the device gave it."""
        for first, last in self._runs:
            at = first
            while at <= last:
                count = min(self.most, last - at + 1)
                if (yield at, count):
                    self._have(at, count)
                elif count > 1:
                    yield from self._in_block(at, at + count)
                at += count

    def _in_block(self, at: int, end: int) -> Generator[tuple[int, int], bool, None]:
        while at < end:
            count = 1
            while at < end:
                count = min(count, end - at)
                if (yield at, count):
                    self._have(at, count)
                    at, count = at + count, min(2 * count, self.most)
                else:
                    break
            if at < end:
                at = yield from self._end_of_run(at, count)

    def _end_of_run(self, at: int, count: int) -> Generator[tuple[int, int], bool, int]:
        """The address behind the first one that is missing among those that were refused together."""
        most = count // 2
        while count > 1:
            half = count // 2
            if (yield at, half):
                self._have(at, half)
                at, count = at + half, count - half
            else:
                count, most = half, half // 2
        if most and (yield at, 1):  # each was given, so that there were only too many of them
            self._have(at, 1)
            self.most = most
        return at + 1

    def _have(self, start: int, count: int) -> None:
        if self.runs and self.runs[-1].last == start - 1:
            self.runs[-1] = Run(self.runs[-1].first, start + count - 1)
        else:
            self.runs.append(Run(start, start + count - 1))


class _Progress:
    """Counts what was asked, and what is still expected."""

    def __init__(self, expected: int) -> None:
        self.done = 0
        self.left = expected

    def step(self, doing: str, findings: tuple[ScanFinding, ...] = (), left: int | None = None) -> ScanStep:
        self.done += 1
        self.left = max(0, self.left - 1) if left is None else left
        return ScanStep(self.done, self.done + self.left, doing, findings)


async def scan(settings: ModbusDevice, request: ScanRequest) -> AsyncGenerator[ScanStep, None]:
    """A step after each request, with what it found.

    Raises:
        NotConnected: the link is lost, or was never there.
        ConfigError: the request cannot be meant.
    """
    tables = _checked(settings, request)
    places = [table for table in tables or map(TABLES.__getitem__, _WHO_IS_THERE) if _runs(settings, table, request)]
    # Twice, because some devices on a line take what follows an unanswered request for its answer, and miss it.
    probes = (2 * places)[:2]
    if not probes:
        raise ConfigError("all of these addresses are in the device's `forbidden`: scan others")
    progress = _Progress(len(request.device_ids))
    there: list[int] = []
    async with Line(settings) as line:
        for unit in request.device_ids:
            for number, table in enumerate(probes, 1):
                first = _runs(settings, table, request)[0].first
                said = await line.ask(unit, table, first, 1)
                found = _device(unit, table, first, said)
                last = bool(found) or number == len(probes)
                yield progress.step(f"device_id {unit}", found, None if last else progress.left)
                if found:
                    there += [unit] if said != _DAMAGED else []
                    break
        for position, unit in enumerate(there):
            for number, table in enumerate(tables):
                walks_left = (len(there) - position) * len(tables) - number - 1
                look = _look(line, settings, unit, table, request, progress, walks_left)
                try:
                    async for step in look:
                        yield step
                finally:
                    await look.aclose()


async def _look(
    line: Line,
    settings: ModbusDevice,
    unit: int,
    table: Table,
    request: ScanRequest,
    progress: _Progress,
    walks_left: int,
) -> AsyncGenerator[ScanStep, None]:
    """The addresses of one table of one device."""
    most = 1 if settings.single_reads else settings.max_read
    walk = Walk(_runs(settings, table, request), most * (16 if table.bits and most > 1 else 1))
    told, silences, silent_from = 0, 0, request.first
    steps = walk.steps()
    wanted = next(steps, None)
    while wanted is not None:
        start, count = wanted
        said = await line.ask(unit, table, start, count)
        silent_from = silent_from if said is None and silences else start
        silences = silences + 1 if said is None else 0
        gives_up = said == ILLEGAL_FUNCTION or silences >= _SILENCES_OF_A_TABLE
        wanted = None if gives_up else _next(steps, isinstance(said, bytes) and said != _DAMAGED)
        known = walk.runs[told:-1] if wanted is not None else walk.runs[told:]
        told += len(known)
        findings = [ScanFinding(unit, table.name, *run, _note(walk, settings, table)) for run in known]
        if gives_up and said is None:
            findings.append(ScanFinding(unit, table.name, silent_from, request.last, "not tried: it fell silent"))
        blocks = -(-(request.last - request.first + 1) // walk.most)
        rest = -(-(request.last - wanted[0] + 1) // walk.most) if wanted is not None else 0
        doing = f"device_id {unit}, {table.name}:{start}"
        yield progress.step(doing, tuple(findings), rest + walks_left * blocks)


def _next(steps: Generator[tuple[int, int], bool, None], given: bool) -> tuple[int, int] | None:
    try:
        return steps.send(given)
    except StopIteration:
        return None


def _note(walk: Walk, settings: ModbusDevice, table: Table) -> str:
    registers = walk.most // 16 if table.bits else walk.most
    if registers < settings.max_read and not settings.single_reads:
        return f"refuses long requests: set max_read: {max(1, registers)}"
    return ""


def _device(unit: int, table: Table, address: int, said: Answer) -> tuple[ScanFinding, ...]:
    """The device that this answer proves, if it does."""
    if said is None or said in GATEWAY_CODES:
        return ()
    note = ""
    if said == _DAMAGED:
        note = "something answers, but damaged: two devices with this id, or other line settings?"
    elif isinstance(said, int):
        note = f"by {exception_name(said)} for {table.name}:{address}"
    return (ScanFinding(unit, note=note),)


def _checked(settings: ModbusDevice, request: ScanRequest) -> list[Table]:
    first_id, last_id = (0, 255) if settings.target().scheme == "tcp" else (1, 247)
    if not request.device_ids or not all(first_id <= unit <= last_id for unit in request.device_ids):
        raise ConfigError(f"the device ids on this link go from {first_id} to {last_id}")
    if unknown := set(request.tables) - TABLES.keys():
        raise ConfigError(f"no table {', '.join(sorted(unknown))}; there are: {', '.join(TABLES)}")
    if not 0 <= request.first <= request.last <= LAST_ADDRESS:
        raise ConfigError(f"addresses go from 0 to {LAST_ADDRESS}, not from {request.first} to {request.last}")
    offset = settings.address_offset
    if not 0 <= request.first + offset <= request.last + offset <= LAST_ADDRESS:
        raise ConfigError(f"with the address_offset {offset} these addresses are not within 0-{LAST_ADDRESS}")
    return [TABLES[name] for name in dict.fromkeys(request.tables)]


def _runs(settings: ModbusDevice, table: Table, request: ScanRequest) -> list[Run]:
    """What of the request may be read: it is cut where the device's `forbidden` says."""
    runs, at = [], request.first
    for span in sorted((parse_range(text) for text in settings.forbidden), key=lambda span: span.start):
        if span.touches(table, at, request.last + 1):
            runs.append(Run(at, span.start - 1))
            at = span.end
    return [run for run in [*runs, Run(at, request.last)] if run.first <= run.last]


async def fetch(settings: ModbusDevice, address: str, count: int) -> bytes:
    """The bytes of `count` registers from an address on, as they came.

    Raises:
        NotConnected: the link is not there, the device is silent, or it refuses; the message says what to check.
        ConfigError: no such address.
    """
    try:
        table, start, bit = parse_address(address)
    except ValueError as error:
        raise ConfigError(f"{address}: {error}") from error
    if table.bits or bit is not None:
        raise ConfigError(f"{address} is a bit, which means one thing only: registers are decoded, such as holding:10")
    if not 1 <= count <= min(settings.max_read, LAST_ADDRESS + 1 - start - max(0, settings.address_offset)):
        raise ConfigError(f"{count} registers from {table.name}:{start} cannot be read in one request")
    if start + settings.address_offset < 0:
        raise ConfigError(f"with the address_offset {settings.address_offset} there is no {address}")
    if any(parse_range(text).touches(table, start, start + count) for text in settings.forbidden):
        raise ConfigError(f"{count} registers from {address} reach into the device's `forbidden`: read others")
    async with Line(settings) as line:
        said = await line.ask(settings.device_id, table, start, count)
    who = f"device_id {settings.device_id} at {settings.target().peer}"
    if said is None:
        raise NotConnected(f"{who} does not answer: check the device_id, the power and the line settings")
    if isinstance(said, int):
        cure = "check the address, or read fewer registers (--count)"
        raise NotConnected(f"{who} refuses {address}: {exception_name(said)}; {cure}")
    if said == _DAMAGED:
        raise NotConnected(f"{who} gave damaged answers {_TRIES} times: check wiring and line settings")
    return said
