"""The fuzzer of the serial driver, in its short form."""

from __future__ import annotations

from pathlib import Path

from bench import fuzz_serial


def test_fuzzed_frames_raise_nothing_and_none_with_a_checksum_is_wrong(tmp_path: Path) -> None:
    escaped, wrong, _ = fuzz_serial.run(tmp_path, 0, frames=20_000)
    assert (escaped.value, wrong.value) == (0, 0)
