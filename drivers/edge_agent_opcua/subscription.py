"""A device's subscription: its monitored items, what they deliver, and how long it may be silent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import ceil
from typing import Any

from edge_agent.contract import NS_PER_S, Device, NotConnected, ProtocolFault, Reading, Tag, bad
from edge_agent_opcua.session import NodeId, Notification, Session, ua
from edge_agent_opcua.settings import OpcuaTagSettings
from edge_agent_opcua.values import data_change, status_name
from edge_agent_opcua.wire import DecodeError, Wire

KEEP_ALIVE_MS = 5_000
"""The server says so at least this often when nothing has changed; the slowest publishing interval, too."""
SILENT_KEEP_ALIVES = 3
LEAST_SILENCE_S = 3.0
LIFETIME_KEEP_ALIVES = 12
"""How long the server waits for us before it drops the subscription."""
MAX_NOTIFICATIONS = 5_000
MAX_MISSING = 20
"""So many lost notifications are asked for again; with more the subscription is given up."""
_DATA_CHANGE = 811
_STATUS_CHANGE = 820
_MAX_SEQUENCE = 2**32 - 1
_SHOWN_BYTES = 64


def queue_size(publishing_ms: float, sampling_ms: float) -> int:
    """How many values the server keeps for an item: four times what one publishing interval brings."""
    return max(4, ceil(4 * publishing_ms / sampling_ms))


class Subscription:
    """One device's subscription. `present` holds what was read before it began, until its own first values came."""

    def __init__(self, created: Any, tags: tuple[Tag, ...], present: Sequence[Reading]) -> None:
        self.id = int(created.SubscriptionId)
        self.tags = tags
        self.refused: dict[int, Any] = {}
        self._present = {reading.tag: reading for reading in present}
        self._sequence: int | None = None
        keep_alive_s = created.RevisedPublishingInterval / 1000 * created.RevisedMaxKeepAliveCount
        self.silence_s = max(SILENT_KEEP_ALIVES * keep_alive_s, LEAST_SILENCE_S)
        self.silent_after = asyncio.get_running_loop().time() + self.silence_s

    def readings(self, notification: Notification) -> list[Reading]:
        """What a notification brings; nothing when it only says that the server lives.

        Raises:
            NotConnected: a notification is missing, the subscription has ended, or its bytes make no sense.
        """
        self.silent_after = asyncio.get_running_loop().time() + self.silence_s
        due, self._sequence = self._sequence, notification.sequence
        if notification.bodies:
            self._sequence = notification.sequence % _MAX_SEQUENCE + 1
        if due not in (None, notification.sequence):
            raise NotConnected(f"notification {due} of the subscription was lost; {notification.sequence} came")
        readings: list[Reading] = []
        for kind, body in notification.bodies:
            if kind == _DATA_CHANGE:
                readings += self._changed(body)
            elif kind == _STATUS_CHANGE:
                raise NotConnected(f"the server ended the subscription: {status_name(Wire(body).u32())}")
        return self._without_what_was_read(readings) if self._present else readings

    def missing(self, notification: Notification) -> list[int]:
        """The numbers of the notifications that should have come before this one; none where there are too many."""
        if self._sequence is None:
            return []
        count = (notification.sequence - self._sequence) % _MAX_SEQUENCE
        return [(self._sequence + n - 1) % _MAX_SEQUENCE + 1 for n in range(count)] if count <= MAX_MISSING else []

    def _changed(self, body: bytes) -> list[Reading]:
        try:
            return data_change(body, self.tags)
        except DecodeError as error:
            raise ProtocolFault(f"{error}: {body[:_SHOWN_BYTES].hex(' ')}") from error

    def _without_what_was_read(self, readings: list[Reading]) -> list[Reading]:
        """The first value of an item is the one that was read before it began, unless it has changed since."""
        return [reading for reading in readings if self._present.pop(reading.tag, None) != reading]

    def refuse(self, request: Any, status: int) -> Reading:
        """The reading of a tag whose item the server refused, which is kept for another try."""
        handle = request.RequestedParameters.ClientHandle
        tag = self.tags[handle]
        self._present.pop(tag, None)
        self.refused[handle] = request
        return bad(tag, status_name(status))


async def subscribe(
    session: Session, device: Device, nodes: dict[Tag, NodeId], present: Sequence[Reading]
) -> tuple[Subscription, list[Reading]]:
    """The subscription of a device to these nodes, and a BAD reading for each that the server refuses.

    Raises:
        NotConnected: the link is lost, or the server takes no subscription.
    """
    publishing_ms = min(device.settings.poll * 1000 / NS_PER_S, KEEP_ALIVE_MS)
    keep_alive_count = max(1, int(KEEP_ALIVE_MS / publishing_ms))
    params = ua.CreateSubscriptionParameters()
    params.RequestedPublishingInterval = publishing_ms
    params.RequestedMaxKeepAliveCount = keep_alive_count
    params.RequestedLifetimeCount = LIFETIME_KEEP_ALIVES * keep_alive_count
    params.MaxNotificationsPerPublish = MAX_NOTIFICATIONS
    subscription = Subscription(await session.create_subscription(params), tuple(nodes), present)
    requests = [_item(handle, tag, node, publishing_ms) for handle, (tag, node) in enumerate(nodes.items())]
    return subscription, await _create(session, subscription, requests)


async def try_again(session: Session, subscription: Subscription) -> list[Reading]:
    """Ask once more for the items that the server refused; a BAD reading for each that it still does.

    Raises:
        NotConnected: the link is lost.
    """
    requests, subscription.refused = [*subscription.refused.values()], {}
    return await _create(session, subscription, requests)


async def _create(session: Session, subscription: Subscription, requests: Sequence[Any]) -> list[Reading]:
    refused: list[Reading] = []
    for start in range(0, len(requests), session.max_items_per_call):
        part = requests[start : start + session.max_items_per_call]
        async with session.step("creating monitored items"):
            results = await session.services.create_monitored_items(
                ua.CreateMonitoredItemsParameters(subscription.id, ua.TimestampsToReturn.Both, part)
            )
            if len(results) != len(part):
                raise DecodeError("the answer has another number of items than was asked for")
        for request, result in zip(part, results, strict=True):
            if not result.StatusCode.is_good():
                refused.append(subscription.refuse(request, result.StatusCode.value))
    return refused


def _item(handle: int, tag: Tag, node: NodeId, publishing_ms: float) -> Any:
    assert isinstance(tag.settings, OpcuaTagSettings)  # noqa: S101 (the registry made it so)
    sampling_ms = (tag.settings.sampling or tag.poll_ns) * 1000 / NS_PER_S
    parameters = ua.MonitoringParameters()
    parameters.ClientHandle = handle
    parameters.SamplingInterval = sampling_ms
    parameters.QueueSize = tag.settings.queue or queue_size(publishing_ms, sampling_ms)
    parameters.DiscardOldest = True
    if tag.settings.server_deadband is not None:
        parameters.Filter = _deadband(tag.settings.server_deadband)
    return ua.MonitoredItemCreateRequest(
        ua.ReadValueId(node, ua.AttributeIds.Value), ua.MonitoringMode.Reporting, parameters
    )


def _deadband(given: float | str) -> Any:
    """Report a change of status always, and one of the value when it is larger than this."""
    wanted = ua.DataChangeFilter()
    wanted.Trigger = ua.DataChangeTrigger.StatusValue
    percent = isinstance(given, str)
    wanted.DeadbandType = int(ua.DeadbandType.Percent if percent else ua.DeadbandType.Absolute)
    wanted.DeadbandValue = float(str(given).rstrip(" %"))
    return wanted
