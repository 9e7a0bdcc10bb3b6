"""The daemon: wires the lanes of one agent in one TaskGroup, answers its verbs, and ends in good order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Literal

from edge_agent import __version__, bases, control, record, registry, systemd
from edge_agent.backfill import Backfill, recalled
from edge_agent.clock import Clock, SystemClock
from edge_agent.config import Configuration
from edge_agent.config.models import AgentSettings
from edge_agent.contract import ConfigError, Device, Driver, HasHistory, Tag
from edge_agent.envelope import Envelope
from edge_agent.health import Health
from edge_agent.housekeeping import Housekeeper
from edge_agent.intake import Intake, TagState
from edge_agent.ledger import Ledger
from edge_agent.machines import tags_of
from edge_agent.outbox import StoreOutbox
from edge_agent.poller import Link
from edge_agent.settling import Settling, recalled_offset
from edge_agent.store import Issued, Store, StoreDamaged, StoreError, StoreThread
from edge_agent.store.identity import first_epoch
from edge_agent.summarizer import Summarizer
from edge_agent.summarizer.site import basis_of
from edge_agent.timeline import Timeline
from edge_agent.uplink import Uplink
from edge_agent.verbs import Verbs, muted_fact

log = logging.getLogger(__name__)

DRAIN_S = 5.0
"""How long a stopping agent waits for the broker to take what is still in the outbox."""
STALLED_NS = 45 * 1_000_000_000


def data_folder(settings: AgentSettings) -> Path:
    """Where this agent keeps its store: `agent.data`, else $STATE_DIRECTORY, else ./data."""
    state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    return settings.data or Path(state or "data")


class Agent:
    """One agent with a loaded configuration that is not fatally wrong."""

    def __init__(self, configuration: Configuration, clock: Clock | None = None) -> None:
        if configuration.agent is None or configuration.mqtt is None:
            raise ConfigError("the configuration has no agent or no mqtt section")
        self.configuration = configuration
        self._settings = configuration.agent
        self._mqtt = configuration.mqtt
        self._clock = Timeline(clock or SystemClock())
        self._stop = asyncio.Event()
        self._folder = data_folder(self._settings)
        self._publisher = record.Publisher(
            agent=self._settings.name,
            enterprise=self._settings.enterprise,
            site=self._settings.site,
            prefix=self._mqtt.topic_prefix,
            version=__version__,
            configuration=configuration.hash,
        )

        self._envelope = Envelope(self._publisher, self._clock)

    def stop(self) -> None:
        """End `run` in good order."""
        self._stop.set()

    async def run(self) -> None:
        """Read, store, summarize and forward until `stop`, SIGTERM or SIGINT.

        A store that turns out to be damaged is put aside, and everything begins anew with an empty one.

        Raises:
            StoreError: the data folder cannot be used, or another agent uses it.
            StoreDamaged: for the second time.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(ValueError):  # not in the main thread: a test stops the agent itself
                loop.add_signal_handler(number, self.stop)
        try:
            await self._run_with_a_store()
        except StoreDamaged:
            await self._run_with_a_store()

    async def _run_with_a_store(self) -> None:
        store = await asyncio.to_thread(Store, self._folder)
        self._thread = StoreThread(store, self._clock, self.configuration.buffer.commit)
        try:
            await self._thread.call(store.with_room, self._begin, store)
            await self._run_lanes(store)
        finally:
            await self._thread.close()
            systemd.notify("STATUS=stopped")
            log.info("stopped")

    def _begin(self, store: Store) -> None:
        self._alive = alive = store.fact("alive")
        self._clock.begin(alive, recalled_offset(store, alive, self._clock.monotonic()))
        self._started = now = self._clock.now()
        identity = store.begin(now, first_epoch=first_epoch(now))
        basis = bases.write(basis_of(self.configuration, self._publisher))
        store.remember_configuration(self.configuration.hash, self.configuration.document, now, basis)
        drawn_on = {tag for machine in self.configuration.machines.values() for tag in tags_of(machine)}
        tags = [
            (tag.name, tag.name in drawn_on) for device in self.configuration.devices.values() for tag in device.tags
        ]
        self._tag_ids = store.register(tags)
        self._recalled = {name: recalled(store, name, machine, alive) for name, machine in tags}
        disabled = {name.partition(".")[2] for name in self.configuration.disabled if name.startswith("devices.")}
        with store.transaction():
            store.readings.mark_misconfigured(disabled, now)
        log.info("%s %s: epoch %d, data in %s", self._settings.name, __version__, identity.epoch, self._folder)

    async def _run_lanes(self, store: Store) -> None:
        self._intake = Intake(self._tag_states())
        self._settling = Settling(self._clock, self._thread, self._intake)
        self._links = self._make_links()
        self._uplink = await self._make_uplink()
        self._summarizer = Summarizer(self.configuration, self._thread, self._uplink, self._publisher, self._clock)
        await self._thread.call(self._recall_muted)
        async with AsyncExitStack() as stack:
            socket = control.own_socket(self._settings.name, self._folder)
            verbs = Verbs(
                self.configuration, self._clock, self._thread, self._intake, self._links, self._uplink,
                self._summarizer, self._envelope, self._started,
            )  # fmt: skip
            await stack.enter_async_context(control.serving(socket, verbs.table()))
            uplink = asyncio.create_task(self._uplink.run(), name="uplink")
            try:
                await self._collect_and_summarize()
                await self._uplink.drain(DRAIN_S)
            finally:
                uplink.cancel()
                await asyncio.gather(uplink, return_exceptions=True)

    async def _collect_and_summarize(self) -> None:
        lanes = [
            asyncio.create_task(lane, name=name)
            for name, lane in (
                ("commit", self._thread.run()),
                ("clock", self._settling.run(self._links)),
                ("summarize", self._settling.after(self._summarizer.run)()),
                ("ledger", self._settling.after(self._ledger().run)()),
                ("health", self._health().run()),
                ("tidy", self._housekeeper().run()),
                ("watchdog", self._pet_watchdog()),
                *((f"link {link.key}", link.run()) for link in self._links),
            )
        ]
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        systemd.notify("READY=1", f"STATUS={len(self._links)} links, {len(self.configuration.machines)} machines")
        try:
            done, _ = await asyncio.wait([stop, *lanes], return_when=asyncio.FIRST_COMPLETED)
            systemd.notify("STOPPING=1")
            for ended in done - {stop}:
                ended.result()
        finally:
            for task in (stop, *lanes):
                task.cancel()
            await asyncio.gather(stop, *lanes, return_exceptions=True)
        self._settling.end()
        with suppress(StoreError):
            await self._settling.note_loss()
        if self._clock.settled:
            await self._summarizer.close_due()

    # --------------------------------------------------------------------------------------------- wiring

    def _ledger(self) -> Ledger:
        return Ledger(self._thread, self._envelope, self._clock, self._uplink.wake)

    def _housekeeper(self) -> Housekeeper:
        keeper = Housekeeper(self._thread, self.configuration.buffer, self._clock, self._alive)
        self._settling.when_settled.append(keeper.begin_to_age)
        return keeper

    def _health(self) -> Health:
        most = self.configuration.buffer.max_size
        return Health(self._links, self._intake, self._thread, self._uplink, self._envelope, self._clock, most)

    def _recall_muted(self) -> None:
        """Go on with the silence about devices that was asked for before the start."""
        for link in self._links:
            for figures in link.figures:
                figures.muted_until = self._thread.store.fact(muted_fact(figures.device)) or 0

    def _tag_states(self) -> dict[Tag, TagState]:
        drawn_on = {tag for machine in self.configuration.machines.values() for tag in tags_of(machine)}
        states = {
            tag: TagState(
                tag,
                self._tag_ids[tag.name],
                machine=tag.name in drawn_on,
                refresh_ns=self.configuration.buffer.refresh,
                max_skew_ns=device.settings.max_skew,
            )
            for device in self.configuration.devices.values()
            for tag in device.tags
        }
        for tag, state in states.items():
            state.lost_since, state.device_time = self._recalled[tag.name]
            state.lost_after = state.device_time
        return states

    def _make_links(self) -> list[Link]:
        shared: dict[tuple[type[Driver], str], list[Device]] = {}
        for device in self.configuration.devices.values():
            driver = registry.driver(device.settings.driver)
            shared.setdefault((driver, driver.link(device.settings)), []).append(device)
        return [self._make_link(key, devices) for (_, key), devices in shared.items()]

    def _make_link(self, key: str, devices: Sequence[Device]) -> Link:
        driver = registry.construct(devices, self._folder)
        fill = None
        if isinstance(driver, HasHistory):
            kept = self.configuration.buffer.keep_readings
            fill = self._settling.after(Backfill(driver, devices, self._intake, self._thread, self._clock, kept).run)
        return Link(key, driver, devices, self._intake, self._settling.append, self._clock, fill=fill)

    async def _make_uplink(self) -> Uplink:
        take = self._thread.store.take_number
        online, lost, stopped = [await self._thread.call(take) for _ in range(3)]
        said = self._status_event("online", None, online, self._started)
        return Uplink(
            self._mqtt,
            self._settings.name,
            StoreOutbox(self._thread, self._clock),
            status_topic=record.agent_topic(self._publisher, "status"),
            online=lambda: said,
            offline=self._status_event("offline", "connection_lost", lost, self._started),
            goodbye=lambda: self._status_event("offline", "stopped", stopped, self._clock.now()),
            clock=self._clock,
        )

    def _status_event(
        self, status: Literal["online", "offline"], reason: str | None, issued: Issued, since: int
    ) -> bytes:
        misconfigured = {name: str(faults[0]) for name, faults in self.configuration.disabled.items()}
        data = record.status_data(status, since, version=__version__, reason=reason, misconfigured=misconfigured)
        return self._envelope.freeze("status", self._publisher.subject, data, issued)

    # ---------------------------------------------------------------------------------------- housekeeping

    async def _pet_watchdog(self) -> None:
        """Tell systemd that the agent makes progress: its loop turns, its store commits, its summarizer wakes."""
        interval = systemd.watchdog_interval_s()
        while True:
            await asyncio.sleep(min(interval or 10.0, 10.0))
            now = self._clock.monotonic()
            stalled = [
                name
                for name, seen in (("store", self._thread.last_try), ("summarizer", self._summarizer.last_tick))
                if now - seen > STALLED_NS and (name == "store" or self._clock.settled)
            ]
            if stalled:
                log.error("no progress in: %s", ", ".join(stalled))
            elif interval:
                systemd.notify("WATCHDOG=1")
