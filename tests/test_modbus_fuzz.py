"""Modbus: the fuzzing of both framings in its short form, and that it would see what is wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench import fuzz_modbus
from bench.virtual import run_virtually


def test_fuzz_of_both_framings_finds_nothing(tmp_path: Path) -> None:
    figures = fuzz_modbus.run(tmp_path, 1, frames=30_000)
    assert [(figure.value, figure.verdict) for figure in figures] == [(0, "ok")] * 4


@pytest.mark.parametrize("framing", ["rtu", "tcp"])
def test_fuzz_reaches_every_outcome(framing: str) -> None:
    counts = run_virtually(fuzz_modbus.Fuzz(framing, random.Random(5)).run(10_000))
    assert all(counts[name] > 20 for name in ("Refusal", "Silence", "Nonsense", "right")), counts


def test_fuzz_sees_an_exception_that_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr("edge_agent_modbus.rtu.find_rtu_answer", broken)
    counts = run_virtually(fuzz_modbus.Fuzz("rtu", random.Random(5)).run(1000))
    assert counts["escaped"] > 100


def test_fuzz_sees_a_wrong_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent_modbus.frames.crc", lambda _data: 0)  # every frame is believed
    counts = run_virtually(fuzz_modbus.Fuzz("rtu", random.Random(5)).run(2_000))
    assert counts["wrong"] > 0
