"""What a driver may raise: instructions to the caller, whose messages name the place and the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.contract.readings import Device


class EdgeAgentError(Exception):
    """The base of what the agent raises on purpose. The message names the place and the cure."""


class ConfigError(EdgeAgentError):
    """The configuration cannot be used; exit code 78."""


class NotConnected(EdgeAgentError):
    """The link is lost or was never there: close, wait, connect again.

    `retry_within_s` is the longest wait that makes sense, where a try costs nobody anything: an adapter that is not
    plugged in may be at any moment. Otherwise the agent's back-off holds.
    """

    def __init__(self, message: str, *, retry_within_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_within_s = retry_within_s


class ProtocolFault(NotConnected):
    """The peer talked nonsense twice in a row; the message shows its bytes."""


class DeviceFault(EdgeAgentError):
    """One device does not answer on a link that lives: this device waits, the link goes on."""

    def __init__(self, device: Device, message: str) -> None:
        super().__init__(message)
        self.device = device
