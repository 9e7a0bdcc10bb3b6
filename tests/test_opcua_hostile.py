"""The OPC UA driver against what no honest server sends."""

from __future__ import annotations

import struct
import time
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua.server.history import HistoryDict
from opcua_server import build, endpoint_of, ua
from test_opcua_items import device

import edge_agent_opcua.history as history_module
from bench import fuzz_opcua
from edge_agent.contract import HistoryPart, Tag, TagSettings
from edge_agent_opcua import OpcuaDriver
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
