"""OPC UA over secure channels, against node-opcua and asyncua: each policy, each way in, and nothing less."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asyncua.client.client import Client
from asyncua.common.connection import SecureConnection
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.server.internal_session import InternalSession
from asyncua.server.uaprocessor import UaProcessor
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from node_server import SECURE, NodeServer, needs_node_opcua
from opcua_certificates import URI, der, key, made, pem_of, put
from opcua_server import build, endpoint_of, ua

import edge_agent_opcua.session as session_module
from edge_agent.contract import Device, NotConnected, Tag
from edge_agent_opcua import OpcuaDriver
from edge_agent_opcua.certificates import CERTIFICATE, own
from edge_agent_opcua.security import offers, tokens_for
from edge_agent_opcua.settings import OpcuaSettings, OpcuaTagSettings

POLICIES = ("Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")
MODES = ("Sign", "SignAndEncrypt")
BEST = "Basic256Sha256/SignAndEncrypt"


def device(url: str, address: str = "nsu=urn:test:first;s=Value", **settings: Any) -> Device:
    """A device; the certificates of node-opcua's servers are for the host's name, which the URL does not have."""
    given = OpcuaSettings.model_validate(
        {"driver": "opcua", "url": url, "poll": "200 ms", "check_host": False, **settings}
    )
    tag = Tag("plc.value", OpcuaTagSettings(address=address, mode="read"), given.poll)
    return Device("plc", given, (tag,))


async def value(folder: Path, plc: Device) -> Any:
    driver = OpcuaDriver([plc])
    driver.keep_files_in(folder)
    try:
        await driver.connect()
        (reading,) = await driver.read(plc, plc.tags)
        return reading.value
    finally:
        await driver.close()


async def refused(folder: Path, plc: Device) -> str:
    with pytest.raises(NotConnected) as caught:
        await value(folder, plc)
    return str(caught.value)


async def trusting(folder: Path, plc: Device) -> Path:
    """A folder that trusts the device's server, as a person does it: tried, compared, trusted."""
    assert "is not trusted" in await refused(folder, plc)
    (rejected,) = (one for one in OpcuaDriver.certificates(folder) if one.store == "rejected")
    OpcuaDriver.trust(folder, rejected.fingerprint)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeServer]:
    with NodeServer(tmp_path_factory.mktemp("node"), policies=SECURE, modes=MODES) as made_:
        yield made_


@needs_node_opcua
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", POLICIES)
async def test_every_policy_and_mode_reads_once_the_server_is_trusted(
    server: NodeServer, tmp_path: Path, policy: str, mode: str
) -> None:
    plc = device(server.url, security=f"{policy}/{mode}")
    await trusting(tmp_path, plc)
    assert await value(tmp_path, plc) == "urn:test:first"


@needs_node_opcua
async def test_users_are_let_in_by_password_and_kept_out_without(server: NodeServer, tmp_path: Path) -> None:
    plc = device(server.url, security=BEST)
    await trusting(tmp_path, plc)
    secret = tmp_path / "password"
    secret.write_text("secret\n")
    for mode in MODES:
        with_password = device(server.url, security=f"Basic256Sha256/{mode}", username="agent",
                               password={"file": str(secret)})  # fmt: skip
        assert await value(tmp_path, with_password) == "urn:test:first"
    secret.write_text("wrong")
    told = await refused(tmp_path, device(server.url, security=BEST, username="agent", password={"file": str(secret)}))
    assert "check username and password" in told
    assert "wrong" not in told
    secret.unlink()
    told = await refused(tmp_path, device(server.url, security=BEST, username="agent", password={"file": str(secret)}))
    assert "cannot be read" in told


@needs_node_opcua
async def test_user_with_a_certificate_is_let_in(server: NodeServer, tmp_path: Path) -> None:
    (tmp_path / "user.der").write_bytes(der(made("user", client=True, own_key=key(4))))
    (tmp_path / "user.pem").write_bytes(pem_of(key(4)))
    plc = device(
        server.url,
        security=BEST,
        user_certificate={"file": str(tmp_path / "user.der")},
        user_key={"file": str(tmp_path / "user.pem")},
    )
    await trusting(tmp_path, device(server.url, security=BEST))
    assert await value(tmp_path, plc) == "urn:test:first"


