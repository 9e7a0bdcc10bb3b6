"""The report as one HTML file: style and charts inside, no script, nothing fetched, fit to be printed on A4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from edge_agent.cli.report.looks import LOOKS, UNKNOWN, look
from edge_agent.cli.report.missing import ALL_SEEN
from edge_agent.cli.report.model import HOUR_COLUMNS, WORK_COLUMNS, Figure, Report, Stop, read
from edge_agent.cli.report.words import MISSING, NBSP, duration, number, percent
from edge_agent.contract import EdgeAgentError

NO_CHARTS = "the charts of the page need matplotlib: pip install 'edge-agent[report]'"
STOPS = 15
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser may load for this file: nothing."""


def document(data: Mapping[str, Any]) -> str:
    """The report as the text of an HTML file.

    Raises:
        EdgeAgentError: matplotlib is not installed.
    """
    report = read(data)
    title = escape(f"{report.machine} · {report.title} · {report.when}")
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    body = "\n".join(part for part in (*_head(report), *_charts(report), *_tables(report)) if part)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _head(report: Report) -> Iterable[str]:
    yield (
        f"<header><h1>{escape(report.machine)} <span>· {escape(report.title)}</span></h1>"
        f'<p class="when">{escape(report.when)}</p><p>{escape(report.subject)}</p></header>'
    )
    if report.running:
        yield f'<p class="running">{escape(report.running)}</p>'
    produced, good, scrap, rework = report.quantities
    cards = (produced, good, report.pace, scrap, rework, report.stopped)
    yield f'<div class="cards">{_oee(report)}{"".join(map(_card, cards))}</div>'


def _oee(report: Report) -> str:
    factors = "".join(
        f"<dt>{escape(one.name)}</dt>"
        + (
            f'<dd class="why">{escape(one.note)}</dd>'
            if one.value == MISSING
            else f'<dd class="bar"><span style="width:{_width(one)}%"></span></dd><dd>{escape(one.value)}</dd>'
        )
        for one in report.factors
    )
    return (
        f'<div class="card oee"><span class="name">OEE index</span><b>{escape(report.oee.value)}</b>'
        f'<i>{escape(report.oee.note)}</i><dl class="factors">{factors}</dl></div>'
    )


def _width(factor: Figure) -> float:
    return max(0.0, min(100.0, float(factor.value.partition(NBSP)[0].replace("−", "-"))))


def _card(figure: Figure) -> str:
    kind = "card" if any(letter.isdigit() for letter in figure.value) or figure.value == "on goal" else "card none"
    note = f"<i>{escape(figure.note)}</i>" if figure.note else ""
    return (
        f'<div class="{kind}"><span class="name">{escape(figure.name)}</span><b>{escape(figure.value)}</b>{note}</div>'
    )


def _charts(report: Report) -> Iterable[str]:
    try:
        from edge_agent.cli.report import charts, drawing
    except ImportError as error:
        raise EdgeAgentError(NO_CHARTS) from error
    with drawing.settings():
        yield _section("States", charts.timeline(report) if report.pieces else _none("No states are known."))
        lost = charts.pareto(report) if report.losses else _none("Stops are not recorded.")
        counted = any(made is not None or good is not None for _, made, good in report.counts)
        made = charts.counts(report) if counted else _none("Not counted.")
        yield _pair(
            _section("Items against the goal" if report.expected is not None else "Items", made),
            _section("OEE by hour", charts.hours(report) if report.hours else _none("No hours are known.")),
        )
        unclassified = "unclassified last" if report.losses else ""
        yield _pair(_section("Time lost by reason", lost, unclassified), _states(report))


def _tables(report: Report) -> Iterable[str]:
    holes = report.missing != (ALL_SEEN,)
    told = "".join(f"<li>{escape(sentence)}</li>" for sentence in report.missing)
    kind = "missing holes" if holes else "missing"
    yield f'<section class="{kind}"><h2>What is missing</h2><ul>{told}</ul></section>'
    yield _stops(report)
    if report.hours:
        rows: list[tuple[str, ...]] = [
            (f"{report.zone.clock(hour.start)}–{report.zone.clock(hour.end)}", *hour.cells, hour.why)
            for hour in report.hours
        ]
        columns: tuple[str, ...] = ("hour", *HOUR_COLUMNS, "")
        if not any(hour.why for hour in report.hours):
            columns, rows = columns[:-1], [row[:-1] for row in rows]
        yield _section("Hours", _table(columns, rows, range(1, 8)))
    if report.work:
        yield _section("Jobs", _table(WORK_COLUMNS, report.work, range(2, 6)))
    if report.by_reason:
        yield _section("Scrap and rework by reason", _table(("what", "reason", "items"), report.by_reason, (2,)))
    if report.notes:
        yield _section("Notes", _table(("time", "by", "note"), report.notes))
    yield (
        f"<footer>{escape(report.as_of)} KPIs by ISO 22400-2:2014; OEE = availability × effectiveness × quality ratio. "
        "Time that was not observed, and items made in it, are in no ratio.</footer>"
    )


def _states(report: Report) -> str:
    rows = "".join(
        f"<tr><td>{_swatch(part.state)}{escape(look(part.state).label)}</td>"
        f'<td class="n">{duration(part.seconds)}</td><td class="n">{percent(part.share)}</td></tr>'
        for part in report.parts
        if part.seconds
    )
    head = '<thead><tr><th>state</th><th class="n">time</th><th class="n">share</th></tr></thead>'
    table = f"<table>{head}<tbody>{rows}</tbody></table>"
    return _section("Time by state", table if rows else _none("No times are known."))


def _swatch(state: str) -> str:
    if state == UNKNOWN or state not in LOOKS:
        return '<span class="swatch unknown"></span>'
    return f'<span class="swatch" style="background:{LOOKS[state].colour}"></span>'


def _stops(report: Report) -> str:
    if not report.stops:
        return ""
    columns: tuple[str, ...] = ("begin", "end", "lasted", "state", "reason", "said by", "job · product")
    shown = report.stops[:STOPS]
    rows = [_stop_row(report, stop) for stop in shown]
    if not any(stop.work for stop in shown):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    more = f"the {STOPS} longest of {number(len(report.stops))}" if len(report.stops) > STOPS else ""
    return _section("Longest stops", _table(columns, rows, (2,)), more)


def _stop_row(report: Report, stop: Stop) -> tuple[str, ...]:
    clock = report.zone.clock
    begin = clock(stop.start, with_seconds=True) + (" (before the shift)" if stop.start < report.start else "")
    end = "open" if stop.end is None else clock(stop.end, with_seconds=True)
    return begin, end, stop.lasted, look(stop.state).label, stop.reason, stop.by or MISSING, stop.work


def _section(title: str, content: str, note: str = "") -> str:
    small = f"<small>{escape(note)}</small>" if note else ""
    return f"<section><h2>{escape(title)}{small}</h2>{content}</section>"


def _pair(left: str, right: str) -> str:
    return f'<div class="pair">{left}{right}</div>'


def _none(text: str) -> str:
    return f'<p class="none">{escape(text)}</p>'


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table of text, everything in it escaped; the columns `right` are flush right."""
    aligned, flush = set(right), ' class="n"'

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{flush if at in aligned else ''}>{escape(cell)}</{tag}>" for at, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    head = f"<thead><tr>{cells('th', columns)}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'
