"""One session with a server, through asyncua. Only this module imports asyncua, and nothing imports it early:
it costs about 0.3 s and 25 MB, which only those should pay who have an OPC UA server."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncua import ua as asyncua_types
from asyncua.client.client import Client
from asyncua.client.ua_client import UASocketProtocol
from asyncua.ua.ua_binary import struct_from_binary
from cryptography.exceptions import InvalidSignature

from edge_agent.contract import NS_PER_S, NotConnected, ProtocolFault
from edge_agent_opcua.address import Address
from edge_agent_opcua.frames import MAX_MESSAGE_BYTES, Frames
from edge_agent_opcua.settings import OpcuaSettings
from edge_agent_opcua.values import status_name
from edge_agent_opcua.wire import DataValue, DecodeError, Wire

if TYPE_CHECKING:
    from edge_agent_opcua.security import Secured

ua: Any = asyncua_types
"""The types of the protocol; Any, because their annotations contradict how they are used."""
NodeId = Any

SECURE_CHANNEL_TIMEOUT_MS = 600_000
CLOSE_S = 2.0
SESSION_NONCE_BYTES = 32
DEFAULT_PER_CALL = 1_000
_READ_RESPONSE = 634
_PUBLISH_RESPONSE = 829
_REPUBLISH_RESPONSE = 835
_MAX_NODES_PER_READ = 11705
_MAX_MONITORED_ITEMS_PER_CALL = 11714

# What a peer's nonsense makes asyncua raise beside its own errors.
_NONSENSE = (struct.error, ValueError, LookupError, AttributeError, TypeError, AssertionError, RecursionError)

_CURES = {
    "BadUserAccessDenied": "check username and password, and what that user may do",
    "BadIdentityTokenRejected": "check username and password; perhaps the server refuses anonymous users",
    "BadIdentityTokenInvalid": "the server refuses this kind of login: check username, or whether it allows anonymous",
    "BadSecurityPolicyRejected": "the server refuses this security: see what it offers with another, such as none",
    "BadSecurityModeRejected": "the server refuses this security: see what it offers with another, such as none",
    "BadSecurityModeInsufficient": "the server wants a secure connection for this",
    "BadSecurityChecksFailed": "the server does not trust our certificate: put it among those it trusts, see cert show",
    "BadCertificateUntrusted": "the server does not trust our certificate: put it among those it trusts, see cert show",
    "BadCertificateUriInvalid": "the server wants another application URI in our certificate: edge-agent cert renew",
    "BadCertificateTimeInvalid": "our certificate has ended, or a clock is wrong: edge-agent cert renew",
    "BadTcpEndpointUrlInvalid": "check the path and the host of the url",
    "BadTooManySessions": "the server has no session left: close other clients, or wait until old sessions time out",
    "BadTooManySubscriptions": "the server has no subscription left: close other clients",
}  # fmt: skip

# The library reports each failure itself, with traceback; here a link speaks once, through its exception.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)


class Notification(NamedTuple):
    """A PublishResponse: whose, its number, whether it was counted, and the notifications as (type, body)."""

    subscription_id: int
    sequence: int
    bodies: list[tuple[Any, bytes]]


class TooManyPublishRequests(Exception):
    """The server wants fewer Publish requests waiting."""


class Session:
    """A connection, secure channel and session, opened once; a new object for each attempt."""

    def __init__(self, settings: OpcuaSettings, session_timeout_ms: int, folder: Path | None = None) -> None:
        self.endpoint = endpoint = settings.endpoint
        self.timeout_s = settings.timeout / NS_PER_S
        self._settings = settings
        self._folder = folder
        self.namespaces: list[str] = []
        self.max_items_per_call = DEFAULT_PER_CALL
        self._max_nodes_per_read = DEFAULT_PER_CALL
        self._frames: Frames | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._client = Client(endpoint, timeout=self.timeout_s, auto_reconnect=False)
        self._client.name = self._client.description = "Edge Agent"
        self._client.application_uri = f"urn:{socket.gethostname()}:edge-agent"
        self._client.product_uri = "urn:edge-agent"
        self._client.session_timeout = session_timeout_ms
        self._client.secure_channel_timeout = SECURE_CHANNEL_TIMEOUT_MS
        self._client.max_messagesize = MAX_MESSAGE_BYTES

    @property
    def services(self) -> Any:
        """asyncua's session: one method for each service."""
        return self._client.uaclient.session

    # ------------------------------------------------------------------------------------------ open and close

    async def open(self) -> None:
        """Connect, open a channel and a session, and read the NamespaceArray and the operation limits.

        Raises:
            NotConnected: any of it failed, or the server may not be trusted; nothing is left open.
            ConfigError: our own certificates cannot be used.
        """
        try:
            secure = await self._secured()
            await self._open_channel()
            async with self.step("opening a session"):
                created = await self._client.create_session()
            await self._activate(created, secure)
            assert self._frames is not None  # noqa: S101 - the channel is open
            self._frames.trusted = True
            self._renewing = asyncio.create_task(self._renew_channel(), name=f"opcua-renew {self.endpoint}")
            async with self.step("reading its NamespaceArray"):
                await self._read_server()
        except BaseException:
            await self.close()
            raise

    async def _open_channel(self) -> None:
        async with self.step("connecting"):
            await self._client.connect_socket()
            self._guard()
        async with self.step("saying hello (does an OPC UA server listen there?)"):
            await self._client.send_hello()
        secure = self._client.security_policy.Mode != ua.MessageSecurityMode.None_
        asks = " (does the server trust our certificate? see `edge-agent cert show`)" if secure else ""
        async with self.step(f"opening a channel{asks}"):
            await self._client.open_secure_channel()
            self._check_nonce()

    def _check_nonce(self) -> None:
        """The keys of a channel are made of two random numbers; without the server's they would be of ours alone."""
        nonce: Any = self._protocol()._connection.remote_nonce
        wanted = self._client.security_policy.secure_channel_nonce_length
        if len(nonce or b"") < wanted:
            raise ValueError(f"a random number of less than {wanted} bytes")

    async def endpoints(self) -> list[Any]:
        """What the server offers, over a channel of its own that is closed again; nothing protects what it says."""
        asking = Session(self._settings, 0)
        try:
            await asking._open_channel()
            async with asking.step("asking for its endpoints"):
                return list(await asking._client.get_endpoints())
        finally:
            await asking.close()

    async def _secured(self) -> Secured | None:
        """Check the server, and set the channel up; None without security."""
        if self._settings.security == "none":
            return None
        from edge_agent_opcua.security import secured

        secure = await asyncio.to_thread(secured, self._settings, self._folder, await self.endpoints())
        self._client.application_uri = secure.own.application_uri
        self._client.security_policy = secure.policy
        self._client.uaclient.set_security(secure.policy)
        return secure

    async def _activate(self, created: Any, secure: Secured | None) -> None:
        """Say who we are, to a server that has proved who it is."""
        settings, certificate = self._settings, None
        if secure is not None:
            from edge_agent_opcua.security import tokens_for, told, user_certificate, user_kind

            if len(created.ServerNonce or b"") < SESSION_NONCE_BYTES:
                raise NotConnected(
                    f"{self.endpoint}: the server's random number has less than {SESSION_NONCE_BYTES} bytes, so that "
                    "a login could be used again by others: no password is given to it"
                )
            if told(created.ServerEndpoints) != secure.offered:
                raise NotConnected(
                    f"{self.endpoint}: the server tells other endpoints on the secure channel than before: somebody "
                    "may stand in between; if the server was just changed, the next try will do"
                )
            offered = self._client._policy_ids
            self._client._policy_ids = tokens_for(user_kind(settings), offered, secure.policy, self.endpoint)
            user = await asyncio.to_thread(user_certificate, settings)
            if user is not None:
                certificate, self._client.user_private_key = user
        password = None if settings.password is None else await asyncio.to_thread(settings.password.resolve)
        async with self.step("logging in"):
            await self._client.activate_session(settings.username, password, certificate)

    def _guard(self) -> None:
        inner = self._client.uaclient.protocol
        if inner is None or inner.transport is None:
            raise ConnectionResetError("closed at once")
        self._frames = Frames(inner, inner.transport)
        inner.transport.set_protocol(self._frames)
        early, inner.receive_buffer = inner.receive_buffer, None
        if early:  # no OPC UA server speaks first
            self._frames.data_received(early)

    async def _read_server(self) -> None:
        wanted = (ua.ObjectIds.Server_NamespaceArray, _MAX_NODES_PER_READ, _MAX_MONITORED_ITEMS_PER_CALL)
        array, reads, items = [  # one at a time: how many at once is what is asked
            (await self.services.read_attributes([ua.NodeId(number, 0)], ua.AttributeIds.Value))[0] for number in wanted
        ]
        array.StatusCode.check()
        self.namespaces = [str(uri) for uri in array.Value.Value]
        self._max_nodes_per_read = _limit(reads)
        self.max_items_per_call = _limit(items)

    async def _renew_channel(self) -> None:
        """Renew the channel's token after 75 % of its lifetime; without one the link is no more."""
        try:
            while True:
                await asyncio.sleep(max(1.0, self._client.secure_channel_timeout * 0.75e-3))
                async with self.step("renewing the secure channel"):
                    await self._client.open_secure_channel(renew=True)
                    self._check_nonce()
                    self._client.uaclient.revolve_security_token()
        except NotConnected:
            self._abort()

    def _abort(self) -> None:
        protocol = self._client.uaclient.protocol
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abort()

    async def close(self) -> None:
        """Say goodbye where the server still listens, and let go, within a bounded time."""
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        try:
            with suppress(ua.UaError, OSError, TimeoutError, *_NONSENSE):
                async with asyncio.timeout(min(CLOSE_S, self.timeout_s)):
                    with _plain_cancellation():
                        await self.services.close_session(True)
                        await self._client.close_secure_channel()
        finally:
            self._abort()
            self._client.disconnect_socket()
        if self._frames is not None:
            await self._frames.lost.wait()

    # ------------------------------------------------------------------------------------------------ services

    def node_id(self, address: Address) -> NodeId | None:
        """The node in this session; None when the server does not have its namespace."""
        if address.namespace is None:
            return ua.NodeId(address.identifier, 0)
        if address.namespace not in self.namespaces:
            return None
        return ua.NodeId(address.identifier, self.namespaces.index(address.namespace))

    async def read(self, nodes: Sequence[NodeId], attribute: Any = ua.AttributeIds.Value) -> list[DataValue]:
        """The value (or another attribute) of each node, in order, in as few requests as the server allows.

        Raises:
            NotConnected: the link is lost, or the server refuses the request as a whole.
        """
        samples: list[DataValue] = []
        for start in range(0, len(nodes), self._max_nodes_per_read):
            part = nodes[start : start + self._max_nodes_per_read]
            async with self.step("reading"):
                request = ua.ReadRequest()
                request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
                request.Parameters.NodesToRead = [ua.ReadValueId(node, attribute) for node in part]
                wire = await self.ask(request, _READ_RESPONSE)
                if wire.length() != len(part):
                    raise DecodeError("the answer has another number of values than was asked for")
                samples += [wire.data_value() for _ in part]
        return samples

    async def create_subscription(self, params: Any) -> Any:
        """A subscription, without the loop that asyncua's own method starts, which hides errors and retries.

        Raises:
            NotConnected: the link is lost, or the server takes no subscription.
        """
        async with self.step("creating a subscription"):
            content = await self._protocol().send_request(ua.CreateSubscriptionRequest(Parameters=params))
            response = struct_from_binary(ua.CreateSubscriptionResponse, content)
            response.ResponseHeader.ServiceResult.check()
        return response.Parameters

    async def publish(self, acknowledged: list[tuple[int, int]]) -> Notification:
        """The next notification of any subscription; waits as long as the server has none.

        Raises:
            TooManyPublishRequests: this request was one too many.
            NotConnected: the link is lost, or the server has no such subscription or session.
        """
        async with self.step("publishing", bounded=False):
            request = ua.PublishRequest()
            request.Parameters.SubscriptionAcknowledgements = [
                ua.SubscriptionAcknowledgement(*numbers) for numbers in acknowledged
            ]
            try:
                wire = await self.ask(request, _PUBLISH_RESPONSE, timeout_s=0)
            except ua.uaerrors.BadTooManyPublishRequests as error:
                raise TooManyPublishRequests from error
            return published(wire)

    async def republish(self, subscription_id: int, sequence: int) -> Notification:
        """A notification that did not come, once more.

        Raises:
            NotConnected: the server does not have it any more, or the link is lost.
        """
        async with self.step(f"asking for the lost notification {sequence} again"):
            request = ua.RepublishRequest()
            request.Parameters.SubscriptionId = subscription_id
            request.Parameters.RetransmitSequenceNumber = sequence
            again = Notification(subscription_id, *notified(await self.ask(request, _REPUBLISH_RESPONSE)))
            if again.sequence != sequence:  # asyncua's server says so in place of BadMessageNotAvailable
                raise ua.uaerrors.BadMessageNotAvailable
        return again

    async def operation_limit(self, number: int) -> int:
        """A limit that the server states in the node i=`number`, or the one that is kept without."""
        (limit,) = await self.read([ua.NodeId(number, 0)])
        given = limit.value
        return min(given, DEFAULT_PER_CALL) if isinstance(given, int) and given > 0 else DEFAULT_PER_CALL

    async def ask(self, request: Any, answer: int, timeout_s: float | None = None) -> Wire:
        """The body of the answer to a request, which must be of the kind `answer`; within a `step`."""
        content = await self._protocol().send_request(request, timeout_s)
        wire = Wire(content.read(len(content)))
        kind, result = wire.response_header()
        ua.StatusCode(result).check()
        if kind != answer:
            raise DecodeError(f"answer {answer} was due, {kind!r} came")
        return wire

    def _protocol(self) -> UASocketProtocol:
        protocol = self._client.uaclient.protocol
        if protocol is None:
            raise ConnectionError("the connection is closed")
        return protocol

    @asynccontextmanager
    async def step(self, doing: str, *, bounded: bool = True) -> AsyncIterator[None]:
        """Bound what is done within, and translate what it raises to NotConnected, with what to check."""
        try:
            async with asyncio.timeout(self.timeout_s if bounded else None):
                if self._frames is not None and self._frames.fault is not None:
                    raise ConnectionAbortedError
                with _plain_cancellation():
                    yield
        except InvalidSignature as error:
            what = "its signature is wrong: it does not have the key of its certificate, or somebody stands in between"
            raise NotConnected(self._told(doing, what, None)) from error
        except ua.UaStatusCodeError as error:
            name = status_name(error.code)
            raise NotConnected(self._told(doing, name, _CURES.get(name))) from error
        except TimeoutError as error:
            cure = "check that the server runs, its address, cable and firewall"
            raise NotConnected(self._told(doing, f"no answer within {self.timeout_s:g} s", cure)) from error
        except ConnectionRefusedError as error:
            cure = "nothing listens there: check host and port, and that the server runs"
            raise NotConnected(self._told(doing, "connection refused", cure)) from error
        except socket.gaierror as error:
            raise NotConnected(self._told(doing, "unknown host", "check the host in the url")) from error
        except OSError as error:
            fault = self._frames.fault if self._frames is not None else None
            if fault is not None:
                raise ProtocolFault(self._told(doing, fault, None)) from error
            raise NotConnected(self._told(doing, str(error) or type(error).__name__, None)) from error
        except ua.UaError as error:
            unoffered = "the server does not offer this security" if "endpoint" in str(error) else None
            raise NotConnected(self._told(doing, str(error), unoffered)) from error
        except _NONSENSE as error:
            raise ProtocolFault(self._told(doing, f"an answer that makes no sense ({error})", None)) from error

    def _told(self, doing: str, what: str, cure: str | None) -> str:
        return f"{self.endpoint}: {what}, while {doing}" + (f"; {cure}" if cure else "")