@needs_node_opcua
async def test_security_that_the_server_does_not_offer_is_never_replaced_by_a_lesser_one(tmp_path: Path) -> None:
    with NodeServer(tmp_path / "node", policies=("None",), modes=("None",)) as open_server:
        told = await refused(tmp_path, device(open_server.url, security=BEST))
        assert "does not offer Basic256Sha256/SignAndEncrypt; it offers: none" in told


@needs_node_opcua
async def test_server_that_offers_only_security_is_not_talked_to_without(server: NodeServer, tmp_path: Path) -> None:
    assert await refused(tmp_path, device(server.url, security="none"))


@needs_node_opcua
async def test_own_certificate_is_made_at_the_first_secure_connect_and_used_again(
    server: NodeServer, tmp_path: Path
) -> None:
    plc = device(server.url, security=BEST)
    await trusting(tmp_path, plc)
    first = (tmp_path / CERTIFICATE).read_bytes()
    await value(tmp_path, plc)
    assert (tmp_path / CERTIFICATE).read_bytes() == first
    OpcuaDriver.renew(tmp_path)
    assert await value(tmp_path, plc) == "urn:test:first"


@needs_node_opcua
async def test_server_that_does_not_trust_us_says_so_and_the_cure_is_told(tmp_path: Path) -> None:
    with NodeServer(tmp_path / "node", policies=SECURE, modes=MODES, accept_unknown=False) as strict:
        plc = device(strict.url, security=BEST)
        await trusting(tmp_path, plc)
        assert "trust our certificate? see `edge-agent cert show`" in await refused(tmp_path, plc)
        strict.stop()
        ours = load_der_x509_certificate((tmp_path / CERTIFICATE).read_bytes()).public_bytes(Encoding.PEM)
        (strict.pki / "trusted" / "certs" / "edge-agent.pem").write_bytes(ours)
        for rejected in (strict.pki / "rejected").glob("*"):
            rejected.unlink()
        strict.start()
        assert await value(tmp_path, plc) == "urn:test:first"


async def test_security_without_a_folder_for_certificates_is_refused() -> None:
    driver = OpcuaDriver([device("opc.tcp://127.0.0.1:9", security=BEST)])
    with pytest.raises(NotConnected):
        await driver.connect()
    await driver.close()


# --------------------------------------------------------------------------------------------------- men in the middle


async def secure_server(folder: Path, certificate: Any) -> Any:
    server, _ = await build(["urn:test:first"])
    server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
    await server.set_application_uri(URI)
    (folder / "server.der").write_bytes(der(certificate))
    (folder / "server.pem").write_bytes(pem_of(key()))
    await server.load_certificate(str(folder / "server.der"))
    await server.load_private_key(str(folder / "server.pem"))
    return server


async def test_server_of_asyncua_is_read_and_one_that_was_exchanged_is_not(tmp_path: Path) -> None:
    good = made()
    async with await secure_server(tmp_path, good) as server:
        plc = device(endpoint_of(server), security=BEST)
        await trusting(tmp_path / "pki", plc)
        assert await value(tmp_path / "pki", plc) == "urn:test:first"
    async with await secure_server(tmp_path, made("somebody else")) as server:
        assert "is not trusted" in await refused(tmp_path / "pki", device(endpoint_of(server), security=BEST))


