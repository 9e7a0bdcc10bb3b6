"""Frames, values, profiles and settings of the serial driver: all that needs no port."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from serial_instrument import serial_device

from edge_agent.contract import Quality, Reading, Value
from edge_agent_serial import SerialSettings, SerialTagSettings
from edge_agent_serial.frames import Framer, Unusable, parse


def _settings(**given: Any) -> SerialSettings:
    return SerialSettings.model_validate({"driver": "serial", "url": "/dev/serial/by-id/x", "profile": "sics", **given})


# ------------------------------------------------------------------------------------------------- frames


def test_framer_lines_are_cut_at_their_end() -> None:
    framer = Framer(end=b"\r\n")
    assert framer.feed(b"one\r\ntw") == [b"one"]
    assert framer.pending == b"tw"
    assert framer.feed(b"o\r") == []
    assert framer.feed(b"\n\r\nthree\r\n") == [b"two", b"three"]


def test_framer_garbage_without_end_is_dropped_up_to_the_next_end() -> None:
    framer = Framer(end=b"\n", limit=8)
    assert framer.feed(b"x" * 1000) == []
    assert len(framer.pending) <= 16
    assert framer.feed(b"12\nok\n") == [None, b"ok"]


def test_framer_frame_of_exactly_the_limit_is_kept() -> None:
    assert Framer(end=b"\n", limit=4).feed(b"1234\n12345\n") == [b"1234", None]


def test_framer_start_after_noise_begins_the_frame() -> None:
    framer = Framer(start=b"\x02", end=b"\x03")
    assert framer.feed(b"noise\x02lost its end\x0212.5\x03more\x03\x02x\x03") == [b"12.5", b"x"]


def test_framer_length_after_start_is_counted() -> None:
    framer = Framer(start=b"\x02", length=3)
    assert framer.feed(b"zz\x02abc\x02de") == [b"abc"]
    assert framer.feed(b"f") == [b"def"]


def test_framer_hunting_skips_the_rest_of_a_frame() -> None:
    framer = Framer(end=b"\n")
    framer.restart(hunting=True)
    assert framer.feed(b"0.00 g\n1.00 g\n") == [b"1.00 g"]


_SHAPES = st.one_of(
    st.builds(
        lambda end, limit: Framer(end=end, limit=limit), st.sampled_from([b"\n", b"\r\n", b"aa"]), st.integers(1, 9)
    ),
    st.builds(lambda limit: Framer(start=b"\x02", end=b"\x03", limit=limit), st.integers(1, 9)),
    st.builds(lambda limit: Framer(start=b"ab", end=b"\r\n", limit=limit), st.integers(1, 9)),
    st.builds(lambda length: Framer(start=b"ab", length=length), st.integers(1, 5)),
    st.builds(lambda length: Framer(length=length), st.integers(1, 5)),
)
_NOISE = st.lists(st.sampled_from([b"a", b"b", b"1", b"\r", b"\n", b"\r\n", b"\x02", b"\x03", b"ab"]), max_size=80)


@given(_SHAPES, _NOISE, st.booleans(), st.randoms(use_true_random=False))
def test_framer_any_split_of_the_bytes_gives_the_same_frames(
    framer: Framer, noise: list[bytes], hunting: bool, chance: random.Random
) -> None:
    data = b"".join(noise)
    framer.restart(hunting=hunting)
    whole = framer.feed(data)
    framer.restart(hunting=hunting)
    pieces: list[bytes | None] = []
    at = 0
    while at < len(data):
        step = chance.randint(1, 5)
        pieces += framer.feed(data[at : at + step])
        at += step
    assert pieces == whole


@given(st.lists(st.binary(min_size=1, max_size=20).filter(lambda text: b"\n" not in text), max_size=20))
def test_framer_frames_within_the_limit_all_arrive(texts: list[bytes]) -> None:
    assert Framer(end=b"\n", limit=20).feed(b"".join(text + b"\n" for text in texts)) == texts


# ------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("100.00", "float", 100.0), ("+00123.45", "float", 123.45), ("-   12.5", "float", -12.5), (" 7 ", "float", 7.0),
        ("1e3", "float", 1000.0), ("-17", "int", -17), ("18446744073709551615", "int", 2**64 - 1),
        ("on", "bool", True), ("0", "bool", False), (" a b ", "string", " a b "),
    ],
)  # fmt: skip
def test_parse_whole_text_gives_the_value(text: str, kind: str, value: Value) -> None:
    assert parse(text, kind) == value


@pytest.mark.parametrize(
    ("text", "kind", "cause"),
    [
        ("OL", "float", "not_a_number"), ("", "float", "not_a_number"), ("9^9", "float", "not_a_number"),
        ("12.5g", "float", "not_a_number"), ("1 2", "float", "not_a_number"), ("nan", "float", "not_a_number"),
        ("inf", "float", "not_a_number"), ("1e999", "float", "not_a_number"), ("--1", "float", "not_a_number"),
        ("٣", "float", "not_a_number"), ("1.0", "int", "not_a_number"), ("18446744073709551616", "int", "out_of_range"),
        ("maybe", "bool", "pattern_mismatch"),
    ],
)  # fmt: skip
def test_parse_text_that_is_no_value_is_refused_with_its_cause(text: str, kind: str, cause: str) -> None:
    with pytest.raises(Unusable, match=f"^{cause}$"):
        parse(text, kind)


# ----------------------------------------------------------------------------------------------- profiles


def _sics(frame: bytes) -> list[Reading]:
    device = serial_device(
        "/dev/x", {"w": {"address": "weight"}, "u": {"address": "unit"}, "s": {"address": "stable"}}, profile="sics"
    )
    return device.settings.dialect().readings(frame, device.tags)  # type: ignore[attr-defined, no-any-return]


def test_sics_stable_weight_is_good_as_shown() -> None:
    assert [(one.value, one.quality) for one in _sics(b"S S     100.00 g")] == [
        (100.0, Quality.GOOD), ("g", Quality.GOOD), (True, Quality.GOOD)
    ]  # fmt: skip


def test_sics_dynamic_weight_is_uncertain_and_its_unit_good() -> None:
    weight, unit, stable = _sics(b"S D      -0.52 kg")
    assert (weight.value, weight.quality, weight.cause) == (-0.52, Quality.UNCERTAIN, "unstable")
    assert (unit.value, unit.quality) == ("kg", Quality.GOOD)
    assert (stable.value, stable.quality) == (False, Quality.GOOD)


@pytest.mark.parametrize(
    ("frame", "cause"),
    [
        (b"S +", "overload"), (b"S -", "underload"), (b"S I", "not_executable"), (b"ES", "syntax_error"),
        (b"ET", "transmission_error"), (b"EL", "logical_error"), (b"S S     100.00", "pattern_mismatch"),
        (b"\x00S S     100.00 g", "pattern_mismatch"), (b"S S     1O0.00 g", "pattern_mismatch"),
        (b"S S +", "pattern_mismatch"), (b"S S     10 0.00 g", "pattern_mismatch"),
    ],
)  # fmt: skip
def test_sics_answer_without_a_weight_is_bad_with_its_cause(frame: bytes, cause: str) -> None:
    assert [(one.value, one.quality, one.cause) for one in _sics(frame)] == [(None, Quality.BAD, cause)] * 3


def test_dialect_damaged_character_on_a_line_with_parity_spoils_the_frame() -> None:
    device = serial_device("/dev/x", {"c": {"address": "code"}}, line="9600 7E1", pattern="(?P<code>.+)")
    dialect = device.settings.dialect()  # type: ignore[attr-defined]
    assert dialect.readings(b"12\x0034", device.tags)[0].cause == "parity_error"
    assert not dialect.recognizes(b"12\x0034")
    assert dialect.readings(b"1234", device.tags)[0].value == "1234"


def test_dialect_undecodable_frame_is_a_mismatch() -> None:
    device = serial_device("/dev/x", {"c": {"address": "code"}}, encoding="ascii", pattern="(?P<code>.+)")
    dialect = device.settings.dialect()  # type: ignore[attr-defined]
    assert dialect.readings(b"12\xff", device.tags)[0].cause == "pattern_mismatch"


def test_dialect_group_that_took_no_part_is_bad_and_its_neighbour_good() -> None:
    device = serial_device(
        "/dev/x", {"a": {"address": "a", "type": "int"}, "b": {"address": "b"}}, pattern="(?P<a>[0-9]+)(?P<b>x)?"
    )
    first, second = device.settings.dialect().readings(b"12", device.tags)  # type: ignore[attr-defined]
    assert (first.value, first.quality) == (12, Quality.GOOD)
    assert (second.value, second.quality, second.cause) == (None, Quality.BAD, "pattern_mismatch")


# ----------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("line", "shown"), [("9600 8N1", "9600 8N1"), ("2400 7e1", "2400 7E1"), ("4800  7O2", "4800 7O2")]
)
def test_settings_line_is_read(line: str, shown: str) -> None:
    assert str(_settings(line=line).line) == shown


def test_settings_are_the_same_after_a_round_trip() -> None:
    settings = _settings(line="2400 7E1", frame={"end": "\r"})
    assert (
        SerialSettings.model_validate(
            settings.model_dump(exclude_none=True, exclude={"poll", "max_skew", "timeout", "drain"})
        )
        == settings
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"line": "9600"}, "such as 9600 8N1"),
        ({"line": 9600}, "such as 9600 8N1"),
        ({"line": "9600 9N1"}, "such as 9600 8N1"),
        ({"line": "10 8N1"}, "between 50 and 4000000"),
        ({"url": "/dev/ttyUSB0"}, "/dev/serial/by-id/"),
        ({"url": "/dev/ttyACM12"}, "/dev/serial/by-id/"),
        ({"url": "COM3"}, "expected a path"),
        ({"url": "socket://host"}, "socket://host:port"),
        ({"url": "rfc2217://host:99999"}, "rfc2217://host:port"),
        ({"url": "socket://host:1?logging=debug"}, "socket://host:port"),
        ({"url": "rfc2217://host:1?logging=debug"}, "rfc2217://host:port"),
        ({"pattern": "(?P<a>x)"}, "one of them"),
        ({"profile": None}, "one of them"),
        ({"profile": None, "pattern": "(?P<a>x"}, "not a regular expression"),
        ({"profile": None, "pattern": "[0-9]+"}, "give each value a name"),
        ({"request": r"SI\r\n"}, "double quotes"),
        ({"request": "µ"}, "ASCII"),
        ({"frame": {"end": "\r", "length": 3}}, "not both"),
        ({"frame": {"stop": "\r"}}, "Extra inputs"),
        ({"baud": 9600}, "Extra inputs"),
        ({"timeout": "0 s"}, "more than zero"),
    ],
)
def test_settings_mistake_says_what_to_write(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        _settings(**given)


def test_settings_options_of_an_rfc2217_server_are_taken() -> None:
    assert _settings(url="rfc2217://10.0.0.1:4001?ign_set_control&timeout=5").url.endswith("timeout=5")


def test_settings_moving_name_is_taken_by_force() -> None:
    assert _settings(url="/dev/ttyUSB0", force=True).url == "/dev/ttyUSB0"


@pytest.mark.parametrize("given", [{"address": "no group!"}, {"address": "weight", "type": "uint16"}, {"address": 3}])
def test_tag_settings_mistake_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SerialTagSettings.model_validate(given)
