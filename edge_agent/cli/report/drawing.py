"""A drawing from nothing to SVG: our settings alone, colours that follow the page, no address, no date."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import matplotlib
import matplotlib.style
import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, FAINT, PAPER = "#1a1b1c", "#5f6368", "#dadce0", "#fefefe"
"""Stand-ins: the page gives them the colours of its light or dark look."""
_THEME = {INK: "var(--ink)", MUTED: "var(--muted)", FAINT: "var(--faint)", PAPER: "var(--paper)"}
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none", "svg.image_inline": True, "path.simplify": True, "text.parse_math": False,
    "text.usetex": False, "font.family": ["DejaVu Sans"], "font.size": 7.5, "text.color": INK, "hatch.linewidth": 0.7,
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "axes.linewidth": 0.6, "axes.spines.top": False,
    "axes.spines.right": False, "axes.spines.left": False, "axes.axisbelow": True, "axes.xmargin": 0.0,
    "axes.unicode_minus": True, "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED, "xtick.major.width": 0.6, "xtick.major.size": 3, "ytick.major.size": 0,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}  # fmt: skip


_RECTANGLE = r"M (\S+) (\S+)\s+L (\S+) \2\s+L \3 (\S+)\s+L \1 \4\s+z"


def settings() -> Any:
    """A context in which the library draws our way, whatever the person's own settings say."""
    return matplotlib.style.context(["default", _SETTINGS])


def figure(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """An empty drawing of so many inches."""
    made = Figure(figsize=(width_in, height_in))
    FigureCanvasSVG(made)
    return made, made.add_subplot()


def drawn(made: Figure, name: str, label: str, *, left: float, right: float, bottom: float, top: float) -> str:
    """The SVG element of a drawing.

    Args:
        made: the drawing.
        name: unlike that of any other on the page, since names inside it come from it.
        label: what a person who cannot see it is told.
        left: margin in inches; `right`, `bottom`, `top` likewise.
        right: see `left`.
        bottom: see `left`.
        top: see `left`.
    """
    width_in, height_in = made.get_size_inches()
    made.subplots_adjust(left / width_in, bottom / height_in, 1 - right / width_in, 1 - top / height_in)
    written = io.StringIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": name}):
        warnings.filterwarnings("ignore", message="Glyph")  # only the width of the text is guessed then
        made.savefig(written, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _embedded(written.getvalue(), label)


def _embedded(svg: str, label: str) -> str:
    """An SVG file as an element of a page: no prologue, no metadata, no address, no names that nobody refers to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)  # that style would rule the whole page
    head, _, body = svg.partition(">")
    box = re.search(r'viewBox="([^"]*)"', head)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'(<g) id="[^"]*"', r"\1", body)
    body = re.sub(r' d="[^"]*"', lambda found: _compact(found[0]), body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    for stand_in, themed in _THEME.items():
        body = body.replace(stand_in, themed)
    body = re.sub(r">\s+<", ">\n<", body)
    return f'<svg viewBox="{box[1] if box else ""}" role="img" aria-label="{label}">{body}'.strip()


def _compact(path: str) -> str:
    """A path to a hundredth of a point, its upright rectangles in the short form."""
    path = re.sub(r"\d+\.\d{3,}", lambda digits: f"{float(digits[0]):.2f}".rstrip("0").rstrip("."), path)
    return re.sub(_RECTANGLE, r"M\1 \2H\3V\4H\1z", path)
