"""Serial instruments as their manuals describe them: profiles, columns, checksums, units. Frames in, readings out."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from serial_instrument import serial_device

from edge_agent.contract import ConfigError, Device, Quality, Reading
from edge_agent_serial import SerialDriver
from edge_agent_serial.checksums import KINDS, Checksum, crc16, nmea
from edge_agent_serial.frames import Framer
from edge_agent_serial.profiles import PROFILES, Sentences
from edge_agent_serial.settings import SerialSettings

URL = "/dev/serial/by-id/port"


def device(tags: dict[str, dict[str, Any]], **settings: Any) -> Device:
    return serial_device(URL, tags, **settings)


def readings(frame: bytes, tags: dict[str, dict[str, Any]], **settings: Any) -> dict[str, Reading]:
    plc = device(tags, **settings)
    assert isinstance(plc.settings, SerialSettings)
    return {one.tag.short_name: one for one in plc.settings.dialect().readings(frame, plc.tags)}


WEIGHT = {"weight": {"address": "weight"}, "stable": {"address": "stable"}, "unit": {"address": "unit"}}


def weighed(profile: str, frame: bytes) -> tuple[Any, Any, Any]:
    """Weight (or why not), whether it is stable, and the unit."""
    found = readings(frame, WEIGHT, profile=profile)
    weight = found["weight"]
    if weight.quality is Quality.BAD:
        assert weight.value is None
        return weight.cause, found["stable"].value, found["unit"].value
    assert (weight.quality is Quality.UNCERTAIN) == (weight.cause == "unstable") == (found["stable"].value is False)
    return weight.value, found["stable"].value, found["unit"].value


@pytest.mark.parametrize(
    ("profile", "frame", "expected"),
    [
        ("sics", b"S S     100.00 g", (100.0, True, "g")),
        ("sics-repeat", b"S D        1.5 kg", (1.5, False, "kg")),
        ("and", b"ST,+00123.45  g", (123.45, True, "g")),
        ("and", b"US,-00000.10 kg", (-0.1, False, "kg")),
        ("and", b"QT,+00000012 PC", (12.0, True, "PC")),
        ("and", b"ST,GS,+  1.234kg", (1.234, True, "kg")),
        ("and", b"ST,NT,-  0.500,kg", (-0.5, True, "kg")),
        ("ohaus", b"     12.34 g", (12.34, True, "g")),
        ("ohaus", b"     12.34 g  ?", (12.34, False, "g")),
        ("ohaus", b"    -12.34 kg     NET", (-12.34, True, "kg")),
        ("cas", b"ST,GS,+  012.34kg", (12.34, True, "kg")),
        ("cas", b"US,NT,+  012.34kg", (12.34, False, "kg")),
        ("cas", b"S,+ 12.3 kg", (12.3, True, "kg")),
        ("cas", b"ST,GS,\x01\x80,    13.5 kg", (13.5, True, "kg")),
        ("cas", b"U,- 12.3 kg", (-12.3, False, "kg")),
    ],
)
def test_scale_says_its_weight_whether_it_is_stable_and_the_unit(
    profile: str, frame: bytes, expected: tuple[Any, ...]
) -> None:
    assert weighed(profile, frame) == expected


@pytest.mark.parametrize(
    ("profile", "frame", "cause"),
    [
        ("sics", b"S +", "overload"),
        ("sics", b"S -", "underload"),
        ("sics", b"S I", "not_executable"),
        ("sics", b"S S    100.00 g", "pattern_mismatch"),  # a character was lost
        ("sics", b"S S      10.00  g", "pattern_mismatch"),
        ("and", b"OL,+9999999E+19", "overload"),
        ("and", b"OL,-9999999E+19", "underload"),
        ("and", b"ST,+0123.45  g", "pattern_mismatch"),  # a character was lost
        ("ohaus", b"   ------   g", "overload"),
        ("ohaus", b"   ^^^^^^   kg", "overload"),
        ("ohaus", b"Err 8.4", "overload"),
        ("ohaus", b"ES", "not_executable"),
        ("cas", b"OL,GS,+999999 kg", "overload"),
        ("cas", b"ST,GS,^^^^^^^^kg", "overload"),
        ("and", b"ST,+00123.4x  g", "pattern_mismatch"),
        ("cas", b"ST,GS,+  0l2.34kg", "pattern_mismatch"),
    ],
)
def test_scale_that_is_overloaded_has_no_weight(profile: str, frame: bytes, cause: str) -> None:
    assert weighed(profile, frame)[0] == cause


@pytest.mark.parametrize("profile", ["sics", "and", "ohaus", "cas"])
def test_no_number_is_ever_taken_out_of_an_overload(profile: str) -> None:
    chance = random.Random(profile)
    for _ in range(2_000):
        digits = "".join(chance.choice("0123456789") for _ in range(chance.randrange(0, 6)))
        mark = chance.choice(["OL", "------", "^^^^^^", "______"])
        text = chance.choice(
            [f"{mark},{digits} kg", f"{mark}{digits} kg", f"ST,{mark}{digits}kg", f"S S {mark}{digits} g"]
        )
        (weight,) = (one for one in readings(text.encode(), WEIGHT, profile=profile).values()
                     if one.tag.short_name == "weight")  # fmt: skip
        assert weight.value is None, text


# --------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ({"unit": "kg"}, "unit_mismatch"),
        ({"unit": "g"}, 100.0),
        ({}, 100.0),
        ({"unit": "kg", "scale": 1.0}, "unit_mismatch"),
        ({"unit": "kg", "scale": 0.001, "wire_unit": "g"}, 100.0),
        ({"unit": "kg", "scale": 0.001, "wire_unit": "kg"}, "unit_mismatch"),
    ],
)
def test_grams_are_never_taken_for_kilograms(tag: dict[str, Any], expected: Any) -> None:
    (weight,) = readings(b"S S     100.00 g", {"weight": {"address": "weight", **tag}}, profile="sics").values()
    assert (weight.cause if weight.quality is Quality.BAD else weight.value) == expected


@pytest.mark.parametrize("frame", [b"  100.00   ", b"  100.00 g "])
def test_blank_unit_is_not_taken_for_that_of_the_tag(frame: bytes) -> None:
    tag = {"weight": {"address": "weight", "type": "float", "unit": "kg"}}
    (weight,) = readings(frame, tag, columns={"weight": "1-8", "unit": "10-11"}).values()
    assert (weight.value, weight.cause) == (None, "unit_mismatch")


def test_scaled_value_with_a_unit_must_say_the_unit_on_the_wire() -> None:
    plc = device({"weight": {"address": "weight", "unit": "kg", "scale": 0.001}}, profile="sics")
    with pytest.raises(ConfigError, match=r"scale.weight: .*wire_unit: g"):
        SerialDriver([plc])
    SerialDriver([device({"weight": {"address": "weight", "scale": 0.001}}, profile="sics")])


def test_unit_in_the_instruments_own_letters_is_its_ucum_code() -> None:
    (weight,) = readings(b"ST,+00001.50 lb", {"w": {"address": "weight", "unit": "[lb_av]"}}, profile="and").values()
    assert weight.value == 1.5


# ------------------------------------------------------------------------------------------------------- scanners


def test_scanner_gives_code_and_symbology_and_keeps_gs1_separators() -> None:
    tags = {"code": {"address": "code"}, "kind": {"address": "symbology"}}
    found = readings(b"]C10104012345678901\x1d10A100", tags, profile="scanner")
    assert (found["code"].value, found["kind"].value) == ("0104012345678901\x1d10A100", "C1")
    plain = readings(b"4012345678901", tags, profile="scanner")
    assert (plain["code"].value, plain["kind"].quality) == ("4012345678901", Quality.BAD)


def test_aim_identifier_without_a_code_is_no_code() -> None:
    found = readings(b"]C1", {"code": {"address": "code", "type": "string"}}, profile="scanner")
    assert (found["code"].value, found["code"].cause) == (None, "pattern_mismatch")


# ----------------------------------------------------------------------------------------------------------- NMEA

GGA = b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47"


def test_nmea_fields_are_addressed_by_sentence_and_number() -> None:
    tags = {
        "quality": {"address": "GGA.6", "type": "int"},
        "height": {"address": "GGA.9", "type": "float"},
        "age": {"address": "GGA.13", "type": "float"},
        "speed": {"address": "RMC.7", "type": "float"},
    }
    found = readings(GGA, tags, profile="nmea")
    assert (found["quality"].value, found["height"].value, found["age"].cause) == (1, 545.4, "no_value")
    assert "speed" not in found, "another sentence says nothing of it"


@pytest.mark.parametrize("address", ["GGA", "gga.2"])
def test_nmea_address_that_no_sentence_could_have_says_what_to_write(address: str) -> None:
    with pytest.raises(ConfigError, match=r"in capitals .*such as GGA.2 or GPGSV.3: scale.a"):
        SerialDriver([device({"a": {"address": address}}, profile="nmea")])


def _sentence(body: bytes) -> bytes:
    return b"$" + body + b"*" + KINDS["xor"](body).hex().upper().encode()


def test_nmea_sentence_of_several_talkers_speaks_only_for_the_tag_that_names_its_own() -> None:
    plc = device({"any": {"address": "GSV.3"}, "gps": {"address": "GPGSV.3"}}, profile="nmea")
    assert isinstance(plc.settings, SerialSettings)
    dialect = plc.settings.dialect()

    def said(body: bytes) -> dict[str, Any]:
        return {one.tag.short_name: one.value or one.cause for one in dialect.readings(_sentence(body), plc.tags)}

    assert said(b"GPGSV,3,1,11") == {"any": "11", "gps": "11"}
    assert said(b"GLGSV,2,1,07") == {"any": "several_talkers"}
    assert said(b"GPGSV,3,1,12") == {"any": "several_talkers", "gps": "12"}
    assert said(b"GPXYZ,1") == {}
    assert isinstance(dialect, Sentences)
    assert set(dialect.talkers) == {"GSV"}, "what nobody asked for is not remembered"


@pytest.mark.parametrize("frame", [GGA.replace(b"545.4", b"645.4"), GGA[:-1] + b"8", GGA[:-3], GGA[1:], b"$", b""])
def test_nmea_damaged_sentence_is_bad_for_all(frame: bytes) -> None:
    found = readings(frame, {"height": {"address": "GGA.9", "type": "float"}}, profile="nmea")
    assert found["height"].cause == "checksum_error"


# ------------------------------------------------------------------------------------------------------- columns


def test_columns_are_counted_from_one_may_overlap_and_lose_their_spaces() -> None:
    tags = {"weight": {"address": "weight", "type": "float"}, "unit": {"address": "unit"}, "all": {"address": "all"}}
    columns = {"weight": "3-10", "unit": "12-13", "all": "3-13"}
    found = readings(b"A:   12.50 kg:Z", tags, columns=columns)
    assert (found["weight"].value, found["unit"].value, found["all"].value) == (12.5, "kg", "12.50 kg")
    assert readings(b"A: 1234567.8 kgZ", tags, columns=columns)["weight"].cause == "cut_number"
    assert (
        readings(b"1212345.678 kg", {"weight": tags["weight"]}, columns={"weight": "3-8"})["weight"].cause
        == "cut_number"
    )
    assert readings(b"A:   12.50 k", tags, columns=columns)["weight"].cause == "pattern_mismatch", "it is cut"


COLUMNS_THAT_ARE_NONE = ({"weight": "0-4"}, {"weight": "5-4"}, {"weight": "a-b"}, {"a b": "1-2"})


@pytest.mark.parametrize(("frame", "column"), [(b"-12.34", "2-6"), (b"1.5E3", "1-3"), (b"1.5E3", "1-4")])
def test_column_that_leaves_out_a_sign_or_an_exponent_gives_no_number(frame: bytes, column: str) -> None:
    (one,) = readings(frame, {"w": {"address": "w", "type": "float"}}, columns={"w": column}).values()
    assert (one.value, one.cause) == (None, "cut_number")


def test_integer_of_thousands_of_digits_is_out_of_range_and_zeros_in_front_are_none() -> None:
    tags = {"n": {"address": "n", "type": "int"}}
    settings: dict[str, Any] = {"pattern": "(?P<n>[0-9]+)"}
    assert readings(b"9" * 5_000, tags, **settings)["n"].cause == "out_of_range"
    assert readings(b"0" * 5_000 + b"42", tags, **settings)["n"].value == 42


@pytest.mark.parametrize("columns", COLUMNS_THAT_ARE_NONE)
def test_columns_that_are_none_say_what_to_write(columns: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=r"columns|weight: 3-10"):
        device({"weight": {"address": "weight"}}, columns=columns)


# ----------------------------------------------------------------------------------------------------- checksums


def test_checksums_are_those_of_the_published_examples() -> None:
    assert crc16(b"123456789") == b"\x37\x4b"
    assert KINDS["xor"](b"GPGGA,") == bytes((ord("G") ^ ord("P") ^ ord("G") ^ ord("G") ^ ord("A") ^ ord(","),))
    assert KINDS["sum"](b"\xff\x02") == b"\x01"
    assert KINDS["lrc"](b"\x01\x02") == b"\xfd"
    assert nmea(GGA) == GGA[1:-3]


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("hex_", [True, False])
@given(text=st.binary(min_size=1, max_size=40))
def test_frame_with_its_checksum_is_taken_and_any_changed_byte_refused(kind: str, hex_: bool, text: bytes) -> None:
    checksum = Checksum(kind, hex_)
    due = KINDS[kind](text)
    frame = text + (due.hex().encode() if hex_ else due)
    assert checksum.verified(frame) == text
    for at in range(len(text)):
        damaged = frame[:at] + bytes((frame[at] ^ 0x11,)) + frame[at + 1 :]
        assert checksum.verified(damaged) is None
    assert checksum.verified(frame[1:]) != text


def test_checksum_error_is_bad_and_never_a_value() -> None:
    tags = {"weight": {"address": "weight", "type": "float"}}
    settings: dict[str, Any] = {"pattern": r"W(?P<weight>[0-9.]+)", "checksum": "xor"}
    due = KINDS["xor"](b"W12.5").hex().upper().encode()
    assert readings(b"W12.5" + due, tags, **settings)["weight"].value == 12.5
    assert readings(b"W12.6" + due, tags, **settings)["weight"].cause == "checksum_error"
    assert readings(b"W", tags, **settings)["weight"].cause == "checksum_error"


def test_block_check_character_behind_etx_belongs_to_its_frame() -> None:
    plc = device(
        {"weight": {"address": "weight", "type": "float"}},
        pattern=r"(?P<weight>[0-9.]+)",
        frame={"start": "\x02", "end": "\x03"},
        checksum={"kind": "xor", "form": "raw", "after_end": True},
    )
    assert isinstance(plc.settings, SerialSettings)
    framer, dialect = plc.settings.framer(), plc.settings.dialect()
    frames = []
    for text in (b"12.5", b"77.1"):
        whole = b"\x02" + text + b"\x03" + KINDS["xor"](text + b"\x03")
        for byte in whole:
            frames += framer.feed(bytes((byte,)))
    assert [dialect.readings(frame, plc.tags)[0].value for frame in frames] == [12.5, 77.1]
    (broken,) = framer.feed(b"\x0212.5\x03\x00")
    assert dialect.readings(broken, plc.tags)[0].cause == "checksum_error"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"profile": "nmea", "checksum": "xor"}, "have their own checksum"),
        ({"pattern": "(?P<a>.)", "checksum": {"kind": "xor", "form": "raw"}}, "could look like the end"),
        ({"pattern": "(?P<a>.)", "frame": {"length": 4}, "checksum": {"kind": "xor", "after_end": True}}, "no end"),
        ({"pattern": "(?P<a>.)", "checksum": "crc32"}, "crc16"),
        ({"profile": "sics", "begin": "SIR\r\n"}, "needs no begin"),
        ({"pattern": "(?P<a>.)", "columns": {"a": "1"}}, "one of them"),
        ({"frame": {"silence": "1 ms"}, "profile": "cas"}, "between 2 ms and 10 s"),
        ({"frame": {"silence": "20 ms", "end": "\r"}, "profile": "cas"}, "not both"),
    ],
)
def test_settings_that_cannot_be_meant_say_what_to_write(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        device({"a": {"address": "a"}}, **settings)


# ----------------------------------------------------------------------------------------------------- any bytes


@pytest.mark.parametrize("name", sorted(PROFILES))
@given(frame=st.binary(max_size=80))
def test_any_frame_is_readings_of_the_contract(name: str, frame: bytes) -> None:
    address = "GGA.1" if name == "nmea" else "code" if name == "scanner" else "weight"
    plc = device({"a": {"address": address, "type": "float"}}, profile=name)
    assert isinstance(plc.settings, SerialSettings)
    for one in plc.settings.dialect().readings(frame, plc.tags):
        assert (one.value is None) == (one.quality is Quality.BAD)


def test_frame_that_silence_ends_is_whole_and_one_that_is_too_long_is_told() -> None:
    framer = Framer(limit=8)
    assert framer.feed(b"abc") == framer.feed(b"def") == []
    assert framer.flush() == [b"abcdef"]
    assert framer.flush() == []
    assert framer.feed(b"x" * 20) == []
    assert framer.flush() == [None]
    assert framer.feed(b"ok") == []
    assert framer.flush() == [b"ok"]
