"""What people tell: accepted with its body or refused with a cure, published, and what it re-opens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agreement import whole_agrees
from desk_bench import CONFIG, DeskBench, clock_time, said
from fakes import FakeClock, S
from test_summarizer import NOON

from edge_agent.desk import EntryRefused, Request

DAY = 86_400


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[DeskBench]:
    made = DeskBench(tmp_path, FakeClock(NOON))
    yield made
    await made.thread.close()


# ------------------------------------------------------------------------------------------------- accepted


@pytest.mark.parametrize(
    ("kind", "given", "body"),
    [
        ("reason", {"reason": " hydraulics /low pressure "}, {"reason": "hydraulics/low pressure"}),
        ("scrap", {"count": 12, "reason": "dimension/ too long"}, {"count": 12, "reason": "dimension/too long"}),
        ("scrap", {"count": -2, "reason": None}, {"count": -2}),
        ("rework", {"count": 3}, {"count": 3}),
        ("correction", {"count": -5}, {"count": -5, "quantity": "produced"}),
        ("correction", {"count": 1, "quantity": "scrap"}, {"count": 1, "quantity": "scrap"}),
        ("job-start", {"job": "WO-1", "product": None, "fields": {}}, {"job": "WO-1"}),
        (
            "job-start",
            {"job": " WO-1 ", "product": "A", "operation": "20", "planned_quantity": 5, "fields": {"customer": "acme"}},
            {"job": "WO-1", "operation": "20", "product": "A", "planned_quantity": 5, "fields": {"customer": "acme"}},
        ),
        ("counter-replaced", {"tag": "plc.count", "value": 0}, {"tag": "plc.count", "value": 0}),
        ("counter-replaced", {"tag": "plc.rejects"}, {"tag": "plc.rejects"}),
        ("note", {"text": "fuite\N{NO-BREAK SPACE}: joint changé"}, {"text": "fuite\N{NO-BREAK SPACE}: joint changé"}),
    ],
)
async def test_entry_is_kept_with_its_body_and_published_once(
    bench: DeskBench, kind: str, given: dict[str, Any], body: dict[str, Any]
) -> None:
    entry = await bench.tell(kind, at=-30, by="bob", **given)
    assert (entry.kind, entry.by, entry.made_ns, entry.start_ns) == (kind, "bob", NOON, NOON - 30 * S)
    assert entry.body == body
    assert bench.store.entries.numbered(entry.number) == entry
    (event,) = bench.events()
    whole_agrees(event, "entry")
    assert event["data"]["body"] == body
    assert (event["data"]["start"], event["data"]["made"]) == ("2026-11-23T11:59:30Z", "2026-11-23T12:00:00Z")
    assert (event["data"]["end"] is not None) == (kind == "reason")
    (stored,) = bench.store.records.page()
    assert stored.topic == "edge/v1/acme/lyon/hall/a/press/entry"


async def test_entries_are_only_ever_appended(bench: DeskBench) -> None:
    first = await bench.tell("note", text="one")
    await bench.tell("withdraw", machine="", entry=first.number)
    with pytest.raises(EntryRefused):
        await bench.tell("scrap", count=0)
    third = await bench.tell("note", text="two")
    assert bench.store.entries.numbered(first.number) == first
    assert [first.number, third.number, bench.store.entries.newest()] == [1, 3, 3]
    keys = [data["key"] for data in bench.of("entry")]
    assert len(keys) == len(set(keys)) == 3


async def test_counter_that_is_the_only_one_needs_no_name(bench: DeskBench) -> None:
    assert (await bench.tell("counter-replaced", machine="saw")).body == {"tag": "plc.count"}


async def test_planned_stop_may_be_said_in_advance_and_taken_back_before_it_comes(bench: DeskBench) -> None:
    entry = await bench.tell("planned-stop", at=DAY, until=DAY + 3_600, reason="planned/retooling")
    assert (entry.start_ns, entry.end_ns) == (NOON + DAY * S, NOON + (DAY + 3_600) * S)
    assert bench.reopened() == []
    withdrawn = await bench.take(said("withdraw", "", entry=entry.number))
    assert (withdrawn.machine, withdrawn.start_ns, withdrawn.body) == ("press", entry.start_ns, {"entry": entry.number})


def test_who_says_it_is_the_peer_of_the_socket_unless_given() -> None:
    given = {"kind": "note", "machine": "press", "peer": "operator", "body": {"text": "x"}}
    assert Request.of(given).by == "operator"
    assert Request.of(given | {"by": None}).by == "operator"
    assert Request.of(given | {"by": " ann "}).by == "ann"


# -------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("kind", "given", "cure"),
    [
        ("note", {"machine": "Pres", "text": "x"}, "there is no machine 'Pres'; did you mean 'press'?"),
        ("note", {"machine": "robot", "text": "x"}, "there are: press, saw"),
        ("reason", {"at": -9, "reason": "Hydraulics/low presure"}, "did you mean 'hydraulics/low pressure'?"),
        ("reason", {"at": -9, "reason": "hydraulics"}, "none of the reasons of this machine; did you mean"),
        ("reason", {"at": -9, "reason": "a//b"}, "none of them is empty"),
        ("reason", {"at": -9, "reason": "Unclassified"}, "choose another name, such as other"),
        ("reason", {"at": -9, "reason": None}, "the reason is missing"),
        ("reason", {"reason": "guard open"}, "has had no stop in a week; say for when: --from and --to"),
        ("reason", {"until": -9, "reason": "guard open"}, "give --from too"),
        ("reason", {"at": -9, "until": 9_999, "reason": "guard open"}, "14:46:39Z is still to come, and so are"),
        ("reason", {"at": -9, "until": -60, "reason": "guard open"}, "before it begins at"),
        ("planned-stop", {"at": 60}, "until when is it planned? give --to, or --for such as 2 h"),
        ("planned-stop", {"at": 60, "until": 50}, "it would end at"),
        ("planned-stop", {"at": 60, "until": 400 * DAY}, "more than a year from now; is the year right?"),
        ("planned-stop", {"at": 60, "until": 90, "reason": "gaurd open"}, "did you mean 'guard open'?"),
        ("scrap", {"count": 0}, "a whole number, below 0 to take back"),
        ("scrap", {"count": 1.5}, "a whole number, below 0 to take back"),
        ("scrap", {"count": True}, "a whole number, below 0 to take back"),
        ("scrap", {"count": 10**13}, "a whole number, below 0 to take back"),
        ("scrap", {"count": 1, "at": 6}, "is still to come; only a planned-stop may be said in advance"),
        ("scrap", {"count": 1, "at": -15 * DAY}, "is before 2026-11-10T05:00:00Z, and what was before that is final"),
        ("correction", {"count": 1, "quantity": "good"}, "there are: produced, scrap, rework"),
        ("job-start", {"machine": "saw", "job": "WO-1"}, "the jobs of saw begin and end by the tag plc.rejects"),
        ("job-end", {"machine": "saw"}, "the jobs of saw begin and end by the tag plc.rejects"),
        ("job-end", {}, "press has no job in work at 2026-11-23T12:00:00Z"),
        ("job-start", {"job": " "}, "the job's name, such as WO-1001 is missing"),
        ("job-start", {"job": "x" * 201}, "has at most 200 characters, not 201"),
        ("job-start", {"job": "W", "planned_quantity": -1}, "a planned quantity is at least 1, not -1"),
        ("job-start", {"job": "W", "fields": {str(n): "x" for n in range(21)}}, "at most 20 fields"),
        ("job-start", {"job": "W", "fields": ["x"]}, "each a name and its text"),
        ("counter-replaced", {}, "say which with --tag of the counters: plc.count, plc.rejects"),
        ("counter-replaced", {"tag": "plc.status"}, "plc.status is none of the counters: plc.count, plc.rejects"),
        ("counter-replaced", {"tag": "plc.count", "value": -1}, "a whole number from 0 to 65535, not -1"),
        ("counter-replaced", {"tag": "plc.count", "value": 65_536}, "a whole number from 0 to 65535, not 65536"),
        ("counter-replaced", {"machine": "saw", "value": 2**64}, "a whole number from 0 to 9223372036854775806"),
        ("note", {"text": ""}, "the text is missing"),
        ("note", {"text": "x" * 1_001}, "the text has at most 1000 characters, not 1001"),
        ("note", {"text": "two\nlines"}, "text on one line, without control characters"),
        ("note", {"text": "bell \a"}, "text on one line, without control characters"),
        ("note", {"text": "half \ud83d of a pair"}, "text on one line, without control characters"),
        ("note", {"text": "x", "by": "a\tb"}, "who says it is text on one line"),
        ("withdraw", {"entry": 7}, "there is no entry 7; `edge-agent records --type entry` lists them"),
        ("withdraw", {"entry": 2**70}, "there is no entry 1180591620717411303424"),
        ("withdraw", {"entry": True}, "there is no entry True"),
        ("withdraw", {"machine": ""}, "there is no entry None"),
        ("gossip", {}, "'gossip' is no kind of entry; there are: reason, scrap"),
    ],
)
async def test_entry_that_cannot_be_taken_is_refused_with_its_cure(
    bench: DeskBench, kind: str, given: dict[str, Any], cure: str
) -> None:
    with pytest.raises(EntryRefused) as refused:
        await bench.tell(kind, **given)
    assert cure in str(refused.value)
    assert "\n" not in str(refused.value)
    assert bench.store.entries.newest() == 0
    assert bench.events() == []


@pytest.mark.parametrize("time", [-1, 2**63, 1.5, "now", True])
def test_time_that_no_store_could_keep_is_refused(time: Any) -> None:
    with pytest.raises(EntryRefused, match="no time from 1970 to 2262"):
        Request.of({"kind": "note", "machine": "press", "start": time, "body": {"text": "x"}})


async def test_clock_of_a_person_may_be_a_little_ahead(bench: DeskBench) -> None:
    assert (await bench.tell("scrap", at=5, count=1)).start_ns == NOON + 5 * S
    assert bench.reopened() == []


async def test_withdraw_of_a_withdrawal_of_another_machines_or_twice_is_refused(bench: DeskBench) -> None:
    scrap = await bench.tell("scrap", at=-9, count=1)
    with pytest.raises(EntryRefused, match="entry 1 is of press, not of saw"):
        await bench.tell("withdraw", machine="saw", entry=1)
    second = await bench.tell("withdraw", entry=scrap.number)
    with pytest.raises(EntryRefused, match="entry 2 withdraws another; say that one anew instead"):
        await bench.tell("withdraw", entry=second.number)
    with pytest.raises(EntryRefused, match="entry 1 is withdrawn already"):
        await bench.tell("withdraw", entry=scrap.number)


async def test_machine_that_is_disabled_is_called_so(tmp_path: Path) -> None:
    bench = DeskBench(tmp_path, FakeClock(NOON), CONFIG)
    bench.configuration.disabled["machines.lathe"] = ()
    with pytest.raises(EntryRefused, match="lathe is disabled, because its configuration is wrong"):
        await bench.tell("note", machine="lathe", text="x")
    await bench.thread.close()


# ------------------------------------------------------------------------------------------ for which stop


async def test_reason_without_time_is_of_the_stop_that_goes_on_also_when_no_record_tells_it_yet(
    bench: DeskBench,
) -> None:
    bench.run(0, 100)
    bench.run(100, 300, status=3)
    bench.run(300, 400)
    bench.run(400, 420, status=3)
    await bench.close_at(420)
    assert {stop["start"] for stop in bench.of("downtime")} == {clock_time(100)}
    entry = await bench.tell("reason", reason="guard open")
    assert (entry.start_ns, entry.end_ns) == (NOON + 400 * S, NOON + 420 * S + 1_000_000)


async def test_reason_without_time_is_of_the_last_stop_when_the_machine_runs(bench: DeskBench) -> None:
    bench.run(0, 100)
    bench.run(100, 300, status=3)
    bench.run(300, 400)
    bench.run(400, 420, status=3)  # short: it has no reason
    bench.run(420, 4 * 3_600)
    await bench.close_at(4 * 3_600)
    entry = await bench.tell("reason", reason="guard open")
    assert (entry.start_ns, entry.end_ns) == (NOON + 100 * S, NOON + 300 * S + 1_000_000)


async def test_reason_without_time_is_of_the_whole_stop_that_began_hours_ago(bench: DeskBench) -> None:
    bench.run(0, 100)
    bench.run(100, 3 * 3_600, status=3)
    await bench.close_at(3 * 3_600)
    entry = await bench.tell("reason", reason="guard open")
    assert (entry.start_ns, entry.end_ns) == (NOON + 100 * S, NOON + 3 * 3_600 * S + 1_000_000)


async def test_reason_without_time_in_a_break_is_of_the_stop_before_it(bench: DeskBench) -> None:
    bench.run(0, 100)
    bench.run(100, 300, status=3)
    bench.run(300, 600)
    await bench.tell("planned-stop", at=0, until=3_600)
    bench.run(600, 900, status=2)
    await bench.close_at(900)
    with pytest.raises(EntryRefused, match="has had no stop in a week"):
        await bench.tell("reason", reason="guard open")


async def test_reason_without_time_is_of_the_stop_that_missing_items_tell(tmp_path: Path) -> None:
    state = "{tag: plc.status, map: {1: producing, 2: delay, 3: down}}\n    counts:"
    assert state in CONFIG
    bench = DeskBench(
        tmp_path, FakeClock(NOON), CONFIG.replace(state, "{from_count: {stopped_after: 30}}\n    counts:", 1)
    )
    bench.run(0, 300)
    bench.run(300, 400, status=3)
    await bench.close_at(400)
    entry = await bench.tell("reason", reason="guard open")
    assert (entry.start_ns, entry.end_ns) == (NOON + 290 * S, NOON + 400 * S + 1_000_000)
    await bench.thread.close()


# ------------------------------------------------------------------------------------------------ re-opened


async def told_at_ten_minutes(bench: DeskBench) -> DeskBench:
    bench.run(0, 600)
    await bench.clock.advance(600)
    await bench.thread.flush()
    return bench


@pytest.mark.parametrize(
    ("kind", "given", "again"),
    [
        ("note", {"at": 60, "text": "x"}, []),
        ("scrap", {"at": 60, "count": 1}, [(60, 60)]),
        ("correction", {"at": 60, "count": 1}, [(60, 60)]),
        ("reason", {"at": 60, "until": 90, "reason": "guard open"}, [(60, 90)]),
        ("planned-stop", {"at": 60, "until": 900}, [(60, 900)]),
        ("planned-stop", {"at": 700, "until": 900}, []),
        ("job-start", {"at": 60, "job": "A"}, [(60, 600)]),
        ("counter-replaced", {"at": 61, "tag": "plc.count"}, [(61, 140)]),
        ("counter-replaced", {"at": 595, "tag": "plc.count"}, [(595, 600)]),
    ],
)
async def test_entry_has_only_that_looked_at_again_what_it_may_change(
    bench: DeskBench, kind: str, given: dict[str, Any], again: list[tuple[float, float]]
) -> None:
    await told_at_ten_minutes(bench)
    entry = await bench.tell(kind, **given)
    assert bench.reopened() == [pytest.approx(span, abs=1e-6) for span in again]
    assert bench.reopened("saw") == []
    await bench.tell("withdraw", entry=entry.number)
    assert bench.reopened() == [pytest.approx(span, abs=1e-6) for span in again * 2]


async def test_job_is_looked_at_again_as_far_as_the_next_one_that_still_counts(bench: DeskBench) -> None:
    await told_at_ten_minutes(bench)
    await bench.tell("job-start", at=300, job="B")
    wrong = await bench.tell("job-start", at=200, job="X")
    await bench.tell("withdraw", entry=wrong.number)
    await bench.tell("job-start", at=100, job="A")
    assert bench.reopened()[-1] == pytest.approx((100, 300), abs=1e-6)
