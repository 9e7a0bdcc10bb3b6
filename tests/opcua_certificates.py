"""Certificates for tests: servers of every kind of wrongness, and an authority."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

URI = "urn:test:server"
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@cache
def key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key; the same for the same number, since making one takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def made(
    common: str = "server", *, uri: str = URI, hosts: Sequence[str] = ("127.0.0.1",), days: tuple[int, int] = (-1, 365),
    issuer: tuple[str, Key] | None = None, ca: bool = False, own_key: Key | None = None,
    client: bool = False, encipher: bool = True, signs: bool | None = None, below: int | None = None,
    only_for: str | None = None,
) -> x509.Certificate:  # fmt: skip
    """A certificate, self-signed unless there is an issuer (name and key)."""
    private = own_key or key()
    by, signer = issuer or (common, private)
    now = datetime.now(UTC)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
    for host in hosts:
        names.append(x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host))
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=encipher, data_encipherment=encipher,
        key_agreement=False, key_cert_sign=ca if signs is None else signs, crl_sign=ca, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip
    kind = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common))
        .issuer_name(name(by))
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=below), critical=True)
        .add_extension(usage, critical=True)
    )
    if only_for is not None:
        limits = x509.NameConstraints([x509.DNSName(only_for)], None)
        builder = builder.add_extension(limits, critical=True)
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([kind]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def revoking(
    issuer: str, signer: Key, *certificates: x509.Certificate, ended: bool = False, pem: bool = False
) -> bytes:  # fmt: skip
    """A revocation list of an authority, as DER or as PEM."""
    now = datetime.now(UTC) - timedelta(days=90 if ended else 0)
    builder = x509.CertificateRevocationListBuilder().issuer_name(name(issuer))
    builder = builder.last_update(now - timedelta(days=1)).next_update(now + timedelta(days=30))
    for one in certificates:
        revoked = x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(now).build()
        builder = builder.add_revoked_certificate(revoked)
    encoding = serialization.Encoding.PEM if pem else serialization.Encoding.DER
    return builder.sign(signer, hashes.SHA256()).public_bytes(encoding)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def put(folder: Path, store: str, certificate: x509.Certificate) -> None:
    """Put a certificate into a store."""
    place = folder / store / "certs"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{certificate.serial_number}.der").write_bytes(der(certificate))


def pem_of(private: rsa.RSAPrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
