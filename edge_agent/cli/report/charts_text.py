"""Bars and a timeline out of letters."""

from __future__ import annotations

from edge_agent.cli.report.looks import LOOKS, UNKNOWN
from edge_agent.cli.report.model import Report

_EIGHTHS = " ▏▎▍▌▋▊▉█"
LESSER = 0.1
"""The part of a mark from which a lesser state in it is told, by a small letter."""
_GLYPHS = {look.glyph: look.letter for look in LOOKS.values()}
ASCII = str.maketrans(
    _GLYPHS
    | {"·": "-", "–": "-", "−": "-", "×": "x", "…": "~", "•": "*", "≥": ">"}
    | dict.fromkeys(_EIGHTHS[4:8], "#") | dict.fromkeys(_EIGHTHS[1:4], " ")
    | {"█": "#"}
)  # fmt: skip
"""What stands in for letters where the encoding has none of them."""


def bar(share: float, columns: int) -> str:
    """A bar of at most so many columns; what is not nothing is seen."""
    eighths = round(min(1.0, max(0.0, share)) * columns * 8)
    if share > 0:
        eighths = max(1, eighths)
    whole, part = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[part] if part else "")


def marks(report: Report, columns: int) -> list[tuple[str, str | None]]:
    """For each column until now: the state that lasted longest, and the longest other one that is not producing."""
    step = (report.end - report.start) / columns if report.end > report.start else 1.0
    found: list[dict[str, float]] = [{} for _ in range(columns)]
    for piece in report.pieces:
        first = max(0, int((piece.start - report.start) / step))
        last = min(columns - 1, int((piece.end - report.start) / step))
        for column in range(first, last + 1):
            begin = report.start + column * step
            part = min(piece.end, begin + step) - max(piece.start, begin)
            if part > 0:
                found[column][piece.state] = found[column].get(piece.state, 0.0) + part
    return [_mark(times, step) for times in found if sum(times.values()) > 1e-6 * step]


def _mark(times: dict[str, float], step: float) -> tuple[str, str | None]:
    state = max(times, key=lambda name: times[name], default=UNKNOWN)
    others = {name: part for name, part in times.items() if name not in (state, "producing") and part >= LESSER * step}
    return state, max(others, key=lambda name: others[name], default=None)