@contextmanager
def _plain_cancellation() -> Iterator[None]:
    """Turn asyncua's own kind of cancellation into the plain one.

    An answer that comes in the very turn of the loop in which its time ends makes asyncua raise a subclass, which
    `asyncio.timeout` does not know for its own: the time-out would end the link's task instead of the request.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        raise asyncio.CancelledError from error


def published(wire: Wire) -> Notification:
    """What follows the header of a PublishResponse.

    Raises:
        DecodeError: the bytes are not what they should be.
    """
    subscription_id = wire.u32()
    wire.raw(4 * max(0, wire.length()))  # the sequence numbers that are still available
    wire.u8()  # more notifications
    return Notification(subscription_id, *notified(wire))


def notified(wire: Wire) -> tuple[int, list[tuple[Any, bytes]]]:
    """The number of a NotificationMessage, and its notifications as (type, body)."""
    sequence = wire.u32()
    wire.i64()  # the time of publishing
    return sequence, [wire.extension_object() for _ in range(wire.length())]


def _limit(value: Any) -> int:
    """An operation limit, where 0, absent or nonsense mean that the server states none."""
    given = value.Value.Value if value.StatusCode.is_good() and value.Value is not None else None
    return min(given, DEFAULT_PER_CALL) if isinstance(given, int) and given > 0 else DEFAULT_PER_CALL
