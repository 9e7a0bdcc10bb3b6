"""The OPC UA driver against what no honest server sends."""

from __future__ import annotations

import asyncio
import struct
import time
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua.server.history import HistoryDict
from opcua_server import build, endpoint_of, ua
from test_opcua_items import device, streaming

import edge_agent_opcua.history as history_module
import edge_agent_opcua.subscription as subscription_module
from bench import fuzz_opcua
from edge_agent.contract import HistoryPart, NotConnected, Tag, TagSettings
from edge_agent_opcua import OpcuaDriver
from edge_agent_opcua.frames import Frames
from edge_agent_opcua.values import data_change
from edge_agent_opcua.wire import DecodeError, Wire

S = 1_000_000_000
TAGS = (Tag("d.t", TagSettings(address=0), 1),)


def test_fuzzed_frames_let_nothing_escape_and_credit_no_value_otherwise(tmp_path: Path) -> None:
    figures = fuzz_opcua.run(tmp_path, 0, frames=40_000)
    assert [figure.name for figure in figures if figure.bar is not None and figure.value > figure.bar] == []
    refused = figures[-1].value
    assert 10_000 < refused < 39_000, "the damage is neither all obvious nor all harmless"


def test_array_of_nulls_which_takes_no_bytes_is_refused_at_once() -> None:
    count = 200_000
    nulls = b"\x80" + struct.pack("<i", count)
    began = time.monotonic()
    with pytest.raises(DecodeError, match="nulls"):
        Wire(nulls + bytes(count)).variant()
    with pytest.raises(DecodeError, match="nulls"):
        Wire(b"\x98" + struct.pack("<i", count) + nulls * (count // 4)).variant()
    assert time.monotonic() - began < 0.5


def test_array_of_too_many_dimensions_is_refused() -> None:
    with pytest.raises(DecodeError, match="1000 dimensions"):
        Wire(b"\xc6" + struct.pack("<iii", 1, 7, 1000) + struct.pack("<I", 1) * 1000).variant()


def test_notification_with_bytes_left_at_its_end_is_refused() -> None:
    whole = (
        struct.pack("<iI", 1, 0) + b"\x05\x06" + struct.pack("<iq", 7, 134_000_000_000_000_000) + struct.pack("<i", 0)
    )
    assert [reading.value for reading in data_change(whole, TAGS)] == [7]
    with pytest.raises(DecodeError, match="1 bytes are left"):
        data_change(whole + b"\x00", TAGS)


class Wired(asyncio.Protocol):
    """The far side of `Frames`: what was let through, and whether the connection was ended."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.ended = False

    def data_received(self, data: bytes) -> None:
        self.chunks.append(data)

    def abort(self) -> None:
        self.ended = True


def sent(*chunks: bytes, trusted: bool = False) -> str | None:
    """What `Frames` says of these chunks, byte by byte at their beginning; each one passes before the fault."""
    wired = Wired()
    frames = Frames(wired, wired)  # type: ignore[arg-type]
    frames.trusted = trusted
    for chunk in chunks:
        for at in range(min(24, len(chunk))):
            frames.data_received(chunk[at : at + 1])
        frames.data_received(chunk[24:])
    assert wired.ended is (frames.fault is not None)
    return frames.fault


def chunk(kind: bytes, size: int) -> bytes:
    return kind + struct.pack("<I", size) + bytes(size - 8)


def acknowledge(receive: int, send: int) -> bytes:
    return b"ACKF" + struct.pack("<IIIIII", 28, 0, receive, send, 0, 0)


@pytest.mark.parametrize(
    ("chunks", "trusted", "fault"),
    [
        ([acknowledge(65_536, 65_536), chunk(b"OPNF", 16_384), chunk(b"MSGF", 2**20)], False, None),
        ([acknowledge(25, 65_536)], False, "no more than 25 bytes at once"),
        ([acknowledge(65_536, 25)], False, "no more than 25 bytes at once"),
        ([b"OPNF" + struct.pack("<I", 16_385) + bytes(16)], False, "a chunk of 16385 bytes"),
        ([b"MSGF" + struct.pack("<I", 2**20 + 1) + bytes(16)], False, "more than 1048576 bytes"),
        ([b"MSGF" + struct.pack("<I", 2**22 + 1) + bytes(16)], True, "a chunk of 4194305 bytes"),
        ([*[chunk(b"MSGC", 2**22)] * 8, chunk(b"MSGF", 100)], True, "more than 33554432 bytes"),
        ([*[chunk(b"MSGC", 25)] * 4_095, chunk(b"MSGF", 25)] * 2, True, None),
        ([*[chunk(b"MSGC", 25)] * 4_096, chunk(b"MSGF", 25)], True, "more than 4096 chunks"),
    ],
)
def test_chunks_beyond_what_an_honest_server_sends_end_the_connection(
    chunks: list[bytes], trusted: bool, fault: str | None
) -> None:
    found = sent(*chunks, trusted=trusted)
    assert found == fault if fault is None else fault in str(found)


def history_answer(values: int, type_id: int = 658) -> bytes:
    body = struct.pack("<i", values) + b"\x00" * values
    return struct.pack("<Ii", 0, -1) + b"\x01\x00" + struct.pack("<HBi", type_id, 1, len(body)) + body


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (history_answer(history_module.MAX_VALUES + 1), "BadEncodingLimitsExceeded"),
        (history_answer(3, type_id=661), "BadDataTypeIdUnknown"),
    ],
)
def test_history_that_cannot_be_taken_is_an_error_and_never_complete(answer: bytes, error: str) -> None:
    part = history_module._part(TAGS[0], history_module._result(Wire(answer)), 0, 2**62, {})
    assert part == HistoryPart(TAGS[0], [], error=error)


class Hostile(HistoryDict):
    """A history that answers each page as it was told, the last one for ever."""

    def __init__(self, *pages: tuple[list[int], bool]) -> None:
        super().__init__()
        self.pages = list(pages)
        self.asked = 0

    async def read_node_history(self, node_id: Any, start: Any, end: Any, nb_values: int) -> tuple[list[Any], Any]:
        offsets, more = self.pages[min(self.asked, len(self.pages) - 1)]
        self.asked += 1
        values = [
            ua.DataValue(ua.Variant(n, ua.VariantType.Int32), SourceTimestamp=BEGAN + timedelta(seconds=n))
            for n in offsets
        ]
        return values, BEGAN if more else None


def first_subscription(server: Any) -> Any:
    (subscription,) = [each for each in server.iserver.subscription_service.subscriptions.values()
                       if each.pub_request_callback]  # fmt: skip
    return subscription


def lose_the_next(subscription: Any, *, forget: bool) -> None:
    """The server counts a notification, and sends what comes after it."""
    pop = subscription._pop_publish_result

    def popped() -> Any:
        lost = pop()
        if lost.NotificationMessage.NotificationData:
            del subscription._pop_publish_result
            if forget:
                subscription._not_acknowledged_results.clear()
            return pop()
        return lost

    subscription._pop_publish_result = popped


async def test_notification_that_was_lost_is_asked_for_again_and_nothing_is_missing_or_doubled() -> None:
    server, nodes = await build(["urn:test:first"])
    async with server:
        plc = device(endpoint_of(server), count={"address": "nsu=urn:test:first;s=Count"})
        async with streaming(plc) as taken:
            await taken.until(lambda: taken.of("count") == [0])
            await asyncio.sleep(0.3)  # the first notification is the value that was read
            lose_the_next(first_subscription(server), forget=False)
            for value in (1, 2, 3):
                await nodes["Count"].write_value(value, ua.VariantType.Int32)
                await asyncio.sleep(0.3)
            await taken.until(lambda: 3 in taken.of("count"))
    assert taken.of("count") == [0, 1, 2, 3]


async def test_notification_that_the_server_no_longer_has_ends_the_link() -> None:
    server, nodes = await build(["urn:test:first"])
    async with server:
        plc = device(endpoint_of(server), count={"address": "nsu=urn:test:first;s=Count"})
        driver = OpcuaDriver([plc])
        await driver.connect()
        try:
            async with aclosing(driver.stream()) as batches:
                assert await anext(batches)
                await anext(batches)
                lose_the_next(first_subscription(server), forget=True)
                await nodes["Count"].write_value(1, ua.VariantType.Int32)
                with pytest.raises(
                    NotConnected, match="BadMessageNotAvailable, while asking for the lost notification 2"
                ):
                    while True:
                        assert not await anext(batches), "no value of after the loss"
        finally:
            await driver.close()


async def test_subscription_that_the_server_forgot_is_found_within_three_keep_alives_while_the_session_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscription_module, "KEEP_ALIVE_MS", 400)
    monkeypatch.setattr(subscription_module, "LEAST_SILENCE_S", 1.0)
    server, _ = await build(["urn:test:first"])
    async with server:
        plc = device(endpoint_of(server), count={"address": "nsu=urn:test:first;s=Count"})
        driver = OpcuaDriver([plc])
        await driver.connect()
        try:
            async with aclosing(driver.stream()) as batches:
                for _ in range(3):
                    await anext(batches)
                service = server.iserver.subscription_service
                await service.delete_subscriptions([first_subscription(server).data.SubscriptionId])
                began = time.monotonic()
                with pytest.raises(NotConnected, match="silent for three keep-alives"):
                    while True:
                        await anext(batches)
                assert time.monotonic() - began < 3 * 0.4 + 1
            (reading,) = await driver.read(plc, plc.tags)
            assert reading.value == 0, "the session lives"
        finally:
            await driver.close()


BEGAN = datetime(2026, 11, 1, tzinfo=UTC)


async def told_by(storage: Hostile) -> list[HistoryPart]:
    server, nodes = await build(["urn:test:first"])
    server.iserver.history_manager.set_storage(storage)
    async with server:
        await server.historize_node_data_change(nodes["Count"])
        plc = device(endpoint_of(server), count={"address": "nsu=urn:test:first;s=Count"})
        driver = OpcuaDriver([plc])
        await driver.connect()
        try:
            start = int(BEGAN.timestamp()) * S
            async with aclosing(driver.history(plc.tags, start, start + 3600 * S)) as parts:
                return [part async for part in parts]
        finally:
            await driver.close()


async def test_history_of_empty_pages_without_end_ends_as_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "MAX_EMPTY", 5)
    parts = await told_by(Hostile(([1, 2], True), ([], True)))
    assert [reading.value for part in parts for reading in part.readings] == [1, 2]
    assert [part.error for part in parts] == [None] * 6 + ["BadTimeout"]
    assert not any(part.complete for part in parts)


async def test_history_with_a_page_out_of_order_is_never_complete_afterwards() -> None:
    storage = Hostile(([5, 6], True), ([1, 2], True), ([7], False))
    parts = await told_by(storage)
    assert [reading.value for part in parts for reading in part.readings] == [5, 6]
    assert [(part.error, part.complete) for part in parts] == [(None, False), ("history_out_of_order", False)]
    assert storage.asked == 3, "two pages, and the release of the third"
