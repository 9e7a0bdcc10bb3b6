"""Power cuts: a file system in a file, whose copy at the moment of a kill has only what was synced to it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from image_disk import made, mounted, needs_loop
from power_writer import payload_of

from edge_agent.store import Store

HERE = Path(__file__).parent


def cut(folder: Path, seconds: float) -> tuple[Path, int, int, int]:
    """A copy of the image at a power cut; the epoch, and how many records and readings were told to be durable."""
    image, copy = folder / "image", folder / "copy"
    if not image.exists():
        made(image)
    with mounted(image, folder / "disk", "commit=600") as disk:
        command = [sys.executable, str(HERE / "power_writer.py"), str(disk / "data")]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        epoch = int(writer.stdout.readline().split()[1])
        time.sleep(seconds)
        writer.send_signal(signal.SIGKILL)
        shutil.copyfile(image, copy)  # what was not synced is in no file yet
        said = [line.split() for line in writer.communicate()[0].splitlines() if line.count(" ") == 3]
        shutil.rmtree(disk / "data")
    records, readings = (int(said[-1][1]), int(said[-1][3])) if said else (0, 0)
    return copy, epoch, records, readings


def judged(copy: Path, place: Path, epoch: int, records: int, readings: int) -> None:
    """What was told to be durable is there, byte for byte, and no number will be given twice."""
    with mounted(copy, place) as disk, Store(disk / "data") as store:
        begun = store.begin(time.time_ns())
        issued = store.records.page(limit=100_000)
        assert len(issued) >= records
        assert all(one.payload == payload_of(one.epoch, one.number) for one in issued)
        assert [one.sound for one in store.delivery.waiting(0, 100_000)] == [True] * store.delivery.figures()["waiting"]
        assert store.figures()["readings"] >= readings
        numbers = [one.number for one in issued]
        assert numbers == sorted(set(numbers))
        assert begun.epoch > epoch or begun.reserved > max(numbers, default=0)
        assert store.losses.pending(10) == [], "nothing is lost"


@needs_loop
def test_what_was_committed_is_there_after_a_power_cut(tmp_path: Path) -> None:
    chance = random.Random(4)
    total = 0
    for _ in range(int(os.environ.get("POWER_CUTS", "3"))):
        copy, epoch, records, readings = cut(tmp_path, chance.uniform(0.2, 1.2))
        judged(copy, tmp_path / "look", epoch, records, readings)
        total += records
    assert total > 0
