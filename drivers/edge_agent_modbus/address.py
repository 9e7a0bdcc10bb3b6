"""Addresses and types: what a tag occupies in a device, checked before anything is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from pymodbus.pdu import ModbusPDU, ReadCoilsRequest, ReadHoldingRegistersRequest
from pymodbus.pdu.bit_message import ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import ReadInputRegistersRequest

TypeName = Literal[
    "bool", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bcd16", "bcd32", "string"
]  # fmt: skip
WordOrder = Literal["ABCD", "CDAB", "BADC", "DCBA", "ABCDEFGH", "GHEFCDAB", "BADCFEHG", "HGFEDCBA"]
SHORT_ORDERS = {"ABCDEFGH": "ABCD", "GHEFCDAB": "CDAB", "BADCFEHG": "BADC", "HGFEDCBA": "DCBA"}
"""The names for 64 bits, and what they are called for 32."""

LAST_ADDRESS = 65535
MAX_REGISTERS = 125
"""The most registers that one request may ask for."""
MAX_STRING_BYTES = 250
_REGISTERS = {
    "bool": 1, "int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2, "int64": 4, "uint64": 4, "float64": 4,
    "bcd16": 1, "bcd32": 2,
}  # fmt: skip


class Table(NamedTuple):
    """One of the four tables of a device."""

    name: str
    request: type[ModbusPDU]
    bits: bool
    """Whether an address is one bit; otherwise it is a register of 16."""


COIL = Table("coil", ReadCoilsRequest, True)
DISCRETE = Table("discrete", ReadDiscreteInputsRequest, True)
INPUT = Table("input", ReadInputRegistersRequest, False)
HOLDING = Table("holding", ReadHoldingRegistersRequest, False)
TABLES = {table.name: table for table in (COIL, DISCRETE, INPUT, HOLDING)}
_MODICON = {"0": COIL, "1": DISCRETE, "3": INPUT, "4": HOLDING}

_RANGE = re.compile(r"(\S+?)\s*-\s*(\d+)")
_NAMED = re.compile(r"([a-z]+):([0-9]+)(?:\.([0-9]+))?")
FORMS = (
    "holding:100, input:5, coil:3, discrete:7 (counted from 0), holding:7.3 (bit 3 of a register), "
    "or Modicon notation such as 40001 (counted from 1)"
)


class Place(NamedTuple):
    """Where a tag begins: a table, an address counted from 0 and, for a bit of a register, its number."""

    table: Table
    address: int
    bit: int | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """What a tag occupies: `count` registers or bits of a table from `start`, and how they are read."""

    table: Table
    start: int
    count: int
    type: str
    word_order: str
    bit: int | None
    items: int = 0
    """Of an array, how many numbers; 0: this is none."""

    def shifted(self, offset: int) -> Field:
        """The same field, so many addresses further on.

        Raises:
            ValueError: it would lie before the first address or behind the last.
        """
        if not 0 <= self.start + offset <= self.end + offset - 1 <= LAST_ADDRESS:
            raise ValueError(
                f"with address_offset {offset} its address would be {self.table.name}:{self.start + offset}: check both"
            )
        return replace(self, start=self.start + offset)

    @property
    def end(self) -> int:
        """The address behind the last one."""
        return self.start + self.count


def parse_address(given: object) -> Place:
    """The place that an address names.

    Raises:
        ValueError: no such form, or beyond what a device can have; the message says what to write.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        return _modicon(str(given))
    if not isinstance(given, str):
        raise ValueError(f"not a Modbus address; write {FORMS}; a bit with quotes: 'holding:7.3'")
    text = given.strip()
    if text.isdecimal() and text.isascii():
        return _modicon(text)
    match = _NAMED.fullmatch(text.lower().replace(" ", ""))
    if match is None or match[1] not in TABLES:
        raise ValueError(f"not a Modbus address; write {FORMS}")
    table, address = TABLES[match[1]], int(match[2])
    if address > LAST_ADDRESS:
        raise ValueError(f"{table.name}:{address} is beyond the last address, {table.name}:{LAST_ADDRESS}")
    if match[3] is None:
        return Place(table, address)
    bit = int(match[3])
    if table.bits:
        raise ValueError(f"{table.name}:{address} is one bit already; write it without .{bit}")
    if bit > 15:
        raise ValueError(f"a register has the bits 0 to 15 (0 is the least significant), not {bit}")
    return Place(table, address, bit)


