"""A short form of `make chaos`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from brokers import needs_mosquitto
from chaos import Chaos


@needs_mosquitto
@pytest.mark.parametrize("faults", [("kill", "outage"), ("kill", "damage")])
def test_nothing_is_lost_doubled_or_altered_under_faults_at_random(tmp_path: Path, faults: tuple[str, ...]) -> None:
    with ExitStack() as stack:
        board = Chaos(tmp_path, stack, 5, faults).run(30.0)
    assert not board["breach"], board
    assert board["kills"] >= 3
    if "damage" not in faults:
        assert board["parts in records"] == board["parts made"], board
