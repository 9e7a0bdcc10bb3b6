"""The driver: one link, the devices behind it, and what their silence and their errors mean."""

from __future__ import annotations

import asyncio
import time
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
    SameAdapter,
    ScanRequest,
    ScanStep,
    Tag,
    TagSettings,
    bad,
)
from edge_agent_modbus import guess, scan
from edge_agent_modbus.address import TABLES
from edge_agent_modbus.frames import GATEWAY_CODES, REFUSAL_CODES, SPLIT_CODES, Request, exception_name
from edge_agent_modbus.plan import Block, Plan, field_in, plan_of
from edge_agent_modbus.ports import Port, exchange_for, open_port
from edge_agent_modbus.settings import ModbusDevice, ModbusTag, Target
from edge_agent_modbus.wire import Nonsense, Refusal, Silence

DAMAGED_ANSWER = "damaged_answer"
_LONGEST_READ_S = 30.0
"""The budget of a device that has its link for itself: less than what the poller takes for a driver that hangs."""
_SILENCES_OF_A_LOST_LINK = 2
_ASKED_AROUND = 5
"""So many devices at most are asked whether a link lives on which another one is silent."""
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
        _check_fields(devices)
        self._settings = {device: cast("ModbusDevice", device.settings) for device in devices}
        self._limit_s = {device: settings.timeout / NS_PER_S for device, settings in self._settings.items()}
        self._pause_s = {device: settings.pause / NS_PER_S for device, settings in self._settings.items()}
        self._silences = {device: 0 for device in devices if device.tags}
        self._nonsense = dict.fromkeys(devices, 0)
        self._nonsense_in_a_row = 0
        self._drain_s = {device: settings.drain_ns / NS_PER_S for device, settings in self._settings.items()}
        self._budget_s = {device: _budget_s(settings, devices) for device, settings in self._settings.items()}
        self._connect_delay_s = max(settings.connect_delay for settings in self._settings.values()) / NS_PER_S
        self._close_after_poll = any(settings.close_after_poll for settings in self._settings.values())
        self._wanted = False
        self._spoken = False  # whether anybody has answered since a device last fell silent
        self._usual: dict[Device, Request] = {}
        self._alive: set[Device] = set()
        self._time = time.monotonic
        self._exchange = exchange_for(self._target, any(settings.echo for settings in self._settings.values()))
        self._port: Port | None = None
        self._same = SameAdapter(self._target.place)
        # By identity: to hash 200 tags at each poll would cost a tenth of the reading itself.
        self._plans: dict[int, tuple[tuple[Tag, ...], Plan]] = {}

    async def connect(self) -> None:
        """Open the connection or the serial port, within the longest time-out of the devices."""
        await self.close()
        self._silences = dict.fromkeys(self._silences, 0)
        self._nonsense = dict.fromkeys(self._nonsense, 0)
        self._nonsense_in_a_row = 0
        self._spoken = False
        self._alive.clear()
        self._time = asyncio.get_running_loop().time
        for _, plan in self._plans.values():
            plan.forget()  # who comes back may have got another program
        await self._open()
        self._wanted = True

    async def _open(self) -> None:
        self._port = await self._new_port()
        if self._connect_delay_s:
            await asyncio.sleep(self._connect_delay_s)

    async def _new_port(self) -> Port:
        return await open_port(self._target, max(self._limit_s.values()), self._exchange, self._same)

    async def close(self) -> None:
        """Let go of the connection or the serial port, within two seconds."""
        self._wanted = False
        await self._hang_up()

    async def _hang_up(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await port.close()

    async def read(self, device: Device, tags: tuple[Tag, ...]) -> Sequence[Reading]:
        """One reading for each of the tags, in the order of their addresses.

        On a shared link those whose turn did not come within the device's budget have none; the next read begins
        with them.
        """
        if not self._close_after_poll:
            return await self._sweep(device, tags)
        if self._wanted and (self._port is None or not self._exchange.is_open):
            await self._hang_up()
            await self._open()
        try:
            return await self._sweep(device, tags)
        finally:
            await self._hang_up()

    async def _sweep(self, device: Device, tags: tuple[Tag, ...]) -> Sequence[Reading]:
        known, plan = self._plans.get(id(tags)) or (None, None)
        if plan is None or known is not tags:
            plan = self._new_plan(device, tags)
        answers: list[tuple[Block, bytes | int | None]] = []
        now_s = self._time()
        until_s = now_s + self._budget_s[device]
        todo = deque(plan.begin(now_s))
        while todo:
            block = todo.popleft()
            answer = await self._ask(device, block)
            if answer in SPLIT_CODES and block.divisible:
                todo.extendleft(reversed(plan.split(block, now_s)))
            else:
                answers.append((block, answer))
                if answer in REFUSAL_CODES:
                    plan.refuse(block, answer, now_s)
                elif answer in SPLIT_CODES:
                    plan.keep_apart(block, now_s)
            if todo and self._time() > until_s:
                plan.put_off(todo[0])
                todo.clear()
            elif not todo and plan.untidy:
                plan.rejoin()
        if plan.refused:
            answers = plan.with_refused(answers)
        # Readings are made only now, so that none are alive while the next answer is awaited: the collector is spared.
        return list(chain.from_iterable(_readings(block, answer) for block, answer in answers))

    SCAN_TABLES: tuple[str, ...] = tuple(TABLES)

    @classmethod
    def scan(cls, settings: ModbusDevice, request: ScanRequest) -> AsyncGenerator[ScanStep, None]:
        """Who is there, and which addresses they have; see `edge_agent_modbus.scan`."""
        return scan.scan(settings, request)

    @classmethod
    async def fetch(cls, settings: ModbusDevice, address: str, count: int) -> bytes:
        """The bytes of `count` registers from an address on, as they came."""
        return await scan.fetch(settings, address, count)

    @classmethod
    def decode(cls, data: bytes) -> list[Decoding]:
        """What the registers mean in every type and order."""
        return guess.decodings(data)

    def _new_plan(self, device: Device, tags: tuple[Tag, ...]) -> Plan:
        if len(self._plans) >= _MAX_PLANS:  # a caller that makes a new tuple each time must not fill the memory
            self._plans.clear()
        plan = plan_of(self._settings[device], tags)
        self._plans[id(tags)] = (tags, plan)
        if plan.blocks:
            self._usual[device] = plan.blocks[0].request
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
            await self._look_around(device)
            self._fell_silent(device)
        except Nonsense as nonsense:
            self._talked_nonsense(device, nonsense)
            return None
        self._heard_from(device)
        return answer

    def _heard_from(self, device: Device) -> None:
        self._silences[device] = self._nonsense[device] = self._nonsense_in_a_row = 0
        self._spoken = True
        self._alive.add(device)

    async def _look_around(self, silent: Device) -> None:
        """Where nobody has spoken since the last silence, ask those that are read more seldom whether the link lives.

        Without this a half-open link would be believed in until the last of its devices is due. Only those are asked
        that have answered on this connection: questions to the dead do harm to some devices beside them.
        """
        spoken, self._spoken = self._spoken, False
        if spoken:
            return
        others = [device for device in self._usual if device is not silent and self._is_in_doubt(device)]
        for device in others[:_ASKED_AROUND]:
            try:
                await self._exchange.ask(
                    self._usual[device], self._limit_s[device], self._pause_s[device], self._drain_s[device]
                )
            except (Silence, Nonsense):
                self._silences[device] += 1
                continue
            except Refusal:
                pass
            self._silences[device] = 0
            self._spoken = True
            return

    def _is_in_doubt(self, device: Device) -> bool:
        return device in self._alive and self._silences.get(device, _SILENCES_OF_A_LOST_LINK) < _SILENCES_OF_A_LOST_LINK

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


def _readings(block: Block, answer: bytes | int | None) -> list[Reading]:
    if isinstance(answer, bytes):
        return block.decode(answer)
    cause = DAMAGED_ANSWER if answer is None else exception_name(answer)
    return [bad(tag, cause) for tag, _ in block.wanted]


def _budget_s(settings: ModbusDevice, devices: Sequence[Device]) -> float:
    """How long one read may go on: only where others wait is there a reason to stop early."""
    if sum(bool(device.tags) for device in devices) < 2:
        return _LONGEST_READ_S
    given = max(settings.poll, settings.timeout) if settings.budget is None else settings.budget
    return min(given / NS_PER_S, _LONGEST_READ_S)


def _unreachable(device: Device, code: int) -> str:
    settings = cast("ModbusDevice", device.settings)
    return f"the gateway does not reach {device.name} (device_id {settings.device_id}): {exception_name(code)}"


def _check_fields(devices: Sequence[Device]) -> None:
    """Nothing, where every tag can be read.

    Raises:
        ConfigError: some cannot; the message has all of them.
    """
    faults = []
    for device in devices:
        for tag in device.tags:
            try:
                field_in(cast("ModbusDevice", device.settings), tag)
            except ConfigError as error:
                faults.append(str(error))
    if faults:
        raise ConfigError("; ".join(faults))


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
