"""One measured figure, beside what it was measured and which bar it must keep."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One line of the table. The bar is for the ratio where there is a peer, else for the value."""

    name: str
    value: float
    unit: str
    peer: float | None = None
    beside: str = ""
    bar: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the peer's figure; None without a peer."""
        return self.value / self.peer if self.peer else None

    @property
    def verdict(self) -> str:
        """`ok` or `MISSED`; empty where there is no bar."""
        if self.bar is None:
            return ""
        judged = self.value if self.ratio is None else self.ratio
        return "ok" if judged <= self.bar else "MISSED"

    def as_json(self) -> dict[str, Any]:
        """The figure with what follows from it."""
        return asdict(self) | {"ratio": self.ratio, "verdict": self.verdict}


def middle(runs: Sequence[Sequence[Figure]]) -> list[Figure]:
    """The figures of several runs as one: of each, the run whose ratio (or value) is the median."""
    figures = []
    for same in zip(*runs, strict=True):
        ratios = [figure.ratio for figure in same if figure.ratio is not None]
        value = median(figure.value for figure in same)
        peer = value / median(ratios) if ratios else same[0].peer
        figures.append(replace(same[0], value=value, peer=peer))
    return figures


def table(figures: Sequence[Figure]) -> str:
    """The figures for people, in columns."""
    rows = [["figure", "value", "beside", "ratio", "bar", ""]]
    for figure in figures:
        beside = f"{_number(figure.peer)} {figure.beside}" if figure.peer is not None else figure.beside
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        bar = "" if figure.bar is None else f"≤ {figure.bar:g}"
        rows.append([figure.name, f"{_number(figure.value)} {figure.unit}", beside, ratio, bar, figure.verdict])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def document(figures: Sequence[Figure], seconds: float, repeats: int) -> str:
    """The figures as JSON, with the machine and the time."""
    told = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "seconds": seconds,
        "repeats": repeats,
        "figures": [figure.as_json() for figure in figures],
    }
    return json.dumps(told, indent=2, ensure_ascii=False)


def machine() -> str:
    """The machine in one line: processors, kernel, Python."""
    system = f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} × {_processor()}, {system}, Python {platform.python_version()}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.machine()


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
