"""Modbus: blocks cover every tag within the limits, and their bytes become the right values."""

from __future__ import annotations

import math
import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modbus_peers import make_device, values

from edge_agent.contract import ConfigError, Device
from edge_agent_modbus import ModbusTag
from edge_agent_modbus.plan import Plan, field_in, plan_of

SIZES = {"int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2, "int64": 4, "uint64": 4, "float64": 4}


def plan_for(addresses: list[Any], **keys: Any) -> tuple[Device, Plan]:
    device = make_device("tcp://x", addresses, **keys)
    return device, plan_of(device.settings, device.tags)  # type: ignore[arg-type]


def spans(plan: Plan) -> list[tuple[str, int, int]]:
    return [(block.table.name, block.start, block.count) for block in plan.blocks]


def decoded(given: dict[str, Any], data: bytes) -> Any:
    _, plan = plan_for([given])
    return values(plan.blocks[0].decode(data))["t0"]


def test_plan_of_200_adjacent_registers_is_two_requests() -> None:
    assert spans(plan_for([f"holding:{n}" for n in range(200)])[1]) == [("holding", 0, 125), ("holding", 125, 75)]


def test_plan_never_splits_a_value_at_the_limit() -> None:
    addresses = [{"address": f"holding:{n}", "type": "uint32"} for n in range(0, 128, 2)]
    assert spans(plan_for(addresses)[1]) == [("holding", 0, 124), ("holding", 124, 4)]


def test_plan_reads_along_small_gaps_and_no_others() -> None:
    addresses = ["holding:0", "holding:9", "holding:19", "input:20", "coil:0", "coil:129"]
    assert spans(plan_for(addresses)[1]) == [
        ("coil", 0, 130), ("holding", 0, 10), ("holding", 19, 1), ("input", 20, 1)
    ]  # fmt: skip
    assert spans(plan_for(["holding:0", "holding:2"], max_gap=0)[1]) == [("holding", 0, 1), ("holding", 2, 1)]


TAGS = st.lists(
    st.one_of(
        st.builds(
            lambda table, at, kind: {"address": f"{table}:{at}", "type": kind},
            st.sampled_from(["holding", "input"]), st.integers(0, 400), st.sampled_from(sorted(SIZES)),
        ),
        st.builds(lambda at, bit: {"address": f"holding:{at}.{bit}"}, st.integers(0, 400), st.integers(0, 15)),
        st.builds(lambda table, at: {"address": f"{table}:{at}"},
                  st.sampled_from(["coil", "discrete"]), st.integers(0, 5000)),
        st.builds(lambda at, half: {"address": f"holding:{at}", "type": "string", "length": 2 * half},
                  st.integers(0, 400), st.integers(1, 125)),
    ),
    min_size=1, max_size=40,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(TAGS, st.integers(4, 125), st.integers(0, 20))
def test_plan_of_any_tags_covers_each_once_within_the_limits(addresses: list[Any], max_read: int, max_gap: int) -> None:
    addresses = [one for one in addresses if not isinstance(one, dict) or one.get("length", 0) <= 2 * max_read]
    addresses = addresses or ["holding:0"]
    device, plan = plan_for(addresses, max_read=max_read, max_gap=max_gap)
    covered = [tag for block in plan.blocks for tag, _ in block.wanted]
    assert sorted(map(id, covered)) == sorted(map(id, device.tags))
    for block in plan.blocks:
        factor = 16 if block.table.bits else 1
        fields = sorted((field for _, field in block.wanted), key=lambda field: field.start)
        assert all(block.start <= field.start and field.end <= block.end for field in fields)
        assert block.count <= max_read * factor
        assert block.count <= (2000 if block.table.bits else 125)
        end = block.start
        for field in fields:
            assert field.start - end <= max_gap * factor
            end = max(end, field.end)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 150), min_size=1, max_size=40), st.integers(1, 20), st.integers(0, 5))
def test_plan_of_single_registers_uses_the_fewest_requests(at: set[int], max_read: int, max_gap: int) -> None:
    _, plan = plan_for([f"holding:{n}" for n in at], max_read=max_read, max_gap=max_gap)
    ordered = sorted(at)
    fewest = [0] * (len(ordered) + 1)  # by dynamic programming: the fewest requests for the first n registers
    for n in range(1, len(ordered) + 1):
        fewest[n] = 1 + min(
            fewest[first]
            for first in range(n)
            if ordered[n - 1] - ordered[first] < max_read
            and all(b - a - 1 <= max_gap for a, b in pairwise(ordered[first:n]))
        )
    assert len(plan.blocks) == fewest[-1]


@pytest.mark.parametrize(
    ("order", "wire"), [("ABCD", "47F12000"), ("CDAB", "200047F1"), ("BADC", "F1470020"), ("DCBA", "0020F147")]
)
def test_float32_in_each_word_order_is_the_published_example(order: str, wire: str) -> None:
    tag = {"address": "holding:0", "type": "float32", "word_order": order}
    assert decoded(tag, bytes.fromhex(wire)) == 123456.0


