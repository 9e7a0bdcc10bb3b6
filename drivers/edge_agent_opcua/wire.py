"""The bytes of OPC UA's binary encoding (part 6, 5.2), as far as answers to Read and Publish need them.

asyncua builds an object for every field of every notification, and reads the timestamps in the wrong order where a
server sends picoseconds. Here a value is taken from the message once, and every length is checked before it is used.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

NUMBERS = {1: "?", 2: "b", 3: "B", 4: "h", 5: "H", 6: "i", 7: "I", 8: "q", 9: "Q", 10: "f", 11: "d"}
"""The built-in types that are numbers, by their ids, and how `struct` reads them."""
TYPE_NAMES = (
    "Null", "Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double",
    "String", "DateTime", "Guid", "ByteString", "XmlElement", "NodeId", "ExpandedNodeId", "StatusCode",
    "QualifiedName", "LocalizedText", "ExtensionObject", "DataValue", "Variant", "DiagnosticInfo",
)  # fmt: skip
"""The built-in types by their ids."""
MAX_DEPTH = 16
MAX_DIMENSIONS = 32

_U16, _I32, _U32, _I64 = struct.Struct("<H"), struct.Struct("<i"), struct.Struct("<I"), struct.Struct("<q")
_NUMBER = {type_id: struct.Struct("<" + code) for type_id, code in NUMBERS.items()}


class DecodeError(ValueError):
    """The bytes are not what they should be."""


class Ticks(int):
    """A DateTime: units of 100 ns since 1601 UTC."""


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A value of a type that has no place in a reading."""

    type_name: str


class Status(int):
    """A StatusCode as a value."""


@dataclass(frozen=True, slots=True)
class NodeName:
    """A NodeId or ExpandedNodeId as a value, by the index that its namespace has in the present session."""

    index: int
    identifier: int | str | uuid.UUID | bytes | None
    namespace: str | None = None
    """The URI, where the server gave it instead."""


Scalar = bool | int | float | str | bytes | uuid.UUID | NodeName
Decoded = Scalar | tuple[Scalar | None, ...] | Unsupported | None


class DataValue(NamedTuple):
    """A value, its status code, and when its source and its server knew it, 0 where they do not say."""

    value: Decoded
    status: int
    source: int
    server: int = 0


