"""What a server recorded of its nodes (part 11, ReadRawModified): paged, bounded, checked node by node."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence, Set
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from edge_agent.contract import NO_HISTORY, HistoryPart, NotConnected, Origin, Tag
from edge_agent_opcua.session import NodeId, Session, ua
from edge_agent_opcua.values import readings_of, status_name, time_ns, times_of
from edge_agent_opcua.wire import DataValue, DecodeError, Ticks, Wire

PAGE = 1_000
"""So many values of a node are asked for at once."""
MAX_VALUES = 10 * PAGE
"""So many are taken where a server sends more than was asked for; beyond, the tag's history is an error."""
MAX_EMPTY = 100
"""So many pages in a row may have no value and yet promise more."""
_HISTORY_READ_RESPONSE = 667
_HISTORY_DATA = 658
_MAX_NODES_PER_HISTORY_READ = 12165
_START_TIME, _CURRENT_TIME = 2257, 2258
_READ_BIT = 0x04
_BAD = 0x80000000
_BAD_LIMITS, _BAD_TIMEOUT, _BAD_TYPE = 0x80080000, 0x800A0000, 0x80110000
_CODE, _MORE_DATA, _NO_POINTS = 0xFFFF0000, 0x00A60000, 0x804B0000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NS_PER_US = 1_000
_TICK_NS = 100


class _Result(NamedTuple):
    status: int
    continuation: bytes | None
    values: list[DataValue]


async def server_time(session: Session, number: int = _CURRENT_TIME) -> int | None:
    """The server's own clock (or, with 2257, when it was started), in integer nanoseconds since 1970 UTC."""
    (sample,) = await session.read([ua.NodeId(number, 0)])
    return time_ns(sample.value) if isinstance(sample.value, Ticks) else None


async def history(
    session: Session, nodes: Mapping[Tag, NodeId], tags: Sequence[Tag], start: int, end: int
) -> AsyncGenerator[HistoryPart, None]:
    """The parts of what the server recorded of these tags in [start, end)."""
    able: list[Tag] = []
    for tag in tags:
        if tag not in nodes:
            yield HistoryPart(tag, [], error="BadNodeIdUnknown")
    known = [tag for tag in tags if tag in nodes]
    access = await session.read([nodes[tag] for tag in known], ua.AttributeIds.UserAccessLevel)
    for tag, level in zip(known, access, strict=True):
        if isinstance(level.value, int) and level.value & _READ_BIT:
            able.append(tag)
        else:
            yield HistoryPart(tag, [], error=NO_HISTORY)
    historizing = await session.read([nodes[tag] for tag in able], ua.AttributeIds.Historizing)
    started = await server_time(session, _START_TIME)
    ran = started is not None and started < start
    holds = {tag: ran and sample.value is True for tag, sample in zip(able, historizing, strict=True)}
    limit = await session.operation_limit(_MAX_NODES_PER_HISTORY_READ)
    for at in range(0, len(able), limit):
        group = {tag: nodes[tag] for tag in able[at : at + limit]}
        async for part in _pages(session, group, start, end):
            yield part._replace(holds=holds[part.tag])


async def _pages(
    session: Session, nodes: Mapping[Tag, NodeId], start: int, end: int
) -> AsyncGenerator[HistoryPart, None]:
    """Pages of several nodes at once, each node until the server has no more of it."""
    newest: dict[Tag, int] = {}
    failed: set[Tag] = set()
    todo = deque([(dict(nodes), start)])
    while todo:
        group, since = todo.popleft()
        async for tag, result in _continued(session, group, since, end, failed):
            if result.status & _CODE == _NO_POINTS and not result.continuation and len(group) > 1:
                # The server cannot remember where it stands in so many nodes: this one by itself, after the others.
                todo.append(({tag: nodes[tag]}, newest[tag] + _TICK_NS if tag in newest else since))
                continue
            part = _part(tag, result, since, end, newest)
            if part.error is not None:  # nothing that comes after it could make the history whole
                failed.add(tag)
            if part.complete and len(result.values) >= PAGE and part.readings:
                # Some servers cut at the wanted number, and do not say that there is more: ask on from there.
                part = part._replace(complete=False)
                todo.append(({tag: nodes[tag]}, newest[tag] + _TICK_NS))
            yield part


