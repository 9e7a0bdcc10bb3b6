"""A short form of `make chaos`: two minutes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from brokers import needs_mosquitto
from chaos import FAULTS, Chaos, scoreboard


@needs_mosquitto
@pytest.mark.parametrize("faults", [tuple(each for each in FAULTS if each != "damage"), ("kill", "damage", "outage")])
def test_nothing_is_lost_doubled_or_altered_under_faults_at_random(tmp_path: Path, faults: tuple[str, ...]) -> None:
    with ExitStack() as stack:
        board = Chaos(tmp_path, stack, 5, faults).run(60.0)
    assert not board["breach"], scoreboard(board)
    assert sum(board.get(each, 0) for each in faults) >= 10, scoreboard(board)
    if "damage" not in faults:
        assert board["parts in records"] == str(board["parts made"]), scoreboard(board)
