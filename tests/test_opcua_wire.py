"""The decoding of values: against asyncua's encoder, and against damage."""

from __future__ import annotations

import math
import struct
import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from asyncua import ua as asyncua_types
from asyncua.ua.ua_binary import struct_to_binary, variant_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract import NotConnected, Quality, Reading, Tag, TagSettings
from edge_agent_opcua.session import Notification
from edge_agent_opcua.subscription import Subscription
from edge_agent_opcua.values import data_change, readings_of, rfc3339, status_name, time_ns
from edge_agent_opcua.wire import (
    NUMBERS,
    TYPE_NAMES,
    DataValue,
    DecodeError,
    NodeName,
    Status,
    Ticks,
    Unsupported,
    Wire,
)

ua: Any = asyncua_types
TAGS = tuple(Tag(f"d.t{n}", TagSettings(address=n), 1) for n in range(3))
TICKS = 134_000_000_001_234_567
NS = (TICKS - 116_444_736_000_000_000) * 100
GOOD_DOUBLE = b"\x01\x0b" + struct.pack("<d", 1.5)


def notification(*items: bytes) -> bytes:
    """The body of a DataChangeNotification with items of (handle, DataValue)."""
    return struct.pack("<i", len(items)) + b"".join(items) + struct.pack("<i", -1)


def item(handle: int, value: bytes) -> bytes:
    return struct.pack("<I", handle) + value


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (True, "Boolean", True),
        (-5, "SByte", -5),
        (200, "Byte", 200),
        (-30000, "Int16", -30000),
        (60000, "UInt16", 60000),
        (-(2**31), "Int32", -(2**31)),
        (2**32 - 1, "UInt32", 2**32 - 1),
        (-(2**63), "Int64", -(2**63)),
        (2**64 - 1, "UInt64", 2**64 - 1),
        (0.5, "Float", 0.5),
        (0.1, "Double", 0.1),
        ("Grüße", "String", "Grüße"),
        (None, "String", None),
        (b"\x00\xff", "ByteString", b"\x00\xff"),
        (uuid.UUID(int=2**100 + 7), "Guid", uuid.UUID(int=2**100 + 7)),
        (ua.LocalizedText("Läuft", "de"), "LocalizedText", "Läuft"),
        ([1, -2, 3], "Int16", (1, -2, 3)),
        ([0.25, 0.5], "Double", (0.25, 0.5)),
        ([True, False], "Boolean", (True, False)),
        ([], "Int32", ()),
        (["a", None, "b"], "String", ("a", None, "b")),
        ([b"a"], "ByteString", Unsupported("ByteString[]")),
        ([[1, 2], [3, 4]], "Int32", Unsupported("Int32[2, 2]")),
        (ua.NodeId("x", 2), "NodeId", NodeName(2, "x")),
        (ua.QualifiedName("x", 2), "QualifiedName", "2:x"),
        (ua.StatusCode(ua.StatusCodes.BadTimeout), "StatusCode", Status(0x800A0000)),
        (ua.XmlElement("<a/>"), "XmlElement", "<a/>"),
        (ua.ExpandedNodeId(7, 0), "ExpandedNodeId", NodeName(0, 7)),
        (ua.Range(1.0, 2.0), "ExtensionObject", Unsupported("ExtensionObject")),
        ([ua.Variant(1, ua.VariantType.Int32)], "Variant", Unsupported("Variant[]")),
        (None, "Null", None),
    ],
)
def test_variant_of_each_type_is_decoded_to_its_last_byte(value: Any, kind: str, expected: Any) -> None:
    dimensions = [2, 2] if expected == Unsupported("Int32[2, 2]") else None
    variant = ua.Variant(value, ua.VariantType[kind], dimensions, is_array=isinstance(value, list))
    encoded = variant_to_binary(variant)
    wire = Wire(encoded + b"\xaa")
    decoded = wire.variant()
    assert (decoded, type(decoded), wire.pos) == (expected, type(expected), len(encoded))


def test_type_names_are_those_of_the_library() -> None:
    assert all(ua.VariantType(n).name == name for n, name in enumerate(TYPE_NAMES))
    assert {ua.VariantType(n).name for n in NUMBERS} == {
        "Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double",
    }  # fmt: skip


