"""The driver: one link, the devices behind it, and what their silence and their errors mean."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from itertools import chain
from typing import ClassVar, NoReturn, cast

from edge_agent.contract import (
    NS_PER_S,
    ConfigError,
    Decoding,
    Device,
    DeviceFault,
    DeviceSettings,
    Driver,
    NotConnected,
    ProtocolFault,
    Reading,
    ScanRequest,
    ScanStep,
    Tag,
    TagSettings,
    bad,
)
from edge_agent_modbus.address import TABLES
from edge_agent_modbus.frames import GATEWAY_CODES, SPLIT_CODES, exception_name
from edge_agent_modbus.guess import decodings
from edge_agent_modbus.plan import Block, Plan, plan_of
from edge_agent_modbus.ports import Port, open_port
from edge_agent_modbus.scan import fetch, scan
from edge_agent_modbus.settings import ModbusDevice, ModbusTag, Target
from edge_agent_modbus.wire import Exchange, MbapExchange, Nonsense, Refusal, RtuExchange, Silence

DAMAGED_ANSWER = "damaged_answer"
_BITS_PER_CHARACTER = 11
_MAX_SPLITS_PER_READ = 32
"""So many refused blocks are split in one read; the next reads go on from there."""
_SILENCES_OF_A_LOST_LINK = 2
_NONSENSE_LIMIT = 2
_SHOWN_BYTES = 32
_MAX_PLANS = 1000


class ModbusDriver(Driver):
    """Modbus TCP, RTU, and RTU through TCP; reads only."""

    Settings: ClassVar[type[DeviceSettings]] = ModbusDevice
    TagSettings: ClassVar[type[TagSettings]] = ModbusTag

    @classmethod
    def link(cls, settings: ModbusDevice) -> str:
        """The URL normalised: the devices behind one host and port, or on one serial port, share a connection."""
        return settings.target().key

    def __init__(self, devices: Sequence[Device]) -> None:
        self._target = _shared_target(devices)
        self._settings = {device: cast("ModbusDevice", device.settings) for device in devices}
        self._limit_s = {device: settings.timeout / NS_PER_S for device, settings in self._settings.items()}
        self._pause_s = {device: settings.pause / NS_PER_S for device, settings in self._settings.items()}
        self._drain_s = {
            device: settings.timeout / NS_PER_S if settings.drain is None else settings.drain / NS_PER_S
            for device, settings in self._settings.items()
        }
        self._budget_s = {device: _budget_s(settings, len(devices)) for device, settings in self._settings.items()}
        self._delay_s = max(settings.connect_delay for settings in self._settings.values()) / NS_PER_S
        self._closes = next(iter(self._settings.values())).close_after_poll
        _check_addresses(devices)
        self._silences = {device: 0 for device in devices if device.tags}
        self._nonsense = dict.fromkeys(devices, 0)
        self._nonsense_in_a_row = 0
        self._exchange = _exchange_for(self._target, next(iter(self._settings.values())).echo)
        self._port: Port | None = None
        self._connected = False
        # By identity: to hash 200 tags at each poll would cost a tenth of the reading itself.
        self._plans: dict[int, tuple[tuple[Tag, ...], Plan]] = {}

    async def connect(self) -> None:
        """Open the connection or the serial port, within the longest time-out of the devices."""
        await self.close()
        self._silences = dict.fromkeys(self._silences, 0)
        self._nonsense = dict.fromkeys(self._nonsense, 0)
        self._nonsense_in_a_row = 0
        await self._open()
        self._connected = True

    async def _open(self) -> None:
        self._port = await open_port(self._target, max(self._limit_s.values()), self._exchange)
        if self._delay_s:
            await asyncio.sleep(self._delay_s)

    async def close(self) -> None:
        """Let go of the connection or the serial port, within two seconds."""
        self._connected = False
        await self._hang_up()

    async def _hang_up(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await port.close()

    async def read(self, device: Device, tags: tuple[Tag, ...]) -> Sequence[Reading]:
        """One reading for each of the tags, in the order of their addresses."""
        if self._closes and self._port is None and self._connected:
            await self._open()
        try:
            return await self._read(device, tags)
        finally:
            if self._closes:
                await self._hang_up()

    async def _read(self, device: Device, tags: tuple[Tag, ...]) -> Sequence[Reading]:
        known, plan = self._plans.get(id(tags)) or (None, None)
        if plan is None or known is not tags:
            plan = self._new_plan(device, tags)
        answers: list[tuple[Block, bytes | int | None]] = []
        todo = deque(plan.begin())
        splits = 0
        budget_s = self._budget_s[device]
        began = asyncio.get_running_loop().time() if budget_s else 0.0
        while todo:
            if budget_s and answers and asyncio.get_running_loop().time() - began > budget_s:
                plan.later = list(todo)  # the others on this link are due, too
                break
            block = todo.popleft()
            answer = await self._ask(device, block)
            if answer in SPLIT_CODES and len(block.wanted) > 1:
                halves = plan.split(block)
                splits += 1
                if splits <= _MAX_SPLITS_PER_READ:
                    todo.extendleft(reversed(halves))
                    continue
            elif answer in SPLIT_CODES:
                plan.refused.add(block)
            answers.append((block, answer))
        if plan.untidy and splits <= _MAX_SPLITS_PER_READ:
            plan.rejoin()
        # Readings are made only now, so that none are alive while the next answer is awaited: the collector is spared.
        return list(chain.from_iterable(_readings(block, answer) for block, answer in answers))

    def _new_plan(self, device: Device, tags: tuple[Tag, ...]) -> Plan:
        if len(self._plans) >= _MAX_PLANS:  # a caller that makes a new tuple each time must not fill the memory
            self._plans.clear()
        plan = plan_of(self._settings[device], tags)
        self._plans[id(tags)] = (tags, plan)
        return plan

    async def _ask(self, device: Device, block: Block) -> bytes | int | None:
        """The data, the code of an exception, or None for an answer that was damaged, the first time.

        Raises:
            DeviceFault: silent, out of a gateway's reach, or damaged again and again, on a link that lives.
            NotConnected: the link is lost.
        """
        try:
            answer = await self._exchange.ask(
                block.request, self._limit_s[device], self._pause_s[device], self._drain_s[device]
            )
        except Refusal as refusal:
            self._heard_from(device)
            if refusal.code in GATEWAY_CODES:
                raise DeviceFault(device, _unreachable(device, refusal.code)) from refusal
            return refusal.code
        except Silence:
            self._fell_silent(device)
        except Nonsense as nonsense:
            self._talked_nonsense(device, nonsense)
            return None
        self._heard_from(device)
        return answer

    def _heard_from(self, device: Device) -> None:
        self._silences[device] = self._nonsense[device] = self._nonsense_in_a_row = 0

    def _fell_silent(self, device: Device) -> NoReturn:
        self._silences[device] = self._silences.get(device, 0) + 1
        limit = f"within {self._limit_s[device]:g} s"
        if min(self._silences.values()) >= _SILENCES_OF_A_LOST_LINK:
            who = "the device" if len(self._silences) == 1 else "any device"
            raise NotConnected(
                f"no answer from {who} at {self._target.peer} {limit}, {_SILENCES_OF_A_LOST_LINK} times in a row: "
                "check the cable, the power and the device_id"
            )
        raise DeviceFault(
            device,
            f"{device.name} (device_id {self._settings[device].device_id} at {self._target.peer}) does not answer "
            f"{limit}: check its power, its device_id and its line settings",
        )

    def _talked_nonsense(self, device: Device, nonsense: Nonsense) -> None:
        self._nonsense[device] += 1
        self._nonsense_in_a_row += 1
        shown = nonsense.said[:_SHOWN_BYTES].hex(" ") + (" …" if len(nonsense.said) > _SHOWN_BYTES else "")
        message = f"{device.name} at {self._target.peer} gave what is no answer to the request: {shown}"
        if nonsense.lost or self._nonsense_in_a_row >= _NONSENSE_LIMIT:
            raise ProtocolFault(message) from nonsense
        if self._nonsense[device] >= _NONSENSE_LIMIT:
            raise DeviceFault(device, message) from nonsense

    # ------------------------------------------------------------------------------------------- commissioning

    SCAN_TABLES: ClassVar[tuple[str, ...]] = tuple(TABLES)

    @classmethod
    def scan(cls, settings: ModbusDevice, request: ScanRequest) -> AsyncGenerator[ScanStep, None]:
        """Who answers on a link, and which addresses they have; at most 2,000 requests for each device and table."""
        return scan(settings, request, exchange_for(settings))

    @classmethod
    async def fetch(cls, settings: ModbusDevice, address: str, count: int) -> bytes:
        """The bytes of `count` registers from an address on."""
        return await fetch(settings, address, count, exchange_for(settings))

    @classmethod
    def decode(cls, data: bytes) -> list[Decoding]:
        """What the first registers mean in every type and word order."""
        return decodings(data)


def _readings(block: Block, answer: bytes | int | None) -> list[Reading]:
    if isinstance(answer, bytes):
        return block.decode(answer)
    cause = DAMAGED_ANSWER if answer is None else exception_name(answer)
    return [bad(tag, cause) for tag, _ in block.wanted]


def _unreachable(device: Device, code: int) -> str:
    settings = cast("ModbusDevice", device.settings)
    return f"the gateway does not reach {device.name} (device_id {settings.device_id}): {exception_name(code)}"


def _shared_target(devices: Sequence[Device]) -> Target:
    """Where the one link of these devices leads."""
    targets = {device.name: cast("ModbusDevice", device.settings).target() for device in devices}
    first_name, first = next(iter(targets.items()))
    for name, target in targets.items():
        if target.line != first.line:
            raise ConfigError(
                f"{first_name} and {name} share the serial port {first.place}, but one has {first.line} and the other "
                f"{target.line}: give both the same baud, parity and stop"
            )
    for key in ("echo", "close_after_poll"):
        if len({getattr(device.settings, key) for device in devices}) > 1:
            raise ConfigError(f"{', '.join(targets)} share a link: write the same `{key}` for all of them")
    return first


def _check_addresses(devices: Sequence[Device]) -> None:
    """Whether every tag has an address that exists and may be read."""
    for device in devices:
        for tag in device.tags:
            try:
                cast("ModbusDevice", device.settings).shifted(cast("ModbusTag", tag.settings).field())
            except ValueError as error:
                raise ConfigError(f"{tag.name}: {error}") from error


def _budget_s(settings: ModbusDevice, devices: int) -> float:
    """How long one read may take while others wait; 0 where there are none."""
    if devices == 1:
        return 0.0
    return (max(settings.timeout, settings.poll) if settings.budget is None else settings.budget) / NS_PER_S


def _exchange_for(target: Target, echo: bool) -> Exchange:
    if target.scheme == "tcp":
        return MbapExchange()
    return RtuExchange(_BITS_PER_CHARACTER / target.line.baud if target.scheme == "rtu" else 0.0, echo=echo)


def exchange_for(settings: ModbusDevice) -> Exchange:
    """The conversation on a link to one device."""
    return _exchange_for(settings.target(), settings.echo)
