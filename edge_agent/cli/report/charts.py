"""The charts of a report as SVG to stand inside a page: the same data give the same bytes, text stays text."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from matplotlib.transforms import Transform, blended_transform_factory

from edge_agent.cli.report.drawing import FAINT, INK, MUTED, PAPER, drawn, figure
from edge_agent.cli.report.looks import LOOKS, NEUTRAL, UNCLASSIFIED, UNKNOWN, look
from edge_agent.cli.report.model import Piece, Report, top
from edge_agent.cli.report.words import NBSP, duration, number, percent, shortened

WIDE_IN, HALF_IN = 7.6, 3.75
COLUMNS = 960
"""As many stretches as a timeline shows apart; finer ones are joined to their neighbours."""
REASONS = 8
HATCH = "/////"
_LANE, _STRIP = 0.62, 1.5


def timeline(report: Report) -> str:
    """All states on one strip, then a lane for each state with its time, so that it reads without colour."""
    lanes = [part for part in report.parts if any(piece.state == part.state for piece in report.pieces)]
    drawing, axes = figure(WIDE_IN, 0.78 + 0.2 * len(lanes))
    for state in {piece.state: None for piece in report.pieces}:
        pieces = [piece for piece in coarse(report) if piece.state == state]
        _bars(axes, pieces, report.start, -_STRIP, 1.0)
    for row, part in enumerate(lanes):
        pieces = joined([piece for piece in report.pieces if piece.state == part.state], _fine_s(report))
        _bars(axes, pieces, report.start, row, _LANE, edge=0.5)
        for place, told in ((1.125, duration(part.seconds)), (1.225, percent(part.share))):
            axes.text(place, row + _LANE / 2, told, transform=_beside(axes), va="center", ha="right")
        axes.text(-0.01, row + _LANE / 2, look(part.state).label, transform=_beside(axes), va="center", ha="right")
    axes.set_ylim(len(lanes), -_STRIP - 0.1)
    axes.set_yticks([])
    _time_axis(axes, report)
    return drawn(drawing, "timeline", "Timeline of the machine's states", left=1.25, right=1.22, bottom=0.24, top=0.04)


def pareto(report: Report) -> str:
    """Time lost by reason, most first; what has no reason comes last and is always there."""
    losses = top(report.losses, REASONS)
    drawing, axes = figure(HALF_IN, 0.31 * max(3, len(losses)))
    longest = max((loss.seconds for loss in losses), default=0.0) or 1.0
    for row, loss in enumerate(losses):
        bare = loss.kind == UNCLASSIFIED
        colour = NEUTRAL if bare else look(loss.kind).colour
        axes.barh(row, loss.seconds, 0.4, color="none" if bare else colour, edgecolor=colour, linewidth=0.8,
                  linestyle="--" if bare else "-")  # fmt: skip
        axes.text(0, row - 0.47, shortened(loss.reason, 32), va="center", color=INK)
        axes.text(longest, row - 0.47, loss.told, va="center", ha="right", color=MUTED)
    axes.set_ylim(max(3, len(losses)) - 0.7, -0.75)
    axes.set_xlim(0, longest)
    axes.set_yticks([])
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    return drawn(drawing, "pareto", "Time lost by reason", left=0.02, right=0.02, bottom=0.02, top=0.02)


def counts(report: Report) -> str:
    """What was made so far, beside what the goal expects."""
    drawing, axes = figure(HALF_IN, 2.15)
    times = [(at - report.start) for at, _, _ in report.counts]
    lines = (("produced", "-", LOOKS["producing"].colour), ("good", "--", MUTED))
    for place, (name, style, colour) in enumerate(lines):
        values = [row[place + 1] for row in report.counts]
        if any(value is not None for value in values):
            axes.plot(times, [float("nan") if value is None else value for value in values], style, color=colour,
                      linewidth=1.4 if style == "-" else 1.0, label=name)  # fmt: skip
    if report.expected is not None:
        line = list(_goal(report))
        axes.plot([at for at, _ in line], [made for _, made in line], ":", color=INK, linewidth=1.3, label="goal")
    for piece in report.pieces:
        if piece.state == UNKNOWN and piece.end - piece.start > _fine_s(report):
            axes.axvspan(piece.start - report.start, piece.end - report.start, facecolor="none", hatch=HATCH,
                         edgecolor=NEUTRAL, linewidth=0)  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.legend(loc="upper left", frameon=False, fontsize=7, handlelength=2.2, labelcolor=INK)
    _time_axis(axes, report, every=2)
    return drawn(drawing, "counts", "Items produced and good over the shift, with the goal", left=0.5, right=0.2,
                 bottom=0.24, top=0.08)  # fmt: skip


def hours(report: Report) -> str:
    """The OEE index of each hour; an hour without one says so, unobserved time is hatched."""
    drawing, axes = figure(HALF_IN, 2.15)
    highest = max([1.0, *(hour.oee for hour in report.hours if hour.oee is not None)])
    for place, hour in enumerate(report.hours):
        if hour.unknown_s and hour.end > hour.start:
            part = hour.unknown_s / (hour.end - hour.start)
            axes.bar(place, part * highest, 0.72, color="none", edgecolor=NEUTRAL, hatch=HATCH, linewidth=0)
        if hour.oee is None:
            axes.text(place, 0.02 * highest, "no OEE", ha="center", va="bottom", rotation=90,
                      bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1})  # fmt: skip
            continue
        axes.bar(place, hour.oee, 0.72, color=LOOKS["producing"].colour)
        axes.text(place, hour.oee + 0.015 * highest, f"{hour.oee * 100:.0f}", ha="center", va="bottom",
                  fontsize=7.5 if len(report.hours) <= 12 else 5.5)  # fmt: skip
    axes.set_ylim(0, highest * 1.12)
    axes.set_xlim(-0.6, max(len(report.hours), round((report.end - report.start) / 3600), 1) - 0.4)
    axes.yaxis.set_major_locator(MultipleLocator(0.25 if highest < 2 else 1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.0f}{NBSP}%"))
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    every = max(1, round(len(report.hours) / 8))
    places = range(0, len(report.hours), every)
    axes.set_xticks(list(places), [report.zone.clock(report.hours[place].start) for place in places])
    return drawn(drawing, "hours", "OEE index by hour", left=0.5, right=0.2, bottom=0.24, top=0.08)


def coarse(report: Report, columns: int = COLUMNS) -> tuple[Piece, ...]:
    """The timeline with no more stretches than columns: where it is finer, each column has the state it has longest."""
    if len(report.pieces) <= columns or report.until <= report.start:
        return report.pieces
    step = (report.until - report.start) / columns
    times: list[dict[str, float]] = [{} for _ in range(columns)]
    for piece in report.pieces:
        first = min(columns - 1, int((piece.start - report.start) / step))
        for column in range(first, min(columns, int((piece.end - report.start) / step) + 1)):
            begin = report.start + column * step
            part = min(piece.end, begin + step) - max(piece.start, begin)
            times[column][piece.state] = times[column].get(piece.state, 0.0) + max(0.0, part)
    found = [max(column, key=lambda state: column[state]) if column else UNKNOWN for column in times]
    pieces = [Piece(report.start + at * step, report.start + (at + 1) * step, state) for at, state in enumerate(found)]
    return tuple(joined_same(pieces))


def joined_same(pieces: list[Piece]) -> Iterator[Piece]:
    """Neighbours of one state as one piece."""
    held: Piece | None = None
    for piece in pieces:
        if held is not None and held.state == piece.state:
            held = Piece(held.start, piece.end, held.state)
            continue
        if held is not None:
            yield held
        held = piece
    if held is not None:
        yield held


def joined(pieces: list[Piece], gap_s: float) -> list[Piece]:
    """Pieces of one state, those as one that lie closer than the eye can part."""
    found: list[Piece] = []
    for piece in pieces:
        if found and piece.start - found[-1].end < gap_s:
            found[-1] = Piece(found[-1].start, piece.end, piece.state)
        else:
            found.append(piece)
    return found


def _fine_s(report: Report) -> float:
    return (report.end - report.start) / COLUMNS


def _beside(axes: Axes) -> Transform:
    return blended_transform_factory(axes.transAxes, axes.transData)


def _bars(axes: Axes, pieces: list[Piece], start: float, bottom: float, height: float, edge: float = 0.0) -> None:
    """Stretches of one state as one path: a broken bar that stays small. `edge` keeps the shortest visible."""
    state = pieces[0].state if pieces else UNKNOWN
    vertices: list[tuple[float, float]] = []
    codes: list[int] = []
    for piece in pieces:
        left, right = piece.start - start, piece.end - start
        vertices += [(left, bottom), (right, bottom), (right, bottom + height), (left, bottom + height), (left, bottom)]
        codes += [int(Path.MOVETO), *[int(Path.LINETO)] * 3, int(Path.CLOSEPOLY)]
    if not vertices:
        return
    unknown = look(state).glyph == LOOKS[UNKNOWN].glyph
    axes.add_patch(PathPatch(
        Path(vertices, codes), facecolor="none" if unknown else look(state).colour, hatch=HATCH if unknown else None,
        edgecolor=NEUTRAL if unknown else look(state).colour, linewidth=0.4 if unknown else edge, snap=False,
    ))  # fmt: skip


def _goal(report: Report) -> Iterator[tuple[float, float]]:
    """The way to what is expected by now: it rises while the machine is not planned to stand still."""
    off = {"planned_stop", "not_scheduled"}
    planned = sum(piece.end - piece.start for piece in report.pieces if piece.state not in off)
    done = 0.0
    yield 0.0, 0.0
    for piece in joined_same([Piece(one.start, one.end, "off" if one.state in off else "on") for one in report.pieces]):
        done += piece.end - piece.start if piece.state == "on" else 0.0
        yield piece.end - report.start, (report.expected or 0.0) * (done / planned if planned else 1.0)


def _time_axis(axes: Axes, report: Report, every: int = 1) -> None:
    marks = [mark for place, mark in enumerate(report.zone.hours(report.start, report.end)) if place % every == 0]
    axes.set_xlim(0, report.end - report.start)
    axes.set_xticks([at - report.start for at, _ in marks], [text for _, text in marks])
    if report.until < report.end:
        axes.axvline(report.until - report.start, color=INK, linewidth=0.9)
        axes.text(report.until - report.start, 0.98, f"{NBSP}now", transform=axes.get_xaxis_transform(), va="top")
