"""Modbus: an RTU answer is found behind stray bytes, and nothing else is taken for it."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from modbus_peers import answer_to, data_for, rtu

from edge_agent_modbus.address import HOLDING
from edge_agent_modbus.frames import Request, crc, find_rtu_answer

REQUEST = Request(17, HOLDING, 107, 3)
RIGHT = rtu(answer_to(REQUEST.rtu[:6]))
DATA = data_for(REQUEST.rtu[:6])


def test_crc_of_the_check_string_is_the_published_one() -> None:
    assert crc(b"123456789") == 0x4B37
    assert crc(rtu(b"any frame")) == 0


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=20), st.integers(1, 8))
def test_rtu_answer_behind_stray_bytes_is_found_however_it_is_cut(stray: bytes, piece: int) -> None:
    line = stray + RIGHT
    buffer, found = bytearray(), None
    for at in range(0, len(line), piece):
        buffer += line[at : at + piece]
        found = find_rtu_answer(buffer, REQUEST)
        if found is not None:
            break
    assert found is not None
    assert found[0] == DATA


@settings(max_examples=150, deadline=None)
@given(st.sets(st.integers(0, 8 * len(RIGHT) - 1), min_size=1, max_size=3))
def test_rtu_answer_with_up_to_three_flipped_bits_is_never_taken(bits: set[int]) -> None:
    value = int.from_bytes(RIGHT, "big")
    for bit in bits:
        value ^= 1 << bit
    assert find_rtu_answer(bytearray(value.to_bytes(len(RIGHT), "big")), REQUEST) is None


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 247), st.integers(0, 4000), st.integers(1, 20), st.sampled_from([3, 4]))
def test_rtu_answer_to_another_unit_function_or_count_is_never_taken(
    unit: int, start: int, count: int, function: int
) -> None:
    assume((unit, count, function) != (17, 3, 3))
    body = bytes((unit, function)) + start.to_bytes(2, "big") + count.to_bytes(2, "big")
    assert find_rtu_answer(bytearray(rtu(answer_to(body))), REQUEST) is None


def test_rtu_exception_is_taken_only_as_the_last_thing_said() -> None:
    refusal = rtu(b"\x11\x83\x02")
    assert find_rtu_answer(bytearray(b"\0" + refusal), REQUEST) == (2, 6)
    assert find_rtu_answer(bytearray(refusal + b"\0"), REQUEST) is None
    assert find_rtu_answer(bytearray(rtu(b"\x12\x83\x02")), REQUEST) is None
