"""What a device and a tag of this driver take in YAML."""

from __future__ import annotations

import re
from math import isfinite
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from edge_agent.contract import DeviceSettings, Period, Secret, TagSettings, parse_duration
from edge_agent_opcua.address import parse_address

DEFAULT_PORT = 4840
_PERCENT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*")
_POLICY = re.compile(r"(Basic256Sha256|Aes128Sha256RsaOaep|Aes256Sha256RsaPss)/(Sign|SignAndEncrypt)")


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "opc.tcp" or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("expected opc.tcp://host:port, with a path where the server has one")
    if parts.username is not None or parts.password is not None:
        raise ValueError("write username and password as keys of their own, not in the URL")
    if parts.port == 0:  # `port` itself raises for what is not a number up to 65535
        raise ValueError("port 0 is no port")
    return text


def _security(text: str) -> str:
    if text == "none":
        return text
    if _POLICY.fullmatch(text):
        return text
    if text.startswith(("Basic128Rsa15", "Basic256/", "Basic256 ")) or text == "Basic256":
        raise ValueError("this policy is broken (SHA-1) and not spoken: the server must offer Basic256Sha256 or better")
    raise ValueError(
        "expected none, or a policy (Basic256Sha256, Aes128Sha256RsaOaep, Aes256Sha256RsaPss) and a mode (Sign, "
        "SignAndEncrypt), such as Basic256Sha256/SignAndEncrypt"
    )


def _address(text: str) -> str:
    parse_address(text)
    return text


class OpcuaSettings(DeviceSettings):
    """An OPC UA server, or that part of one whose values are wanted at one pace."""

    url: Annotated[str, AfterValidator(_url)]
    """opc.tcp://host:port, with a path where the server has one; the port is 4840 unless given."""
    security: Annotated[str, AfterValidator(_security)]
    """A policy and a mode, `Basic256Sha256/SignAndEncrypt`; or `none`, said out loud: nothing is encrypted."""
    username: Annotated[str, Field(min_length=1)] | None = None
    """Who the agent is to the server; anonymous unless given."""
    password: Secret | None = None
    """The password of the username; refused where it would cross the network in clear."""
    user_certificate: Secret | None = None
    """A certificate by which the agent logs in instead of a password: `{file: …}`, PEM or DER."""
    user_key: Secret | None = None
    """Its private key, without a passphrase: `{file: …}` or `{credential: …}`."""
    check_host: bool = True
    """Whether the server's certificate must be for the host of the url; some devices have it for their factory name."""
    timeout: Period = parse_duration("4 s")
    """How long the server may take for one answer."""

    @model_validator(mode="before")
    @classmethod
    def _security_is_said(cls, given: object) -> object:
        if isinstance(given, dict) and "security" not in given:
            raise ValueError(
                "`security` is missing: write a policy and a mode such as Basic256Sha256/SignAndEncrypt, or "
                "`security: none` if it is meant that nothing is encrypted"
            )
        return given

    @model_validator(mode="after")
    def _no_password_in_clear(self) -> OpcuaSettings:
        if self.password is not None and self.security == "none":
            raise ValueError("with `security: none` the password would cross the network in clear: leave it out")
        if self.password is not None and self.username is None:
            raise ValueError("a password belongs to a username: give both, or leave both out to be anonymous")
        if (self.user_certificate is None) != (self.user_key is None):
            raise ValueError("user_certificate and user_key belong together: give both")
        if self.user_certificate is not None and (self.security == "none" or self.username is not None):
            raise ValueError("user_certificate logs in by itself, on a secure channel: no username, no security: none")
        return self

    @property
    def endpoint(self) -> str:
        """The URL with its port, host in lower case and no slash at its end: equal for what is the same server."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        return f"opc.tcp://{host}:{parts.port or DEFAULT_PORT}{parts.path.rstrip('/')}"


class OpcuaTagSettings(TagSettings):
    """A node whose value is wanted."""

    address: Annotated[str, AfterValidator(_address)]
    """`nsu=<uri>;s=Name` (or `;i=`, `;g=`, `;b=`), or `i=2258` for a node of namespace 0."""
    mode: Literal["subscribe", "read"] = "subscribe"
    """`subscribe`: the server reports changes. `read`: the agent asks every `poll`."""
    sampling: Period | None = None
    """How often the server looks at the value; the tag's `poll` unless given. Faster than the device's `poll`:
    the values in between are reported too."""

    history: Literal["auto", "never"] = "auto"
    """`auto`: where the server keeps a history of the node, the gap of an outage is filled from it."""
    queue: int | None = Field(default=None, ge=1, le=100_000, strict=True)
    """How many values the server keeps between two deliveries; four times those of a publishing interval by default."""
    server_deadband: float | str | None = None
    """The server reports no smaller change: a number in the node's own unit, or `"2 %"` of its EURange. What drifts
    within the band is not seen, so it is refused for what machines count by."""

    @field_validator("server_deadband")
    @classmethod
    def _absolute_or_percent(cls, given: float | str | None) -> float | str | None:
        if isinstance(given, str):
            match = _PERCENT.fullmatch(given)
            if match is None or not 0 < float(match[1]) <= 100:
                raise ValueError('write a number, or a percentage of the EURange such as "2 %"')
        elif given is not None and not (isfinite(given) and given > 0):
            raise ValueError("a deadband is more than 0")
        return given

    @field_validator("type")
    @classmethod
    def _the_server_knows(cls, given: str | None) -> str | None:
        if given is not None:
            raise ValueError("leave `type` out: an OPC UA server says the type of its values itself")
        return given

    @model_validator(mode="after")
    def _sampling_of_a_subscription(self) -> OpcuaTagSettings:
        for key in ("sampling", "queue", "server_deadband"):
            if self.mode == "read" and getattr(self, key) is not None:
                raise ValueError(f"{key} belongs to `mode: subscribe`; with `mode: read` the agent asks every `poll`")
        return self