@pytest.mark.parametrize(("order", "letters"), [
    ("ABCD", b"ABCDEFGH"), ("CDAB", b"GHEFCDAB"), ("BADC", b"BADCFEHG"), ("DCBA", b"HGFEDCBA"),
])  # fmt: skip
def test_uint64_in_each_word_order_is_put_together_by_letters(order: str, letters: bytes) -> None:
    tag = {"address": "holding:0", "type": "uint64", "word_order": order}
    assert decoded(tag, letters) == int.from_bytes(b"ABCDEFGH", "big")


@pytest.mark.parametrize("kind", ["uint64", "int64", "float64"])
@pytest.mark.parametrize(("long", "short"), [
    ("ABCDEFGH", "ABCD"), ("GHEFCDAB", "CDAB"), ("BADCFEHG", "BADC"), ("HGFEDCBA", "DCBA"),
])  # fmt: skip
def test_word_order_of_64_bits_may_be_written_with_its_eight_letters(kind: str, long: str, short: str) -> None:
    data = bytes.fromhex("40091EB851EB851F")
    tag = {"address": "holding:0", "type": kind}
    assert decoded({**tag, "word_order": long}, data) == decoded({**tag, "word_order": short}, data)


@pytest.mark.parametrize(
    ("kind", "order", "data", "value"),
    [
        ("bcd16", "ABCD", "1234", 1234),
        ("bcd16", "BADC", "3412", 1234),
        ("bcd16", "ABCD", "0000", 0),
        ("bcd16", "ABCD", "123A", ["not_bcd"]),
        ("bcd16", "ABCD", "FFFF", ["not_bcd"]),
        ("bcd32", "ABCD", "12345678", 12345678),
        ("bcd32", "CDAB", "56781234", 12345678),
        ("bcd32", "ABCD", "0000A000", ["not_bcd"]),
    ],
)
def test_bcd_is_decimal_digits_or_bad(kind: str, order: str, data: str, value: Any) -> None:
    tag = {"address": "holding:0", "type": kind, "word_order": order}
    assert decoded(tag, bytes.fromhex(data)) == value
    _, plan = plan_for([tag, "holding:2"])
    assert values(plan.blocks[0].decode(bytes.fromhex(data).ljust(6, b"\0")))["t1"] == 0


@pytest.mark.parametrize(
    ("kind", "order", "data", "value"),
    [
        ("int16", "ABCD", "0001FFFF8000", (1, -1, -32768)),
        ("int16", "BADC", "0100FFFF0080", (1, -1, -32768)),
        ("float32", "CDAB", "200047F10000C080", (123456.0, -4.0)),
        ("uint32", "DCBA", "0100000002000000", (1, 2)),
        ("float32", "ABCD", "47F120007FC00000", ["not_a_number"]),
        ("bcd16", "ABCD", "00121234", (12, 1234)),
        ("bcd16", "ABCD", "0012123F", ["not_bcd"]),
    ],
)
def test_array_is_a_tuple_of_numbers_or_bad(kind: str, order: str, data: str, value: Any) -> None:
    sent = bytes.fromhex(data)
    count = len(sent) // 2 // {"int16": 1, "bcd16": 1}.get(kind, 2)
    tag = {"address": "holding:1", "type": kind, "word_order": order, "count": count}
    _, plan = plan_for(["holding:0", tag, f"holding:{1 + len(sent) // 2}.0"])
    got = values(plan.blocks[0].decode(b"\x12\x34" + sent + b"\0\1"))
    assert got == {"t0": 0x1234, "t1": value, "t2": True}


def wire_bytes(value: Any, kind: str, order: str) -> bytes:
    """The registers as a device would send them, by swapping words and bytes rather than by positions."""
    code = {"int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q",
            "float32": "f", "float64": "d"}[kind]  # fmt: skip
    packed = struct.pack(">" + code, value)
    words = [packed[at : at + 2] for at in range(0, len(packed), 2)]
    if order in ("CDAB", "DCBA"):
        words.reverse()
    if order in ("BADC", "DCBA"):
        words = [word[::-1] for word in words]
    return b"".join(words)


def numbers(kind: str) -> st.SearchStrategy[Any]:
    if kind.startswith("float"):
        return st.floats(width=int(kind[5:]), allow_nan=True)  # type: ignore[arg-type]
    bits, signed = SIZES[kind] * 16, kind.startswith("int")
    return st.integers(-(1 << bits - 1) if signed else 0, (1 << bits - signed) - 1)


