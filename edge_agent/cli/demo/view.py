"""What the person in front of the demo sees: a live screen, plain lines where there is no terminal, or JSON."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edge_agent.cli.common import print_json
from edge_agent.cli.demo.books import Books, Compared
from edge_agent.cli.demo.stage import Stage
from edge_agent.uplink.subscriber import Received

COLOURS = {
    "producing": "green", "short_stop": "yellow", "delay": "yellow", "down": "red", "setup": "cyan", "idle": "cyan",
    "planned_stop": "blue", "not_scheduled": "blue", "unknown": "magenta",
}  # fmt: skip


class View(ABC):
    """One way of showing the demo; a context, so that a terminal is left as it was found."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    @abstractmethod
    def say(self, text: str) -> None:
        """Tell what happens."""

    @abstractmethod
    def show(self, status: dict[str, Any], received: Sequence[Received], books: Books) -> None:
        """Show the present state, and what has just arrived."""

    @abstractmethod
    def compare(self, comparison: Sequence[Compared]) -> None:
        """Show the reconciliation."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return


class JsonView(View):
    """Every event that the subscriber received, one a line, then the reconciliation."""

    def say(self, text: str) -> None:
        return

    def show(self, status: dict[str, Any], received: Sequence[Received], books: Books) -> None:
        for message in received:
            print_json(json.loads(message.payload))

    def compare(self, comparison: Sequence[Compared]) -> None:
        machines = {row.machine: {"made": row.made, "received": row.received} for row in comparison}
        print_json({"reconciliation": machines, "agrees": all(row.agrees for row in comparison)})


class PlainView(View):
    """Lines for a log: each 10 s record as it arrives."""

    def say(self, text: str) -> None:
        print(text, flush=True)

    def show(self, status: dict[str, Any], received: Sequence[Received], books: Books) -> None:
        for message in received:
            event = json.loads(message.payload)
            if event["type"] == "edge.production.v1" and event["data"]["window"] == "10s":
                print("  ".join(_record(event)), flush=True)

    def compare(self, comparison: Sequence[Compared]) -> None:
        for row in comparison:
            verdict = "agree" if row.agrees else "DIFFER"
            print(f"{row.machine}: {row.made} made, {row.received} in the records: they {verdict}", flush=True)


class LiveView(View):
    """A screen of devices, machines, newest records, buffer and uplink, drawn again twice a second."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.console = Console()
        self._live = Live(console=self.console, auto_refresh=False, transient=False)
        self._told = "starting …"

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def say(self, text: str) -> None:
        self._told = text
        self._live.console.print(f"[dim]{text}[/dim]")

    def show(self, status: dict[str, Any], received: Sequence[Received], books: Books) -> None:
        if status:
            self._live.update(self.screen(status, books), refresh=True)

    def screen(self, status: dict[str, Any], books: Books) -> Group:
        """Everything, on as many lines as the terminal has."""
        head = Text.assemble(
            ("Edge Agent ", "bold"), f"{status['version']}  ", (status["agent"], "bold"),
            f"   broker: {self._stage.broker_name}   ", (self._told, "dim"),
        )  # fmt: skip
        head.truncate(self.console.width, overflow="ellipsis")
        others = len(status["devices"]) + len(status["machines"]) + 13  # titles, frames, and the line of the cursor
        room = max(1, min(8, self.console.height - others))
        return Group(head, _devices(status), _machines(status, books), _records(books, room), _figures(status, books))

    def compare(self, comparison: Sequence[Compared]) -> None:
        table = Table("machine", "parts made", "parts received", "", title="Reconciliation", title_justify="left")
        for row in comparison:
            verdict = "[green]agree[/green]" if row.agrees else "[bold red]DIFFER[/bold red]"
            table.add_row(row.machine, str(row.made), str(row.received), verdict)
        self._live.console.print(table)


def _age(status: dict[str, Any], since: int | None) -> str:
    return "-" if since is None else f"{max(0, status['now'] - since) / 1e9:.0f} s"


