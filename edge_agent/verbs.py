"""What the running agent answers to the verbs of the command line, over its socket."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from edge_agent import __version__, control, record
from edge_agent.config import Configuration
from edge_agent.contract import NS_PER_S, ConfigError
from edge_agent.desk import Desk, EntryRefused, Request
from edge_agent.envelope import Envelope
from edge_agent.intake import Intake
from edge_agent.listing import (
    Page,
    issued_page,
    readings_page,
    records_page,
    send_some_again,
    span_to_send_again,
    tag_as_read,
)
from edge_agent.poller import Link
from edge_agent.report import gathered
from edge_agent.store import StoreError, StoreThread, proof
from edge_agent.summarizer import Summarizer
from edge_agent.timeline import Timeline
from edge_agent.timestamps import rfc3339
from edge_agent.uplink import Uplink

log = logging.getLogger(__name__)

LONGEST_MUTE_NS = 31 * 86_400 * NS_PER_S
"""Nobody remembers longer that a device was muted."""


LONGEST_CHECK_S = 600.0


def muted_fact(device: str) -> str:
    """The name under which the store remembers until when nothing is logged of a device's being lost."""
    return f"muted.{device}"


class Verbs:
    """The verbs of one running agent."""

    def __init__(
        self, configuration: Configuration, clock: Timeline, thread: StoreThread, intake: Intake, links: Sequence[Link],
        uplink: Uplink, summarizer: Summarizer, envelope: Envelope, started: int,
    ) -> None:  # fmt: skip
        self._configuration = configuration
        self._clock = clock
        self._thread = thread
        self._intake = intake
        self._links = links
        self._uplink = uplink
        self._summarizer = summarizer
        self._started = started
        self._desk = Desk(summarizer.site, thread.store, envelope, clock)

    def table(self) -> dict[str, control.Verb]:
        """The verbs by their names on the socket."""
        return {
            "status": self._status,
            "readings": self._readings,
            "records": self._records,
            "issued": self._issued,
            "replay": self._replay,
            "buffer": self._buffer,
            "prove": self._prove,
            "read": self._read,
            "entry": self._entry,
            "mute": self._mute,
            "report": self._report,
        }

    async def _status(self, _: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        yield {
            "agent": self._summarizer.site.publisher.agent,
            "version": __version__,
            "pid": os.getpid(),
            "started": self._started,
            "now": self._clock.now(),
            "clock": self._clock.trust(),
            "clock_ahead_s": round(self._clock.ahead_of_clock() / NS_PER_S, 3),
            "settled": self._clock.settled,
            "cpu_s": round(time.process_time(), 3),
            "configuration": self._configuration.hash,
            "directory": str(self._configuration.directory),
            "devices": [asdict(figures) for link in self._links for figures in link.figures],
            "disabled": {
                name: [str(fault) for fault in faults] for name, faults in self._configuration.disabled.items()
            },
            "machines": self._summarizer.machine_figures(),
            "buffer": {
                **await self._thread.call(self._thread.store.figures),
                "received": self._intake.received,
                "stored": self._thread.rows_written,
                "dropped": self._thread.dropped,
                "committed": self._thread.committed,
                "error": self._thread.failing,
            },
            "uplink": asdict(self._uplink.figures()),
        }

    # -------------------------------------------------------------------------------------------- listings

    async def _readings(self, arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        async for item in self._pages(readings_page, arguments):
            yield item

    async def _records(self, arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        async for item in self._pages(records_page, arguments):
            yield item

    async def _issued(self, arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        async for item in self._pages(issued_page, arguments):
            yield item

    async def _buffer(self, _: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        yield await self._thread.call(proof.figures, self._thread.store)

    async def _prove(self, arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        seconds = min(float(arguments["seconds"]), LONGEST_CHECK_S)
        yield await self._thread.call(proof.proved, self._thread.store, seconds)

    async def _replay(self, arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        count, store = 0, self._thread.store
        after, last = await self._thread.call(span_to_send_again, store, arguments)
        try:
            while after < last:  # between two slices others have their turn
                some, after = await self._thread.call(send_some_again, store, arguments, after, last)
                count += some
        finally:
            await self._uplink.look_again()
        log.info("%d records are sent again, as %s asked", count, arguments["peer"])
        yield {"records": count}

    async def _pages(self, page: Page, arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        after: int | None = 0
        with suppress(StoreError):  # what is stored can be listed all the same
            await self._thread.flush()
        while after is not None:
            items, after = await self._thread.call(page, self._thread.store, arguments, after)
            for item in items:
                yield item

    async def _read(self, arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        name = self._device(arguments["device"])
        seen = next(figures.last_read for link in self._links for figures in link.figures if figures.device == name)
        for tag in self._configuration.devices[name].tags:
            yield tag_as_read(self._intake.states[tag], self._clock.now(), seen)

    def _device(self, name: str) -> str:
        if name not in self._configuration.devices:
            known = ", ".join(self._configuration.devices)
            raise ConfigError(f"no device {name!r} in the running configuration; there are: {known}")
        return name

    # --------------------------------------------------------------------------------------- what is told

    async def _entry(self, arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        request = Request.of(arguments)
        if not self._clock.settled:
            raise EntryRefused("the gateway's clock is not set, so nobody knows when this is: tell it again once it is")
        await self._thread.flush()
        entry = await self._thread.call(self._desk.take, request)
        log.info("%s: %s by %s", entry.machine, entry.kind, entry.by)
        self._summarizer.reopened(entry.machine, entry.start_ns)
        self._uplink.wake()
        publisher = self._summarizer.site.publisher
        settings = self._configuration.machines[entry.machine]
        subject = publisher.machine_subject(settings.area, settings.line, entry.machine)
        identity = self._thread.store.identity
        yield record.entry_data(subject, identity.epoch if identity else 0, entry)

    async def _mute(self, arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        name, duration = self._device(arguments["device"]), int(arguments["for_ns"])
        if not 0 <= duration <= LONGEST_MUTE_NS:
            raise ConfigError("a device is muted for at most 31 d at once; say so again when they are over")
        until = self._clock.now() + duration
        await self._thread.call(self._remember_muted, name, until)
        for link in self._links:
            for figures in link.figures:
                if figures.device == name:
                    figures.muted_until = until
        log.info("%s: muted until %s by %s", name, rfc3339(until), arguments["peer"])
        yield {"device": name, "muted_until": rfc3339(until), "by": arguments["peer"]}

    def _remember_muted(self, name: str, until: int) -> None:
        with self._thread.store.transaction():
            self._thread.store.set_fact(muted_fact(name), until)

    async def _report(self, arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        with suppress(StoreError):
            await self._thread.flush()
        yield await gathered(self._summarizer.site, self._thread, arguments, self._clock.now())
