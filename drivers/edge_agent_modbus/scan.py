"""Looking for devices on a link, and for the addresses that they have: one polite read after the other.

A device is there when anything answers in its name, an exception too. Its addresses are found by reading blocks: one
that is refused is halved until what is left is answered, or refused address by address.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from edge_agent.contract import NS_PER_S, ConfigError, NotConnected, ScanFinding, ScanRequest, ScanStep
from edge_agent_modbus.address import LAST_ADDRESS, TABLES, Table, parse_address
from edge_agent_modbus.frames import GATEWAY_CODES, Request, exception_name
from edge_agent_modbus.ports import Port, open_port
from edge_agent_modbus.settings import ModbusDevice
from edge_agent_modbus.wire import Exchange, Nonsense, Refusal, Silence

LEAST_PAUSE_S = 0.02
MOST_IDS = 256
MOST_REQUESTS_PER_TABLE = 2_000
"""For each device; what has not been tried by then is said."""
_PROBES = (("holding", 0), ("input", 0))
_BLOCK = {False: 64, True: 512}
_SILENT_IN_A_ROW = 3


def checked(request: ScanRequest, settings: ModbusDevice) -> None:
    """Nothing, where the request can be meant.

    Raises:
        ConfigError: no such table, id or address.
    """
    if unknown := set(request.tables) - TABLES.keys():
        raise ConfigError(f"no table {', '.join(sorted(unknown))}; there are: {', '.join(TABLES)}")
    if not 0 <= request.first <= request.last <= LAST_ADDRESS:
        raise ConfigError(f"addresses go from 0 to {LAST_ADDRESS}, not from {request.first} to {request.last}")
    least, most = (0, 255) if settings.target().scheme == "tcp" else (1, 247)
    if not request.device_ids or not all(least <= number <= most for number in request.device_ids):
        raise ConfigError(f"device ids on this link go from {least} to {most}")


async def scan(settings: ModbusDevice, request: ScanRequest, exchange: Exchange) -> AsyncGenerator[ScanStep, None]:
    """The steps of a scan over a link of its own."""
    checked(request, settings)
    scanner = _Scanner(settings, request, exchange)
    try:
        async for step in scanner.steps():
            yield step
    finally:
        await scanner.close()


class _Scanner:
    """One scan: its connection, opened again when the device closes it, and its count of requests."""

    def __init__(self, settings: ModbusDevice, request: ScanRequest, exchange: Exchange) -> None:
        self._settings = settings
        self._request = request
        self._exchange = exchange
        self._limit_s = settings.timeout / NS_PER_S
        self._pause_s = max(settings.pause / NS_PER_S, LEAST_PAUSE_S)
        self._port: Port | None = None
        self._done = 0
        self._total = len(_PROBES) * len(request.device_ids)

    async def close(self) -> None:
        """Let go of the link."""
        port, self._port = self._port, None
        if port is not None:
            await port.close()

    async def steps(self) -> AsyncGenerator[ScanStep, None]:
        there: list[int] = []
        for unit in self._request.device_ids:
            async for step in self._look_for(unit):
                there += [finding.device_id for finding in step.findings]
                yield step
        for unit in there:
            for name in dict.fromkeys(self._request.tables):
                async for step in self._look_through(unit, TABLES[name]):
                    yield step

    def _step(self, doing: str, findings: Sequence[ScanFinding] = ()) -> ScanStep:
        return ScanStep(self._done, max(self._total, self._done), doing, tuple(findings))

    async def _look_for(self, unit: int) -> AsyncGenerator[ScanStep, None]:
        doing = f"device id {unit}"
        for tried, (name, address) in enumerate(_PROBES, 1):
            answer = await self._ask(unit, TABLES[name], address, 1)
            if answer is None:
                yield self._step(doing)
                continue
            if isinstance(answer, int) and answer in GATEWAY_CODES:
                yield self._step(doing)  # the gateway answers, not the device
                continue
            self._total -= len(_PROBES) - tried
            note = f"by {exception_name(answer)} for {name}:{address}" if isinstance(answer, int) else ""
            yield self._step(doing, [ScanFinding(unit, note=note)])
            return

    async def _look_through(self, unit: int, table: Table) -> AsyncGenerator[ScanStep, None]:
        """Runs of addresses that a device has in one table, each told as soon as its end is known."""
        first, last = self._request.first, self._request.last
        size = min(_BLOCK[table.bits], self._settings.max_read * (16 if table.bits else 1))
        todo = [(start, min(start + size - 1, last)) for start in range(first, last + 1, size)]
        self._total += len(todo)
        todo.reverse()
        run: tuple[int, int] | None = None
        silent, refusals, began = 0, dict[str, int](), self._done
        while todo and silent < _SILENT_IN_A_ROW and self._done - began < MOST_REQUESTS_PER_TABLE:
            start, end = todo.pop()
            answer = await self._ask(unit, table, start, end - start + 1)
            findings: list[ScanFinding] = []
            silent = 0 if answer is not None else silent + 1
            if isinstance(answer, bytes):
                if run is not None and run[1] + 1 != start:
                    findings.append(ScanFinding(unit, table.name, *run))
                    run = None
                run = (start if run is None else run[0], end)
            elif start < end:
                middle = (start + end) // 2
                todo += [(middle + 1, end), (start, middle)]
                self._total += 2
            elif isinstance(answer, int):
                name = exception_name(answer)
                refusals[name] = refusals.get(name, 0) + 1
            yield self._step(f"device id {unit}, {table.name}:{start}", findings)
        self._total -= len(todo)
        found = [ScanFinding(unit, table.name, *run)] if run is not None else []
        if todo:
            why = "it fell silent" if silent else f"{MOST_REQUESTS_PER_TABLE} requests were made"
            found.append(ScanFinding(unit, table.name, min(todo)[0], last, f"not tried: {why}"))
        yield self._step(f"device id {unit}, {table.name}", found)

    async def _ask(self, unit: int, table: Table, start: int, count: int) -> bytes | int | None:
        """The data, the code of an exception, or None for silence and nonsense.

        Raises:
            NotConnected: the link is not there, or closes at each request.
        """
        self._done += 1
        for again in (True, False):
            if self._port is None:
                self._port = await open_port(self._settings.target(), self._limit_s, self._exchange)
            try:
                await asyncio.sleep(self._pause_s)
                return await self._exchange.ask(Request(unit, table, start, count), self._limit_s)
            except Refusal as refusal:
                return refusal.code
            except Silence:
                return None
            except Nonsense as nonsense:
                if nonsense.lost:
                    await self.close()
                return None
            except NotConnected:  # some devices close at once when they are asked for a unit that they do not have
                await self.close()
                if not again:
                    return None
        return None


async def fetch(settings: ModbusDevice, address: str, count: int, exchange: Exchange) -> bytes:
    """The bytes of `count` registers from an address on, read once.

    Raises:
        ConfigError: no such address, or none of registers.
        NotConnected: no answer, or the device refuses; the message says what to check.
    """
    try:
        place = parse_address(int(address) if address.isdecimal() else address)
    except ValueError as error:
        raise ConfigError(f"{address}: {error}") from error
    start = place.address + settings.address_offset
    if place.table.bits or not 0 <= start <= LAST_ADDRESS + 1 - count:
        raise ConfigError(f"{address}: registers are decoded, such as holding:10, up to address {LAST_ADDRESS}")
    where = f"{place.table.name}:{start}, device_id {settings.device_id} at {settings.target().peer}"
    port = await open_port(settings.target(), settings.timeout / NS_PER_S, exchange)
    try:
        await asyncio.sleep(settings.connect_delay / NS_PER_S)
        request = Request(settings.device_id, place.table, start, count)
        return await exchange.ask(request, settings.timeout / NS_PER_S)
    except Refusal as refusal:
        cure = "check the address, or read fewer registers (--count)"
        raise NotConnected(f"{where}: {exception_name(refusal.code)}; {cure}") from refusal
    except Silence as silence:
        raise NotConnected(f"{where}: no answer; check the device_id and the line settings") from silence
    except Nonsense as nonsense:
        raise NotConnected(f"{where}: no answer to this request: {nonsense.said[:32].hex(' ')}") from nonsense
    finally:
        await port.close()
