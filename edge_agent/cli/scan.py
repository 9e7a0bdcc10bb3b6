"""`edge-agent scan` and `edge-agent decode`: what a Modbus link has, and what its registers mean."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_agent.cli.common import ConfigOption, JsonOption, print_json, print_table
from edge_agent.cli.target import SetOption, Target, TargetArgument, lacks, refuse_held, target_of
from edge_agent.contract import ConfigError, EdgeAgentError

if TYPE_CHECKING:
    from edge_agent.contract import Decoding, ScanFinding, ScanRequest

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_REGISTERS = re.compile(r"(?:0x)?[0-9A-Fa-f]{4}(?:[\s,]+(?:0x)?[0-9A-Fa-f]{4})*")


def scan(
    driver: Annotated[str, typer.Argument(help="The driver: modbus.")],
    target: TargetArgument,
    ids: Annotated[str, typer.Option(help="The device ids to ask: 1-247, 1-10,17.")] = "1-10",
    tables: Annotated[str | None, typer.Option(help="Tables to look through: holding,input,coil,discrete.")] = None,
    addresses: Annotated[str, typer.Option(help="The addresses to try, counted from 0.")] = "0-999",
    setting: SetOption = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Look for devices, and for the addresses that they have: one polite read after the other, nothing is written.

    A link that a running agent holds is refused. A range is what the device answers to, not what it means.

    Example: `edge-agent scan modbus 'rtu:///dev/serial/by-id/usb-…?baud=9600' --ids 1-32 --tables holding,input`
    """
    from edge_agent.contract import ScanRequest

    found = target_of(target, driver, config, {}, setting)
    refuse_held(found.settings.url, config, "scan")
    first, last = _range(addresses, "--addresses")
    wanted = tuple(dict.fromkeys(number for part in ids.split(",") for number in _numbers(part, "--ids")))
    names = tuple(name.strip() for name in tables.split(",")) if tables else ()
    findings = _scanned(found, ScanRequest(wanted, names, first, last))
    for finding in findings if json_lines else ():
        print_json(finding._asdict())
    if not json_lines:
        _print_findings(findings, len(wanted))
    if not findings:
        sys.exit(1)


def _range(text: str, option: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text.strip())
    if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
        raise typer.BadParameter(f"{text!r} is no range; write 0-999", param_hint=option)
    return int(match[1]), int(match[2] or match[1])


def _numbers(text: str, option: str) -> range:
    first, last = _range(text, option)
    return range(first, last + 1)


def _scanned(target: Target, request: ScanRequest) -> list[ScanFinding]:
    import asyncio
    from contextlib import aclosing

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from edge_agent.contract import Scans

    if not isinstance(target.driver, Scans):
        raise lacks(target, "scan")
    power: Scans = target.driver
    findings: list[ScanFinding] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)

    async def go() -> None:
        task = progress.add_task("asking", total=None)
        async with aclosing(power.scan(target.settings, request)) as steps:
            async for step in steps:
                findings.extend(step.findings)
                progress.update(task, completed=step.done, total=step.total, description=step.doing)

    with progress:
        try:
            asyncio.run(go())
        except KeyboardInterrupt:
            print("edge-agent: ended early; this was found until then", file=sys.stderr)
    return findings


def _print_findings(findings: list[ScanFinding], asked: int) -> None:
    if not findings:
        print(f"none of {asked} device ids answered: check line settings, wiring (A and B exchanged?) and ids")
        return
    rows = []
    for one in findings:
        what = "answers" if one.table is None else f"{one.table}:{one.first} to {one.table}:{one.last}"
        rows.append([str(one.device_id), what, one.note])
    print_table(["device id", "found", ""], rows)


def decode(
    target: Annotated[str, typer.Argument(help="Registers in hex (47F1 2000), a URL, or a configured device.")],
    address: Annotated[str | None, typer.Argument(help="Where to read: holding:10 or 40011.")] = None,
    count: Annotated[int, typer.Option(min=1, max=16, help="How many registers to read.")] = 4,
    expect: Annotated[float | None, typer.Option(help="What the display shows; what fits is marked.")] = None,
    device_id: Annotated[int | None, typer.Option(min=0, max=255, help="The unit to ask.")] = None,
    setting: SetOption = None,
    config: ConfigOption = None,
    json_lines: JsonOption = False,
) -> None:
    """Show registers in every type and word order side by side, with what to write in YAML; `--expect` marks what fits.

    Example: `edge-agent decode tcp://10.20.0.11:502 holding:10 --expect 21.4`
    """
    import asyncio

    from edge_agent.contract import Decodes

    typed = _REGISTERS.fullmatch(target.strip()) is not None
    url = "tcp://registers.invalid" if typed else target
    found = target_of(url, "modbus", config, {"device_id": device_id}, setting)
    if not typed:
        refuse_held(found.settings.url, config, "decode")
    if not isinstance(found.driver, Decodes):
        raise lacks(found, "decode")
    power: Decodes = found.driver
    if typed:
        data = bytes.fromhex(re.sub(r"0x|[\s,]", "", target))
    elif address is None:
        raise typer.BadParameter("say which address to read, such as holding:10", param_hint="ADDRESS")
    else:
        data = asyncio.run(power.fetch(found.settings, address, count))
    decodings = power.decode(data)
    for one in decodings if json_lines else ():
        print_json({**one._asdict(), "settings": dict(one.settings), "fits": fits(one.value, expect)})
    if not json_lines:
        print(data.hex(" ", 2).upper() + "\n")
        _print_decodings(decodings, expect)
    if expect is not None and not any(fits(one.value, expect) for one in decodings):
        raise EdgeAgentError(f"nothing here means {expect:g}: try a neighbouring address, or more registers (--count)")


def fits(value: Any, expect: float | None) -> str | None:
    """How a value means what is expected: `as it is`, or with which power of ten as `scale`; None: it does not.

    A display rounds: half a unit of the last digit that was typed counts as the same, and never more than 0.5 %.
    """
    if expect is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    digits = len(f"{expect:.10g}".partition(".")[2])
    tolerance = min(0.5 * 10**-digits, abs(expect) * 0.005) if expect else 0.0
    for power in (0, -1, -2, -3, 1):
        if abs(value * 10.0**power - expect) <= tolerance * 1.000001:
            return "as it is" if power == 0 else f"scale: {10.0**power:g}"
    return None


def _print_decodings(decodings: list[Decoding], expect: float | None) -> None:
    rows = []
    for one in decodings:
        fit = fits(one.value, expect)
        mark = f"<- fits, {fit}" if fit else "" if one.plausible else "unlikely"
        yaml = ", ".join(f"{key}: {value}" for key, value in one.settings.items())
        shown = one.cause or (f"{one.value:.9g}" if isinstance(one.value, float) else str(one.value))
        rows.append([yaml, shown, mark])
    if not rows:
        raise ConfigError("these are too few bytes for any type")
    print_table(["in YAML", "value", ""], rows)
