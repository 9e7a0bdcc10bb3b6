"""Damaged frames through framer and dialect of the serial driver: what escapes, and which values are wrong."""

from __future__ import annotations

import random
from pathlib import Path

from edge_agent.contract import Device, Quality, Tag
from edge_agent_serial import SerialDriver
from edge_agent_serial.checksums import KINDS
from edge_agent_serial.settings import SerialSettings, SerialTagSettings

from .figures import Figure

FRAMES = 1_000_000
_SEEDS = {
    "sics": b"S S     100.00 g",
    "and": b"ST,+00123.45  g",
    "ohaus": b"     200.01 g  ",
    "cas": b"ST,GS,1\x80,    13.5 kg",
    "scanner": b"]C10104006381333931",
    "sics-repeat": b"S D      -0.52 kg",
    "nmea": b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47",
}
_ADDRESSES = {"scanner": "code", "nmea": "GGA.9"}


def run(folder: Path, seconds: float, frames: int = FRAMES) -> list[Figure]:
    """How many exceptions escaped, how many values were wrong; the time plays no part."""
    chance = random.Random(1)
    escaped, passed = _profiles(chance, frames // 2)
    more, wrong = _checksums(chance, frames - frames // 2)
    return [
        Figure("Serial, exceptions of fuzzed frames", escaped + more, f"of {frames}", bar=0),
        Figure("Serial, wrong values with a checksum", wrong, f"of {frames - frames // 2}", bar=0),
        Figure("Serial, mutated frames taken without checksum", passed, f"of {frames // 2}"),
    ]


def _device(address: str, **settings: object) -> Device:
    made = SerialSettings.model_validate({"driver": "serial", "url": "/dev/ttyS0", **settings})
    tag = Tag(f"fuzz.{address}", SerialTagSettings.model_validate({"address": address}), made.poll)
    device = Device("fuzz", made, (tag,))
    SerialDriver([device])
    return device


def _profiles(chance: random.Random, frames: int) -> tuple[int, int]:
    """Exceptions, and frames that were changed and still gave a value: random, mutated and spliced ones."""
    escaped = passed = 0
    for profile, seed in _SEEDS.items():
        device = _device(_ADDRESSES.get(profile, "weight"), profile=profile)
        assert isinstance(device.settings, SerialSettings)
        dialect = device.settings.dialect()
        framer = device.settings.framer()
        for _ in range(frames // len(_SEEDS)):
            data = bytearray(chance.choice((seed, seed, seed + chance.choice(list(_SEEDS.values())), b"")))
            for _ in range(chance.randint(1, 3)):
                at = chance.randint(0, len(data))
                data[at : at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 3))
            try:
                for frame in framer.feed(bytes(data) + b"\r\n"):
                    readings = dialect.readings(frame, device.tags)
                    passed += frame != seed and any(each.quality is not Quality.BAD for each in readings)
            except Exception:  # noqa: BLE001 (whatever it is, it is what is counted)
                escaped += 1
    return escaped, passed


def _checksums(chance: random.Random, frames: int) -> tuple[int, int]:
    """Exceptions, and wrong values: of whole frames, and of those damaged within the power of their checksum.

    A stream of frames, every other one with flipped bits anywhere in it: in text, checksum or end.
    """
    escaped = wrong = 0
    kinds = sorted(KINDS)
    for kind in kinds:
        make = KINDS[kind]
        flips = 3 if len(make(b"")) == 2 else 1
        device = _device("w", pattern="(?P<w>.*)", checksum={"kind": kind})
        assert isinstance(device.settings, SerialSettings)
        dialect, framer = device.settings.dialect(), device.settings.framer()
        for number in range(frames // len(kinds)):
            damaged, clean = bool(number % 2), not number % 2 and not framer.pending
            true = f"{chance.uniform(-1e4, 1e4):12.3f}"
            frame = bytearray(true.encode() + make(true.encode()).hex().upper().encode() + b"\r\n")
            for bit in chance.sample(range(8 * len(frame)), chance.randint(1, flips)) if damaged else ():
                frame[bit // 8] ^= 1 << bit % 8
            try:
                told = [one for each in framer.feed(bytes(frame)) for one in dialect.readings(each, device.tags)]
            except Exception:  # noqa: BLE001 (whatever it is, it is what is counted)
                escaped += 1
                continue
            values = [one.value for one in told if one.quality is not Quality.BAD]
            wrong += values != [true] if clean else any(value != true for value in values)
    return escaped, wrong
