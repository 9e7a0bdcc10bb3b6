"""`edge-agent sniff`: what comes over a serial line, and a device to begin with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from edge_agent.cli.common import ConfigOption, JsonOption, print_json
from edge_agent.cli.target import refuse_held

if TYPE_CHECKING:
    from edge_agent.contract import Heard, Sniffs


def sniff(
    url: Annotated[str, typer.Argument(help="The port: /dev/serial/by-id/…, socket://host:port or rfc2217://….")],
    line: Annotated[str | None, typer.Option(help="Line settings: '2400 7E1'.", show_default="9600 8N1")] = None,
    request: Annotated[str, typer.Option(help=r"Send this each second and wait for answers: 'SI\r\n'.")] = "",
    duration: Annotated[str, typer.Option("--for", help="How long to listen.")] = "10 s",
    frames: Annotated[int, typer.Option(min=1, max=100_000, help="Stop after so many frames.")] = 100,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Show what comes over a serial line, frame by frame, then a device for the configuration that understands it.

    Writes nothing unless `--request` is given. A port that a running agent holds is refused.

    Example: `edge-agent sniff /dev/serial/by-id/usb-FTDI_… --line '2400 7E1'`
    """
    import asyncio

    from edge_agent import registry
    from edge_agent.contract import NS_PER_S, ConfigError, Sniffs, parse_duration

    refuse_held(url, config, "sniff")
    power = registry.driver("serial")
    if not isinstance(power, Sniffs):
        raise ConfigError("the installed driver `serial` cannot sniff")
    try:
        limit_s, asked = parse_duration(duration) / NS_PER_S, _bytes(request)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    heard = asyncio.run(_listen(power, url, line, asked, limit_s, frames, json_lines))
    if not heard:
        print(
            f"nothing came within {duration}: is the instrument on, is the cable right (crossed?), must it be asked "
            "(--request)?",
            file=sys.stderr,
        )
        sys.exit(1)
    suggestion = power.suggest(url, line, heard)
    if json_lines:
        print_json({"suggestion": suggestion.yaml, "notes": list(suggestion.notes)})
        return
    print()
    for note in suggestion.notes:
        print(f"# {note}")
    print(suggestion.yaml)


def _bytes(text: str) -> bytes:
    r"""A request as it is typed, in which \r, \n, \t and \x02 mean what they do in YAML's double quotes."""
    try:
        return text.encode("ascii").decode("unicode_escape").encode("latin-1")
    except UnicodeError as error:
        raise ValueError(f"{text!r}: only ASCII, with \\r, \\n, \\t and \\x02 for other bytes") from error


async def _listen(
    power: Sniffs, url: str, line: str | None, request: bytes, limit_s: float, frames: int, json_lines: bool
) -> list[Heard]:
    import asyncio
    from contextlib import aclosing, suppress

    heard: list[Heard] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s), aclosing(power.sniff(url, line, request)) as coming:
            async for one in coming:
                heard.append(one)
                _print(one, json_lines)
                if len(heard) >= frames:
                    break
    return heard


def _print(heard: Heard, json_lines: bool) -> None:
    from edge_agent.timestamps import rfc3339_ms

    at = rfc3339_ms(heard.time)
    if json_lines:
        print_json({"time": at, "hex": heard.data.hex(" "), "text": shown(heard.data), "end": shown(heard.end)})
    else:
        print(f"{at[11:-1]}  {shown(heard.data)}{shown(heard.end) or ' (silence)'}", flush=True)


def shown(data: bytes) -> str:
    r"""Bytes as text, with \r, \n and \x02 for what cannot be seen."""
    return repr(data.decode("latin-1"))[1:-1].replace("\\'", "'")
