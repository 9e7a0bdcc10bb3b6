"""What the broker's reason codes and the errors of a connection mean, and what to check."""

from __future__ import annotations

import socket
import ssl

from paho.mqtt.client import WebsocketConnectionError

from edge_agent.contract import ConfigError, NotConnected

SUCCESS_BELOW = 0x80
NO_SUBSCRIBERS = 0x10
UNSUPPORTED_VERSION = 0x84
TAKEN_OVER = 0x8E
TOPIC_INVALID = 0x90
TOO_LARGE = 0x95

SLOW_DOWN = frozenset({0x89, 0x91, 0x96, 0x97, 0x9F})
"""Reason codes that do not blame the record: the broker is busy or full, so the same record is sent again later."""

BLAMES_THE_RECORD = frozenset({0x81, 0x82, 0x90, 0x94, 0x95, 0x99})
"""Reasons for ending a connection that lie in what was sent."""
BLAMES_NO_RECORD = frozenset(
    {0x00, 0x88, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x93, 0x96, 0x97, 0x98, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0,
     0xA1, 0xA2}
)  # fmt: skip
"""Reasons for ending a connection that do not."""
KEPT_SILENT = 0x8D
_TOLD_CHARACTERS = 200

REASONS = {
    0x80: "unspecified error",
    0x83: "implementation specific error",
    0x87: "not authorized: the broker's access rules must let this agent publish here",
    0x89: "server busy",
    0x90: "topic name invalid",
    0x91: "packet identifier in use",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x99: "payload format invalid",
    0x9F: "connection rate exceeded",
}
"""The reason codes of an acknowledgement, in words."""

TAKEN_OVER_MEANS = "another client connected with the same client id: give each agent a name (agent.name) of its own"
_CONNECTION = {
    0x84: "the broker does not speak this MQTT version: set mqtt.version to auto or 3.1.1",
    0x85: "the broker refuses the client id: check agent.name against the broker's rules",
    0x86: "the broker refuses the user name or password: check mqtt.username and mqtt.password",
    0x87: "the broker does not authorize this agent: check mqtt.username, mqtt.password and the broker's access rules",
    0x88: "the broker says it is unavailable: look at the broker",
    0x89: "the broker says it is busy: look at its load",
    0x8A: "the broker has banned this agent: ask its administrator",
    0x8B: "the broker is shutting down",
    0x8C: "the broker wants another way to authenticate than user name and password, or a certificate",
    0x8D: "the broker heard nothing for 1.5 times the keep-alive: check the network",
    0x8E: TAKEN_OVER_MEANS,
    0x93: "the broker says that more was sent at once than it allows (Receive Maximum)",
    0x95: "a packet was larger than the broker takes: raise its message size limit",
    0x97: "the broker's quota is used up: look at the broker",
    0x98: "the broker's administrator ended the connection",
    0x9A: "the broker does not keep retained messages, which agent status and machine states need: enable them",
    0x9B: "the broker takes no QoS 1, which records need: enable it",
    0x9C: "the broker says to use another server: change mqtt.url",
    0x9D: "the broker has moved: change mqtt.url",
    0x9F: "the broker takes no more connections for now: look at its limits",
}

_CERTIFICATE = {
    9: "the broker's certificate is not valid yet: check the clock of this gateway",
    10: "the broker's certificate has expired: renew it on the broker (or correct the clock of this gateway)",
    18: "the broker's certificate is signed by itself: give it as mqtt.ca, or have a CA sign it",
    19: "the broker's certificate comes from an unknown CA: set mqtt.ca to the CA's certificate",
    20: "the broker's certificate comes from an unknown CA: set mqtt.ca to the CA's certificate",
    21: "the broker's certificate comes from an unknown CA: set mqtt.ca to the CA's certificate",
    23: "the broker's certificate is revoked: renew it on the broker",
    62: "the broker's certificate is for another host name: use the name in it in mqtt.url, or renew it",
    64: "the broker's certificate does not name this IP address: use its host name in mqtt.url, or renew it",
}

_TLS = {
    "CERTIFICATE_REQUIRED": "the broker wants a client certificate: set mqtt.certificate and mqtt.key",
    "UNKNOWN_CA": "the broker does not know the CA of mqtt.certificate",
    "CERTIFICATE_EXPIRED": "mqtt.certificate has expired: renew it",
    "BAD_CERTIFICATE": "the broker refuses mqtt.certificate",
    "CERTIFICATE_UNKNOWN": "the broker refuses mqtt.certificate",
    "CERTIFICATE_REVOKED": "mqtt.certificate is revoked: renew it",
    "HANDSHAKE_FAILURE": "no common TLS settings, or the broker wants a certificate: see mqtt.certificate and mqtt.key",
    "WRONG_VERSION_NUMBER": "the other end does not speak TLS: check scheme and port in mqtt.url",
    "PROTOCOL_VERSION": "the broker offers only TLS older than 1.2: update the broker",
    "UNSUPPORTED_PROTOCOL": "the broker offers only TLS older than 1.2: update the broker",
}


class Lost(NotConnected):
    """A connection that ended or never came up; the message says what to check.

    `code` is the broker's reason code, if it gave one. `silent`: it ended before the broker said anything.
    `by_broker`: it was the broker that ended it.
    """

    def __init__(
        self, message: str, code: int | None = None, *, silent: bool = False, by_broker: bool = False
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.code = code
        self.silent = silent
        self.by_broker = by_broker


def reason(code: int, told: str = "") -> str:
    """The reason code of an acknowledgement in words, with what the broker said beside it."""
    words = REASONS.get(code, "refused")
    return f"0x{code:02X} {words}" + (f" ({_shown(told)})" if told else "")


def ended(code: int, told: str = "") -> Lost:
    """The error of a connection that the broker refused or ended with this reason code."""
    words = _CONNECTION.get(code, "the broker ended the connection; its log says why")
    return Lost(f"{words} (0x{code:02X}{', ' + _shown(told) if told else ''})", code, by_broker=True)


def _shown(told: str) -> str:
    """What the broker said, as it may stand in a line of the log."""
    return "".join(each if each.isprintable() else "?" for each in told[:_TOLD_CHARACTERS])


def tls(text: str) -> str | None:
    """What a TLS alert or error means, if it is one that we know."""
    return next((words for key, words in _TLS.items() if key in text), None)


def explain(error: BaseException, where: str) -> Lost:
    """What went wrong on the way to the broker at `where`, and what to check."""
    return error if isinstance(error, Lost) else Lost(_explanation(error, where))


def _explanation(error: BaseException, where: str) -> str:
    match error:
        case ConfigError():
            return str(error)
        case ssl.SSLCertVerificationError():
            return f"{where}: {_CERTIFICATE.get(error.verify_code, f'the certificate fails: {error.verify_message}')}"
        case ssl.SSLError():
            return f"{where}: {tls(str(error)) or f'TLS failed: {error}'}"
        case WebsocketConnectionError():
            return f"{where}: no MQTT over websockets there: check the port and the path in mqtt.url"
        case ConnectionRefusedError():
            return f"{where}: nothing listens there: is the broker running, is the port right?"
        case ConnectionResetError():
            return f"{where}: the other end hung up: is it an MQTT broker, and should it be TLS (mqtts://)?"
        case socket.gaierror() | UnicodeError():
            return f"{where}: the name cannot be resolved: check mqtt.url and the gateway's DNS"
        case TimeoutError():
            return f"{where}: no answer in time: check address, network and firewall"
        case OSError():
            return f"{where}: {error.strerror or error}: check address and network"
        case _:
            return f"{where}: {type(error).__name__}: {error}"
