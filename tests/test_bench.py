"""The benchmarks run and give their figures; how large these are is for `make bench`, on a quiet machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from brokers import needs_mosquitto

from bench import isolation, metrics, modbus, opcua, outage, store
from bench.figures import Figure, document, middle, table


def test_bench_modbus_gives_cost_memory_and_freshness(tmp_path: Path) -> None:
    figures = modbus.run(tmp_path, seconds=1.1, devices=2)
    cost = figures[0]
    assert [figure.unit for figure in figures] == ["µs", "MB", "MB", "s"]
    assert cost.ratio is not None
    assert all(figure.value > 0 and figure.bar for figure in figures)


def test_bench_opcua_gives_cost_and_memory(tmp_path: Path) -> None:
    figures = opcua.run(tmp_path, seconds=0.5, items=20, interval_s=0.1)
    assert figures[0].ratio is not None
    assert all(figure.value > 0 and figure.bar for figure in figures)


def test_bench_isolation_gives_the_jitter_with_a_bad_neighbour_beside_that_without(tmp_path: Path) -> None:
    figures = isolation.run(tmp_path, seconds=1, links=2, rounds=1)
    assert [figure.unit for figure in figures] == ["µs", "µs"]
    assert all(figure.value > 0 and figure.peer and figure.bar for figure in figures)


def test_bench_store_and_metrics_give_their_figures(tmp_path: Path) -> None:
    figures = store.run(tmp_path, seconds=0.1, group=100) + metrics.run(tmp_path, seconds=0.1)
    assert all(figure.value > 0 for figure in figures)
    assert len({figure.name for figure in figures}) == len(figures)


@needs_mosquitto
def test_bench_outage_loses_nothing_that_was_committed_and_doubles_nothing(tmp_path: Path) -> None:
    figures = {figure.name.partition(",")[2].partition(",")[0]: figure for figure in outage.run(tmp_path, 4.0, 2)}
    bars = [figure for figure in figures.values() if figure.bar is not None]
    assert len(bars) == 3
    assert [figure.verdict for figure in bars] == ["ok"] * 3
    assert figures[" readings stored per second"].value > 0


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (Figure("cost", 2.0, "µs", 1.0, "µs", 2.0), "ok"),
        (Figure("cost", 2.1, "µs", 1.0, "µs", 2.0), "MISSED"),
        (Figure("memory", 100.1, "MB", bar=100.0), "MISSED"),
        (Figure("rows", 5.0, "1/s"), ""),
    ],
)
def test_figure_is_judged_by_its_ratio_or_else_by_its_value(figure: Figure, verdict: str) -> None:
    assert figure.verdict == verdict
    assert verdict in table([figure]).splitlines()[-1]


def test_figures_of_several_rounds_are_the_median_of_values_and_ratios() -> None:
    rounds = [[Figure("cost", value, "µs", peer, "µs", 2.0)] for value, peer in ((3.0, 1.0), (2.0, 1.0), (9.0, 9.0))]
    (cost,) = middle(rounds)
    assert (cost.value, cost.ratio) == (3.0, 2.0)


def test_document_names_the_machine_and_carries_every_figure() -> None:
    told = json.loads(document([Figure("cost", 3.0, "µs", 1.5, "µs", 2.0)], seconds=1, repeats=1))
    assert told["machine"]
    assert told["figures"][0] | {"ratio": 2.0, "verdict": "ok"} == told["figures"][0]
