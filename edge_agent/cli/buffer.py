"""`edge-agent buffer`: carry what an agent has stored to a replacement gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_agent.cli.common import ConfigOption, JsonOption, load_usable, print_json

buffer = typer.Typer(no_args_is_help=True, help="The store as a whole: carry it to a replacement gateway.")


@buffer.command("export")
def export_(
    file: Annotated[Path, typer.Argument(help="The file to write, such as gw1.tar.gz; it must not exist.")],
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Write readings, records, entries, identity and OPC UA certificates to one file. The agent must be stopped.

    It holds private keys: keep it as you keep those.

    Example: `edge-agent buffer export gw1.tar.gz`
    """
    from edge_agent.store.transfer import export

    size = export(_folder(config), file)
    if json_lines:
        print_json({"file": str(file), "bytes": size})
    else:
        print(f"{file}: {size / 1e6:.1f} MB; on the new gateway: edge-agent buffer import {file.name}")


@buffer.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `buffer export` wrote.")],
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Put an export into the empty data folder of a new gateway: records that wait keep their identity.

    A new epoch begins. The old gateway must not run any more: two agents of one name would take each other's place at
    the broker.

    Example: `edge-agent buffer import gw1.tar.gz`
    """
    from edge_agent.store.transfer import bring_in

    folder = _folder(config)
    names = bring_in(file, folder)
    if json_lines:
        print_json({"folder": str(folder), "files": names})
    else:
        print(f"{len(names)} files are in {folder}; `edge-agent run` goes on with them")


def _folder(config: Path | None) -> Path:
    from edge_agent.agent import data_folder

    agent = load_usable(config).agent
    assert agent is not None  # noqa: S101 - load_usable has seen to it
    return data_folder(agent)
