"""What a machine worked on: products and jobs, by tag and by entry."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from test_production import MIDNIGHT, S, at, bad, good
from test_stops import entry

from edge_agent.entries import Entry, in_force
from edge_agent.equipment import Row
from edge_agent.equipment.work import Job, WorkRules, jobs, last_known, text_of, work

BY_TAG = WorkRules("plc.product", {"A": 2 * S}, 4 * S, "plc.order")
BY_PERSON = WorkRules(planned_run_time_ns=4 * S)
Span = tuple[float, float, str | None, str | None]


def worked(
    rules: WorkRules, given_rows: dict[str, list[Row]] | None = None, entries: list[Entry] | None = None,
    end: float = 600, known: float = 600, hold: int | None = None,
) -> list[Span]:  # fmt: skip
    hold_ns = {"plc.product": hold and hold * S}
    found = work(rules, given_rows or {}, entries or [], hold_ns, (at(0), at(end)), at(known))
    return [((a - MIDNIGHT) / S, (b - MIDNIGHT) / S, product, job) for a, b, product, job in found]


def named(found: list[Job]) -> list[tuple[str, float, float | None]]:
    return [
        (job.name, (job.start_ns - MIDNIGHT) / S, None if job.end_ns is None else (job.end_ns - MIDNIGHT) / S)
        for job in found
    ]


# ---------------------------------------------------------------------------------------------- products


def test_product_is_not_known_where_its_tag_is_bad_or_stale_or_empty() -> None:
    rows = {"plc.product": [good(10, "A"), bad(50, "x"), good(60, "B "), good(100, ""), good(200, "A")]}
    assert worked(BY_TAG, rows, hold=63) == [
        (0, 10, None, None), (10, 50, "A", None), (50, 60, None, None), (60, 100, "B", None), (100, 200, None, None),
        (200, 263, "A", None), (263, 600, None, None),
    ]  # fmt: skip


def test_product_without_a_tag_is_that_of_the_job() -> None:
    told = [entry(1, "job-start", 10, job="1", product="A"), entry(2, "job-start", 20, job="2")]
    assert worked(BY_PERSON, entries=told) == [(0, 10, None, None), (10, 20, "A", "1"), (20, 600, None, "2")]


def test_text_of_values_is_what_people_would_write() -> None:
    assert [text_of(value) for value in (7, 7.0, 7.5, " A1 ", "A\0\0", "", " ", None, True, b"x", (1,))] == [
        "7", "7", "7.5", "A1", "A", None, None, None, None, None, None
    ]  # fmt: skip


def test_run_time_is_the_products_own_else_the_machines() -> None:
    assert [BY_TAG.run_time_ns(product) for product in ("A", "B", None)] == [2 * S, 4 * S, 4 * S]
    assert WorkRules(by_product_ns={"A": S}).run_time_ns("B") is None


# -------------------------------------------------------------------------------------------------- jobs


def test_job_of_a_tag_goes_on_where_the_tag_is_bad_and_ends_where_it_is_none() -> None:
    order = [good(0, 4711), bad(20, "x"), good(30, 4711.0), good(40, 0), good(50, "K7"), good(60, ""), good(70, "K7")]
    assert named(jobs(BY_TAG, {"plc.order": order}, [], at(600))) == [
        ("4711", 0, 40), ("K7", 50, 60), ("K7", 70, None)
    ]  # fmt: skip
    ended = [good(0, 1), good(10, False), good(20, 2), bad(30, "x"), good(40, 0)]
    assert named(jobs(BY_TAG, {"plc.order": ended}, [], at(600))) == [("1", 0, 10), ("2", 20, 40)]


def test_job_of_a_tag_ends_where_the_next_begins() -> None:
    rows = {"plc.order": [good(5, "a"), good(10, "b"), good(20, "a")], "plc.product": [good(0, "A")]}
    assert named(jobs(BY_TAG, rows, [], at(600))) == [("a", 5, 10), ("b", 10, 20), ("a", 20, None)]
    assert worked(BY_TAG, rows, known=15) == [
        (0, 5, "A", None), (5, 10, "A", "a"), (10, 15, "A", "b"), (15, 600, None, "b")
    ]  # fmt: skip


def test_job_of_an_entry_ends_with_the_next_entry_whatever_the_order_of_telling() -> None:
    told = [entry(1, "job-start", 50, job="2"), entry(2, "job-start", 10, job="1"), entry(3, "job-end", 90)]
    found = jobs(BY_PERSON, {}, told, at(600))
    assert named(found) == [("1", 10, 50), ("2", 50, 90)]
    assert [job.ended_by and job.ended_by.number for job in found] == [1, 3]


def test_job_told_twice_for_one_time_is_the_one_told_last() -> None:
    told = [entry(1, "job-start", 10, job="wrong"), entry(2, "job-start", 10, job="right")]
    assert named(jobs(BY_PERSON, {}, told, at(600))) == [("right", 10, None)]
    told.append(entry(3, "withdraw", 0, entry=2))
    assert named(jobs(BY_PERSON, {}, in_force(told), at(600))) == [("wrong", 10, None)]


def test_job_end_without_a_job_is_nothing() -> None:
    assert jobs(BY_PERSON, {}, [entry(1, "job-end", 10), entry(2, "job-end", 20)], at(600)) == []


def test_last_known_value_is_the_last_good_one_before() -> None:
    rows = [good(0, "A"), good(10, "B"), bad(20, "x"), good(30, "C")]
    assert [last_known(rows, at(second)) for second in (0, 10, 25, 30, 31)] == [None, "A", "B", "B", "C"]


# ------------------------------------------------------------------------------------------- any history


VALUES: st.SearchStrategy[Any] = st.sampled_from([None, 0, "", False, 1, 2, "A", "B"])


def _rows(most: int) -> st.SearchStrategy[list[Row]]:
    pairs = st.lists(st.tuples(st.integers(0, 599), VALUES), max_size=most, unique_by=lambda pair: pair[0])
    return pairs.map(lambda found: [bad(s, "x") if v is None else good(s, v) for s, v in sorted(found, key=_second)])


def _second(pair: tuple[int, Any]) -> int:
    return pair[0]


@settings(max_examples=200)
@given(order=_rows(12), product=_rows(12), known=st.integers(1, 600))
def test_work_of_any_readings_is_what_each_second_says(order: list[Row], product: list[Row], known: int) -> None:
    found = worked(BY_TAG, {"plc.order": order, "plc.product": product}, known=known, hold=63)
    assert (found[0][0], found[-1][1]) == (0, 600)
    assert all(a[1] == b[0] and a[2:] != b[2:] for a, b in pairwise(found))
    for start, end, made, job in found:
        for second in (int(start), int(end) - 1):
            said = [row for row in product if row[0] <= at(second) and row[0] < at(known)][-1:]
            fresh = bool(said) and said[0][2] == 0 and at(second) < min(said[0][0] + 63 * S, at(known))
            assert made == (text_of(said[0][1]) if fresh else None)
            orders = [row[1] for row in order if row[0] <= at(second) and row[0] < at(known) and row[2] == 0]
            assert job == (text_of(orders[-1]) if orders and orders[-1] != 0 else None)
