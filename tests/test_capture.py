"""Captures: how they are read, and what is said of them against a store and against manifests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import START
from test_ledger import HOUR, SUBJECT, Floor

from edge_agent.capture import CaptureError, Findings, against_manifests, against_store, read
from edge_agent.listing import issued_page, send_again

TOPIC = f"edge/v1/{SUBJECT}/production/10s"


@pytest.fixture
def floor(tmp_path: Path) -> Iterator[Floor]:
    made = Floor(tmp_path)
    yield made
    made.store.close()


async def an_hour(floor: Floor, count: int) -> list[bytes]:
    """So many records of one topic, accepted, and what is issued when their hour is over."""
    floor.issue(*["10s"] * count)
    await floor.outbox.accepted(range(1, count + 1))
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    await floor.outbox.accepted([count + 1])
    return floor.payloads()


def stored(floor: Floor, lines: list[bytes]) -> Findings:
    return against_store(read(lines, "c"), issued_page(floor.store, {}, 0)[0])


def proven(lines: list[bytes]) -> Findings:
    return against_manifests(read(lines, "c"))


def changed(line: bytes, **fields: Any) -> bytes:
    return json.dumps(json.loads(line) | fields, separators=(",", ":")).encode()


def lose(floor: Floor, sequence: int, *, named: bool) -> None:
    """A record is gone from the store."""
    with floor.store.transaction():
        floor.store._connection.execute("DELETE FROM record WHERE topic = ? AND sequence = ?", (TOPIC, sequence))
        if named:
            floor.store.losses.add(
                "records", "damaged", start=START, count=1, topic=TOPIC, epoch=1, first=sequence, last=sequence
            )


# ------------------------------------------------------------------------------------------------------ reading


def test_capture_is_read_in_every_form_that_mosquitto_sub_writes(floor: Floor) -> None:
    floor.issue("10s")
    (payload,) = floor.payloads()
    boxed = json.dumps({"tst": "x", "topic": TOPIC, "qos": 1, "payload": payload.decode()}).encode()
    for line in (payload, TOPIC.encode() + b" " + payload, boxed):
        (event,) = read([line + b"\n", b"\n"], "capture").events
        assert (event.payload, event.topic, event.sequence, event.number) == (payload, TOPIC, 1, 1)
    for line in (b"nonsense", b"{}", b'{"specversion":"1.0"}', b'{"topic":"t","payload":{"a":1}}', b"[" * 100_000):
        with pytest.raises(CaptureError, match="capture:1: no event"):
            read([line], "capture")


def test_value_that_was_cleared_is_no_fault_of_a_capture(floor: Floor) -> None:
    floor.issue("10s")
    cleared = [
        b"edge/v1/a/state \n",
        b"edge/v1/a/state (null)\n",
        b'{"topic":"t","payload":null}',
        b'{"topic":"t","payload":""}',
    ]
    capture = read([*cleared, *floor.payloads()], "capture")
    assert (len(capture.events), capture.unreadable) == (1, [])
    assert read(cleared, "capture").events == []
    with pytest.raises(CaptureError, match=r"capture:2: no event .its payload was taken apart"):
        read([cleared[2], b'{"topic":"t","payload":{"a":1}}'], "capture")


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "gw1:1:9x"}, {"id": 9}, {"id": "gw1:1:" + "9" * 5_000}, {"epoch": [1]}, {"epoch": True}, {"epoch": "1"},
        {"sequence": None}, {"sequence": 1e999}, {"source": {}}, {"type": 1}, {"type": "edge"}, {"data": []},
        {"subject": 3}, {"id": "\ud800:1:9"}, {"subject": "acme/lyon/\ud800"}, {"sequence": "x" * 5_000},
        {"type": "edge.manifest.v1"}, {"type": "edge.gap.v1"},
        {"type": "edge.manifest.v1", "data": {"epoch": 1, "topics": {"t": {"first": "x", "last": "2"}}}},
        {"type": "edge.gap.v1", "data": {"key": "k", "revision": 0, "withdrawn": False, "what": "records",
                                         "epoch": None, "first_sequence": "x", "last_sequence": "2", "topic": "t"}},
        {"type": "edge.gap.v1", "data": {"key": "k", "revision": None, "withdrawn": False, "what": "records"}},
    ],
)  # fmt: skip
async def test_line_that_is_no_event_is_counted_and_the_rest_is_judged(floor: Floor, fields: dict[str, Any]) -> None:
    whole = await an_hour(floor, 3)
    lines = [whole[0], changed(whole[1], **fields), *whole[2:]]
    for found in (stored(floor, lines), proven(lines)):
        assert (found.good, found.received, found.missing, found.unreadable) == (False, 3, 1, 1)
        (place,) = found.which["unreadable"]
        assert place.startswith("c:2: no event (")
        assert len(place) < 250


async def test_last_line_that_is_cut_is_the_only_one_that_is_not_read(floor: Floor) -> None:
    whole = await an_hour(floor, 3)
    found = stored(floor, [*whole[:-1], whole[-1][:-20]])
    assert (found.good, found.right, found.unreadable) == (False, 3, 1)


def test_of_lines_that_are_no_events_the_first_twenty_are_shown(floor: Floor) -> None:
    floor.issue("10s")
    found = stored(floor, [*floor.payloads(), *[b"nonsense"] * 30])
    assert (found.unreadable, len(found.which["unreadable"])) == (30, 20)


# -------------------------------------------------------------------------------------------- against the store


async def test_record_that_waits_is_neither_missing_nor_named_and_not_good(floor: Floor) -> None:
    whole = await an_hour(floor, 9)
    lines = [*whole[:4], *whole[5:]]
    assert stored(floor, lines).missing == 1
    send_again(floor.store, {"since": 0})
    found = stored(floor, lines)
    assert (found.good, found.missing, found.waiting, found.named) == (False, 0, 1, 0)
    await floor.outbox.refused(5, 0x87, "not authorized")
    found = stored(floor, lines)
    assert (found.good, found.missing, found.waiting, found.named) == (True, 0, 0, 1)


async def test_record_that_was_never_issued_is_unknown_and_makes_no_hole(floor: Floor) -> None:
    whole = await an_hour(floor, 9)
    found = stored(floor, [*whole, changed(whole[3], id="gw1:1:77777", sequence="000000000077")])
    assert (found.good, found.right, found.unknown, found.missing) == (True, 10, 1, 0)


async def test_second_identity_at_one_sequence_is_altered(floor: Floor) -> None:
    whole = await an_hour(floor, 9)
    twin = changed(whole[3], id="gw1:1:77778")
    for found in (stored(floor, [*whole, twin]), proven([*whole, twin])):
        assert (found.good, found.altered, found.unknown) == (False, 1, 0)
    found = stored(floor, [*whole[:8], changed(whole[8], id="gw9:1:3"), whole[9]])
    assert (found.altered, found.which["altered"], found.missing) == (1, ["gw9:1:3"], 0)


async def test_altered_records_are_counted_once_however_many(floor: Floor) -> None:
    whole = await an_hour(floor, 100)
    found = stored(floor, [*whole, *(line.replace(b'"quantity":null', b'"quantity":1') for line in whole[:100])])
    assert (found.altered, len(found.which["altered"]), found.doubled) == (100, 20, 0)


async def test_hole_that_nobody_knows_of_is_missing_and_one_that_a_gap_names_is_not(floor: Floor) -> None:
    whole = await an_hour(floor, 9)
    lose(floor, 5, named=False)
    lose(floor, 6, named=False)
    found = stored(floor, [*whole[:4], *whole[6:]])
    assert (found.good, found.missing, found.which["missing"]) == (False, 2, [f"{TOPIC} 5 to 6 of epoch 1"])
    lose(floor, 5, named=True)
    floor.ledger.look()
    found = stored(floor, [*whole[:4], *whole[6:], *floor.payloads("gap")])
    assert (found.missing, found.which["missing"], found.named) == (1, [f"{TOPIC} 6 of epoch 1"], 1)


async def test_hole_of_another_agent_is_not_for_this_store_to_judge(floor: Floor) -> None:
    whole = await an_hour(floor, 9)
    others = [changed(line, source="/edge/v1/acme/lyon/_agents/gw2") for line in whole[:9]]
    found = stored(floor, [*whole, *(line.replace(b"gw1:1", b"gw2:1") for line in others[:3] + others[5:])])
    assert (found.good, found.right, found.unknown) == (True, 10, 7)


async def test_hole_in_an_epoch_that_is_named_as_a_whole_is_not_missing(floor: Floor) -> None:
    whole = await an_hour(floor, 9)
    lose(floor, 5, named=False)
    with floor.store.transaction():
        floor.store.losses.add("records", "damaged", start=START, epoch=1)
    floor.ledger.look()
    assert stored(floor, [*whole[:4], *whole[5:], *floor.payloads("gap")]).good


async def test_record_that_the_agents_own_disk_has_changed_is_unknown_and_not_altered(floor: Floor) -> None:
    whole = await an_hour(floor, 6)
    with floor.store.transaction():
        floor.store._connection.execute(
            "UPDATE record SET payload = CAST(replace(CAST(payload AS TEXT), 'k2', 'k3') AS BLOB) WHERE position = 2"
        )
    found = stored(floor, whole)
    assert (found.good, found.right, found.unknown, found.altered) == (True, 6, 1, 0)


# -------------------------------------------------------------------------------------------- against manifests


async def test_records_beside_one_that_lacks_are_unproven(floor: Floor) -> None:
    floor.issue(*["10s"] * 9)
    await floor.outbox.refused(5, 0x87, "not authorized")
    floor.ledger.look()
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    whole = floor.payloads()
    found = proven([*whole[:4], whole[5].replace(b'"quantity":null', b'"quantity":1'), *whole[6:]])
    assert (found.good, found.named, found.right, found.unproven, found.unlike) == (True, 1, 1, 8, 0)


async def test_record_that_the_store_lost_after_its_delivery_is_no_fault_and_hides_none(floor: Floor) -> None:
    floor.issue(*["10s"] * 6)
    await floor.outbox.accepted(range(1, 7))
    whole = floor.payloads()
    lose(floor, 3, named=True)
    floor.ledger.look()
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    later = floor.payloads()[5:]
    found = proven([*whole, *later])
    assert (found.good, found.right, found.unproven) == (True, 6, 1), "all but 3 are as their manifest says"
    found = proven([*whole[:2], *whole[3:], *later])
    assert (found.good, found.right, found.named, found.unproven) == (True, 6, 1, 0)
    found = proven([*whole[:4], whole[5], *later])
    assert (found.good, found.missing, found.unproven, found.unlike) == (False, 1, 5, 0)
    for lines in (whole, whole[:2] + whole[3:]):
        altered = [line.replace(b'"k5"', b'"k7"') for line in lines]
        assert proven([*altered, *later]).unlike == len(lines)


async def test_dead_letter_beside_a_record_that_the_store_lost_is_no_proof_of_a_change(floor: Floor) -> None:
    floor.issue(*["10s"] * 6)
    await floor.outbox.refused(2, 0x87, "not authorized")
    whole = floor.payloads()
    lose(floor, 4, named=True)
    floor.ledger.look()
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    found = proven([whole[0], *whole[2:], *floor.payloads()[5:]])
    assert (found.good, found.named, found.unproven) == (True, 1, 5)


async def test_capture_that_begins_within_an_hour_is_judged_from_there(floor: Floor) -> None:
    floor.issue(*["10s"] * 6, "1h")
    await floor.clock.advance(600)
    floor.issue(*["10s"] * 4, "1h")
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    floor.issue("10s", "10s")
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    whole = floor.payloads()
    found = proven(whole[7:])
    assert (found.good, found.before, found.unproven, found.right) == (True, 7, 5, 3)
    found = proven([*whole[7:9], *whole[10:]])
    assert (found.good, found.before, found.missing) == (False, 7, 1)
    floor.lose_identity()
    floor.issue("10s", "10s")
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    later = floor.payloads()[len(whole) :]
    found = proven([*whole[7:], *(line for line in later if b'"k15"' not in line)])
    assert (found.before, found.which["missing"]) == (7, [f"{TOPIC} 1 of epoch 2"])


async def test_gap_that_was_withdrawn_or_made_smaller_names_what_it_names_now(floor: Floor) -> None:
    floor.issue(*["10s"] * 9)
    for position in (4, 5):
        await floor.outbox.refused(position, 0x87, "not authorized")
    floor.ledger.look()
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    whole = floor.payloads()
    lines = [*whole[:3], *whole[5:]]
    (gap,) = floor.payloads("gap")
    data = json.loads(gap)["data"]
    assert proven(lines).named == 2
    for change, missing in (({"withdrawn": True}, 2), ({"last_sequence": "000000000004"}, 1)):
        newer = changed(gap, id="gw1:1:90", sequence="000000000090", data=data | {"revision": 1} | change)
        for order in ([*lines, newer], [newer, *lines]):
            assert proven(order).missing == missing


async def test_what_no_manifest_tells_of_is_missing_below_the_last_one_if_it_did_not_arrive(floor: Floor) -> None:
    whole = await an_hour(floor, 6)
    floor.issue(*["10s"] * 2)
    await floor.clock.advance(HOUR)
    floor.ledger.look()
    lines = floor.payloads()
    del lines[6]  # the first manifest
    found = proven(lines)
    assert (found.good, found.right, found.unproven) == (True, 2, 6)
    found = proven([line for line in lines if line != whole[3]])
    assert (found.good, found.which["missing"], found.unproven) == (False, [f"{TOPIC} 4 of epoch 1"], 5)
