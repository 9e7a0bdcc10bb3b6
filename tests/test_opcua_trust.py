"""Whom the agent trusts over OPC UA: every way in which a certificate may be wrong, and what people do about it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from opcua_certificates import URI, der, key, made, name, pem_of, put, revoking

from edge_agent.contract import Certificates, ConfigError, KeepsFiles
from edge_agent_opcua import OpcuaDriver
from edge_agent_opcua.certificates import CERTIFICATE, KEY, fingerprint, own, uris
from edge_agent_opcua.trust import (
    MAX_CHAIN_BYTES,
    MOST_REJECTED,
    TrustStore,
    Untrusted,
    chain_of,
    expiring,
    printable,
)

PLC = "opc.tcp://127.0.0.1:4840"


def refused(folder: Path, *chain: object, host: str | None = "127.0.0.1", uri: str = URI) -> str:
    with pytest.raises(Untrusted) as caught:
        TrustStore(folder).check(list(chain), PLC, host, uri)  # type: ignore[arg-type]
    return str(caught.value)


def test_driver_has_the_powers() -> None:
    assert isinstance(OpcuaDriver, Certificates)
    assert issubclass(OpcuaDriver, KeepsFiles)


# --------------------------------------------------------------------------------------------------- our own one


def test_own_certificate_is_made_once_and_only_its_owner_may_read_the_key(tmp_path: Path) -> None:
    first, again = own(tmp_path), own(tmp_path)
    assert fingerprint(first.certificate) == fingerprint(again.certificate)
    assert uris(first.certificate)[0].startswith("urn:")
    assert first.application_uri == uris(first.certificate)[0]
    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / KEY).parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write files for another user")
def test_what_root_writes_belongs_to_whom_the_data_folder_belongs(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    os.chown(folder, 12_345, 12_345)
    refused(folder / "opcua", made())
    own(folder / "opcua")
    found = list(folder.rglob("*"))
    assert len(found) > 6
    assert {(path.stat().st_uid, path.stat().st_gid) for path in found} == {(12_345, 12_345)}


def test_certificate_is_on_disk_with_its_folder_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    own(tmp_path)
    assert synced == [False, True] * 2, "each file, then its name"


def test_certificate_that_is_refused_again_and_again_is_written_once(tmp_path: Path) -> None:
    server = made()
    refused(tmp_path, server)
    before = [(path.name, path.stat().st_ino) for path in sorted((tmp_path / "rejected" / "certs").iterdir())]
    assert len(before) == 2
    refused(tmp_path, server)
    assert [(path.name, path.stat().st_ino) for path in sorted((tmp_path / "rejected" / "certs").iterdir())] == before


def test_own_certificate_that_is_renewed_is_another_and_the_old_one_is_kept(tmp_path: Path) -> None:
    first = own(tmp_path)
    facts = OpcuaDriver.renew(tmp_path)
    assert facts.fingerprint != fingerprint(first.certificate)
    assert facts.fingerprint == fingerprint(own(tmp_path).certificate)
    assert len(list((tmp_path / CERTIFICATE).parent.iterdir())) == 2
    assert [one.store for one in OpcuaDriver.certificates(tmp_path)] == ["own", "own"]


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_own_certificate_that_is_damaged_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    own(tmp_path)
    (tmp_path / CERTIFICATE).write_bytes(content)
    with pytest.raises(ConfigError, match="cert renew"):
        own(tmp_path)


# ------------------------------------------------------------------------------------------------------ a server's


def test_unknown_certificate_is_refused_kept_and_trusted_when_somebody_says_so(tmp_path: Path) -> None:
    server = made()
    told = refused(tmp_path, server)
    beginning = fingerprint(server)[:16]
    assert f"edge-agent cert trust {fingerprint(server)}`" in told
    (facts,) = TrustStore(tmp_path).facts()
    assert (facts.store, facts.host, facts.application_uri) == ("rejected", PLC, URI)
    with pytest.raises(ConfigError, match="at least 16 digits"):
        OpcuaDriver.trust(tmp_path, beginning[:15])
    assert OpcuaDriver.trust(tmp_path, beginning.upper()).store == "trusted"
    TrustStore(tmp_path).check([server], PLC, "127.0.0.1", URI)
    assert [one.store for one in TrustStore(tmp_path).facts()] == ["trusted"]


@pytest.mark.parametrize("beginning", ["", "zz", "0" * 64])
def test_trust_of_what_was_not_refused_names_what_was(tmp_path: Path, beginning: str) -> None:
    server = made()
    refused(tmp_path, server)
    with pytest.raises(ConfigError, match=fingerprint(server)):
        TrustStore(tmp_path).trust(beginning)


def test_refused_certificates_do_not_fill_the_disk(tmp_path: Path) -> None:
    for number in range(MOST_REJECTED + 5):
        refused(tmp_path, made(f"server-{number}"))
    assert len(list((tmp_path / "rejected" / "certs").glob("*.der"))) == MOST_REJECTED


def test_trusted_certificate_with_a_fault_is_refused_with_the_cure(tmp_path: Path) -> None:
    for certificate, says in (
        (made("early", days=(1, 365)), "not valid before"),
        (made("late", days=(-365, -1)), "has expired"),
        (made("other-uri", uri="urn:somebody:else"), "is for the application"),
        (made("other-host", hosts=("plc-7", "10.0.0.9")), "is for plc-7, 10.0.0.9, not for 127.0.0.1"),
        (made("client", client=True), "none of a server"),
        (made("signs-only", encipher=False), "key usage"),
        (made("weak", own_key=key(9, 1024)), "2048 bits"),
    ):
        put(tmp_path, "trusted", certificate)
        assert says in refused(tmp_path, certificate)


def test_host_is_compared_without_case_and_not_where_that_is_switched_off(tmp_path: Path) -> None:
    server = made(hosts=("PLC-7.example",))
    put(tmp_path, "trusted", server)
    TrustStore(tmp_path).check([server], PLC, "plc-7.Example", URI)
    TrustStore(tmp_path).check([server], PLC, None, URI)
    assert "check_host" in refused(tmp_path, server, host="plc-8.example")


def test_certificate_of_a_trusted_authority_is_trusted_until_it_is_revoked(tmp_path: Path) -> None:
    authority = made("authority", ca=True, own_key=key(1))
    server = made(issuer=("authority", key(1)))
    assert "is not trusted" in refused(tmp_path, server)
    put(tmp_path, "issuer", authority)
    assert "is not trusted" in refused(tmp_path, server), "one that completes a chain is not trusted by that"
    put(tmp_path, "trusted", authority)
    TrustStore(tmp_path).check([server], PLC, "127.0.0.1", URI)
    (tmp_path / "trusted" / "crl").mkdir()
    (tmp_path / "trusted" / "crl" / "foreign.crl").write_bytes(revoking("authority", key(2), server))
    TrustStore(tmp_path).check([server], PLC, "127.0.0.1", URI)
    (tmp_path / "trusted" / "crl" / "list.crl").write_bytes(revoking("authority", key(1), server))
    assert "has been revoked" in refused(tmp_path, server)


def test_revocation_list_counts_of_every_authority_and_wherever_it_stands_in_its_file(tmp_path: Path) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    put(tmp_path, "trusted", made("curve", ca=True, own_key=curve))
    put(tmp_path, "trusted", made("authority", ca=True, own_key=key(1)))
    of_curve, of_rsa = made(issuer=("curve", curve)), made(issuer=("authority", key(1)))
    for server in (of_curve, of_rsa):
        TrustStore(tmp_path).check([server], PLC, "127.0.0.1", URI)
    (tmp_path / "trusted" / "crl").mkdir()
    both = revoking("curve", curve, of_curve, pem=True) + revoking("authority", key(1), of_rsa, pem=True)
    (tmp_path / "trusted" / "crl" / "both.pem").write_bytes(both)
    for server in (of_curve, of_rsa):
        assert "has been revoked" in refused(tmp_path, server)
    assert TrustStore(tmp_path).outdated() == []


def test_revocation_list_that_has_ended_still_counts_and_is_told(tmp_path: Path) -> None:
    put(tmp_path, "trusted", made("authority", ca=True, own_key=key(1)))
    revoked, other = (made(issuer=("authority", key(1))) for _ in range(2))
    (tmp_path / "trusted" / "crl").mkdir()
    (tmp_path / "trusted" / "crl" / "old.crl").write_bytes(revoking("authority", key(1), revoked, ended=True))
    assert "has been revoked" in refused(tmp_path, revoked)
    TrustStore(tmp_path).check([other], PLC, "127.0.0.1", URI)
    (told,) = TrustStore(tmp_path).outdated()
    assert "the revocation list of CN=authority has ended on" in told


def test_without_its_host_only_the_very_certificate_is_trusted_and_none_by_its_authority(tmp_path: Path) -> None:
    put(tmp_path, "trusted", made("authority", ca=True, own_key=key(1)))
    server = made(issuer=("authority", key(1)))
    TrustStore(tmp_path).check([server], PLC, "127.0.0.1", URI)
    assert "is not trusted" in refused(tmp_path, server, host=None)
    put(tmp_path, "trusted", server)
    TrustStore(tmp_path).check([server], PLC, None, URI)


def test_authority_vouches_for_no_more_than_it_may(tmp_path: Path) -> None:
    for number, (root, says) in enumerate(
        (
            (made("root", ca=True, own_key=key(1), below=0), "may vouch for 0 authorities below it, not for 1"),
            (made("root", ca=True, own_key=key(1), only_for="plant-a.example"), "limits that are not understood"),
            (made("root", ca=True, own_key=key(9, 1024)), "has a key of 1024 bits"),
        )
    ):
        folder = tmp_path / str(number)
        put(folder, "trusted", root)
        signer = key(9, 1024) if number == 2 else key(1)
        put(folder, "issuer", made("middle", ca=True, own_key=key(2), issuer=("root", signer)))
        assert says in refused(folder, made(issuer=("middle", key(2))))


def test_renewed_authority_counts_beside_its_old_certificate(tmp_path: Path) -> None:
    put(tmp_path, "trusted", made("authority", ca=True, own_key=key(1), days=(-99, -1)))
    server = made(issuer=("authority", key(1)))
    assert "has expired" in refused(tmp_path, server)
    put(tmp_path, "trusted", made("authority", ca=True, own_key=key(1)))
    TrustStore(tmp_path).check([server], PLC, "127.0.0.1", URI)


def test_what_a_server_calls_itself_forges_no_line_and_fills_none(tmp_path: Path) -> None:
    told = refused(tmp_path, made("plc\nINFO edge_agent: all is well\x1b[2K"))
    assert "\n" not in told
    assert "\x1b" not in told
    (facts,) = TrustStore(tmp_path).facts()
    assert facts.subject == "CN=plc?INFO edge_agent: all is well?[2K"
    assert len(printable("x" * 10_000)) < 200


def test_chain_of_more_bytes_than_certificates_have_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no chain"):
        chain_of(der(made()) + bytes(MAX_CHAIN_BYTES))


def test_own_certificate_that_many_want_at_once_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "opcua"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(own, [folder] * 4))
    assert len({fingerprint(one.certificate) for one in found}) == 1
    assert len(list((folder / CERTIFICATE).parent.iterdir())) == 1


def test_own_certificate_with_another_key_says_what_to_do(tmp_path: Path) -> None:
    own(tmp_path)
    (tmp_path / KEY).write_bytes(pem_of(key()))
    with pytest.raises(ConfigError, match="do not belong together; `edge-agent cert renew`"):
        own(tmp_path)


def test_chain_through_an_issuer_needs_every_signature_and_every_date(tmp_path: Path) -> None:
    root = made("root", ca=True, own_key=key(1))
    middle = made("middle", ca=True, own_key=key(2), issuer=("root", key(1)))
    server = made(issuer=("middle", key(2)))
    put(tmp_path, "trusted", root)
    assert "is not trusted" in refused(tmp_path, server, middle), "what the server sends along completes nothing"
    put(tmp_path, "issuer", middle)
    TrustStore(tmp_path).check([server, middle], PLC, "127.0.0.1", URI)
    forged = made(issuer=("middle", key(3)))
    assert "is not trusted" in refused(tmp_path, forged)
    old = made("old", ca=True, own_key=key(3), issuer=("root", key(1)), days=(-9, -1))
    put(tmp_path, "issuer", old)
    assert "has expired" in refused(tmp_path, made(issuer=("old", key(3))))


def test_certificate_signed_by_a_trusted_server_is_not_trusted(tmp_path: Path) -> None:
    put(tmp_path, "trusted", made("plc-1", own_key=key(1)))
    assert "is not trusted" in refused(tmp_path, made(issuer=("plc-1", key(1)))), "it is no authority"


def _signed_with_sha1(folder: Path) -> x509.Certificate:
    """Of the authority with key 1; cryptography itself signs so no more."""
    (folder / "ca.key").write_bytes(pem_of(key(1)))
    (folder / "ca.der").write_bytes(der(made("authority", ca=True, own_key=key(1))))
    (folder / "leaf.key").write_bytes(pem_of(key()))
    for command in (
        "openssl x509 -inform der -in ca.der -out ca.pem",
        "openssl req -new -key leaf.key -subj /CN=old -out leaf.csr",
        "openssl x509 -req -sha1 -in leaf.csr -CA ca.pem -CAkey ca.key -set_serial 7 -out leaf.pem",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return x509.load_pem_x509_certificate((folder / "leaf.pem").read_bytes())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_authority_counts_only_where_it_may_sign_and_its_signature_cannot_be_forged(tmp_path: Path) -> None:
    put(tmp_path, "trusted", made("authority", ca=True, own_key=key(1)))
    signed: dict[str, Any] = {"issuer": ("authority", key(1))}
    TrustStore(tmp_path).check([made("good", **signed)], PLC, "127.0.0.1", URI)
    assert "is not trusted" in refused(tmp_path, _signed_with_sha1(tmp_path))
    put(tmp_path / "two", "trusted", made("authority", ca=True, own_key=key(1), signs=False))
    assert "is not trusted" in refused(tmp_path / "two", made("good", **signed))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be misled into another user's link")
def test_root_does_not_follow_a_link_that_the_agents_user_made(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "data"
    for one in (elsewhere, folder):
        one.mkdir()
    os.chown(folder, 12_345, 12_345)
    (folder / "own").symlink_to(elsewhere)
    os.chown(folder / "own", 12_345, 12_345, follow_symlinks=False)
    with pytest.raises(ConfigError, match="is a link that is not root's"):
        own(folder)
    assert not list(elsewhere.iterdir())
    (folder / "own").unlink()
    made_first = own(folder)
    victim = elsewhere / "victim"
    victim.write_bytes(b"mine")
    (folder / KEY).with_name(KEY.name + ".new").symlink_to(victim)
    assert OpcuaDriver.renew(folder).fingerprint != fingerprint(made_first.certificate)
    assert (victim.read_bytes(), victim.stat().st_uid) == (b"mine", 0)


def test_files_of_others_in_the_folders_are_no_certificates(tmp_path: Path) -> None:
    server = made()
    put(tmp_path, "trusted", server)
    (tmp_path / "trusted" / "certs" / "README.txt").write_text("put them here")
    (tmp_path / "trusted" / "certs" / "key.pem").write_bytes(pem_of(key()))
    TrustStore(tmp_path).check([server], PLC, "127.0.0.1", URI)


def test_chain_as_a_server_sends_it_is_taken_apart() -> None:
    one, two = made("one"), made("two")
    assert [each.subject for each in chain_of(der(one) + der(two))] == [name("one"), name("two")]
    for wrong in (b"", b"\x30", b"\x30\x82\xff\xff\x00", b"GET / HTTP"):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, it is no certificate
            chain_of(wrong)


def test_certificate_that_ends_soon_is_spoken_of() -> None:
    assert expiring([("the server's", made(days=(-1, 60)))]) == []
    (told,) = expiring([("the server's", made(days=(-1, 7)))])
    assert told.startswith("the server's certificate ends in 6 days")
