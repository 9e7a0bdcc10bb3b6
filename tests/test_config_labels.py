"""Reasons, products and jobs of a machine: what their settings mean once they are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from config_driver import AGENT, DEVICE, MACHINE, lines, loaded

from edge_agent.contract import NS_PER_S

OTHER = """\
  oven:
    driver: bench
    url: bench://2
    tags:
      count: {address: 1, scale: 10}
"""


def _machine(line: str) -> str:
    return MACHINE + f"    {line}\n"


def test_reasons_are_paths_without_spaces_around_their_names(tmp_path: Path) -> None:
    text = _machine(
        "reason: {tag: press.count, map: {17: ' feed / jam ', stuck: 4711}, tree: [feed, cleaning/mould, feed/jam],\n"
        "      planned_stop: [ cleaning ]}"
    ).replace("max_rate: 2 /s}", "max_rate: 2 /s}, scrap: {tag: press.status, kind: pulse, reason: too long /12}")
    configuration = loaded(tmp_path, agent=AGENT, d=DEVICE, m=text)
    assert lines(configuration) == []
    machine = configuration.machines["press-01"]
    assert machine.counts["scrap"][0].reason == "too long/12"
    assert machine.reason is not None
    assert machine.reason.map == {17: "feed/jam", "stuck": "4711"}
    assert machine.reason.reasons == ("feed/jam", "4711", "feed", "cleaning/mould")
    planned = [name for name in ("cleaning", "cleaning/mould", "cleaning2", "feed") if machine.reason.is_planned(name)]
    assert planned == ["cleaning", "cleaning/mould"]


def test_reasons_may_come_from_people_alone(tmp_path: Path) -> None:
    reason = loaded(tmp_path, agent=AGENT, d=DEVICE, m=_machine("reason: {tree: [feed/jam]}")).machines["press-01"]
    assert reason.reason is not None
    assert (reason.reason.tag, reason.reason.reasons, reason.label_tags) == (None, ("feed/jam",), ())


def test_job_and_product_name_the_tags_that_label_the_time(tmp_path: Path) -> None:
    text = _machine(
        "job: {tag: press.order, operation: press.step, planned_quantity: press.lot, fields: {batch: oven.count}}\n"
        "    product: {tag: press.step}\n"
        "    reason: {tag: press.alarm, map: {1: jam}}"
    )
    more = "".join(f"      {name}: {{address: 1}}\n" for name in ("order", "step", "lot", "alarm"))
    configuration = loaded(tmp_path, agent=AGENT, d=DEVICE + more + OTHER, m=text)
    assert lines(configuration) == [], "a field may have a scale: it is passed on, and compared with nothing"
    machine = configuration.machines["press-01"]
    assert machine.label_tags == ("press.alarm", "press.step", "press.order", "press.lot", "oven.count")
    assert machine.job is not None
    assert machine.job.fields == {"batch": "oven.count"}


@pytest.mark.parametrize(
    ("own", "products", "shortest_s", "stopped_after_s"),
    [
        ("4 s", "", 4, 20),
        ("4 s", "{A: 3 s, B: 6 s}", 3, 20),
        ("", "{A: 3 s, B: 6 s}", 3, 30),
        ("4 s", "{A: 3000 s}", 4, 20),
    ],
)
def test_planned_run_times_of_machine_and_products_bound_the_count(
    tmp_path: Path, own: str, products: str, shortest_s: int, stopped_after_s: int
) -> None:
    text = MACHINE.replace(
        "{tag: press.status, map: {1: producing, 2: down}}", "{from_count: {stopped_after: 2.5}}"
    ).replace("max_rate: 2 /s", "items_per_count: 2")
    text += f"    planned_run_time_per_item: {own}\n" if own else ""
    text += f"    product: {{planned_run_time_per_item: {products}}}\n" if products else ""
    configuration = loaded(tmp_path, agent=AGENT, d=DEVICE, m=text)
    assert lines(configuration) == []
    machine = configuration.machines["press-01"]
    assert machine.shortest_run_time_ns == shortest_s * NS_PER_S
    assert machine.stopped_after_ns == stopped_after_s * NS_PER_S
    assert machine.stopped_after(6 * NS_PER_S) == 30 * NS_PER_S


def test_machine_with_a_status_has_no_time_to_a_stop_and_needs_no_run_time(tmp_path: Path) -> None:
    machine = loaded(tmp_path, agent=AGENT, d=DEVICE, m=MACHINE).machines["press-01"]
    assert (machine.shortest_run_time_ns, machine.stopped_after_ns, machine.stopped_after(NS_PER_S)) == (None,) * 3


def test_product_is_named_as_it_is_written_number_or_text(tmp_path: Path) -> None:
    text = _machine(
        "product: {tag: press.count, planned_run_time_per_item: {4711: 2 s, '007': 3 s, ' A 1 ': 4 s, 1.5: 5 s}}"
    )
    configuration = loaded(tmp_path, agent=AGENT, d=DEVICE, m=text)
    assert lines(configuration) == []
    assert configuration.machines["press-01"].product_run_times_ns == {
        "4711": 2 * NS_PER_S, "007": 3 * NS_PER_S, "A 1": 4 * NS_PER_S, "1.5": 5 * NS_PER_S,
    }  # fmt: skip


def test_product_or_code_that_is_named_like_a_secret_is_kept_in_the_document(tmp_path: Path) -> None:
    text = _machine(
        "reason: {tag: press.count, map: {token: jam}}\n"
        "    product: {planned_run_time_per_item: {token: 2 s}}\n"
        "    job: {tag: press.count, fields: {key: press.count}}"
    )
    machine = json.loads(loaded(tmp_path, agent=AGENT, d=DEVICE, m=text).document)["machines"]["press-01"]
    assert machine["reason"] == {"tag": "press.count", "map": {"token": "jam"}}
    assert machine["product"] == {"planned_run_time_per_item": {"token": "2 s"}}
    assert machine["job"] == {"tag": "press.count", "fields": {"key": "press.count"}}
