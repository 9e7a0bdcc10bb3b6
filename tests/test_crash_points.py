"""A store whose process ends at any statement, sync or rename: nothing durable is missing, no identity given twice."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes import START, S, row
from power_writer import payload_of

from edge_agent.store import Draft, Issued, Store
from edge_agent.store import identity as identities

POINTS = int(os.environ.get("CRASH_POINTS", "150"))


def freeze(_: Draft, issued: Issued) -> bytes:
    return payload_of(issued.epoch, issued.number)


def work(folder: Path, seed: int, tick: Callable[[], None], durable: Callable[[int, int], None]) -> None:
    """What an agent does with its store, from its start to its stop; `tick` before and after each operation."""
    chance = random.Random(seed)
    with Store(folder) as store:
        store._connection.set_trace_callback(lambda _: tick())
        store.begin(START)
        tag = store.register([("plc.count", True)])["plc.count"]
        records = readings = 0
        for second in range(chance.randrange(2, 8)):
            rows = [row(tag, START + second * S + n, n) for n in range(chance.randrange(1, 300))]
            store.append(rows, START + second * S)
            readings += len(rows)
            durable(records, readings)
            drafts = [Draft("production", f"t/{n % 3}", "s", {}) for n in range(chance.choice([1, 3, 40]))]
            with store.transaction():
                store.issue(drafts, freeze, START + second * S)
            records += len(drafts)
            durable(records, readings)
            with store.transaction():
                store.delivery.answer([one.position for one in store.delivery.waiting(0, 5)], START, 0)
                store.readings.prune(START, 10)
            if chance.random() < 0.2:
                store.room.give_back()


def ended_at(folder: Path, seed: int, point: int) -> tuple[int, int, bool]:
    """A process that ends at one point: what it had told to be durable, and whether it came so far."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        count = 0

        def tick() -> None:
            nonlocal count
            count += 1
            if count == point:
                os._exit(9)

        def around(call: Callable[..., Any]) -> Callable[..., Any]:
            def called(*given: Any, **more: Any) -> Any:
                tick()
                done = call(*given, **more)
                tick()
                return done

            return called

        try:
            os.close(reader)
            identities.os.fsync = around(os.fsync)  # type: ignore[attr-defined]
            identities.Path.replace = around(Path.replace)  # type: ignore[attr-defined, method-assign]
            work(folder, seed, tick, lambda *told: _say(writer, told))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as told:
        lines = told.read().splitlines()
    _, status = os.waitpid(pid, 0)
    records, readings = map(int, lines[-1].split()) if lines else (0, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9), "the work itself failed"
    return records, readings, code == 9


def _say(writer: int, told: tuple[int, ...]) -> None:
    os.write(writer, b"%d %d\n" % told)


def test_store_ended_at_any_point_loses_nothing_and_gives_no_identity_twice(tmp_path: Path) -> None:
    template = tmp_path / "template"
    with Store(template) as store:
        store.begin(START - S)
    chance = random.Random(8)
    seed, point, done = 0, 1, 0
    while done < POINTS:
        folder = tmp_path / "data"
        shutil.copytree(template, folder)
        records, readings, ended = ended_at(folder, seed, point)
        with Store(folder) as store:
            begun = store.begin(START + 100 * S)
            issued = store.records.page(limit=10_000)
            assert len(issued) >= records, (seed, point)
            assert all(one.payload == payload_of(one.epoch, one.number) for one in issued)
            assert store.figures()["readings"] >= min(readings, 1), (seed, point)
            with store.transaction():
                store.issue([Draft("production", f"t/{n}", "s", {}) for n in range(3)], freeze, START + 101 * S)
            every = [(one.epoch, one.number) for one in store.records.page(limit=10_000)]
            assert len(set(every)) == len(every)
            places = [(one.epoch, one.topic, one.sequence) for one in store.records.page(limit=10_000)]
            assert len(set(places)) == len(places)
            assert store.losses.pending(1) == [], "nothing was lost, and nothing is said to be"
            assert begun.issued <= store.identity.issued if store.identity else False
        shutil.rmtree(folder)
        done += 1
        point += chance.randrange(1, 3)
        if not ended:
            seed, point = seed + 1, 1
