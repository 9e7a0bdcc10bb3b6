"""`edge-agent backtest`: a configuration tried on recorded readings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edge_agent.cli.common import load_usable, parse_time, print_json, zone_of


def backtest(
    config: Annotated[Path, typer.Argument(help="The configuration directory.")],
    readings: Annotated[
        Path, typer.Argument(help="A CSV of readings, as `edge-agent readings` writes it; - is stdin.")
    ],
    entries: Annotated[
        Path | None,
        typer.Option(help="What people told meanwhile: entries as JSON lines.", exists=True, dir_okay=False),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Time goes on until then, not only to the last reading.")] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="A value holds until the next: for an export of changes.")
    ] = False,
    revisions: Annotated[
        bool, typer.Option("--revisions", help="All revisions, in order of issue, not only the last of each key.")
    ] = False,
) -> None:
    """Send recorded readings through the code of the daemon, and print the records that come out, one a line.

    The last revisions, sorted by key, for windows from the first to the last reading; after that all is unknown.
    Rows are in order of arrival. Time is that of the data: `received` where the CSV has it, else `time`.

    Example: `edge-agent backtest config/ yesterday.csv`
    """
    import asyncio
    import gc
    import logging
    from tempfile import TemporaryDirectory

    from edge_agent.backtest import Trial, read_entries
    from edge_agent.cli import log_to_stderr
    from edge_agent.contract import EdgeAgentError

    gc.set_threshold(20_000, 20, 100)  # rows end by their reference counts, as in `run`
    log_to_stderr(logging.WARNING)
    configuration = load_usable(config)
    for name, faults in configuration.disabled.items():
        print(f"edge-agent: {name} is left out: {faults[0]}", file=sys.stderr)
    with TemporaryDirectory(prefix="edge-agent-backtest-") as folder:
        told = [] if entries is None else read_entries(_lines(entries), str(entries))
        trial = Trial(
            configuration,
            Path(folder),
            until_ns=parse_time(until, zone_of(configuration)),
            hold=hold,
            revisions=revisions,
            told=told,
        )
        try:
            if str(readings) == "-":
                tried = asyncio.run(trial.run(sys.stdin, "stdin"))
            else:
                with readings.open(encoding="utf-8-sig", newline="") as lines:
                    tried = asyncio.run(trial.run(lines, str(readings)))
        except OSError as error:
            raise EdgeAgentError(f"{readings}: {error.strerror}; name a CSV of readings, or - for stdin") from error
        for complaint in tried.complaints():
            print(f"edge-agent: {complaint}", file=sys.stderr)
        for item in trial.records():
            print_json(item)


def _lines(path: Path) -> list[str]:
    from edge_agent.backtest import EntriesError

    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EntriesError(
            f"{path}: no JSON lines in UTF-8: {error}; `edge-agent records --json` writes them"
        ) from error
