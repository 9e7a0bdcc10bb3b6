"""Time elements: labelled spans cut to windows, in exact integers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def by_window(
    edges: NDArray[np.int64], labels: NDArray[np.int8], label_count: int, windows: Sequence[tuple[int, int]]
) -> list[list[int]]:
    """Nanoseconds of each label in each window: a row for each window, in it a number for each label.

    Windows may overlap and come in any order; what lies outside the edges counts for no label.

    Args:
        edges: int64, shape (n + 1,), ns, strictly increasing.
        labels: int8, shape (n,), from 0 to label_count - 1.
        label_count: how many labels there are.
        windows: half-open [start, end), in ns.
    """
    bounds = np.array(windows, np.int64).reshape(-1, 2)
    points = np.clip(bounds, edges[0], edges[-1])
    span = np.clip(np.searchsorted(edges, points, "right") - 1, 0, len(labels) - 1)
    into, lengths = points - edges[span], np.diff(edges)
    totals = np.zeros((len(bounds), label_count), np.int64)
    for label in np.flatnonzero(np.bincount(labels, minlength=label_count)):
        here = labels == label
        before = np.zeros(len(edges), np.int64)
        np.cumsum(np.where(here, lengths, 0), out=before[1:])
        until = before[span] + np.where(here[span], into, 0)
        totals[:, label] = until[:, 1] - until[:, 0]
    return totals.tolist()


def time_in(edges: NDArray[np.int64], mask: NDArray[np.bool_], windows: Sequence[tuple[int, int]]) -> list[int]:
    """Nanoseconds of each window in the spans of a mask; arguments as of `by_window`."""
    if not windows or not mask.any():
        return [0] * len(windows)
    return [row[1] for row in by_window(edges, mask.view(np.int8), 2, windows)]


def milliseconds(parts_ns: Sequence[int], total_ms: int | None = None) -> list[int]:
    """Parts in ns as whole milliseconds that sum to `total_ms`, by largest remainder (the earlier part wins a tie).

    Without `total_ms` they sum to the rounded sum of the parts.
    """
    if total_ms is None:
        total_ms = (sum(parts_ns) + 500_000) // 1_000_000
    floors = [part // 1_000_000 for part in parts_ns]
    short = total_ms - sum(floors)
    order = sorted(range(len(parts_ns)), key=lambda place: -(parts_ns[place] % 1_000_000))
    for place in order[:short]:
        floors[place] += 1
    return floors
