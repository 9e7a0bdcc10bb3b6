"""`edge-agent buffer`: the store as a whole: its figures, its soundness, its way to a replacement gateway."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_agent.cli.common import ConfigOption, JsonOption, load_usable, print_json

buffer = typer.Typer(no_args_is_help=True, help="The store as a whole: figures, check, salvage, another gateway.")


@buffer.command()
def show(config: ConfigOption = None, json_lines: JsonOption = False) -> None:
    """Say what the store holds, how much room it takes, and what had to go.

    Example: `edge-agent buffer show`
    """
    from edge_agent.store.proof import figures
    from edge_agent.timestamps import rfc3339_ms

    found = _asked(config, "buffer", figures)
    if json_lines:
        print_json(found)
        return
    print(f"{found['bytes'] / 1e6:.1f} MB on disk, {found['free_bytes'] / 1e6:.1f} MB of it free")
    print(f"about {found['readings']} readings; {found['waiting']} records wait, {found['refused']} are dead letters")
    alive = "never" if found["alive"] is None else rfc3339_ms(found["alive"])
    print(f"epoch {found['epoch']}, last sign of life {alive}")
    for name, count in found["sacrificed"].items():
        print(f"had to go for room: {count} {name.replace('_', ' ')}")
    if found["unnamed_losses"]:
        print(f"{found['unnamed_losses']} losses wait for their gap record")
    for name in found["kept_damaged"]:
        print(f"kept aside: {name}; edge-agent buffer salvage reads what it holds")


@buffer.command()
def check(
    config: ConfigOption = None,
    seconds: Annotated[float, typer.Option(help="How long at most; a running agent commits nothing meanwhile.")] = 10.0,
    json_lines: JsonOption = False,
) -> None:
    """Have SQLite check the database, and compare each record with its checksum. Exit code 1 when anything is wrong.

    Example: `edge-agent buffer check --seconds 60`
    """
    from edge_agent.store.proof import proved

    found = _asked(config, "prove", proved, seconds=seconds)
    sound = found["sqlite"] == "ok" and not found["altered"]
    if json_lines:
        print_json(found | {"sound": sound})
    else:
        print(f"SQLite: {found['sqlite']}; {found['records']} records, {found['altered']} of them altered on the disk")
        if not found["finished"]:
            print("it did not come to an end: give it more --seconds")
        if found["sqlite"] != "ok":
            print("edge-agent run keeps the file aside and goes on with what can be read of it")
    sys.exit(0 if sound else 1)


@buffer.command()
def salvage(
    damaged: Annotated[Path, typer.Argument(help="A database that was kept aside, such as edge-agent.db.damaged-1.")],
    folder: Annotated[Path, typer.Argument(help="A new folder for what can be read of it.")],
    json_lines: JsonOption = False,
) -> None:
    """Copy what can be read of a damaged database to a folder of its own, without a limit of time.

    `readings` and `records` list it with a configuration whose agent.data is that folder. The file is only read.

    Example: `edge-agent buffer salvage /var/lib/edge-agent/edge-agent.db.damaged-1 /tmp/salvaged`
    """
    from edge_agent.store.transfer import salvage_to

    rows = salvage_to(damaged, folder)
    if json_lines:
        print_json({"folder": str(folder), "rows": rows})
    else:
        told = ", ".join(f"{count} of {name}" for name, count in rows.items() if count)
        print(f"{folder}: {told or 'nothing could be read'}")
    sys.exit(0 if rows else 1)


@buffer.command("export")
def export_(
    file: Annotated[Path, typer.Argument(help="The file to write, such as gw1.tar.gz; it must not exist.")],
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Write readings, records, entries, identity and OPC UA certificates to one file. The agent must be stopped.

    It holds private keys: keep it as you keep those. Links in the data folder are left out, and named.

    Example: `edge-agent buffer export gw1.tar.gz`
    """
    from edge_agent.store.transfer import export

    links = export(_folder(config), file)
    size = file.stat().st_size
    if json_lines:
        print_json({"file": str(file), "bytes": size, "left_out": links})
    else:
        for link in links:
            print(f"left out, since it is a link: {link}; copy what it points to yourself, or make a file of it")
        print(f"{file}: {size / 1e6:.1f} MB; on the new gateway: edge-agent buffer import {file.name}")


@buffer.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `buffer export` wrote.")],
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Put an export into the empty data folder of a new gateway: records that wait keep their identity.

    All of it or nothing. A new epoch begins, by the clock: set it before. The old gateway must not run any more: two
    agents of one name would take each other's place at the broker.

    Example: `edge-agent buffer import gw1.tar.gz`
    """
    from edge_agent.store.transfer import bring_in

    folder = _folder(config)
    names = bring_in(file, folder, time.time_ns())
    if json_lines:
        print_json({"folder": str(folder), "files": names})
    else:
        print(f"{len(names)} files are in {folder}; `edge-agent run` goes on with them")


def _asked(config: Path | None, verb: str, look: Any, **arguments: Any) -> dict[str, Any]:
    """What the running agent says of its store, else the store itself."""
    from edge_agent import control
    from edge_agent.agent import data_folder
    from edge_agent.store import Store

    agent = load_usable(config).agent
    assert agent is not None  # noqa: S101 - load_usable has seen to it
    folder = data_folder(agent)
    if (socket := control.find(agent.name, folder)) is not None:
        patience_s = control.ANSWER_TIMEOUT_S + arguments.get("seconds", 0.0)
        (answer,) = control.ask(socket, verb, timeout_s=patience_s, **arguments)
        return dict(answer)
    with Store(folder, create=False) as store:
        return dict(look(store, **arguments))


def _folder(config: Path | None) -> Path:
    from edge_agent.agent import data_folder

    agent = load_usable(config).agent
    assert agent is not None  # noqa: S101 - load_usable has seen to it
    return data_folder(agent)
