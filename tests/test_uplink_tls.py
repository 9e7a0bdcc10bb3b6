"""The uplink over TLS against mosquitto, with a CA of its own: what it accepts, what it refuses, what it says."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto, free_port, needs_mosquitto
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from uplink_peers import MemoryOutbox, make_uplink, running, until

from edge_agent.clock import SystemClock
from edge_agent.uplink import Uplink
from edge_agent.uplink import uplink as uplinks

pytestmark = needs_mosquitto


@dataclass
class Authority:
    """A CA in a folder, which issues certificates and keys as PEM files."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        certificate = self._builder(self._subject, self._key, 3_650).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.ca = self.folder / f"{self.name}.pem"
        self.ca.write_bytes(certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, host: str = "127.0.0.1", days: int = 30) -> tuple[Path, Path]:
        """Certificate and key; `days` below 0: it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        address = x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
        builder = self._builder(subject, key, days).add_extension(
            x509.SubjectAlternativeName([address]), critical=False
        )
        files = self.folder / f"{self.name}-{name}.pem", self.folder / f"{self.name}-{name}.key"
        files[0].write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


def tls_lines(certificate: tuple[Path, Path], *more: str) -> list[str]:
    return [f"certfile {certificate[0]}", f"keyfile {certificate[1]}", *more]


@pytest.fixture
def broker(tmp_path: Path, authority: Authority) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path, *tls_lines(authority.issue("broker"))) as started:
        yield started


def secure(broker: Mosquitto) -> str:
    return broker.url.replace("mqtt://", "mqtts://")


async def error_of(uplink: Uplink) -> str:
    async with running(uplink):
        await until(lambda: uplink.figures().last_error is not None)
        assert not uplink.figures().connected
    return str(uplink.figures().last_error)


async def test_uplink_over_tls_delivers(broker: Mosquitto, authority: Authority) -> None:
    outbox = MemoryOutbox()
    outbox.add("t", b"x" * 100_000)
    async with running(make_uplink(outbox, secure(broker), ca=authority.ca)) as uplink:
        assert await uplink.drain(10)
    assert outbox.accepted_positions == [0]


async def test_uplink_over_secure_websockets_delivers(tmp_path: Path, authority: Authority) -> None:
    port = free_port()
    lines = [f"listener {port} 127.0.0.1", "protocol websockets", *tls_lines(authority.issue("broker"))]
    outbox = MemoryOutbox()
    outbox.add("t", b"x")
    with Mosquitto(tmp_path, *lines):
        async with running(make_uplink(outbox, f"wss://127.0.0.1:{port}/mqtt", ca=authority.ca)) as uplink:
            assert await uplink.drain(10)
    assert outbox.accepted_positions == [0]


async def test_uplink_refuses_a_broker_of_an_unknown_ca(broker: Mosquitto, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    assert "unknown CA: set mqtt.ca" in await error_of(make_uplink(MemoryOutbox(), secure(broker), ca=other.ca))


async def test_uplink_refuses_a_broker_that_only_the_test_ca_vouches_for(broker: Mosquitto) -> None:
    assert "unknown CA: set mqtt.ca" in await error_of(make_uplink(MemoryOutbox(), secure(broker)))


async def test_uplink_refuses_a_certificate_for_another_host(tmp_path: Path, authority: Authority) -> None:
    certificate = authority.issue("broker", "broker.example")
    with Mosquitto(tmp_path, *tls_lines(certificate)) as broker:
        by_address = make_uplink(MemoryOutbox(), secure(broker), ca=authority.ca)
        assert "does not name this IP address" in await error_of(by_address)
        by_name = make_uplink(MemoryOutbox(), secure(broker).replace("127.0.0.1", "localhost"), ca=authority.ca)
        assert "is for another host name" in await error_of(by_name)


async def test_uplink_refuses_an_expired_certificate(tmp_path: Path, authority: Authority) -> None:
    with Mosquitto(tmp_path, *tls_lines(authority.issue("broker", days=-1))) as broker:
        text = await error_of(make_uplink(MemoryOutbox(), secure(broker), ca=authority.ca))
    assert "has expired" in text


async def test_uplink_with_tls_to_a_plain_port_says_so(tmp_path: Path, authority: Authority) -> None:
    with Mosquitto(tmp_path) as broker:
        text = await error_of(make_uplink(MemoryOutbox(), secure(broker), ca=authority.ca))
    assert "TLS" in text


async def test_uplink_without_tls_to_a_tls_port_says_so(broker: Mosquitto) -> None:
    assert "write mqtts://" in await error_of(make_uplink(MemoryOutbox(), broker.url))


async def test_uplink_authenticates_with_a_certificate_that_is_read_at_each_connect(
    tmp_path: Path, authority: Authority
) -> None:
    mutual = tls_lines(authority.issue("broker"), f"cafile {authority.ca}", "require_certificate true")
    wrong = Authority(tmp_path, "wrong").issue("gw1")
    right = authority.issue("gw1")
    certificate, key = tmp_path / "gw1.pem", tmp_path / "gw1.key"
    outbox = MemoryOutbox()
    outbox.add("t", b"x")
    with Mosquitto(tmp_path, *mutual) as broker:
        text = await error_of(make_uplink(MemoryOutbox(), secure(broker), ca=authority.ca))
        assert "certificate" in text  # the alert may be lost when the broker hangs up at once
        assert "mqtt.key" in text
        certificate.write_bytes(wrong[0].read_bytes())
        key.write_bytes(wrong[1].read_bytes())
        files: dict[str, Any] = {"certificate": certificate, "key": {"file": str(key)}}
        async with running(make_uplink(outbox, secure(broker), ca=authority.ca, **files)) as uplink:
            await until(lambda: uplink.figures().last_error is not None)
            assert "mqtt.certificate" in str(uplink.figures().last_error)
            certificate.write_bytes(right[0].read_bytes())
            key.write_bytes(right[1].read_bytes())
            assert await uplink.drain(10)
    assert outbox.accepted_positions == [0]


@pytest.mark.parametrize(("broken", "named"), [("ca", "mqtt.ca"), ("certificate", "mqtt.certificate")])
async def test_uplink_with_an_unusable_file_names_the_key_and_the_file(
    broker: Mosquitto, authority: Authority, tmp_path: Path, broken: str, named: str
) -> None:
    certificate, key = authority.issue("gw1")
    files: dict[str, Any] = {"ca": authority.ca, "certificate": certificate}
    for content in (None, "no certificate\n"):
        files[broken] = tmp_path / f"{broken}-{content is None}.pem"
        if content is not None:
            files[broken].write_text(content)
        text = await error_of(make_uplink(MemoryOutbox(), secure(broker), key={"file": str(key)}, **files))
        assert named in text
        assert str(files[broken]) in text


@pytest.mark.parametrize(
    ("broker_days", "own_days", "told"),
    [(300, 300, []), (20, 300, [("WARNING", "the broker's")]), (300, 5, [("ERROR", "mqtt.certificate")])],
)
async def test_uplink_warns_of_certificates_that_end_soon_once_a_day(
    tmp_path: Path, authority: Authority, broker_days: int, own_days: int, told: list[tuple[str, str]],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    own = authority.issue("gw1", days=own_days)
    lines = tls_lines(authority.issue("broker", days=broker_days), f"cafile {authority.ca}", "require_certificate true")
    with Mosquitto(tmp_path, *lines) as broker:
        uplink = make_uplink(
            MemoryOutbox(), secure(broker), ca=authority.ca, certificate=own[0], key={"file": str(own[1])}
        )
        async with running(uplink):
            await until(lambda: uplink.figures().connected)
            broker.restart()
            await until(lambda: uplink.figures().reconnects >= 1 and uplink.figures().connected)
    said = [(one.levelname, one.getMessage()) for one in caplog.records if " ends in " in one.getMessage()]
    assert [level for level, _ in said] == [level for level, _ in told]
    assert all(whose in line for (_, line), (_, whose) in zip(said, told, strict=True))


async def test_uplink_warns_during_a_connection_that_lasts(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Moved(SystemClock):
        days = 0

        def now(self) -> int:
            return super().now() + self.days * 86_400 * 1_000_000_000

    monkeypatch.setattr(uplinks, "CERTIFICATES_NS", 20_000_000)
    clock = Moved()
    with Mosquitto(tmp_path, *tls_lines(authority.issue("broker", days=40))) as broker:
        uplink = make_uplink(MemoryOutbox(), secure(broker), ca=authority.ca)
        uplink._clock = clock
        async with running(uplink):
            await until(lambda: uplink.figures().connected)
            await asyncio.sleep(0.1)
            assert " ends in " not in caplog.text
            clock.days = 35
            await until(lambda: "the broker's certificate ends in 4 days" in caplog.text)
            assert uplink.figures().reconnects == 0
