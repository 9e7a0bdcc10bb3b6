"""The certificate by which the agent proves who it is (OPC 10000-6, 6.2.2): made once, and kept."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_agent.contract import ConfigError

KEY_BITS = 2048
VALID = timedelta(days=5 * 365)
_BACKDATED = timedelta(hours=1)
"""Clocks of servers are not all right."""
CERTIFICATE, KEY = Path("own/certs/edge-agent.der"), Path("own/private/edge-agent.pem")


class Own(NamedTuple):
    """The agent's own certificate and its private key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def application_uri(self) -> str:
        """The name that the certificate gives the application, which a session must state as well."""
        return uris(self.certificate)[0]


def own(folder: Path) -> Own:
    """The own certificate; made where there is none.

    Raises:
        ConfigError: what is there cannot be used; the message names the file.
    """
    if not (folder / CERTIFICATE).exists():
        with _alone(folder):  # several links, or a verb, may want it at the same time
            if not (folder / CERTIFICATE).exists():
                return _make(folder)
    try:
        certificate = x509.load_der_x509_certificate((folder / CERTIFICATE).read_bytes())
        key = serialization.load_pem_private_key((folder / KEY).read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the own certificate in {folder / 'own'} cannot be used ({error}); `edge-agent cert renew` makes a new one"
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey) or not uris(certificate):
        raise ConfigError(f"{folder / CERTIFICATE} is no RSA certificate with an application URI; see cert renew")
    if key.public_key() != certificate.public_key():
        raise ConfigError(
            f"{folder / CERTIFICATE} and {folder / KEY} do not belong together; `edge-agent cert renew` makes new ones"
        )
    return Own(certificate, key)


def make(folder: Path) -> Own:
    """A new own certificate; the old one and its key are kept beside it, under their time."""
    with _alone(folder):
        return _make(folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only one, of all threads and processes, that makes a certificate in this folder."""
    _make_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(folder: Path) -> Own:
    host = socket.gethostname()
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"Edge Agent {host}"),
         x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Edge Agent")]
    )  # fmt: skip
    now = datetime.now(UTC)
    public = key.public_key()
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=True, data_encipherment=True,
        key_agreement=False, key_cert_sign=True, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    names = [x509.UniformResourceIdentifier(f"urn:{host}:edge-agent"), x509.DNSName(host)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    _keep_old(folder, now)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    write(folder / KEY, pem)
    write(folder / CERTIFICATE, certificate.public_bytes(serialization.Encoding.DER))
    return Own(certificate, key)


def _keep_old(folder: Path, now: datetime) -> None:
    for path in (folder / KEY, folder / CERTIFICATE):
        if path.exists():
            path.rename(path.with_name(f"{path.name}.{now:%Y%m%dT%H%M%SZ}"))


def write(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all.

    Its owner is that of the folder in which all this lies: root may run a verb, and the agent must read what it made.
    """
    owner = _make_folder(path.parent)
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if owner is not None:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _make_folder(folder: Path) -> os.stat_result | None:
    """Have a folder, and give what is made to whom the one belongs in which it lies; whose what root writes must be."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if os.geteuid() != 0:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return None
    foreign = [each for each in (folder, *folder.parents) if each.is_symlink() and each.lstat().st_uid != 0]
    if foreign:
        raise ConfigError(f"{foreign[0]} is a link that is not root's: run this as the user that the folder belongs to")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = there.stat()
    for each in (folder, *folder.parents):
        if there in each.parents:
            os.chown(each, owner.st_uid, owner.st_gid, follow_symlinks=False)
    return owner


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of its DER, in lower case hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def uris(certificate: x509.Certificate) -> list[str]:
    """The URIs among the names of a certificate."""
    names = _names(certificate)
    return [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)


def is_for_host(certificate: x509.Certificate, host: str) -> bool:
    """Whether a host name or address is among the names of a certificate."""
    names = _names(certificate)
    if names is None:
        return False
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress) or host in hosts(certificate)
    except ValueError:
        return host.lower() in [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def hosts(certificate: x509.Certificate) -> list[str]:
    """The hosts that a certificate is for."""
    names = _names(certificate)
    if names is None:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None
