"""The report in the terminal: whole at 80 columns, side by side at 110 and more, clear without colour and in a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from edge_agent.cli.report.charts_text import ASCII, bar, marks
from edge_agent.cli.report.looks import NEUTRAL, UNCLASSIFIED, look
from edge_agent.cli.report.model import HOUR_COLUMNS, WORK_COLUMNS, Figure, Report, Stop, read, top
from edge_agent.cli.report.words import MISSING, duration, number, percent, shortened

SIDE_BY_SIDE = 110
STOPS, REASONS = 8, 8
SHORT = {"availability": "avail.", "effectiveness": "effect.", "produced": "made", "not observed": "not seen"}
WARNED, MUTED = "bold #EE7733", "dim"


def printed(data: Mapping[str, Any], console: Console) -> None:
    """Print the report as wide as the console; letters that its encoding lacks are replaced."""
    report = read(data)
    width = console.width
    with console.capture() as captured:
        for block in _blocks(report, width):
            console.print(block)
    text = captured.get().replace("\u00a0", " ")
    if console.options.ascii_only:
        text = text.translate(ASCII).encode("ascii", "replace").decode()
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    console.file.write(text)
    console.file.flush()


def _blocks(report: Report, width: int) -> Iterable[RenderableType]:
    yield _head(report)
    yield ""
    yield _figures(report)
    yield from _section("States", _timeline(report, width))
    left, right = _section("Time by state", _parts(report)), _section("Time lost by reason", _losses(report, width))
    yield from _beside(left, right, width)
    stops, hours = _section(_stops_title(report), _stops(report, width)), _section("Hours", _hours(report))
    yield from (*stops, *hours)
    if report.work:
        yield from _section("Jobs", _table(WORK_COLUMNS, report.work, range(2, 6), (0, 1)))
    if report.by_reason:
        yield from _section("Scrap and rework by reason", _table(("", "reason", "items"), report.by_reason, (2,), (1,)))
    if report.notes:
        yield from _section("Notes", _table(("time", "by", "note"), report.notes, folded=(1, 2)))
    yield from _section("What is missing", _missing(report))


def _head(report: Report) -> RenderableType:
    lines = [
        Text.assemble((report.machine, "bold"), f" · {report.title}"),
        Text(report.when),
        Text(report.subject, style=MUTED),
    ]
    if report.running:
        lines.append(Text(report.running, style=WARNED))
    return Group(*(line for line in lines if line.plain))


def _figures(report: Report) -> RenderableType:
    oee = Text.assemble(("OEE ", "bold"), (report.oee.value, "bold"))
    oee.append(f" ({report.oee.note})\n" if report.oee.note else "")
    for sign, factor in zip(
        ("", " · ", " · ") if report.oee.note else (" = ", " × ", " × "), report.factors, strict=True
    ):
        oee.append(f"{sign}{factor.name} ", style=MUTED)
        oee.append(factor.value + (f" ({factor.note})" if factor.note and factor.note != report.oee.note else ""))
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(no_wrap=True, style=MUTED)
        table.add_column(overflow="fold")
    produced, good, scrap, rework = report.quantities
    stops, pace = report.stopped, report.pace
    for first, second in ((produced, good), (scrap, rework)):
        table.add_row(first.name, _told(first), second.name, _told(second))
    lines = (Text.assemble((name.ljust(10), MUTED), _told(one)) for name, one in (("stops", stops), ("pace", pace)))
    return Group(oee, table, *lines)


def _told(figure: Figure) -> Text:
    known = any(letter.isdigit() for letter in figure.value) or figure.value == "on goal"
    text = Text(figure.value, style="bold" if known else "")
    text.append(f" · {figure.note}" if figure.note else "", style="not bold dim")
    return text


def _timeline(report: Report, width: int) -> RenderableType:
    """The states on one line as heights in colour, their letters below, and the hours."""
    if not report.pieces:
        return Text("No states are known.", style=MUTED)
    columns = max(20, width - 6)
    found = marks(report, columns)
    strip, letters = Text("", no_wrap=True), Text("", no_wrap=True)
    for state, lesser in found:
        shown = look(state)
        strip.append(shown.glyph, style=shown.colour)
        other = look(lesser).letter if lesser else " "
        own = state != "producing"
        letters.append(shown.letter if own else other.lower(), style=look(state if own else lesser or state).colour)
    scale = [" "] * (columns + 6)
    for at, text in report.zone.hours(report.start, report.end):
        place = round((at - report.start) / (report.end - report.start) * columns)
        if "".join(scale[max(0, place - 1) : place + 5]).strip() == "":
            scale[place : place + 5] = list(text)
    step = duration((report.end - report.start) / columns)
    hint = f"Each mark {step}: the state longest in it; small letters: a part of it."
    return Group(strip, letters, Text("".join(scale).rstrip()[:width], style=MUTED), Text(hint, style=MUTED))


def _parts(report: Report) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for justify in ("left", "left", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for part in report.parts:
        if part.seconds:
            shown = look(part.state)
            table.add_row(
                Text(f"{shown.letter} {shown.glyph}", style=shown.colour), Text(shown.label), duration(part.seconds),
                percent(part.share), Text(bar(part.share or 0.0, 12), style=shown.colour),
            )  # fmt: skip
    return table if table.row_count else Text("No times are known.", style=MUTED)


def _losses(report: Report, width: int) -> RenderableType:
    if not report.losses:
        return Text("Stops are not recorded.", style=MUTED)
    table = Table.grid(padding=(0, 1))
    for justify in ("left", "right", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    most_s = max(loss.seconds for loss in report.losses) or 1.0
    longest = max(12, 24 if width >= SIDE_BY_SIDE else width - 42)
    for loss in top(report.losses, REASONS):
        bare = loss.kind == UNCLASSIFIED
        style = NEUTRAL if bare else look(loss.kind).colour
        often = "" if loss.stops is None else f"{number(loss.stops)}×"
        table.add_row(
            Text(shortened(loss.reason, longest), style="bold" if bare else ""), duration(loss.seconds), often,
            percent(loss.share, 0), Text(bar(loss.seconds / most_s, 12), style=style),
        )  # fmt: skip
    return table


def _stops_title(report: Report) -> str:
    more = len(report.stops) > STOPS
    return f"Longest stops ({STOPS} of {number(len(report.stops))})" if more else "Longest stops"


def _stops(report: Report, width: int) -> RenderableType:
    if not report.stops:
        return Text("None.", style=MUTED)
    rows = [_stop_row(report, stop, width) for stop in report.stops[:STOPS]]
    return _table(("begin", "end", "lasted", "state", "reason", "by"), rows, (2,))


def _stop_row(report: Report, stop: Stop, width: int) -> tuple[str, ...]:
    clock = report.zone.clock
    begin = ("… " if stop.start < report.start else "") + clock(stop.start, with_seconds=True)
    end = "open" if stop.end is None else clock(stop.end, with_seconds=True)
    reason = shortened(" · ".join(filter(None, (stop.reason, stop.work))), max(12, width - 56))
    return begin, end, stop.lasted, look(stop.state).label.partition(" (")[0], reason, stop.by or MISSING


def _hours(report: Report) -> RenderableType:
    if not report.hours:
        return Text("No hours are known.", style=MUTED)
    columns = ("hour", "", *(SHORT.get(name, name) for name in HOUR_COLUMNS))
    rows: list[tuple[str | Text, ...]] = [
        (f"{report.zone.clock(hour.start)}–{report.zone.clock(hour.end)}",
         Text("" if hour.oee is None else bar(hour.oee, 5), style=look("producing").colour), *hour.cells)
        for hour in report.hours
    ]  # fmt: skip
    return _table(columns, rows, range(2, 9))


def _missing(report: Report) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    for sentence in report.missing:
        table.add_row(Text("•"), Text(sentence))
    return table


def _section(title: str, content: RenderableType) -> list[RenderableType]:
    return ["", Text(title, style="bold"), content]


def _beside(left: Sequence[RenderableType], right: Sequence[RenderableType], width: int) -> Iterable[RenderableType]:
    if width < SIDE_BY_SIDE:
        return [*left, *right]
    table = Table.grid(padding=(0, 4))
    table.add_row(Group(*left), Group(*right))
    return [table]


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Iterable[int] = (), folded: Iterable[int] = ()
) -> RenderableType:
    """A table without lines around it; `right` are the columns flush right, `folded` those that take more lines."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=MUTED, pad_edge=False)
    aligned, wrapped = set(right), set(folded)
    for place, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if place in aligned else "left", no_wrap=place not in wrapped)
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table
