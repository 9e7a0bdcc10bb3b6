"""`edge-agent browse`: what a device has, as a tree or as tags ready to paste."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.cli.common import ConfigOption, JsonOption, print_json
from edge_agent.cli.target import SetOption, Target, TargetArgument, folder_of, lacks, target_of

if TYPE_CHECKING:
    from edge_agent.contract import Browsed

_NAME_LIMIT = 64


def browse(
    target: TargetArgument,
    start: Annotated[str | None, typer.Argument(help="An address to begin at; default: the device's objects.")] = None,
    depth: Annotated[int, typer.Option(min=1, max=50, help="How many levels deep.")] = 10,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many things.")] = 1_000,
    yaml: Annotated[bool, typer.Option("--yaml", help="Print tags ready to paste.")] = False,
    security: Annotated[str | None, typer.Option(help="none, or policy/mode such as Basic256Sha256/Sign.")] = None,
    username: Annotated[str | None, typer.Option(help="Who to log in as; anonymous unless given.")] = None,
    password: Annotated[
        Path | None, typer.Option("--password-file", help="A file with the password, so that no list shows it.")
    ] = None,
    setting: SetOption = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Show the address space of an OPC UA server: names, types, units and values; `--yaml` prints tags to paste.

    Reads only, over a connection of its own.

    Example: `edge-agent browse opc.tcp://10.20.0.12:4840 --security none --yaml`
    """
    import json

    options: dict[str, Any] = {"security": security, "username": username}
    if password is not None:
        options["password"] = f"{{file: {json.dumps(str(password))}}}"
    found = target_of(target, "opcua", config, options, setting)
    things = _browsed(found, start, depth, limit, folder_of(config, found.name))
    if json_lines:
        for thing in things:
            print_json(_as_json(thing))
    elif yaml:
        _print_yaml(things)
    else:
        _print_tree(things)


def _browsed(target: Target, start: str | None, depth: int, limit: int, folder: Path) -> list[Browsed]:
    import asyncio
    from contextlib import aclosing

    from edge_agent.contract import Browses

    if not isinstance(target.driver, Browses):
        raise lacks(target, "browse")
    power: Browses = target.driver

    async def gather() -> list[Browsed]:
        async with aclosing(power.browse(target.settings, start, depth, limit, folder)) as things:
            return [thing async for thing in things]

    return asyncio.run(gather())


def _as_json(thing: Browsed) -> dict[str, Any]:
    from edge_agent.listing import plain

    return thing._asdict() | {"value": plain(thing.value), "quality": thing.quality.name.lower()}


def _print_tree(things: list[Browsed]) -> None:
    for thing in things:
        parts = [f"{'  ' * thing.depth}{thing.name}"]
        if thing.type is not None:
            parts.append(f": {thing.type}")
        if thing.address is not None and thing.cause is None:
            parts.append(f" = {_shown(thing.value)}" + (f" {thing.unit}" if thing.unit else ""))
        if thing.cause is not None:
            parts.append(f"  ({thing.cause})")
        if thing.history:
            parts.append("  [history]")
        print("".join(parts) + (f"   {thing.address}" if thing.address is not None else ""))


def _shown(value: Any) -> str:
    from edge_agent.listing import plain

    text = str(plain(value))
    return text if len(text) <= 40 else text[:39] + "…"


def _print_yaml(things: list[Browsed]) -> None:
    """Tags with names made of where they stand; what has no value a tag can have is a comment."""
    import json

    print("tags:")
    taken: set[str] = set()
    path: list[str] = []
    for thing in things:
        path[thing.depth :] = [thing.name]
        if thing.address is None:
            continue
        name = tag_name(path, taken)
        unit = f", unit: {json.dumps(thing.unit)}" if thing.unit else ""
        hint = f"   # {thing.type or ''}, now {_shown(thing.value)}" if thing.cause is None else f"   # {thing.cause}"
        off = "# " if (thing.cause or "").startswith("unsupported_type") else ""
        print(f"  {off}{name}: {{address: {json.dumps(thing.address, ensure_ascii=False)}{unit}}}{hint}")


def tag_name(path: list[str], taken: set[str]) -> str:
    """A name that a tag may have, from the names on the way to it: the last one, with more of them until it is new."""
    words = [re.sub(r"[^A-Za-z0-9]+", "_", word).strip("_").lower() or "tag" for word in path]
    for back in range(1, len(words) + 1):
        name = "_".join(words[-back:])[-_NAME_LIMIT:].lstrip("_-")
        if name not in taken:
            break
    number = 1
    while name in taken:
        number += 1
        name = f"{name[: _NAME_LIMIT - 5].rstrip('0123456789_')}_{number}"
    taken.add(name)
    return name
