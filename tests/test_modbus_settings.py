"""Modbus: every mistake in addresses, types and URLs is found before anything is opened."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modbus_peers import make_device
from pydantic import ValidationError

from edge_agent.contract import ConfigError, parse_duration
from edge_agent_modbus import ModbusDevice, ModbusDriver, ModbusTag
from edge_agent_modbus.address import TABLES


def complaint(model: type[Any], **settings: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        model(**settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "table", "address", "bit"),
    [
        ("holding:100", "holding", 100, None),
        (" Holding: 100 ", "holding", 100, None),
        ("input:5", "input", 5, None),
        ("coil:3", "coil", 3, None),
        ("discrete:7", "discrete", 7, None),
        ("holding:7.3", "holding", 7, 3),
        ("input:65535.15", "input", 65535, 15),
        (40001, "holding", 0, None),
        (40003, "holding", 2, None),
        (49999, "holding", 9998, None),
        (400001, "holding", 0, None),
        (465536, "holding", 65535, None),
        (30001, "input", 0, None),
        (10001, "discrete", 0, None),
        (165536, "discrete", 65535, None),
        ("40001", "holding", 0, None),
        ("00001", "coil", 0, None),
    ],
)
def test_address_in_any_notation_names_its_place(given: Any, table: str, address: int, bit: int | None) -> None:
    assert ModbusTag(address=given).place() == (TABLES[table], address, bit)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (1, "coil:0"),
        (0, "coil:0"),
        (10000, "coil:9999"),
        (40000, "1 to 65536"),
        (20001, "begin with 1"),
        (465537, "1 to 65536"),
        (-40001, "not negative"),
        (1000000, "five or six digits"),
        (40001.3, "holding:7.3"),
        (True, "holding:100"),
        (None, "holding:100"),
        ("holding", "holding:100"),
        ("register:5", "holding:100"),
        ("holding:-1", "holding:100"),
        ("holding:٣", "holding:100"),
        ("holding:65536", "holding:65535"),
        ("holding:7.16", "0 to 15"),
        ("coil:7.1", "one bit already"),
    ],
)
def test_address_that_cannot_be_is_refused_with_what_to_write(given: Any, says: str) -> None:
    assert says in complaint(ModbusTag, address=given)


@given(st.sampled_from(sorted(TABLES)), st.integers(0, 65535))
def test_address_named_or_modicon_is_the_same_place(table: str, address: int) -> None:
    digit = {"coil": "0", "discrete": "1", "input": "3", "holding": "4"}[table]
    modicon = f"{digit}{address + 1:05d}"
    assert ModbusTag(address=f"{table}:{address}").place() == ModbusTag(address=modicon).place()
    if table != "coil":
        assert ModbusTag(address=int(modicon)).place() == ModbusTag(address=modicon).place()


@given(st.one_of(st.integers(), st.text(max_size=20), st.floats()))
def test_address_of_any_kind_is_a_place_or_a_clear_refusal(given: Any) -> None:
    try:
        place = ModbusTag(address=given).place()
    except ValidationError:
        return
    assert 0 <= place.address <= 65535


def test_type_unless_given_is_bool_for_bits_and_uint16_for_registers() -> None:
    kinds = [ModbusTag(address=where).field().type for where in ("coil:1", "discrete:1", "input:1.0", "holding:1")]
    assert kinds == ["bool", "bool", "bool", "uint16"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"address": "coil:1", "type": "uint16"}, "a bit is a bool"),
        ({"address": "holding:1.2", "type": "int32"}, "a bit is a bool"),
        ({"address": "holding:1", "type": "bool"}, "holding:1.0"),
        ({"address": "holding:1", "type": "float"}, "float32"),
        ({"address": "holding:65535", "type": "uint32"}, "past the last address"),
        ({"address": "holding:65533", "type": "float64"}, "past the last address"),
        ({"address": "holding:65500", "type": "string", "length": 100}, "past the last address"),
        ({"address": "holding:1", "type": "string"}, "needs its length"),
        ({"address": "holding:1", "type": "string", "length": 7}, "even"),
        ({"address": "holding:1", "type": "string", "length": 0}, "even"),
        ({"address": "holding:1", "type": "string", "length": 252}, "250"),
        ({"address": "holding:1", "length": 4}, "only a string"),
        ({"address": "holding:1", "type": "string", "length": 4, "word_order": "CDAB"}, "ABCD, or BADC"),
        ({"address": "holding:1", "type": "string", "length": 4, "scale": 2}, "no number"),
        ({"address": "coil:1", "word_order": "CDAB"}, "no word order"),
        ({"address": "coil:1", "deadband": 0.5}, "no number"),
        ({"address": "holding:1.1", "offset": 1}, "no number"),
        ({"address": "holding:1", "word_order": "ACBD"}, "BADC"),
        ({"address": "holding:1", "lenght": 4}, "lenght"),
    ],
)
def test_tag_that_cannot_be_is_refused_with_what_to_write(settings: dict[str, Any], says: str) -> None:
    assert says in complaint(ModbusTag, **settings)


def test_tag_at_the_very_end_of_the_table_is_accepted() -> None:
    assert ModbusTag(address="holding:65532", type="float64").field().end == 65536


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("tcp://10.0.0.1", "tcp://10.0.0.1:502"),
        ("tcp://PLC.local:1502", "tcp://plc.local:1502"),
        ("tcp://[fe80::1]:502", "tcp://[fe80::1]:502"),
        ("rtu:///dev/ttyS1?baud=9600&parity=N", "rtu:///dev/ttyS1"),
        ("rtu:///dev/serial/by-path/pci-0:1.2:1.0-port0", "rtu:///dev/serial/by-path/pci-0:1.2:1.0-port0"),
        ("rtu+tcp://10.0.0.1:4001", "rtu+tcp://10.0.0.1:4001"),
    ],
)
def test_link_of_a_url_is_its_normal_form(url: str, key: str) -> None:
    assert ModbusDriver.link(ModbusDevice(driver="modbus", url=url)) == key


def test_line_unless_given_is_the_one_of_the_specification() -> None:
    lines = {
        url: str(ModbusDevice(driver="modbus", url=url).target().line) for url in ("rtu:///x", "rtu:///x?parity=N")
    }
    assert lines == {"rtu:///x": "19200 8E1", "rtu:///x?parity=N": "19200 8N2"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"url": "http://x"}, "tcp://host"),
        ({"url": "10.0.0.1:502"}, "tcp://host"),
        ({"url": "tcp://"}, "tcp://host"),
        ({"url": "tcp://x:70000"}, "tcp://host"),
        ({"url": "tcp://x:0"}, "port 0"),
        ({"url": "tcp://u:p@x"}, "tcp://host"),
        ({"url": "rtu+tcp://x"}, "no usual port"),
        ({"url": "rtu://dev/ttyS0"}, "three slashes"),
        ({"url": "rtu:///dev/ttyS0?baud=9601"}, "9600"),
        ({"url": "rtu:///dev/ttyS0?parity=X"}, "E (even)"),
        ({"url": "rtu:///dev/ttyS0?stop=3"}, "1 or 2"),
        ({"url": "rtu:///dev/ttyS0?speed=9600"}, "allowed: baud, parity, stop"),
        ({"url": "rtu:///dev/ttyS0", "device_id": 0}, "1 to 247"),
        ({"url": "tcp://x", "device_id": 256}, "255"),
        ({"url": "tcp://x", "timeout": "0 s"}, "more than zero"),
        ({"url": "tcp://x", "max_read": 126}, "125"),
    ],
)
def test_device_that_cannot_be_is_refused_with_what_to_write(settings: dict[str, Any], says: str) -> None:
    assert says in complaint(ModbusDevice, driver="modbus", **settings)


def test_device_settings_unless_given_are_the_documented_ones() -> None:
    device = ModbusDevice(driver="modbus", url="tcp://x")
    assert (device.device_id, device.timeout, device.max_read, device.max_gap, device.pause) == (
        1, parse_duration("1 s"), 125, 8, 0
    )  # fmt: skip


def test_devices_on_one_port_with_two_lines_are_refused_by_name() -> None:
    slow, fast = make_device("rtu:///x?baud=9600", [], "slow"), make_device("rtu:///x", [], "fast")
    with pytest.raises(ConfigError, match=r"slow and fast share .* 9600 8E1 .* 19200 8E1"):
        ModbusDriver([slow, fast])
