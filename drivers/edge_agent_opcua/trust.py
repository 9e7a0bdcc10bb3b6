"""Whom the agent trusts (OPC 10000-12, annex F): folders of certificates, and the checks of a server's own one.

trusted/certs, trusted/crl     servers, and authorities whose certificates are trusted
issuer/certs, issuer/crl       authorities that complete a chain, and are not trusted by themselves
rejected/certs                 what was refused, for `edge-agent cert trust`; with the URL of its server beside it
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge_agent.contract import NS_PER_S, CertificateFacts, ConfigError, NotConnected
from edge_agent_opcua.certificates import fingerprint, hosts, is_for_host, uris, write

STORES = ("own", "trusted", "issuer", "rejected")
MOST_REJECTED = 50
LONGEST_CHAIN = 8
LEAST_KEY_BITS = 2048
MAX_CHAIN_BYTES = 65_536
LEAST_DIGITS = 16
"""So many digits of a fingerprint can be told from those of a certificate that was made to look like it."""
LONGEST_NAME = 120
_UNDERSTOOD = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
_PEM_LIST = b"-----BEGIN X509 CRL-----"


class Untrusted(NotConnected):
    """A server's certificate was refused; the message has the reason and the cure."""


class TrustStore:
    """The folders below one folder; read anew each time, so that what people put there counts at the next connect."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # ---------------------------------------------------------------------------------------------- checking

    def check(self, chain: Sequence[x509.Certificate], url: str, host: str | None, application_uri: str) -> None:
        """Whether a server may be talked to. `host`: the one of the URL; None: it is not compared.

        Raises:
            Untrusted: it may not.
        """
        leaf = chain[0]
        name = f"{url}: the server's certificate {fingerprint(leaf)[:LEAST_DIGITS]} ({_subject(leaf)})"
        issuers = self._issuers(leaf, name)
        trusted = {fingerprint(one) for one in self._certificates("trusted")}
        # Without its host an authority would vouch for any of its servers: then the very certificate must be trusted.
        if not trusted & {fingerprint(one) for one in (issuers if host is not None else [leaf])}:
            self._reject(leaf, url)
            raise Untrusted(
                f"{name} is not trusted: compare its fingerprint with the one that the server shows, then "
                f"`edge-agent cert trust {fingerprint(leaf)}`"
            )
        _check_authorities(issuers[1:], name)
        for one in issuers:
            self._check_dates(one, name)
        self._check_revoked(issuers, name)
        _check_use(leaf, name)
        if application_uri not in uris(leaf):
            raise Untrusted(f"{name} is for the application {uris(leaf)}, and the server says it is {application_uri}")
        if host is not None and not is_for_host(leaf, host):
            raise Untrusted(
                f"{name} is for {', '.join(hosts(leaf)) or 'no host'}, not for {host}: write that host in the url, "
                "renew the server's certificate, or, if it is known to be the right one, check_host: false"
            )

    def _issuers(self, leaf: x509.Certificate, name: str) -> list[x509.Certificate]:
        """The certificate and its issuers as far as they are known here; each signature checked."""
        known = [*self._certificates("trusted"), *self._certificates("issuer")]
        chain = [leaf]
        while len(chain) <= LONGEST_CHAIN:
            last = chain[-1]
            if last.issuer == last.subject:  # a root, which its own renewed or older certificate could have signed, too
                return chain
            found = [one for one in known if one not in chain and _issued(last, one)]
            issuer = next(filter(_is_valid_now, found), found[0] if found else None)  # a renewed one before its old one
            if issuer is None:
                return chain
            chain.append(issuer)
        raise Untrusted(f"{name} has a chain of more than {LONGEST_CHAIN} issuers")

    def _check_dates(self, certificate: x509.Certificate, name: str) -> None:
        now = datetime.now(UTC)
        if now < certificate.not_valid_before_utc:
            raise Untrusted(
                f"{name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: check the clocks "
                "of the server and of this gateway"
            )
        if now > certificate.not_valid_after_utc:
            raise Untrusted(
                f"{name} has expired on {certificate.not_valid_after_utc:%Y-%m-%d}: renew it on the server (or correct "
                "this gateway's clock)"
            )

    def _check_revoked(self, chain: Sequence[x509.Certificate], name: str) -> None:
        lists = [*self._lists("trusted"), *self._lists("issuer")]
        for one, issuer in pairwise(chain):
            own = [each for each in lists if each.issuer == issuer.subject and _signed(each, issuer)]
            if any(each.get_revoked_certificate_by_serial_number(one.serial_number) is not None for each in own):
                raise Untrusted(f"{name} has been revoked by {_subject(issuer)}")

    def outdated(self) -> list[str]:
        """What to say of revocation lists that should have been replaced."""
        now = datetime.now(UTC)
        return [
            f"the revocation list of {printable(each.issuer.rfc4514_string())} has ended on {end:%Y-%m-%d}: "
            "put its next one in its place, since what was revoked later is not known"
            for each in (*self._lists("trusted"), *self._lists("issuer"))
            if (end := each.next_update_utc) is not None and end < now
        ]

    # ----------------------------------------------------------------------------------------------- the folders

    def _files(self, store: str) -> Iterator[tuple[Path, x509.Certificate]]:
        folder = self.folder / store / "certs"
        for path in sorted(folder.glob("*")) if folder.is_dir() else ():
            try:
                data = path.read_bytes()
                pem = data.startswith(b"-----")
                yield path, x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
            except (OSError, ValueError):
                continue  # a note, a URL, a file of somebody else

    def _certificates(self, store: str) -> list[x509.Certificate]:
        return [certificate for _, certificate in self._files(store)]

    def _lists(self, store: str) -> Iterator[x509.CertificateRevocationList]:
        folder = self.folder / store / "crl"
        for path in sorted(folder.glob("*")) if folder.is_dir() else ():
            data = path.read_bytes()
            try:
                if _PEM_LIST not in data:
                    yield x509.load_der_x509_crl(data)
                for each in data.split(_PEM_LIST)[1:]:
                    yield x509.load_pem_x509_crl(_PEM_LIST + each)
            except ValueError as error:
                raise ConfigError(f"{path} is no revocation list: remove it, or put the right file there") from error

    def _reject(self, certificate: x509.Certificate, url: str) -> None:
        """Keep a refused certificate for whoever decides; of too many the oldest go."""
        folder = self.folder / "rejected" / "certs"
        path = folder / f"{fingerprint(certificate)}.der"
        if path.exists() and path.with_suffix(".url").exists():
            return  # it is there since an earlier attempt; each would cost the disk two syncs
        write(path, certificate.public_bytes(Encoding.DER))
        write(path.with_suffix(".url"), url.encode())
        kept = sorted(folder.glob("*.der"), key=lambda each: each.stat().st_mtime)
        for old in kept[:-MOST_REJECTED]:
            old.unlink(missing_ok=True)
            old.with_suffix(".url").unlink(missing_ok=True)

    def facts(self) -> list[CertificateFacts]:
        """All certificates, by store."""
        return [_facts(store, path, one) for store in STORES for path, one in self._files(store)]

    def trust(self, beginning: str) -> CertificateFacts:
        """Move a rejected certificate to the trusted ones.

        Raises:
            ConfigError: none, or more than one, has such a fingerprint.
        """
        wanted = beginning.lower().replace(":", "").replace(" ", "")
        found = [(path, one) for path, one in self._files("rejected") if fingerprint(one).startswith(wanted)]
        if len(wanted) < LEAST_DIGITS and found:
            raise ConfigError(
                f"{beginning!r} is too short to be compared with what the server shows: give at least {LEAST_DIGITS} "
                f"digits, or all: {', '.join(fingerprint(one) for _, one in found)}"
            )
        if len(found) != 1:
            some = ", ".join(fingerprint(one) for _, one in found or self._files("rejected")) or "none"
            raise ConfigError(f"{len(found)} rejected certificates begin with {beginning!r}; there are: {some}")
        ((path, certificate),) = found
        moved = self.folder / "trusted" / "certs" / path.name
        write(moved, certificate.public_bytes(Encoding.DER))
        path.unlink()
        path.with_suffix(".url").unlink(missing_ok=True)
        return _facts("trusted", moved, certificate)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the one was signed by the other, which must be an authority; SHA-1 is no signature to cryptography."""
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        signs = all(each.value.key_cert_sign for each in issuer.extensions if isinstance(each.value, x509.KeyUsage))
        certificate.verify_directly_issued_by(issuer)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        return False
    return constraints.ca and signs


