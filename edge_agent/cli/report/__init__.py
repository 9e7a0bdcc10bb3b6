"""A shift report for people: in the terminal, and as one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["page", "print_report"]


def print_report(data: Mapping[str, Any], console: Console) -> None:
    """Print the report of a shift for whoever stands at the machine.

    Args:
        data: what the agent knows of the shift, as `edge_agent.cli.report.model.read` describes it.
        console: where to; its width, encoding and colours are respected.
    """
    from edge_agent.cli.report.terminal import printed

    printed(data, console)


def page(data: Mapping[str, Any]) -> str:
    """The report of a shift as one HTML file: nothing is fetched, the same data give the same bytes.

    Args:
        data: what the agent knows of the shift, as `edge_agent.cli.report.model.read` describes it.

    Raises:
        EdgeAgentError: the library that draws the charts is not installed.
    """
    from edge_agent.cli.report.page import document

    return document(data)