def _shortened(text: str) -> Text:
    """A cell that gives way where the screen is narrow: its column may wrap, so it shrinks first, and it does not."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _devices(status: dict[str, Any]) -> Panel:
    table = Table.grid(padding=(0, 2), expand=False)
    for column in range(6):
        table.add_column(no_wrap=column != 2)
    for one in status["devices"]:
        state = "[green]connected[/green]" if one["connected"] else f"[red]lost[/red] {one['error'] or ''}"
        table.add_row(
            f"[bold]{one['device']}[/bold]", one["driver"], _shortened(one["link"]), state, _age(status, one["since"]),
            f"{one['readings']} readings",
        )  # fmt: skip
    return Panel(table, title="devices", title_align="left", border_style="dim")


def _machines(status: dict[str, Any], books: Books) -> Panel:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("machine", "state", "since", "parts", "good", "scrap", "OEE 10 s", "OEE all"):
        table.add_column(column, justify="left" if column in ("machine", "state") else "right", no_wrap=True)
    for one in status["machines"]:
        windows = books.of(one["machine"])
        state = one["state"] or "unknown"
        newest = max(windows, key=lambda data: str(data["start"]), default=None)
        table.add_row(
            f"[bold]{one['machine']}[/bold]", f"[{COLOURS[state]}]{state}[/{COLOURS[state]}]",
            _age(status, one["since"]), *(_total(windows, name) for name in ("produced", "good", "scrap")),
            _percent(newest["kpi"]["oee_index"] if newest else None), _percent(_oee(windows)),
        )  # fmt: skip
    return Panel(table, title="machines", title_align="left", border_style="dim")


def _total(windows: Sequence[dict[str, Any]], name: str) -> str:
    return str(sum(data["quantity"][name] or 0 for data in windows))


def _oee(windows: Sequence[dict[str, Any]]) -> float | None:
    """The OEE index over several windows: a ratio of sums, never a mean of ratios."""
    ideal_s = busy_s = 0.0
    for data in windows:
        times, planned_s = data["time_s"], data["definition"]["planned_run_time_per_item_s"]
        if planned_s is None or data["quantity"]["good"] is None:
            continue
        ideal_s += planned_s * (data["quantity"]["good"] - data["quantity"]["unobserved"])
        busy_s += sum(times.values()) - times["not_scheduled"] - times["planned_stop"] - times["unknown"]
    return ideal_s / busy_s if busy_s else None


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _record(event: dict[str, Any]) -> tuple[str, ...]:
    data = event["data"]
    revision = f" rev {data['revision']}" if data["revision"] else ""
    return (
        data["start"][11:19], data["machine"], data["window"] + revision, f"{data['quantity']['produced']} parts",
        f"OEE {_percent(data['kpi']['oee_index'])}", f"observed {_percent(data['completeness']['ratio'])}",
        event["id"],
    )  # fmt: skip


def _records(books: Books, room: int) -> Panel:
    table = Table.grid(padding=(0, 2))
    for column in range(7):
        table.add_column(no_wrap=column != 6)
    for event in books.newest[:room]:
        *cells, number = _record(event)
        table.add_row(*cells, _shortened(number))
    title = f"newest records, as a subscriber received them ({books.events})"
    return Panel(table, title=title, title_align="left", border_style="dim")


def _figures(status: dict[str, Any], books: Books) -> Panel:
    buffer, uplink = status["buffer"], status["uplink"]
    state = f"connected, MQTT {uplink['protocol']}" if uplink["connected"] else f"lost: {uplink['last_error']}"
    return Panel(
        f"buffer  {buffer['bytes'] / 1e6:.1f} MB, about {buffer['readings']} readings stored of {buffer['received']} "
        f"read, {buffer['waiting']} records wait\n"
        f"uplink  {state}; {uplink['accepted']} accepted, {uplink['in_flight']} in flight, {uplink['refused']} refused",
        title="buffer and uplink", title_align="left", border_style="dim",
    )  # fmt: skip
