"""`edge-agent demo`: a simulated plant, a broker, the agent, and what a subscriber receives of it."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge_agent.cli.common import JsonOption

if TYPE_CHECKING:
    from edge_agent.cli.demo.books import Books
    from edge_agent.cli.demo.stage import Stage
    from edge_agent.cli.demo.view import View

CLOSING_S = 20.0
"""How long after the freeze the last windows may take: ten seconds of window, five to settle, the rest to travel."""
TURN_S = 0.5


def demo(
    duration: Annotated[
        str | None, typer.Option("--for", help="End by itself after this long, such as 90s, and compare the parts.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another number is another life of the machines.")] = 1,
    broker: Annotated[
        Literal["mosquitto", "amqtt"] | None,
        typer.Option(help="Default: mosquitto where it is installed, else amqtt, which comes with the agent."),
    ] = None,
    json_lines: JsonOption = False,
) -> None:
    """Show the whole path: simulated machines over their real protocols, the agent, a broker, and a live view.

    With --for the plant freezes in the end, and the parts that each machine made are compared with the sum over the
    10 s windows that the subscriber received; exit code 1 if they differ. Ctrl-C ends everything.

    Example: `edge-agent demo --for 90s`
    """
    from edge_agent.cli.demo.books import Books
    from edge_agent.cli.demo.stage import Stage
    from edge_agent.cli.demo.view import JsonView, LiveView, PlainView
    from edge_agent.contract import parse_duration

    try:
        until = None if duration is None else time.monotonic() + parse_duration(duration) / 1e9
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    # All as Ctrl-C, which a shell switches off for what it starts with `&`; a closed terminal leaves nothing behind.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    books = Books()
    agreed = True
    make_view = JsonView if json_lines else LiveView if sys.stdout.isatty() else PlainView
    with Stage(seed, broker) as stage, make_view(stage) as view:
        try:
            stage.open(view.say)
            _watch(stage, books, view, until)
            if until is not None:
                agreed = _reconcile(stage, books, view)
        except KeyboardInterrupt:
            view.say("stopping …")
    if not json_lines:
        print("everything is stopped")
    if not agreed:
        sys.exit(1)


def _watch(stage: Stage, books: Books, view: View, until: float | None) -> None:
    """Follow the plant until the time is over, or for ever."""
    while until is None or time.monotonic() < until:
        stage.check()
        books.enter(received := stage.subscriber.taken())
        view.show(stage.status(), received, books)
        time.sleep(TURN_S)


def _reconcile(stage: Stage, books: Books, view: View) -> bool:
    """Freeze the plant, wait for the last windows, and compare; whether all machines agree."""
    stage.freeze()
    frozen_ns = time.time_ns()
    view.say("the plant stands still; waiting for the last windows …")
    deadline = time.monotonic() + CLOSING_S
    truth = stage.truth()
    while time.monotonic() < deadline and not books.closed(frozen_ns, truth):
        stage.check()
        books.enter(received := stage.subscriber.taken())
        view.show(stage.status(), received, books)
        time.sleep(TURN_S)
    comparison = books.compare(truth)
    view.compare(comparison)
    return all(row.agrees for row in comparison)
