"""What a device and a tag of the OPC UA driver take, and what they refuse with which cure."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from pydantic import ValidationError

from edge_agent.contract import ConfigError, Device, Tag
from edge_agent_opcua import OpcuaDriver
from edge_agent_opcua.address import Address, Identifier, parse_address
from edge_agent_opcua.settings import OpcuaSettings, OpcuaTagSettings

URI = "http://acme.example/oven"
DEVICE = {"driver": "opcua", "url": "opc.tcp://10.0.0.1:4840", "security": "none"}


def settings(**changed: Any) -> OpcuaSettings:
    return OpcuaSettings.model_validate({**DEVICE, **changed})


@pytest.mark.parametrize(
    ("text", "namespace", "identifier"),
    [
        (f"nsu={URI};s=Zone1.Temp", URI, "Zone1.Temp"),
        (f"nsu={URI};s=a;b=c i=3", URI, "a;b=c i=3"),
        (f"nsu={URI};i=2001", URI, 2001),
        ("nsu=urn:a%3Bb%25c;i=0", "urn:a;b%c", 0),
        (
            "nsu=u;g=72962B91-FA75-4AE6-8D28-B404DC7DAF63",
            "u",
            uuid.UUID("72962b91-fa75-4ae6-8d28-b404dc7daf63"),
        ),
        ("nsu=u;b=M/RbKBsRVkePCePcx24oRA==", "u", bytes.fromhex("33f45b281b1156478f09e3dcc76e2844")),
        ("i=2258", None, 2258),
        ("ns=0;i=2258", None, 2258),
    ],
)
def test_address_well_formed_names_one_node(text: str, namespace: str | None, identifier: Identifier) -> None:
    assert parse_address(text) == Address(namespace, identifier)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ns=2;s=Zone1.Temp", "only valid within one session"),
        ("ns=2;s=Zone1.Temp", "NamespaceArray"),
        ("s=Zone1.Temp", "nsu=<uri>;s=Zone1.Temp"),
        ("nsu=urn:a", "nsu=<uri>;<identifier>"),
        ("nsu=;s=a", "nsu=<uri>;<identifier>"),
        ("nsu=urn:a;s=", "no identifier"),
        ("nsu=urn:a;x=1", "no identifier"),
        ("nsu=urn:a;i=-1", "whole number"),
        ("nsu=urn:a;i=4294967296", "4294967295"),
        ("nsu=urn:a;g=123", "GUID"),
        ("nsu=urn:a;b=#", "base64"),
        ("svr=1;i=2258", "make that server a device"),
        ("40001", "no identifier"),
    ],
)
def test_address_malformed_is_refused_with_the_cure(text: str, told: str) -> None:
    with pytest.raises(ValidationError, match="address") as refused:
        OpcuaTagSettings.model_validate({"address": text})
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"security": "Basic256Sha256"}, "expected none, or a policy"),
        ({"security": "Basic256Sha256/None"}, "expected none, or a policy"),
        ({"security": "Basic128Rsa15/Sign"}, "is broken"),
        ({"security": "Basic256/SignAndEncrypt"}, "is broken"),
        ({"user_certificate": {"file": "/a"}}, "give both"),
        ({"user_certificate": {"file": "/a"}, "user_key": {"file": "/b"}}, "on a secure channel"),
        ({"security": None}, "string"),
        ({"username": "a", "password": "b"}, "in clear"),
        ({"security": "Basic256Sha256/Sign", "password": "b"}, "a password belongs to a username"),
        ({"security": "Basic256Sha256/Sign", "username": "", "password": "b"}, "at least 1 character"),
        ({"url": "tcp://10.0.0.1:4840"}, "opc.tcp://host:port"),
        ({"url": "opc.tcp://:4840"}, "opc.tcp://host:port"),
        ({"url": "opc.tcp://a:b@10.0.0.1:4840"}, "keys of their own"),
        ({"url": "opc.tcp://10.0.0.1:99999"}, "ort"),
        ({"url": "opc.tcp://10.0.0.1:0"}, "port 0"),
        ({"timeout": "0 s"}, "more than zero"),
    ],
)
def test_device_settings_that_cannot_be_are_refused_with_the_cure(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**changed)
    assert told in str(refused.value)


def test_device_settings_without_security_are_refused_and_say_what_to_write() -> None:
    with pytest.raises(ValidationError, match="`security: none` if"):
        OpcuaSettings.model_validate({"driver": "opcua", "url": "opc.tcp://10.0.0.1:4840"})


def test_tag_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValidationError, match="sampling belongs to"):
        OpcuaTagSettings.model_validate({"address": "i=2258", "mode": "read", "sampling": "1 s"})
    with pytest.raises(ValidationError, match="leave `type` out"):
        OpcuaTagSettings.model_validate({"address": "i=2258", "type": "uint16"})


def test_link_of_one_server_and_user_is_shared() -> None:
    link = OpcuaDriver.link
    assert link(settings(url="opc.tcp://PLC/path/")) == link(settings(url="opc.tcp://plc:4840/path", poll="5 s"))
    assert link(settings()) != link(settings(username="agent"))
    assert link(settings()) != link(settings(url="opc.tcp://10.0.0.1:4841"))
    assert settings(url="opc.tcp://[::1]").endpoint == "opc.tcp://[::1]:4840"


def test_devices_of_one_link_that_differ_in_timeout_are_refused() -> None:
    tag = Tag("a.t", OpcuaTagSettings.model_validate({"address": "i=2258"}), 1)
    one, other = Device("a", settings(), (tag,)), Device("b", settings(timeout="9 s"), ())
    with pytest.raises(ConfigError, match="a and b share a session, but differ in timeout"):
        OpcuaDriver([one, other])