class Wire:
    """A message and the place that is read next. Each method takes one field; all raise DecodeError."""

    __slots__ = ("data", "depth", "pos")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.pos = 0
        self.depth = 0

    def _take(self, one: struct.Struct) -> int:
        try:
            (value,) = one.unpack_from(self.data, self.pos)
        except struct.error as error:
            raise DecodeError(f"the message ends at byte {len(self.data)}") from error
        self.pos += one.size
        return int(value)

    def u8(self) -> int:
        """One byte."""
        if self.pos >= len(self.data):
            raise DecodeError(f"the message ends at byte {len(self.data)}")
        self.pos += 1
        return self.data[self.pos - 1]

    def u16(self) -> int:
        """A UInt16."""
        return self._take(_U16)

    def u32(self) -> int:
        """A UInt32."""
        return self._take(_U32)

    def i64(self) -> int:
        """An Int64."""
        return self._take(_I64)

    def raw(self, size: int) -> bytes:
        """So many bytes as they are."""
        if not 0 <= size <= len(self.data) - self.pos:
            raise DecodeError(f"{size} bytes announced, {len(self.data) - self.pos} are there")
        self.pos += size
        return self.data[self.pos - size : self.pos]

    def length(self) -> int:
        """The length of an array or string: -1 for none, else no more than there are bytes left."""
        size = self._take(_I32)
        if not -1 <= size <= len(self.data) - self.pos:
            raise DecodeError(f"a length of {size}, with {len(self.data) - self.pos} bytes left")
        return size

    def byte_string(self) -> bytes | None:
        """A ByteString."""
        size = self.length()
        return None if size < 0 else self.raw(size)

    def string(self) -> str | None:
        """A String; what is not UTF-8 in it is replaced."""
        content = self.byte_string()
        return None if content is None else content.decode("utf-8", errors="replace")

    def guid(self) -> uuid.UUID:
        """A Guid."""
        return uuid.UUID(bytes_le=self.raw(16))

    def node_id(self) -> tuple[int, int | str | uuid.UUID | bytes | None]:
        """The namespace index and the identifier of a NodeId or ExpandedNodeId."""
        name = self.node_name()
        return name.index, name.identifier

    def node_name(self) -> NodeName:
        """A NodeId or ExpandedNodeId as a value."""
        encoding = self.u8()
        kind = encoding & 0x3F
        index = 0 if kind == 0 else self.u8() if kind == 1 else self.u16()
        if kind > 5:
            raise DecodeError(f"no NodeId has the encoding {kind}")
        takes: tuple[Callable[[], int | str | uuid.UUID | bytes | None], ...] = (
            self.u8, self.u16, self.u32, self.string, self.guid, self.byte_string,
        )  # fmt: skip
        identifier = takes[kind]()
        namespace = self.string() if encoding & 0x80 else None
        if encoding & 0x40:
            self.u32()
        return NodeName(index, identifier, namespace)

    def qualified_name(self) -> str:
        """A QualifiedName as people write it: the index of its namespace, unless 0, and the name."""
        index, name = self.u16(), self.string() or ""
        return f"{index}:{name}" if index else name

    def extension_object(self) -> tuple[int | str | uuid.UUID | bytes | None, bytes]:
        """The identifier of its encoding and the bytes of an ExtensionObject."""
        _, identifier = self.node_id()
        return identifier, (self.byte_string() or b"") if self.u8() in (1, 2) else b""

    def end(self) -> None:
        """Nothing may be left."""
        if self.pos != len(self.data):
            raise DecodeError(f"{len(self.data) - self.pos} bytes are left at the end")

    def diagnostic_info(self) -> None:
        """Pass over a DiagnosticInfo."""
        mask = self.u8()
        for bit in (0x01, 0x02, 0x08, 0x04):
            if mask & bit:
                self.u32()
        if mask & 0x10:
            self.byte_string()
        if mask & 0x20:
            self.u32()
        if mask & 0x40:
            self._deeper(self.diagnostic_info)

    def localized_text(self) -> str | None:
        """The text of a LocalizedText."""
        mask = self.u8()
        if mask & 1:
            self.byte_string()
        return self.string() if mask & 2 else None

    def response_header(self) -> tuple[int | str | uuid.UUID | bytes | None, int]:
        """What an answer is (the identifier of its encoding) and its service result."""
        _, kind = self.node_id()
        self.raw(12)  # timestamp, request handle
        result = self.u32()
        self.diagnostic_info()
        for _ in range(self.length()):
            self.byte_string()
        self.extension_object()
        return kind, result

    def variant(self) -> Decoded:
        """A Variant: a number, a text, bytes, an array of numbers or texts as a tuple, or Unsupported."""
        encoding = self.u8()
        type_id = encoding & 0x3F
        if not encoding & 0x80:
            return self._scalar(type_id)
        count = self.length()
        numbers = NUMBERS.get(type_id)
        content: Decoded = Unsupported(f"{_type_name(type_id)}[]")
        if count < 0:
            content = None
        elif type_id == 0 and count:  # takes no bytes: a small message could announce any number of them, nested
            raise DecodeError(f"an array of {count} nulls")
        elif numbers:
            each = struct.Struct(f"<{count}{numbers}")
            content = each.unpack(self.raw(each.size))
        else:
            items = tuple(self._scalar(type_id) for _ in range(count))
            if type_id in _TEXTS:
                content = cast("tuple[Scalar | None, ...]", items)
        if encoding & 0x40:
            dimensions = [self.u32() for _ in range(self.length())]
            if len(dimensions) > MAX_DIMENSIONS:
                raise DecodeError(f"an array of {len(dimensions)} dimensions")
            if len(dimensions) > 1:
                content = Unsupported(f"{_type_name(type_id)}{dimensions}")
        return content

    def data_value(self) -> DataValue:
        """A DataValue: good unless it says otherwise; a time is 0 where none is given."""
        mask = self.u8()
        value = self.variant() if mask & 0x01 else None
        status = self.u32() if mask & 0x02 else 0
        source = self.i64() if mask & 0x04 else 0
        if mask & 0x10:
            self.u16()
        server = self.i64() if mask & 0x08 else 0
        if mask & 0x20:
            self.u16()
        return DataValue(value, status, source, server)

    def _scalar(self, type_id: int) -> Decoded:
        number = _NUMBER.get(type_id)
        if number is not None:
            return _typed(number, self.raw(number.size))
        take = _SCALARS.get(type_id)
        if take is not None:
            return take(self)
        if type_id == 23:
            self._deeper(self.data_value)
        elif type_id == 24:
            self._deeper(self.variant)
        elif type_id == 25:
            self.diagnostic_info()
        elif 26 <= type_id <= 31:  # reserved: part 6 says to take them as ByteString
            self.byte_string()
        else:
            raise DecodeError(f"no built-in type has the id {type_id}")
        return Unsupported(_type_name(type_id))

    def _deeper(self, take: Callable[[], object]) -> None:
        if self.depth >= MAX_DEPTH:
            raise DecodeError(f"nested more than {MAX_DEPTH} deep")
        self.depth += 1
        take()
        self.depth -= 1


def _typed(number: struct.Struct, content: bytes) -> bool | int | float:
    value: bool | int | float = number.unpack(content)[0]
    return value


def _type_name(type_id: int) -> str:
    return TYPE_NAMES[type_id] if type_id < len(TYPE_NAMES) else f"type {type_id}"


def _passed_over(type_name: str, take: Callable[[Wire], object]) -> Callable[[Wire], Decoded]:
    def pass_over(wire: Wire) -> Decoded:
        take(wire)
        return Unsupported(type_name)

    return pass_over


_SCALARS: dict[int, Callable[[Wire], Decoded]] = {
    0: lambda wire: None,
    12: Wire.string,
    13: lambda wire: Ticks(wire.i64()),
    14: Wire.guid,
    15: Wire.byte_string,
    16: Wire.string,
    17: Wire.node_name,
    18: Wire.node_name,
    19: lambda wire: Status(wire.u32()),
    20: Wire.qualified_name,
    21: Wire.localized_text,
    22: _passed_over("ExtensionObject", Wire.extension_object),
}
_TEXTS = frozenset(_SCALARS) - {0, 15, 22}
"""The types whose values are texts, and whose arrays are arrays of texts."""
