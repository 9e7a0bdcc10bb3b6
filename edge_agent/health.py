"""How the agent itself does: a retained latest value at the broker, told each minute."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from edge_agent import record
from edge_agent.contract import NS_PER_S
from edge_agent.envelope import Envelope
from edge_agent.intake import Intake
from edge_agent.poller import Link
from edge_agent.states import EXPIRY_S, REPEAT_NS
from edge_agent.store import StoreError, StoreThread
from edge_agent.timeline import Timeline
from edge_agent.uplink import Uplink

log = logging.getLogger(__name__)

SACRIFICED = "sacrificed."


class Health:
    """Tells how one agent does. `run` is a task of the agent."""

    def __init__(
        self, links: Sequence[Link], intake: Intake, thread: StoreThread, uplink: Uplink, envelope: Envelope,
        clock: Timeline, max_size: int,
    ) -> None:  # fmt: skip
        self._links = links
        self._intake = intake
        self._thread = thread
        self._uplink = uplink
        self._envelope = envelope
        self._clock = clock
        self._max_size = max_size
        self._began = clock.monotonic()

    async def run(self) -> None:
        """Tell it each minute, for ever."""
        while True:
            with suppress(StoreError):  # said by the store's thread
                await self.tell()
            await self._clock.sleep_until(self._clock.monotonic() + REPEAT_NS)

    async def tell(self) -> None:
        """Publish how it is now."""
        publisher = self._envelope.publisher
        figures, uplink = await self._thread.call(self._thread.store.figures), self._uplink.figures()
        data = record.health_data(
            uptime_s=(self._clock.monotonic() - self._began) // NS_PER_S,
            clock_ahead_s=round(self._clock.ahead_of_clock() / NS_PER_S, 3),
            devices={
                one.device: {
                    "connected": one.connected,
                    "polls": one.polls,
                    "skipped": one.skipped,
                    "readings": one.readings,
                    "bad_tags": len(one.bad),
                    "skew_s": self._skew_s(one.device),
                }
                for link in self._links
                for one in link.figures
            },
            buffer={
                "bytes": figures["bytes"],
                "max_bytes": self._max_size,
                "waiting": figures["waiting"],
                "dead_letters": figures["refused"],
                "dropped": self._thread.dropped,
                "sacrificed": await self._thread.call(self._thread.store.facts, SACRIFICED),
                "error": self._thread.failing,
            },
            uplink={
                "protocol": uplink.protocol,
                "accepted": uplink.accepted,
                "refused": uplink.refused,
                "slowed": uplink.slowed,
                "reconnects": uplink.reconnects,
            },
        )
        issued = await self._thread.call(self._thread.store.take_number)
        payload = self._envelope.freeze("health", publisher.subject, data, issued)
        self._uplink.publish_latest(record.agent_topic(publisher, "health"), payload, EXPIRY_S)

    def _skew_s(self, device: str) -> float | None:
        """How far a device's clock is from ours, by its newest times; None where it gives none."""
        found = [
            state.skew_ns
            for tag, state in self._intake.states.items()
            if state.device_time is not None and tag.name.partition(".")[0] == device
        ]
        return round(max(found, key=abs) / NS_PER_S, 3) if found else None
