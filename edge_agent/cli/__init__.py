"""The command line: typer verbs, one small file for each family. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import logging
import sys

import typer

from edge_agent.cli.asyncapi import asyncapi
from edge_agent.cli.backtest import backtest
from edge_agent.cli.browse import browse
from edge_agent.cli.buffer import buffer
from edge_agent.cli.cert import cert
from edge_agent.cli.daemon import check, run
from edge_agent.cli.demo import demo
from edge_agent.cli.entry import device, entry
from edge_agent.cli.info import drivers, version
from edge_agent.cli.inspect import readings, records, status
from edge_agent.cli.read import read
from edge_agent.cli.replay import replay, verify
from edge_agent.cli.scan import decode, scan
from edge_agent.cli.schema import schema
from edge_agent.cli.shift_report import report
from edge_agent.cli.simulate import simulate
from edge_agent.cli.sniff import sniff
from edge_agent.cli.watch import watch
from edge_agent.contract import ConfigError, EdgeAgentError

EXIT_FAILED, EXIT_CONFIGURATION = 1, 78

app = typer.Typer(
    name="edge-agent",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From the machine's register to a production record that an ERP can post.",
    epilog="Exit codes: 0 good, 1 failed, 2 usage, 78 configuration, 130 interrupted.",
)
VERBS = (
    demo, simulate, run, check, schema, asyncapi, status, read, watch, browse, scan, decode, sniff, readings, records,
    replay, verify, backtest, report, drivers, version,
)  # fmt: skip
for verb in VERBS:
    app.command()(verb)
app.add_typer(entry, name="entry")
app.add_typer(device, name="device")
app.add_typer(cert, name="cert")
app.add_typer(buffer, name="buffer")


def main() -> None:
    """Run a verb; an error that the agent raised on purpose is one line, and its exit code says what kind it is."""
    try:
        app()
    except EdgeAgentError as error:
        print(f"edge-agent: {error}", file=sys.stderr)
        sys.exit(EXIT_CONFIGURATION if isinstance(error, ConfigError) else EXIT_FAILED)
    except BrokenPipeError:  # `edge-agent readings | head`
        sys.stderr.close()
        sys.exit(EXIT_FAILED)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Log lines for journald: no time of our own, since the journal has it; a terminal gets one."""
    stamp = "%(asctime)s " if sys.stderr.isatty() else ""
    logging.basicConfig(stream=sys.stderr, level=level, format=stamp + "%(levelname)s %(name)s: %(message)s")