@pytest.mark.parametrize(
    ("certificate", "says"),
    [
        ({"days": (-9, -1)}, "has expired"),
        ({"days": (1, 9)}, "not valid before"),
        ({"uri": "urn:else"}, "is for the application"),
        ({"hosts": ("plc-7",)}, "check_host: false"),
    ],
)
async def test_certificate_with_a_fault_ends_it_before_a_session_or_a_password(
    tmp_path: Path, certificate: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = made(**certificate)
    put(tmp_path / "pki", "trusted", bad)
    sent: list[str] = []
    create = Client.create_session

    async def watched(self: Client) -> Any:
        sent.append("session")
        return await create(self)

    monkeypatch.setattr(Client, "create_session", watched)
    async with await secure_server(tmp_path, bad) as server:
        (tmp_path / "password").write_text("secret")
        password = {"file": str(tmp_path / "password")}
        plc = device(endpoint_of(server), security=BEST, username="agent", password=password, check_host=True)
        assert says in await refused(tmp_path / "pki", plc)
    assert sent == []


@needs_node_opcua
async def test_endpoints_that_are_others_on_the_secure_channel_are_a_man_in_the_middle(
    server: NodeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody took the stronger policies away from what GetEndpoints said."""
    plc = device(server.url, security=BEST)
    await trusting(tmp_path, plc)
    told = session_module.Session.endpoints

    async def fewer(self: Any) -> list[Any]:
        return [one for one in await told(self) if one.SecurityPolicyUri == SecurityPolicyBasic256Sha256.URI]

    monkeypatch.setattr(session_module.Session, "endpoints", fewer)
    assert "somebody may stand in between" in await refused(tmp_path, plc)


_NONE, _BROKEN, _GOOD = (
    f"http://opcfoundation.org/UA/SecurityPolicy#{name}" for name in ("None", "Basic128Rsa15", "Basic256Sha256")
)
_ANONYMOUS, _USER, _CERTIFICATE = ua.UserTokenType.Anonymous, ua.UserTokenType.UserName, ua.UserTokenType.Certificate


def _login(kind: Any, mode: Any, *offered: tuple[Any, str | None]) -> list[str | None]:
    """The policies by which such a user may log in, of those that are offered."""
    policy = SimpleNamespace(URI="urn:channel", Mode=mode)
    tokens = [SimpleNamespace(TokenType=each, SecurityPolicyUri=uri) for each, uri in offered]
    return [one.SecurityPolicyUri for one in tokens_for(int(kind), tokens, policy, "opc.tcp://plc")]


def test_user_logs_in_by_the_best_way_that_is_offered() -> None:
    sign, encrypt = ua.MessageSecurityMode.Sign, ua.MessageSecurityMode.SignAndEncrypt
    assert _login(_USER, sign, (_USER, None)) == ["urn:channel"]
    assert _login(_USER, sign, (_USER, _NONE), (_USER, _BROKEN), (_USER, _GOOD), (_USER, "")) == ["urn:channel", _GOOD]
    assert _login(_USER, encrypt, (_USER, _NONE), (_USER, _BROKEN)) == [_NONE]
    assert _login(_CERTIFICATE, sign, (_CERTIFICATE, _NONE), (_CERTIFICATE, _GOOD), (_USER, _BROKEN)) == [_GOOD]
    assert _login(_ANONYMOUS, sign, (_ANONYMOUS, _NONE), (_USER, _BROKEN)) == [_NONE, _BROKEN], "nothing to give away"


@pytest.mark.parametrize(
    ("kind", "mode", "uri"),
    [
        (_USER, ua.MessageSecurityMode.Sign, _NONE),
        (_USER, ua.MessageSecurityMode.Sign, _BROKEN),
        (_USER, ua.MessageSecurityMode.SignAndEncrypt, _BROKEN),
        (_CERTIFICATE, ua.MessageSecurityMode.SignAndEncrypt, _NONE),
    ],
)
def test_user_never_logs_in_in_clear_or_by_a_broken_policy(kind: Any, mode: Any, uri: str) -> None:
    with pytest.raises(NotConnected, match=f"only by {uri.rpartition('#')[2]}.*switch a better policy on"):
        _login(kind, mode, (kind, uri))


def offer(server: Any, *policies: str) -> None:
    """Let a server take passwords by these policies, in this order."""
    for endpoint in server.iserver.endpoints:
        endpoint.UserIdentityTokens = [
            ua.UserTokenPolicy(PolicyId=uri, TokenType=_USER, SecurityPolicyUri=uri) for uri in policies
        ]


async def test_password_is_not_sent_to_a_server_that_takes_it_only_by_a_broken_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: what the session asks, and that nothing is sent."""
    sent: list[str] = []
    activate = Client.activate_session

    async def watched(self: Any, *given: Any) -> Any:
        sent.append(self.server_policy(_USER).SecurityPolicyUri)
        return await activate(self, *given)

    monkeypatch.setattr(Client, "activate_session", watched)
    (tmp_path / "password").write_text("secret")
    async with await secure_server(tmp_path, made()) as server:
        plc = device(endpoint_of(server), security=BEST, username="agent",
                     password={"file": str(tmp_path / "password")})  # fmt: skip
        await trusting(tmp_path / "pki", plc)
        offer(server, _BROKEN)
        assert "only by Basic128Rsa15" in await refused(tmp_path / "pki", plc)
        assert sent == []
        offer(server, _BROKEN, _GOOD)
        assert await value(tmp_path / "pki", plc) == "urn:test:first"
    assert sent == [_GOOD]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("session", "random number has less than 32 bytes"),
        ("channel", "random number of less than 32 bytes"),
        ("signature", "its signature is wrong"),
    ],
)
async def test_server_that_proves_nothing_is_not_logged_in_to(
    tmp_path: Path, fault: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create: Any = InternalSession.create_session
    opened: Any = SecureConnection.open
    respond: Any = UaProcessor.send_response

    async def without_nonce(self: Any, *given: Any, **more: Any) -> Any:
        created = await create(self, *given, **more)
        created.ServerNonce = b"1"
        return created

    def with_a_short_one(self: Any, *given: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(ua.utils, "create_nonce", lambda _: b"1")
            return opened(self, *given)

    def without_the_key(self: Any, handle: Any, sequence: Any, response: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(response, ua.CreateSessionResponse):
            response.Parameters.ServerSignature.Signature = bytes(256)
        return respond(self, handle, sequence, response, *rest, **more)

    sent: list[str] = []
    activate = Client.activate_session

    async def watched(self: Client, *given: Any) -> Any:
        sent.append("login")
        return await activate(self, *given)

    async with await secure_server(tmp_path, made()) as server:
        plc = device(endpoint_of(server), security=BEST)
        await trusting(tmp_path / "pki", plc)
        monkeypatch.setattr(Client, "activate_session", watched)
        if fault == "session":
            monkeypatch.setattr(InternalSession, "create_session", without_nonce)
        elif fault == "channel":
            monkeypatch.setattr(SecureConnection, "open", with_a_short_one)
        else:
            monkeypatch.setattr(UaProcessor, "send_response", without_the_key)
        assert says in await refused(tmp_path / "pki", plc)
    assert sent == []


def test_what_a_server_offers_is_told_whatever_it_is() -> None:
    strange = [SimpleNamespace(SecurityPolicyUri=uri, SecurityMode=mode) for uri, mode in ((None, 0), ("a#b\nc", 9))]
    assert offers(strange) == "/an invalid mode, b?c/an invalid mode"


async def test_renewing_the_channel_keeps_a_secure_link_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "SECURE_CHANNEL_TIMEOUT_MS", 2_000)
    async with await secure_server(tmp_path, made()) as server:
        plc = device(endpoint_of(server), security=BEST)
        await trusting(tmp_path / "pki", plc)
        driver = OpcuaDriver([plc])
        driver.keep_files_in(tmp_path / "pki")
        await driver.connect()
        try:
            for _ in range(8):
                await asyncio.sleep(0.5)
                (reading,) = await driver.read(plc, plc.tags)
                assert reading.value == "urn:test:first"
        finally:
            await driver.close()


def test_own_uri_is_the_one_that_the_session_states(tmp_path: Path) -> None:
    assert own(tmp_path).application_uri.endswith(":edge-agent")