@pytest.mark.parametrize("type_id", sorted(NUMBERS))
@pytest.mark.parametrize("mask", range(64))
def test_data_change_with_any_mask_agrees_field_by_field(mask: int, type_id: int) -> None:
    """The quick way and the careful way must say the same, timestamps and picoseconds in the order of part 6."""
    number = struct.pack("<" + NUMBERS[type_id], 1)
    value = bytes([mask])
    value += bytes([type_id]) + number if mask & 1 else b""
    value += struct.pack("<I", 0) if mask & 2 else b""
    value += struct.pack("<q", TICKS) if mask & 4 else b""
    value += struct.pack("<H", 7) if mask & 16 else b""
    value += struct.pack("<q", TICKS + 10) if mask & 8 else b""
    value += struct.pack("<H", 9) if mask & 32 else b""
    after = item(2, GOOD_DOUBLE)
    first, second = data_change(notification(item(1, value), after), TAGS)
    expected_time = NS if mask & 4 else NS + 1000 if mask & 8 else None
    assert (first.tag, first.time) == (TAGS[1], expected_time)
    assert first.server_time == (NS + 1000 if mask & 8 else None)
    assert (first.value, first.cause) == ((1, None) if mask & 1 else (None, "no_value"))
    assert second == Reading(TAGS[2], None, 1.5)
    assert first == readings_of(TAGS[1], Wire(value).data_value())[0]


def test_data_change_encoded_by_asyncua_keeps_time_and_value() -> None:
    moment = datetime(2026, 11, 23, 7, 0, 0, 120_000, tzinfo=UTC)
    later = moment + timedelta(milliseconds=30)
    sample = ua.DataValue(ua.Variant(21.5, ua.VariantType.Double), SourceTimestamp=moment, ServerTimestamp=later)
    body = struct_to_binary(ua.DataChangeNotification([ua.MonitoredItemNotification(0, sample)], []))
    source = int(moment.timestamp() * 1000) * 10**6
    assert data_change(body, TAGS) == [Reading(TAGS[0], source, 21.5, server_time=source + 30 * 10**6)]


@pytest.mark.parametrize(
    ("status", "quality", "cause"),
    [
        (0x00000000, Quality.GOOD, None),
        (0x00960000, Quality.GOOD, None),  # GoodLocalOverride
        (0x40900000, Quality.UNCERTAIN, "UncertainLastUsableValue"),
        (0x40900500, Quality.UNCERTAIN, "UncertainLastUsableValue"),  # with limit bits
        (0x808C0000, Quality.BAD, "BadSensorFailure"),
        (0xC0000000, Quality.BAD, "Bad_0xC0000000"),  # the reserved severity is bad
        (0x8FFF0000, Quality.BAD, "Bad_0x8FFF0000"),
    ],
)
def test_status_code_becomes_quality_and_cause(status: int, quality: Quality, cause: str | None) -> None:
    (reading,) = readings_of(TAGS[0], DataValue(7, status, TICKS))
    value = None if quality is Quality.BAD else 7
    assert reading == Reading(TAGS[0], NS, value, quality, cause)


def test_status_name_without_info_bits_is_found() -> None:
    assert status_name(0x808C0480) == "BadSensorFailure"


