"""The secure channel: exactly the policy and mode of the configuration, to a server that has been checked, or nothing.

GetEndpoints, by which a server's certificate is found, is not protected by anything. So the certificate is checked
against the trust store before a channel is opened with it, the channel is pinned to it, and once the server has proved
that it has the key, the endpoints that it tells then must be those that were told before: nobody took any away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from asyncua.crypto import security_policies
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from edge_agent.contract import ConfigError, NotConnected
from edge_agent_opcua.certificates import Own, own
from edge_agent_opcua.settings import OpcuaSettings
from edge_agent_opcua.trust import TrustStore, chain_of, expiring, printable

log = logging.getLogger(__name__)

_POLICIES: dict[str, Any] = {
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128Sha256RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256Sha256RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
_MODES = {1: "None", 2: "Sign", 3: "SignAndEncrypt"}
_NONE_URI = security_policies.SecurityPolicyNone.URI
_ANONYMOUS, _USER_NAME, _CERTIFICATE = 0, 1, 2
"""The UserTokenTypes (OPC 10000-4, 7.42)."""
_WARN_EVERY_S = 86_400.0
_warned: dict[str, float] = {}


@dataclass(frozen=True)
class Secured:
    """What a secure session needs, once the server has been checked."""

    policy: Any
    """asyncua's policy with both certificates and our key."""
    own: Own
    offered: frozenset[tuple[str, int]]
    """The policy and mode of each endpoint that was told."""


def secured(settings: OpcuaSettings, folder: Path | None, endpoints: Sequence[Any]) -> Secured:
    """The channel to one of these endpoints, checked.

    Raises:
        NotConnected: the server does not offer it, or is not trusted; the message has the cure.
        ConfigError: our own certificate cannot be used.
    """
    if folder is None:
        raise ConfigError(f"{settings.endpoint}: security needs a folder for certificates, and there is none")
    name, _, mode = settings.security.partition("/")
    policy = _POLICIES[name]
    wanted = [one for one in endpoints if one.SecurityPolicyUri == policy.URI and _mode(one) == mode]
    if not wanted:
        raise NotConnected(
            f"{settings.endpoint}: the server does not offer {settings.security}; it offers: {offers(endpoints)}"
        )
    try:
        chain = chain_of(wanted[0].ServerCertificate or b"")
    except ValueError as error:
        raise NotConnected(f"{settings.endpoint}: the server shows no certificate ({error}): give it one") from error
    ours = own(folder)
    host = urlsplit(settings.url).hostname if settings.check_host else None
    store = TrustStore(folder)
    store.check(chain, settings.endpoint, host, wanted[0].Server.ApplicationUri or "")
    _warn(settings.endpoint, expiring([("the server's", chain[0]), ("our own", ours.certificate)]))
    _warn(settings.endpoint, store.outdated())
    made = policy(chain[0], ours.certificate, ours.key, wanted[0].SecurityMode)
    return Secured(made, ours, told(endpoints))


def told(endpoints: Sequence[Any]) -> frozenset[tuple[str, int]]:
    """The policies and modes of endpoints; those of other transports than ours aside.

    Nothing else is compared, since servers may leave out the rest when a session is created (OPC 10000-4, 5.7.2); the
    certificate is pinned by the channel.
    """
    return frozenset(
        (one.SecurityPolicyUri, int(one.SecurityMode))
        for one in endpoints
        if (one.EndpointUrl or "").startswith("opc.tcp:")
    )


def offers(endpoints: Sequence[Any]) -> str:
    """What a server offers, as it stands in YAML."""
    names = {
        "none"
        if one.SecurityPolicyUri == _NONE_URI
        else f"{(one.SecurityPolicyUri or '').rpartition('#')[2].replace('_', '')}/{_mode(one)}"
        for one in endpoints
    }
    return printable(", ".join(sorted(names))) or "nothing"


def _mode(endpoint: Any) -> str:
    return _MODES.get(int(endpoint.SecurityMode), "an invalid mode")


def tokens_for(wanted: int, offered: Sequence[Any], policy: Any, endpoint: str) -> list[Any]:
    """The ways to log in that keep the secret of a user of the wanted kind (a UserTokenType), the best one first.

    Where a server leaves it open how a password or signature is made, it is as the channel is. Never by a broken
    policy, and never in clear but inside a channel that is encrypted.

    Raises:
        NotConnected: the server takes such users, but not in such a way.
    """
    if wanted == _ANONYMOUS:
        return list(offered)
    encrypted = _MODES[int(policy.Mode)] == "SignAndEncrypt" and wanted == _USER_NAME
    good = [policy.URI, *(each.URI for each in _POLICIES.values()), *([_NONE_URI] if encrypted else [])]
    kind = [each for each in offered if int(each.TokenType) == wanted]
    for token in kind:
        token.SecurityPolicyUri = token.SecurityPolicyUri or policy.URI
    kept = sorted(
        (each for each in kind if each.SecurityPolicyUri in good), key=lambda e: good.index(e.SecurityPolicyUri)
    )
    if kind and not kept:
        ways = ", ".join(sorted({each.SecurityPolicyUri.rpartition("#")[2] for each in kind}))
        raise NotConnected(
            f"{endpoint}: the server takes such users only by {ways}, which would give the password or its proof away: "
            "use SignAndEncrypt, or switch a better policy on in the server"
        )
    return kept


def user_kind(settings: OpcuaSettings) -> int:
    """The UserTokenType of the user that the settings name."""
    if settings.user_certificate is not None:
        return _CERTIFICATE
    return _ANONYMOUS if settings.username is None else _USER_NAME


def user_certificate(settings: OpcuaSettings) -> tuple[x509.Certificate, rsa.RSAPrivateKey] | None:
    """The certificate and key of the user, where the configuration has one.

    Raises:
        ConfigError: a file cannot be read, or is not what it should be.
    """
    if settings.user_certificate is None or settings.user_key is None:
        return None
    try:
        data = settings.user_certificate.path().read_bytes()
        key_data = settings.user_key.path().read_bytes()
        pem = data.startswith(b"-----")
        certificate = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
        load = (
            serialization.load_pem_private_key if key_data.startswith(b"-----") else serialization.load_der_private_key
        )
        key = load(key_data, password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"user_certificate and user_key cannot be used: {type(error).__name__}") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ConfigError("user_key is no RSA key")
    return certificate, key


def _warn(endpoint: str, warnings: Sequence[str]) -> None:
    """Say once a day which certificate ends soon, and which list has ended."""
    now = time.monotonic()
    for warning in warnings:
        line = f"{endpoint}: {warning}"
        if now - _warned.get(line, -_WARN_EVERY_S) >= _WARN_EVERY_S:
            _warned[line] = now
            log.warning("%s", line)
