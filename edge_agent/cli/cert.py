"""`edge-agent cert`: the certificates of the agent and of the servers that it trusts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.cli.common import ConfigOption, JsonOption, print_json, print_table
from edge_agent.cli.target import folder_of

if TYPE_CHECKING:
    from edge_agent.contract import CertificateFacts, Certificates

cert = typer.Typer(no_args_is_help=True, help="Certificates of OPC UA: show them, trust a server, renew the own one.")

FolderOption = Annotated[
    Path | None,
    typer.Option("--folder", help="The certificates' folder.", show_default="opcua in the agent's data folder"),
]


@cert.command()
def show(config: ConfigOption = None, folder: FolderOption = None, json_lines: JsonOption = False) -> None:
    """Show the own certificate, those that are trusted, and those that were refused.

    Example: `edge-agent cert show`
    """
    place = folder or folder_of(config, "opcua")
    found = _power().certificates(place)
    if json_lines:
        for one in found:
            print_json(_as_json(one))
    elif found:
        rows = [
            [one.store, one.fingerprint, one.subject, _day(one.valid_until), one.host or one.application_uri or ""]
            for one in found
        ]
        print_table(["store", "fingerprint", "subject", "valid until", "of"], rows)
    else:
        print(f"no certificates in {place}: the own one is made at the first secure connect, or by `cert renew`")


@cert.command()
def trust(
    fingerprint: Annotated[str, typer.Argument(help="The fingerprint of a rejected certificate, or its beginning.")],
    config: ConfigOption = None,
    folder: FolderOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Trust a server whose certificate was refused. Compare the fingerprint with what the server itself shows first.

    Example: `edge-agent cert trust 3f9a12c0a4d71be2`
    """
    one = _power().trust(folder or folder_of(config, "opcua"), fingerprint)
    if json_lines:
        print_json(_as_json(one))
        return
    print(f"trusted: {one.subject}, {one.fingerprint}, valid until {_day(one.valid_until)}; the next connect uses it")


@cert.command()
def renew(config: ConfigOption = None, folder: FolderOption = None, json_lines: JsonOption = False) -> None:
    """Make a new certificate for the agent; the old one is kept aside. Every server must trust the new one.

    Example: `edge-agent cert renew`
    """
    one = _power().renew(folder or folder_of(config, "opcua"))
    if json_lines:
        print_json(_as_json(one))
        return
    print(f"new: {one.file}, {one.fingerprint}, valid until {_day(one.valid_until)}; have the servers trust it")


def _power() -> Certificates:
    from edge_agent import registry
    from edge_agent.contract import Certificates, ConfigError

    power = registry.driver("opcua")
    if not isinstance(power, Certificates):
        raise ConfigError("the installed driver `opcua` keeps no certificates")
    return power


def _day(time: int) -> str:
    from edge_agent.timestamps import rfc3339_ms

    return rfc3339_ms(time)[:10]


def _as_json(one: CertificateFacts) -> dict[str, Any]:
    from edge_agent.timestamps import rfc3339_ms

    return one._asdict() | {
        "file": str(one.file), "valid_from": rfc3339_ms(one.valid_from), "valid_until": rfc3339_ms(one.valid_until),
    }  # fmt: skip
