"""What a machine worked on, and when: its products and its jobs, as spans without a hole between them.

A product is the text of its tag: a whole number in decimal, text without the blanks around it; an empty text is none.
It is not known where the tag is BAD or stale. Without a tag the product is the job's.

A job comes from a tag or from entries. The tag's job begins where its value becomes another one, and ends where it
becomes none: empty, 0 or false. It goes on where the tag is BAD, because an order does not end with a broken wire.
An entry begins a job and ends the one before; another entry ends it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter, itemgetter
from typing import NamedTuple

from edge_agent.contract import Value
from edge_agent.entries import Entry, of_kind
from edge_agent.equipment.timeline import Interval, Row, coverage, is_bad

Rows = Mapping[str, Sequence[Row]]


@dataclass(frozen=True, slots=True)
class WorkRules:
    """Where products and jobs come from, and how long an item of each product should take.

    `planned_run_time_ns` is the machine's own, for products that have none of their own and for no known product.
    """

    product_tag: str | None = None
    by_product_ns: Mapping[str, int] = field(default_factory=dict)
    planned_run_time_ns: int | None = None
    job_tag: str | None = None
    operation_tag: str | None = None
    planned_quantity_tag: str | None = None
    field_tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags whose rows it needs."""
        own = (self.product_tag, self.job_tag, self.operation_tag, self.planned_quantity_tag, *self.field_tags.values())
        return tuple(dict.fromkeys(tag for tag in own if tag is not None))

    def run_time_ns(self, product: str | None) -> int | None:
        """How long an item of a product should take, in ns; None where nobody says."""
        return (
            self.planned_run_time_ns if product is None else self.by_product_ns.get(product, self.planned_run_time_ns)
        )


class Job(NamedTuple):
    """A job in work from `start_ns` until `end_ns`; None: it goes on. `entry` began it; None: its tag did."""

    name: str
    start_ns: int
    end_ns: int | None
    entry: Entry | None = None
    ended_by: Entry | None = None

    @property
    def product(self) -> str | None:
        """The product that its entry names."""
        return None if self.entry is None else self.entry.body.get("product")


class Work(NamedTuple):
    """A span of one product and one job."""

    start_ns: int
    end_ns: int
    product: str | None
    job: str | None


def text_of(value: Value) -> str | None:
    """What a value says as the name of a product or job; None where it says nothing."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | bytes | tuple) or value is None:
        return None
    return str(value).strip().strip("\0") or None


def jobs(rules: WorkRules, rows: Rows, entries: Sequence[Entry], until_ns: int) -> list[Job]:
    """The jobs that begin before `until_ns`, in order, as far as rows and entries reach.

    Of a tag's job that began before its rows the first row stands for its start.
    """
    found = _by_tag(rows.get(rules.job_tag, ()), until_ns) if rules.job_tag else _by_entry(entries, until_ns)
    return [job for job in found if job.end_ns is None or job.start_ns < job.end_ns]


def _by_tag(rows: Sequence[Row], until_ns: int) -> list[Job]:
    found: list[Job] = []
    last: str | None = None
    for place, (time_ns, value, quality, _) in enumerate(rows):
        if time_ns >= until_ns:
            break
        if is_bad(value, quality) or (place + 1 < len(rows) and rows[place + 1][0] == time_ns):
            continue  # of several of one time the last counts
        name = None if value == 0 else text_of(value)
        if name == last:
            continue
        if found and found[-1].end_ns is None:
            found[-1] = found[-1]._replace(end_ns=time_ns)
        if name is not None:
            found.append(Job(name, time_ns, None))
        last = name
    return found


def _by_entry(entries: Sequence[Entry], until_ns: int) -> list[Job]:
    found: list[Job] = []
    for entry in sorted(of_kind(entries, "job-start", "job-end"), key=attrgetter("start_ns", "number")):
        if entry.start_ns >= until_ns:
            break
        if found and found[-1].end_ns is None:
            found[-1] = found[-1]._replace(end_ns=entry.start_ns, ended_by=entry)
        if entry.kind == "job-start":
            found.append(Job(entry.body["job"], entry.start_ns, None, entry))
    return found


def work(
    rules: WorkRules, rows: Rows, entries: Sequence[Entry], hold_ns: Mapping[str, int | None], within: Interval,
    known_until_ns: int,
) -> list[Work]:  # fmt: skip
    """What was worked on over `within`: spans in order, without a hole, each unlike the one before it."""
    known = jobs(rules, rows, entries, min(within[1], known_until_ns))
    at_job = [job.start_ns for job in known]
    bounds = {*within, *(time for job in known for time in (job.start_ns, job.end_ns or within[1]))}
    products = _products(rules, rows, hold_ns, within, known_until_ns)
    if products is not None:
        bounds.update(start for start, _ in products)
    edges = sorted(bound for bound in bounds if within[0] <= bound <= within[1])
    return _joined(_spans(edges, known, at_job, products))


def _spans(
    edges: Sequence[int], known: Sequence[Job], at_job: Sequence[int], products: list[tuple[int, str | None]] | None
) -> Iterator[Work]:
    for start, end in pairwise(edges):
        job = known[place - 1] if (place := bisect_right(at_job, start)) else None
        if job is not None and job.end_ns is not None and job.end_ns <= start:
            job = None
        if products is None:
            product = job.product if job else None
        else:
            product = products[bisect_right(products, start, key=itemgetter(0)) - 1][1]
        yield Work(start, end, product, job and job.name)


def _products(
    rules: WorkRules, rows: Rows, hold_ns: Mapping[str, int | None], within: Interval, known_until_ns: int
) -> list[tuple[int, str | None]] | None:
    """Since when which product; None without a tag."""
    if rules.product_tag is None:
        return None
    own = rows.get(rules.product_tag, ())
    edges, index = coverage(own, hold_ns.get(rules.product_tag), within, known_until_ns)
    texts = [None if is_bad(value, quality) else text_of(value) for _, value, quality, _ in own]
    return [(int(start), texts[place] if place >= 0 else None) for start, place in zip(edges[:-1], index, strict=True)]


def _joined(spans: Iterable[Work]) -> list[Work]:
    joined: list[Work] = []
    for span in spans:
        if joined and joined[-1][2:] == span[2:]:
            joined[-1] = joined[-1]._replace(end_ns=span.end_ns)
        else:
            joined.append(span)
    return joined


def last_known(rows: Sequence[Row], end_ns: int) -> Value:
    """The last good value of a tag before `end_ns`; None where there was none."""
    for _, value, quality, _ in reversed(rows[: bisect_left(rows, end_ns, key=itemgetter(0))]):
        if not is_bad(value, quality):
            return value
    return None