def _is_valid_now(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc


def _check_authorities(authorities: Sequence[x509.Certificate], name: str) -> None:
    """What an authority may vouch for; what it says in words that are not understood here counts as no."""
    for below, one in enumerate(authorities):
        whose = f"{name} comes from the authority {_subject(one)}, which"
        constraints = one.extensions.get_extension_for_class(x509.BasicConstraints).value
        if constraints.path_length is not None and below > constraints.path_length:
            raise Untrusted(f"{whose} may vouch for {constraints.path_length} authorities below it, not for {below}")
        key = one.public_key()
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_KEY_BITS:
            raise Untrusted(f"{whose} has a key of {key.key_size} bits, which can be broken: renew it")
        for extension in one.extensions:
            if extension.critical and not isinstance(extension.value, _UNDERSTOOD):
                raise Untrusted(f"{whose} has limits that are not understood here ({extension.oid._name})")


def _subject(certificate: x509.Certificate) -> str:
    return printable(certificate.subject.rfc4514_string())


def printable(text: str) -> str:
    """What a peer calls itself, without what could forge a line in a log or a terminal, and not longer than a line."""
    shown = "".join(each if each.isprintable() else "?" for each in text[:LONGEST_NAME])
    return shown + "…" if len(text) > LONGEST_NAME else shown


def _signed(revoked: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return revoked.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _check_use(leaf: x509.Certificate, name: str) -> None:
    key = leaf.public_key()
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < LEAST_KEY_BITS:
        raise Untrusted(f"{name} has no RSA key of {LEAST_KEY_BITS} bits or more: renew it on the server")
    for extension in leaf.extensions:
        usage = extension.value
        if isinstance(usage, x509.KeyUsage) and not (usage.digital_signature and usage.key_encipherment):
            raise Untrusted(f"{name} may not be used for signing and encrypting (key usage): renew it on the server")
        if isinstance(usage, x509.ExtendedKeyUsage) and ExtendedKeyUsageOID.SERVER_AUTH not in usage:
            raise Untrusted(f"{name} is none of a server (extended key usage): renew it on the server")


def _facts(store: str, path: Path, one: x509.Certificate) -> CertificateFacts:
    beside = path.with_suffix(".url")
    return CertificateFacts(
        store, path, fingerprint(one), _subject(one), printable(one.issuer.rfc4514_string()),
        next(map(printable, uris(one)), None), _ns(one.not_valid_before_utc), _ns(one.not_valid_after_utc),
        beside.read_text(encoding="utf-8") if beside.is_file() else None,
    )  # fmt: skip


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * NS_PER_S


def chain_of(data: bytes) -> list[x509.Certificate]:
    """The certificates of a chain as a server sends it: one DER behind the other.

    Raises:
        ValueError: it is none.
    """
    if len(data) > MAX_CHAIN_BYTES:
        raise ValueError(f"{len(data)} bytes are no chain of certificates")
    found: list[x509.Certificate] = []
    while data and len(found) < LONGEST_CHAIN:
        size = _der_size(data)
        found.append(x509.load_der_x509_certificate(data[:size]))
        data = data[size:]
    if not found:
        raise ValueError("no certificate")
    return found


def _der_size(data: bytes) -> int:
    """How long the DER sequence at the beginning is."""
    if len(data) < 2 or data[0] != 0x30:
        raise ValueError("no DER sequence")
    if data[1] < 0x80:
        return 2 + data[1]
    count = data[1] & 0x7F
    return 2 + count + int.from_bytes(data[2 : 2 + count], "big")


def expiring(certificates: Iterable[tuple[str, x509.Certificate]], days: int = 30) -> list[str]:
    """What to say of certificates that end soon."""
    now = datetime.now(UTC)
    found = []
    for whose, one in certificates:
        left = (one.not_valid_after_utc - now).days
        if left < days:
            found.append(f"{whose} certificate ends in {left} days, on {one.not_valid_after_utc:%Y-%m-%d}: renew it")
    return found
