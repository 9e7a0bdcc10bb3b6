"""The driver: resolves addresses after each connect, reads, and streams what the subscriptions bring."""

from __future__ import annotations

import asyncio
import importlib
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edge_agent.contract import (
    NS_PER_S,
    Browsed,
    CertificateFacts,
    ConfigError,
    Device,
    DeviceSettings,
    Driver,
    HistoryPart,
    NotConnected,
    Reading,
    Tag,
    TagSettings,
    bad,
)
from edge_agent_opcua.address import Address, parse_address
from edge_agent_opcua.settings import OpcuaSettings, OpcuaTagSettings
from edge_agent_opcua.values import readings_of

if TYPE_CHECKING:
    from edge_agent_opcua.session import NodeId, Notification, Session
    from edge_agent_opcua.subscription import Subscription

MIN_SESSION_TIMEOUT_S = 60
PUBLISH_REQUESTS_PER_SUBSCRIPTION = 2


RETRY_S = 60.0
"""How often items that the server refused are asked for again."""
STILL_S = 5.0
"""How often a busy stream says of the tags without news that their values hold."""


class OpcuaDriver(Driver):
    """One session with one OPC UA server."""

    Settings: ClassVar[type[DeviceSettings]] = OpcuaSettings
    TagSettings: ClassVar[type[TagSettings]] = OpcuaTagSettings

    @classmethod
    def link(cls, settings: OpcuaSettings) -> str:
        """The server and the user: devices that agree on both share a session."""
        who = settings.username or ("anonymous" if settings.user_certificate is None else "a certificate")
        return f"{settings.endpoint} as {who}"

    def __init__(self, devices: Sequence[Device]) -> None:
        first = devices[0]
        for device in devices[1:]:
            for key in ("security", "timeout", "password", "user_certificate", "user_key", "check_host"):
                if getattr(device.settings, key) != getattr(first.settings, key):
                    raise ConfigError(f"{first.name} and {device.name} share a session, but differ in {key}")
        self._devices = tuple(devices)
        self._addresses: dict[Tag, Address] = {
            tag: parse_address(tag.settings.address) for device in devices for tag in device.tags
        }
        self._nodes: dict[Tag, NodeId] = {}
        self._session: Session | None = None
        self._folder: Path | None = None

    def keep_files_in(self, folder: Path) -> None:
        """Where the own certificate and those of trusted servers are."""
        self._folder = folder

    async def connect(self) -> None:
        """Open a fresh session and find the nodes' namespaces in it."""
        # The library takes 0.3 s to import: in a thread, the other links go on meanwhile.
        library = await asyncio.to_thread(importlib.import_module, "edge_agent_opcua.session")
        settings = self._devices[0].settings
        assert isinstance(settings, OpcuaSettings)  # noqa: S101 (the registry made it so)
        slowest_s = max((tag.poll_ns / NS_PER_S for tag in self._addresses), default=1)
        session_timeout_ms = int(1000 * max(MIN_SESSION_TIMEOUT_S, 3 * slowest_s))
        session = library.Session(settings, session_timeout_ms, self._folder)
        try:
            await session.open()
        except ConfigError as error:  # a certificate or a secret that may be there at the next try
            raise NotConnected(f"{settings.endpoint}: {error}") from error
        self._session = session
        found = {tag: session.node_id(address) for tag, address in self._addresses.items()}
        self._nodes = {tag: node for tag, node in found.items() if node is not None}

    async def read(self, device: Device, tags: tuple[Tag, ...]) -> Sequence[Reading]:
        """The present values of the tags; BadNodeIdUnknown where the server does not have the namespace or node."""
        session = self._connected()
        known = [tag for tag in tags if tag in self._nodes]
        samples = dict(zip(known, await session.read([self._nodes[tag] for tag in known]), strict=True))
        return [
            reading
            for tag in tags
            for reading in (readings_of(tag, samples[tag]) if tag in samples else [bad(tag, "BadNodeIdUnknown")])
        ]

    def streams(self, tag: Tag) -> bool:
        """Whether the tag is subscribed to."""
        return isinstance(tag.settings, OpcuaTagSettings) and tag.settings.mode == "subscribe"

    async def stream(self) -> AsyncGenerator[Sequence[Reading], None]:
        """The present values, then what the subscriptions bring; an empty batch at each sign of life.

        A consumer that is slow slows the requests for more: the server then keeps values in its queues, and says
        which it had to drop.
        """
        session = self._connected()
        subscriptions: dict[int, Subscription] = {}
        for device in self._devices:
            if tags := tuple(filter(self.streams, device.tags)):
                present = await self.read(device, tags)
                yield present
                subscription, refused = await self._subscribe(session, device, tags, present)
                subscriptions[subscription.id] = subscription
                if refused:  # an empty batch would say that nothing has changed, which is not known yet
                    yield refused
        if subscriptions:
            async with _Publishing(session, subscriptions) as publishing:
                clock = asyncio.get_running_loop().time
                still = clock() + STILL_S
                retry_at = clock() + RETRY_S
                while True:
                    batch = await publishing.next()
                    if clock() >= retry_at:
                        await self._try_again(session, subscriptions.values())
                        retry_at = clock() + RETRY_S
                    yield batch
                    if batch and clock() < still:
                        continue
                    if batch:  # tags that did not change hold, however busy the others are
                        yield []
                    still = clock() + STILL_S

    async def _subscribe(
        self, session: Session, device: Device, tags: tuple[Tag, ...], present: Sequence[Reading]
    ) -> tuple[Subscription, list[Reading]]:
        from edge_agent_opcua.subscription import subscribe

        nodes = {tag: self._nodes[tag] for tag in tags if tag in self._nodes}
        return await subscribe(session, device, nodes, present)

    async def _try_again(self, session: Session, subscriptions: Iterable[Subscription]) -> None:
        """Ask again for refused items: their BAD readings are known, what is accepted brings its value by itself."""
        from edge_agent_opcua.subscription import try_again

        for subscription in subscriptions:
            if subscription.refused:
                await try_again(session, subscription)

    # ------------------------------------------------------------------------------------------------ history

    def has_history(self, tag: Tag) -> bool:
        """Whether the server is asked for a history of the tag's node after an outage."""
        return isinstance(tag.settings, OpcuaTagSettings) and tag.settings.history == "auto"

    async def device_time(self, device: Device) -> int | None:
        """The server's own clock."""
        from edge_agent_opcua.history import server_time

        return await server_time(self._connected())

    async def history(self, tags: Sequence[Tag], start: int, end: int) -> AsyncGenerator[HistoryPart, None]:
        """What the server recorded; a value holds where it ran through and says that it historizes the node."""
        from edge_agent_opcua.history import history

        async with aclosing(history(self._connected(), self._nodes, tags, start, end)) as parts:
            async for part in parts:
                yield part

    # ------------------------------------------------------------------------------------------- commissioning

    @classmethod
    async def browse(
        cls, settings: OpcuaSettings, start: str | None, depth: int, limit: int, folder: Path
    ) -> AsyncGenerator[Browsed, None]:
        """What the server has below an address, or below Objects, over a session of its own."""
        from edge_agent_opcua.browse import browse
        from edge_agent_opcua.session import Session

        session = Session(settings, 1_000 * MIN_SESSION_TIMEOUT_S, folder)
        await session.open()
        try:
            async with aclosing(browse(session, start, depth, limit)) as things:
                async for thing in things:
                    yield thing
        finally:
            await session.close()

    @classmethod
    def certificates(cls, folder: Path) -> list[CertificateFacts]:
        """All certificates in the folder."""
        from edge_agent_opcua.trust import TrustStore

        return TrustStore(folder).facts()

    @classmethod
    def trust(cls, folder: Path, fingerprint: str) -> CertificateFacts:
        """Move a rejected certificate to the trusted ones."""
        from edge_agent_opcua.trust import TrustStore

        return TrustStore(folder).trust(fingerprint)

    @classmethod
    def renew(cls, folder: Path) -> CertificateFacts:
        """A new own certificate; the old one is kept aside."""
        from edge_agent_opcua.certificates import make
        from edge_agent_opcua.trust import TrustStore

        make(folder)
        return next(one for one in TrustStore(folder).facts() if one.store == "own" and one.file.suffix == ".der")

    async def close(self) -> None:
        """End the session; a running stream ends with NotConnected."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _connected(self) -> Session:
        if self._session is None:
            raise NotConnected("there is no session")
        return self._session


class _Publishing:
    """Keeps Publish requests waiting at the server, and takes their answers in order."""

    def __init__(self, session: Session, subscriptions: dict[int, Subscription]) -> None:
        self._session = session
        self._subscriptions = subscriptions
        self._wanted = PUBLISH_REQUESTS_PER_SUBSCRIPTION * len(subscriptions)
        self._waiting: deque[asyncio.Task[Notification]] = deque()
        self._acknowledge: list[tuple[int, int]] = []
        self._left = asyncio.get_running_loop().time()

    async def __aenter__(self) -> _Publishing:
        return self

    async def __aexit__(self, *_: Any) -> None:
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)

    async def next(self) -> list[Reading]:
        """The readings of the next notification.

        Raises:
            NotConnected: the link is lost, or a subscription was silent for too long.
        """
        now = asyncio.get_running_loop().time()
        for subscription in self._subscriptions.values():  # the silence counts only while we listen
            subscription.silent_after += now - self._left
        try:
            notification = await self._notification()
            notified = self._subscriptions.get(notification.subscription_id)
            if notified is None:
                return []
            readings: list[Reading] = []
            for number in notified.missing(notification):
                readings += self._taken(notified, await self._session.republish(notified.id, number))
            return readings + self._taken(notified, notification)
        finally:
            self._left = asyncio.get_running_loop().time()

    def _taken(self, subscription: Subscription, notification: Notification) -> list[Reading]:
        if notification.bodies:
            self._acknowledge.append((notification.subscription_id, notification.sequence))
        return subscription.readings(notification)

    async def _notification(self) -> Notification:
        from edge_agent_opcua.session import TooManyPublishRequests

        while True:
            while len(self._waiting) < self._wanted:
                self._waiting.append(asyncio.create_task(self._session.publish(self._acknowledge)))
                self._acknowledge = []
            try:
                async with asyncio.timeout_at(min(each.silent_after for each in self._subscriptions.values())):
                    return await asyncio.shield(self._waiting[0])
            except TooManyPublishRequests:
                self._wanted = max(1, self._wanted - 1)
            except TimeoutError as error:
                raise NotConnected(
                    f"{self._session.endpoint}: silent for three keep-alives; check that the server runs, and the cable"
                ) from error
            finally:
                if self._waiting[0].done():
                    self._waiting.popleft()