VALUES = st.sampled_from(sorted(SIZES)).flatmap(
    lambda kind: st.tuples(
        st.just(kind), numbers(kind), st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]), st.integers(0, 3)
    )
)


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=20))
def test_decode_of_any_mixture_gives_what_was_sent(rows: list[tuple[str, Any, str, int]]) -> None:
    tags, sent, at = [], b"", 0
    for kind, value, order, gap in rows:
        at += gap
        sent += b"\xa5" * 2 * gap + wire_bytes(value, kind, order)
        tags.append({"address": f"holding:{at}", "type": kind, "word_order": order})
        at += SIZES[kind]
    device, plan = plan_for(tags, max_gap=8)
    got: dict[str, Any] = {}
    for block in plan.blocks:
        got |= values(block.decode(sent[2 * block.start : 2 * block.end]))
    assert len(got) == len(device.tags)
    for n, (_, value, _, _) in enumerate(rows):
        finite = not isinstance(value, float) or math.isfinite(value)
        assert got[f"t{n}"] == (value if finite else ["not_a_number"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_coils_of_a_block_are_taken_from_the_least_significant_bit(bits: list[bool]) -> None:
    _, plan = plan_for([f"coil:{100 + n}" for n in range(len(bits))])
    packed = sum(bit << n for n, bit in enumerate(bits)).to_bytes((len(bits) + 7) // 8, "little")
    assert list(values(plan.blocks[0].decode(packed)).values()) == bits


def test_bits_of_a_register_count_from_the_least_significant() -> None:
    _, plan = plan_for([f"holding:7.{bit}" for bit in range(16)])
    assert list(values(plan.blocks[0].decode(b"\x80\x09")).values()) == [bit in (0, 3, 15) for bit in range(16)]


@pytest.mark.parametrize(
    ("data", "order", "value"),
    [
        (b"A100\0\0\0\0", "ABCD", "A100"),
        (b"A100    ", "ABCD", "A100"),
        (b"A1\0junk!", "ABCD", "A1"),
        (b"1A00\0\0\0\0", "BADC", "A100"),
        ("über".encode() + b"\0\0\0", "ABCD", "über"),
        (b"\0" * 8, "ABCD", ""),
        (b"\xff\xfe\0\0\0\0\0\0", "ABCD", ["not_text"]),
    ],
)
def test_string_in_registers_is_text_or_bad(data: bytes, order: str, value: Any) -> None:
    assert decoded({"address": "holding:0", "type": "string", "length": 8, "word_order": order}, data) == value


def test_plan_that_was_split_is_tried_whole_again_ever_more_seldom() -> None:
    _, plan = plan_for([f"holding:{n}" for n in range(10)])
    tried: list[float] = []
    now_s = 0.0
    while len(tried) < 9:
        if len(plan.begin(now_s)) == 1:
            tried.append(now_s)
            plan.split(plan.blocks[0], now_s)
        now_s += 10.0
    assert [b - a for a, b in pairwise(tried)] == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_plan_never_reads_across_what_is_forbidden() -> None:
    addresses = ["holding:0", "holding:3", "holding:5", "coil:1", "coil:9"]
    _, plan = plan_for(addresses, forbidden=["holding:4", "coil:2-8", "input:1"])
    assert spans(plan) == [("coil", 1, 1), ("coil", 9, 1), ("holding", 0, 4), ("holding", 5, 1)]
    _, plan = plan_for(["40001", "40004"], forbidden=["40002-40003"], address_offset=-1 + 101)
    assert spans(plan) == [("holding", 100, 1), ("holding", 103, 1)]


def test_plan_of_single_reads_asks_for_each_value_alone() -> None:
    addresses = ["holding:0", "holding:1", {"address": "holding:2", "type": "uint32"}, "holding:2.1", "holding:7.0"]
    _, plan = plan_for([*addresses, "holding:7.3"], single_reads=True)
    assert spans(plan) == [("holding", 0, 1), ("holding", 1, 1), ("holding", 2, 2), ("holding", 7, 1)]


@settings(max_examples=60, deadline=None)
@given(TAGS, st.lists(st.tuples(st.integers(0, 400), st.integers(1, 20)), max_size=5))
def test_plan_of_any_tags_touches_nothing_forbidden(addresses: list[Any], ranges: list[tuple[int, int]]) -> None:
    forbidden = [f"holding:{at}-{at + count}" for at, count in ranges]
    taken = {n for at, count in ranges for n in range(at, at + count + 1)}
    device = make_device("tcp://x", addresses, forbidden=forbidden, max_gap=124)
    kept = []
    for tag in device.tags:
        try:
            kept.append((tag, field_in(device.settings, tag)))  # type: ignore[arg-type]
        except ConfigError:
            field = tag.settings.field()  # type: ignore[attr-defined]
            assert taken & set(range(field.start, field.end))
    plan = plan_of(device.settings, [tag for tag, _ in kept])  # type: ignore[arg-type]
    for block in plan.blocks:
        assert block.table.name != "holding" or not taken & set(range(block.start, block.end))


def test_plan_does_not_join_what_a_device_refused_as_too_long() -> None:
    _, plan = plan_for([f"holding:{n}" for n in range(100)])
    plan.split(plan.blocks[0], 0.0)
    plan.rejoin()
    assert spans(plan) == [("holding", 0, 50), ("holding", 50, 50)]


def test_tag_is_never_mistaken_for_its_neighbour_in_another_table() -> None:
    _, plan = plan_for(["holding:5", "input:5", "coil:5", "discrete:5"])
    assert [block.request.answer[1] for block in plan.blocks] == [1, 2, 3, 4]
    assert ModbusTag(address="input:5").field().table.name == "input"