class Span(NamedTuple):
    """Addresses of a table from `start` to the one before `end`."""

    table: Table
    start: int
    end: int

    def inside(self, table: Table, start: int, end: int) -> bool:
        """Whether all of it lies among these addresses."""
        return self.table is table and start <= self.start and self.end <= end

    def touches(self, table: Table, start: int, end: int) -> bool:
        """Whether some of it lies among these addresses."""
        return self.table is table and start < self.end and self.start < end


def parse_range(given: str) -> Span:
    """The addresses that a range such as `holding:200-299`, `40201-40300` or `coil:7` names.

    Raises:
        ValueError: no such form; the message says what to write.
    """
    match = _RANGE.fullmatch(given.strip())
    first = parse_address(match[1] if match else given)
    last = first
    if match:
        last = parse_address(match[2] if match[1].isdecimal() else f"{first.table.name}:{match[2]}")
    if first.bit is not None or last.table is not first.table or last.address < first.address:
        raise ValueError(f"{given!r} is no range of addresses; write holding:200-299 or 40201-40300")
    return Span(first.table, first.address, last.address + 1)


def _modicon(digits: str) -> Place:
    number = int(digits)
    if number < 0:
        raise ValueError(f"an address is not negative; write {FORMS}")
    if len(digits) not in (5, 6) or digits == "10000":
        raise ValueError(
            f"{number} names no table; write coil:{max(number - 1, 0)} for Modicon 0{number:04d}, "
            f"holding:{number} for a register counted from 0, or all five or six digits: 40001, 400001"
        )
    table = _MODICON.get(digits[0])
    if table is None:
        raise ValueError(f"Modicon numbers begin with 1 (discrete), 3 (input) or 4 (holding), not {digits[0]}")
    offset = int(digits[1:])
    if not 1 <= offset <= LAST_ADDRESS + 1:
        raise ValueError(
            f"Modicon numbers count from 1 to {LAST_ADDRESS + 1} in each table: the first is {digits[0]}0001"
        )
    return Place(table, offset - 1)


def type_of(place: Place, given: str | None) -> str:
    """The type of a tag at this place: the given one, else bool for a bit and uint16 for a register.

    Raises:
        ValueError: the table cannot hold the type.
    """
    is_bit = place.table.bits or place.bit is not None
    if given is None:
        return "bool" if is_bit else "uint16"
    if is_bit and given != "bool":
        raise ValueError(f"a bit is a bool, not a {given}; leave the type out or write bool")
    if given == "bool" and not is_bit:
        name = f"{place.table.name}:{place.address}"
        raise ValueError(f"a register is no bool; write the bit, such as {name}.0, or one of {_register_types()}")
    return given


def _register_types() -> str:
    return ", ".join(name for name in get_args(TypeName) if name != "bool")


def field_of(
    place: Place, type_name: str | None, word_order: str, length: int | None, items: int | None = None
) -> Field:
    """What the tag occupies; `items` makes an array of it.

    Raises:
        ValueError: a string without a length, an array too long for a request, or what runs past the last address.
    """
    kind = type_of(place, type_name)
    if kind == "string":
        if length is None:
            raise ValueError(f"length: a string needs its length in bytes, even, 2 to {MAX_STRING_BYTES}")
        count = length // 2
    else:
        count = _REGISTERS[kind] * (items or 1)
    if items and count > MAX_REGISTERS:
        raise ValueError(
            f"count: {items} values of {kind} take {count} registers, and one request carries {MAX_REGISTERS}, so that "
            f"they would not be of one moment: make it two tags of at most {MAX_REGISTERS // _REGISTERS[kind]}"
        )
    if place.address + count > LAST_ADDRESS + 1:
        raise ValueError(
            f"address: a {kind} takes {count} registers; from {place.table.name}:{place.address} it would run past "
            f"the last address, {LAST_ADDRESS}"
        )
    return Field(
        place.table, place.address, count, kind, SHORT_ORDERS.get(word_order, word_order), place.bit, items or 0
    )
