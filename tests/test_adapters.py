"""A serial port's name that leads to another adapter after a replug: never another instrument's values."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from serial_instrument import Instrument, serial_device

from edge_agent.contract import LOOK_AGAIN_S, Device, NotConnected, SameAdapter, Tag
from edge_agent.contract import adapters as adapters_module
from edge_agent_modbus import ModbusDriver
from edge_agent_serial import SerialDriver


class Plugs:
    """A sysfs that says of pseudo-terminals which USB adapter they are, as the kernel lays it out."""

    def __init__(self, sysfs: Path) -> None:
        self.sysfs = sysfs

    def is_adapter(self, port: Path, serial: str = "", socket: str = "1-1", model: str = "0403:6001") -> None:
        """The port behind this name is one of that adapter."""
        device = port.stat().st_rdev
        usb = self.sysfs / "devices" / "usb1" / socket
        tty = usb / f"{socket}:1.0" / port.resolve().name / "tty" / port.resolve().name
        tty.mkdir(parents=True, exist_ok=True)
        (tty.parents[2] / "bInterfaceNumber").write_text("00\n")
        for name, text in zip(("idVendor", "idProduct", "serial"), (*model.split(":"), serial), strict=True):
            (usb / name).write_text(text + "\n")
        link = self.sysfs / "dev" / "char" / f"{os.major(device)}:{os.minor(device)}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(tty)


@pytest.fixture
def plugs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugs:
    """The system's knowledge of what is plugged in."""
    monkeypatch.setattr(adapters_module, "SYSFS", tmp_path / "sys")
    return Plugs(tmp_path / "sys")


@pytest.fixture
async def scale(tmp_path: Path) -> AsyncIterator[Instrument]:
    """A scale that is plugged in."""
    one = Instrument(tmp_path / "scale")
    one.script = lambda request: one.send(b"S S       5.00 g\r\n")
    one.plug()
    yield one
    one.unplug()


def _drivers(port: Path) -> dict[str, SerialDriver | ModbusDriver]:
    settings = ModbusDriver.Settings.model_validate({"driver": "modbus", "url": f"rtu://{port}?baud=9600"})
    tag = Tag("plc.a", ModbusDriver.TagSettings.model_validate({"address": "holding:1"}), settings.poll)
    scale = serial_device(str(port), {"w": {"address": "weight"}}, profile="sics", drain="50 ms")
    return {"serial": SerialDriver([scale]), "modbus": ModbusDriver([Device("plc", settings, (tag,))])}


@pytest.mark.parametrize("driver", ["serial", "modbus"])
@pytest.mark.parametrize(
    ("before", "after", "taken"),
    [
        ({"serial": "A50285BI"}, {"serial": "A50285BI", "socket": "1-3"}, True),
        ({"serial": "A50285BI"}, {"serial": "B7"}, False),
        ({"socket": "1-1"}, {"socket": "1-1"}, True),
        ({"socket": "1-1"}, {"socket": "1-2"}, False),
        ({"serial": "0001"}, {"serial": "0001", "model": "1a86:7523"}, False),
    ],
)
async def test_name_is_held_to_the_adapter_that_it_led_to_first(
    scale: Instrument, plugs: Plugs, driver: str, before: dict[str, str], after: dict[str, str], taken: bool
) -> None:
    one = _drivers(scale.path)[driver]
    plugs.is_adapter(scale.path, **before)
    await one.connect()
    await one.close()
    scale.unplug()
    scale.plug()
    plugs.is_adapter(scale.path, **after)
    try:
        if taken:
            await one.connect()
        else:
            with pytest.raises(NotConnected, match=r"another adapter than before.*restart the agent") as refused:
                await one.connect()
            assert refused.value.retry_within_s == LOOK_AGAIN_S, "back within 5 s of a replug"
            plugs.is_adapter(scale.path, **before)  # the old one is back
            await one.connect()
    finally:
        await one.close()


async def test_adapter_that_the_system_suddenly_knows_nothing_of_is_refused(scale: Instrument, plugs: Plugs) -> None:
    same = SameAdapter(str(scale.path))
    plugs.is_adapter(scale.path, "A1")
    with scale.path.open("rb", buffering=0) as port:
        same.check(port.fileno())
    scale.unplug()
    (plugs.sysfs / "dev").rename(plugs.sysfs / "gone")
    scale.plug()
    with (
        scale.path.open("rb", buffering=0) as port,
        pytest.raises(
            NotConnected, match=r"tells nothing of; before: 0403:6001:00, serial number A1 in USB socket 1-1"
        ),
    ):
        same.check(port.fileno())


def test_name_by_path_means_a_socket_and_whatever_is_in_it(plugs: Plugs) -> None:
    far, near = os.openpty()
    try:
        same = SameAdapter("/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.0-port0")
        for number in "AB":
            plugs.is_adapter(Path(os.ttyname(near)), number)
            same.check(near)
    finally:
        os.close(far)
        os.close(near)
