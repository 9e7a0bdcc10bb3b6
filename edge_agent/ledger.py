"""The agent's own account of its records: hourly manifests of what it issued, gap records of what does not arrive."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_agent import record
from edge_agent.clock import Clock
from edge_agent.contract import NS_PER_S
from edge_agent.envelope import Envelope
from edge_agent.record import HOUR_NS, TopicDigest
from edge_agent.store import Draft, StoreError, StoreThread
from edge_agent.store.delivery import DAMAGED, DeadLetter, Issue
from edge_agent.store.losses import Loss, consecutive
from edge_agent.store.room import CAUSE as SACRIFICED
from edge_agent.timestamps import parse

log = logging.getLogger(__name__)

LOOK_NS = 5 * NS_PER_S
SOON_NS = NS_PER_S // 10
SLICE = 2_000
"""Records looked at in one go, so that no commit waits long."""
POSITION = "manifest_position"
"""The fact that remembers up to which record manifests have been issued."""

CAUSES = {0x87: "not_authorized", 0x90: "topic_invalid", 0x95: "too_large", 0x99: "payload_invalid", 0x100: "hangs_up",
          DAMAGED: "damaged"}  # fmt: skip
"""Why a record is a dead letter, by its reason code; `refused` for all others."""


@dataclass
class _Run:
    """Records that follow each other, of one epoch and one hour of issue."""

    epoch: int
    hour: int
    first: Issue
    last: Issue
    topics: dict[str, TopicDigest] = field(default_factory=dict)

    def add(self, issue: Issue) -> None:
        self.last = issue
        self.topics.setdefault(issue.topic, TopicDigest()).add(issue.sequence, issue.payload)


class Ledger:
    """Looks after the records of one store. `run` is a task of the agent."""

    def __init__(self, thread: StoreThread, envelope: Envelope, clock: Clock, wake: Callable[[], None]) -> None:
        self._thread = thread
        self._envelope = envelope
        self._clock = clock
        self._wake = wake
        self._run: _Run | None = None  # begun, and not yet over
        self._read: int | None = None  # the last position that is in it
        self._behind = False
        self._sacrifices_at = clock.monotonic()

    async def run(self) -> None:
        """Issue what is due, for ever."""
        while True:
            try:
                issued = await self._thread.call(self.look)
            except StoreError:
                issued = 0  # said by the store's thread; the next look tries again
            if issued:
                self._wake()
            await self._clock.sleep_until(self._clock.monotonic() + (SOON_NS if self._behind else LOOK_NS))

    def look(self) -> int:
        """Issue gap records for new dead letters, and the manifests of hours that are over; how many. In the store."""
        store, now = self._thread.store, self._clock.now()
        try:
            with store.transaction():
                drafts = [*self._gaps(), *self._manifests(now)]
                store.issue(drafts, self._freeze, now)
        except BaseException:  # what was read of records is undone with the transaction
            self._run = self._read = None
            raise
        return len(drafts)

    def _freeze(self, draft: Draft, issued: object) -> bytes:
        return self._envelope.freeze(draft.type, draft.subject, draft.data, issued, draft.configuration)  # type: ignore[arg-type]

    # ---------------------------------------------------------------------------------------------------- gaps

    def _gaps(self) -> Iterator[Draft]:
        letters = self._thread.store.delivery.unnamed(SLICE)
        for group in consecutive(letters, lambda one: ((one.epoch, one.topic, one.reason_code), one.sequence)):
            yield self._gap(group)
        self._thread.store.delivery.named(letters)
        early = self._clock.monotonic() < self._sacrifices_at  # what goes for room goes on: it is summed up meanwhile
        losses = self._thread.store.losses.pending(SLICE, but=SACRIFICED if early else "")
        if any(loss.cause == SACRIFICED for loss in losses):
            self._sacrifices_at = self._clock.monotonic() + HOUR_NS
        for loss in losses:
            yield self._gap_of(loss)
        self._thread.store.losses.named(losses)

    def _gap_of(self, loss: Loss) -> Draft:
        publisher = self._envelope.publisher
        records = None
        if loss.epoch is not None and loss.first is not None and loss.last is not None:
            records = (loss.epoch, loss.first, loss.last)
        data = record.gap_data(
            publisher.subject, loss.what, loss.start, loss.until, loss.cause,
            topic=loss.topic, count=loss.rows, records=records,
        )  # fmt: skip
        data["epoch"] = loss.epoch
        return self._draft(data)

    def _gap(self, group: Sequence[DeadLetter]) -> Draft:
        publisher, first, last = self._envelope.publisher, group[0], group[-1]
        data = record.gap_data(
            publisher.subject,
            "records",
            min(each.issued for each in group),
            max(each.issued for each in group) + 1,
            CAUSES.get(first.reason_code, "refused"),
            topic=first.topic,
            count=len(group),
            records=(first.epoch, first.sequence, last.sequence),
        )
        return self._draft(data)

    def _draft(self, data: dict[str, Any]) -> Draft:
        """The gap record; a further revision where it was told before, as of what was sent again and refused again.

        It never names less than the one before: of what that one named, only a part may have been sent again.
        """
        publisher = self._envelope.publisher
        before = self._thread.store.records.latest(data["key"])
        if before is not None:
            data["revision"] = before["revision"] + 1
            if data["first_sequence"] is not None:
                data["start"] = min(data["start"], before["start"], key=parse)
                data["end"] = max(data["end"], before["end"], key=parse)
                data["last_sequence"] = max(data["last_sequence"], before["last_sequence"])
                data["count"] = max(data["count"] or 0, before["count"] or 0) or None
        topic = record.agent_topic(publisher, "gap")
        return Draft("gap", topic, publisher.subject, data, data["key"], data["revision"])

    # ----------------------------------------------------------------------------------------------- manifests

    def _manifests(self, now: int) -> Iterator[Draft]:
        """A manifest of each run of records that is over: another hour or epoch follows, or the hour has passed."""
        store = self._thread.store
        if self._read is None:
            self._read = store.fact(POSITION) or 0
        found = store.delivery.issued_after(self._read, SLICE)
        self._behind = len(found) == SLICE
        for issue in found:
            hour = issue.issued // HOUR_NS
            if self._run is not None and (self._run.epoch, self._run.hour) != (issue.epoch, hour):
                yield self._manifest(self._run)
                self._run = None
            if self._run is None:
                self._run = _Run(issue.epoch, hour, issue, issue)
            self._run.add(issue)
            self._read = issue.position
        if self._run is not None and self._run.hour != now // HOUR_NS and not self._behind:
            yield self._manifest(self._run)
            self._run = None

    def _manifest(self, run: _Run) -> Draft:
        self._thread.store.set_fact(POSITION, run.last.position)
        publisher = self._envelope.publisher
        data = record.manifest_data(
            publisher.subject, run.epoch, run.hour, run.first.number, run.last.number, run.topics
        )
        return Draft("manifest", record.agent_topic(publisher, "manifest"), publisher.subject, data, data["key"])