async def _continued(
    session: Session, nodes: Mapping[Tag, NodeId], start: int, end: int, failed: Set[Tag]
) -> AsyncGenerator[tuple[Tag, _Result], None]:
    """Results of several nodes at once, each node until the server has no more of it, or it `failed`."""
    left: dict[Tag, bytes | None] = dict.fromkeys(nodes)
    unread: list[tuple[NodeId, bytes | None]] = []
    empty: dict[Tag, int] = {}
    try:
        while left:
            results = await _read(session, [(nodes[tag], point) for tag, point in left.items()], start, end)
            for tag, result in zip(tuple(left), results, strict=True):
                left[tag] = result.continuation
                if not result.continuation:
                    del left[tag]
                empty[tag] = 0 if result.values else empty.get(tag, 0) + 1
                yield tag, result._replace(status=_BAD_TIMEOUT) if empty[tag] > MAX_EMPTY else result
                if tag in failed and tag in left:
                    unread.append((nodes[tag], left.pop(tag)))
    finally:
        unread += [(nodes[tag], point) for tag, point in left.items() if point]
        if unread:
            with suppress(NotConnected):  # the server forgets them with the session
                await _read(session, unread, start, end, release=True)


def _part(tag: Tag, result: _Result, start: int, end: int, newest: dict[Tag, int]) -> HistoryPart:
    if result.status & _BAD:
        return HistoryPart(tag, [], error=status_name(result.status))
    found = [
        (reading.time, reading._replace(origin=Origin.HISTORY))
        for sample in result.values
        for reading in readings_of(tag, sample)
        if reading.time is not None and start <= reading.time < end
    ]
    found.sort(key=lambda timed: timed[0])
    if found and found[0][0] < newest.get(tag, start):
        return HistoryPart(tag, [], error="history_out_of_order")
    if found:
        newest[tag] = found[-1][0]
    readings = [reading for _, reading in found]
    lacks = None
    if any(times_of(sample)[0] is None for sample in result.values):
        lacks = "history_without_time"
    elif result.status & _CODE == _MORE_DATA and not result.continuation and len(result.values) < PAGE:
        lacks = status_name(result.status)  # there is more, and no way to ask for it
    return HistoryPart(tag, readings, complete=not result.continuation and lacks is None, error=lacks)


async def _read(
    session: Session, nodes: Sequence[tuple[NodeId, bytes | None]], start: int, end: int, *, release: bool = False
) -> list[_Result]:
    """One HistoryRead: a result for each of the nodes, in order.

    Raises:
        NotConnected: the link is lost, or the server refuses the request as a whole.
    """
    details = ua.ReadRawModifiedDetails()
    details.IsReadModified = False
    details.StartTime, details.EndTime = _date_time(start), _date_time(end + _NS_PER_US - 1)
    details.NumValuesPerNode = PAGE
    details.ReturnBounds = False
    request = ua.HistoryReadRequest()
    request.Parameters.HistoryReadDetails = details
    request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
    request.Parameters.ReleaseContinuationPoints = release
    request.Parameters.NodesToRead = [ua.HistoryReadValueId(node, ContinuationPoint=point) for node, point in nodes]
    async with session.step("reading history"):
        wire = await session.ask(request, _HISTORY_READ_RESPONSE)
        if wire.length() != len(nodes):
            raise DecodeError("the answer has another number of nodes than was asked for")
        return [_result(wire) for _ in nodes]


def _result(wire: Wire) -> _Result:
    status, continuation = wire.u32(), wire.byte_string()
    kind, body = wire.extension_object()
    if kind != _HISTORY_DATA:  # with no body there is nothing; with another one it is not known what there is
        return _Result(status if not body or status & _BAD else _BAD_TYPE, continuation, [])
    data = Wire(body)
    count = max(0, data.length())
    if count > MAX_VALUES:
        return _Result(_BAD_LIMITS, continuation, [])
    values = [data.data_value() for _ in range(count)]
    data.end()
    return _Result(status, continuation, values)


def _date_time(ns: int) -> Any:
    return _EPOCH + timedelta(microseconds=ns // _NS_PER_US)