def test_overflow_bit_is_a_bad_reading_before_the_value() -> None:
    value = b"\x07" + GOOD_DOUBLE[1:] + struct.pack("<Iq", 0x00000480, TICKS)
    lost, kept = data_change(notification(item(0, value)), TAGS)
    assert lost == Reading(TAGS[0], NS, None, Quality.BAD, "overflow")
    assert kept == Reading(TAGS[0], NS, 1.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_float_that_is_no_number_is_bad(value: float) -> None:
    encoded = b"\x05\x0b" + struct.pack("<dq", value, TICKS)
    (reading,) = data_change(notification(item(0, encoded)), TAGS)
    assert reading == Reading(TAGS[0], NS, None, Quality.BAD, "not_a_number")
    (reading,) = readings_of(TAGS[0], DataValue((1.0, value), 0, 0))
    assert reading == Reading(TAGS[0], None, None, Quality.BAD, "not_a_number")


def test_value_of_unsupported_type_is_bad_and_named() -> None:
    (reading,) = readings_of(TAGS[0], DataValue(Unsupported("ExtensionObject"), 0, 0))
    assert reading == Reading(TAGS[0], None, None, Quality.BAD, "unsupported_type ExtensionObject")


@pytest.mark.parametrize(
    ("decoded", "value"),
    [
        (Status(0x800A0000), "BadTimeout"),
        (NodeName(0, 2258), "i=2258"),
        (NodeName(2, "Zone1.Temp"), "ns=2;s=Zone1.Temp"),
        (NodeName(3, b"\x01\x02"), "ns=3;b=AQI="),
        (NodeName(0, 5, "urn:a"), "nsu=urn:a;i=5"),
        (("open", None, "shut"), ("open", "", "shut")),
        ((Ticks(116_444_736_000_000_000),), ("1970-01-01T00:00:00Z",)),
        ((), ()),
    ],
)
def test_value_that_is_no_number_is_its_text(decoded: Any, value: Any) -> None:
    (reading,) = readings_of(TAGS[0], DataValue(decoded, 0, 0))
    assert (reading.value, reading.quality) == (value, Quality.GOOD)


@pytest.mark.parametrize(
    ("ticks", "text"),
    [
        (TICKS, "2025-08-18T14:13:20.1234567Z"),
        (116_444_736_000_000_000, "1970-01-01T00:00:00Z"),
        (0, "1601-01-01T00:00:00Z"),
        (-1, "1601-01-01T00:00:00Z"),
        (2**63 - 1, "9999-12-31T23:59:59Z"),
    ],
)
def test_date_time_is_text_in_utc(ticks: int, text: str) -> None:
    assert rfc3339(ticks) == text
    (reading,) = readings_of(TAGS[0], DataValue(Wire(b"\x0d" + struct.pack("<q", ticks)).variant(), 0, 0))
    assert reading.value == text


def test_time_that_is_null_or_beyond_64_bits_is_none() -> None:
    assert (time_ns(0), time_ns(-5), time_ns(2**63 - 1), time_ns(TICKS)) == (None, None, None, NS)


def test_data_change_cut_anywhere_is_refused() -> None:
    values = (GOOD_DOUBLE, b"\x05\x04" + struct.pack("<hq", 3, TICKS), b"\x01\x0c" + struct.pack("<i3s", 3, b"abc"))
    body = notification(*(item(n, value) for n, value in enumerate(values)))
    assert len(data_change(body, TAGS)) == 3
    for end in range(len(body)):
        with pytest.raises(DecodeError):
            data_change(body[:end], TAGS)


def test_data_change_of_an_unknown_item_is_refused() -> None:
    for value in (GOOD_DOUBLE, b"\x05\x04" + struct.pack("<hq", 3, TICKS)):
        with pytest.raises(DecodeError):
            data_change(notification(item(3, value)), TAGS)


def test_variant_nested_without_end_is_refused() -> None:
    with pytest.raises(DecodeError, match="nested"):
        Wire(b"\x18" * 100_000).variant()
    with pytest.raises(DecodeError, match="nested"):
        Wire(b"\x19" + b"\x40" * 100_000).variant()


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_data_change_of_any_bytes_decodes_or_is_refused(noise: bytes) -> None:
    for body in (noise, struct.pack("<i", 3) + noise, notification(item(0, b"\x0f" + noise))):
        try:
            readings = data_change(body, TAGS)
        except DecodeError:
            continue
        assert all(reading.tag in TAGS for reading in readings)
        assert all((reading.value is None) == (reading.quality is Quality.BAD) for reading in readings)


async def test_subscription_notices_a_notification_that_was_lost() -> None:
    created = SimpleNamespace(SubscriptionId=7, RevisedPublishingInterval=500.0, RevisedMaxKeepAliveCount=10)
    subscription = Subscription(created, TAGS, ())
    change = [(811, notification(item(0, GOOD_DOUBLE)))]
    for sequence, bodies, count in ((2**32 - 2, change, 1), (2**32 - 1, [], 0), (2**32 - 1, change, 1), (1, change, 1)):
        assert len(subscription.readings(Notification(7, sequence, bodies))) == count
    with pytest.raises(NotConnected, match="notification 2 of the subscription was lost; 3 came"):
        subscription.readings(Notification(7, 3, change))
