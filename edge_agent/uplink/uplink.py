"""The loop of the uplink: connect, send, wait, connect again; which MQTT version; what is said about it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.clock import Clock, SystemClock
from edge_agent.config.models import MqttSettings
from edge_agent.contract import NS_PER_S
from edge_agent.uplink import words
from edge_agent.uplink.connection import MQTT_3_1_1, MQTT_5, Connection, MQTTProtocolVersion, Terms, Will
from edge_agent.uplink.expiry import Warnings
from edge_agent.uplink.limits import Limits
from edge_agent.uplink.messages import Latest
from edge_agent.uplink.parked import Parked
from edge_agent.uplink.poison import Suspects
from edge_agent.uplink.session import Session, Tally
from edge_agent.uplink.settle import Outbox, Settler, Waiting
from edge_agent.uplink.words import Lost

log = logging.getLogger("edge_agent.uplink")

_GROUP = 256
CERTIFICATES_NS = 6 * 3_600 * NS_PER_S
_CAUSES_LOGGED = 10
_PROBE_EVERY = 8
"""Of attempts that end without a word: each so many a bare CONNECT follows, to find out about the MQTT version."""
_CUT_SHORT = 3
"""So many connections running that soon ended with nothing in flight are those of two clients with one client id."""


@dataclass(frozen=True, slots=True)
class UplinkFigures:
    """The state of the uplink now, and counts since the agent's start. `since` is in nanoseconds since 1970 UTC."""

    connected: bool
    broker: str
    protocol: str | None
    since: int
    sent: int
    accepted: int
    refused: int
    no_subscriber: int
    slowed: int
    in_flight: int
    parked: tuple[str, ...]
    """Topics that wait by themselves, because the broker is busy for them or hangs up over them."""
    reconnects: int
    last_error: str | None


class Uplink:
    """Brings records from the outbox to the broker, and keeps the retained latest values there."""

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        outbox: Outbox,
        *,
        status_topic: str,
        online: Callable[[], bytes],
        offline: bytes,
        goodbye: Callable[[], bytes] | None = None,
        clock: Clock | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Opens nothing.

        Args:
            settings: the broker.
            client_id: the same at every connection, and no other client's.
            outbox: where the records wait.
            status_topic: the retained status of this agent.
            online: the status to publish, made at each connect.
            offline: the status that the broker publishes when this agent vanishes.
            goodbye: makes the status that the agent publishes when it stops; `offline` unless given.
            clock: the machine's own unless given.
            limits: the product's unless given.
        """
        self._settings = settings
        self._client_id = client_id
        self._outbox = outbox
        self._status_topic = status_topic
        self._online = online
        self._offline = offline
        self._goodbye = goodbye or (lambda: offline)
        self._clock = clock or SystemClock()
        self._limits = limits or Limits()
        self._settler = Settler(outbox, _GROUP, self._limits.settle_s)
        self._tally = Tally()
        self._suspects = Suspects()
        self._parked = Parked()
        self._expiry = Warnings()
        self._silenced: set[str] = set()
        self._latest: dict[str, Latest] = {}
        self._news = asyncio.Event()
        self._session: Session | None = None
        self._version: MQTTProtocolVersion = MQTT_3_1_1 if settings.version == "3.1.1" else MQTT_5
        self._five_again_at: int | None = None
        self._has_spoken_five = False
        self._since = self._clock.now()
        self._connections = 0
        self._failures = 0
        self._last_error: str | None = None
        self._causes: dict[str, int] = {}
        self._taken_over = False
        self._cut_short = 0
        self._broker = settings.url

    # ------------------------------------------------------------------------------------------- for the agent

    async def run(self) -> None:
        """Connect and deliver until cancelled, then say goodbye to the broker, within a limit."""
        while True:
            lasted_s = await self._connect_and_serve()
            await self._back_off(lasted_s)

    def wake(self) -> None:
        """Say that there are new records in the outbox."""
        self._news.set()

    async def look_again(self) -> None:
        """Say that records which had been answered for wait again, perhaps because the broker was put right."""
        self._parked.clear()
        if self._session is not None:
            self._session.look_again()

    def publish_latest(self, topic: str, payload: bytes, expiry_s: int | None) -> None:
        """Keep a retained value at the broker: sent when connected, again after each connect, never queued.

        Args:
            topic: its topic; a new value replaces the one before.
            payload: its bytes.
            expiry_s: the broker forgets it after this long (MQTT 5 only), and it is not sent later than that.
        """
        expires = None if expiry_s is None else self._clock.monotonic() + expiry_s * NS_PER_S
        if topic in self._silenced:
            return
        self._latest[topic] = Latest(topic, payload, expires)
        if self._session is not None:
            self._session.publish_latest(topic)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until nothing waits in the outbox; False if something still does after `timeout_s`. `run` must run."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._settler.settled.clear()
                    self.wake()
                    if not await self._outbox.waiting(-1, 1):
                        return True
                    await self._settler.settled.wait()
        except TimeoutError:
            return False

    def figures(self) -> UplinkFigures:
        """How the uplink is doing."""
        session, tally = self._session, self._tally
        return UplinkFigures(
            connected=session is not None,
            broker=self._broker,
            protocol=None if session is None else _named(self._version == MQTT_5),
            since=self._since,
            sent=tally.sent,
            accepted=tally.accepted,
            refused=tally.refused,
            no_subscriber=tally.no_subscriber,
            slowed=tally.slowed,
            in_flight=0 if session is None else session.in_flight,
            parked=self._parked.topics(),
            reconnects=max(0, self._connections - 1),
            last_error=self._last_error,
        )

    # ---------------------------------------------------------------------------------------------- connections

    async def _connect_and_serve(self) -> float:
        """One connection, from the name lookup to its end. Returns how long it lasted, in seconds."""
        began: int | None = None
        will = Will(self._status_topic, self._offline)
        version = self._choose_version()
        connection = Connection(self._settings, self._client_id, version, will, self._limits, self._acknowledged)
        self._broker = connection.where
        try:
            terms = await connection.open()
            began = self._clock.monotonic()
            await self._serve(connection, terms)
        except Lost as error:
            await connection.close()
            if began is None and await self._refuses_five(error):
                return await self._connect_and_serve()
            self._blame(error)
            self._say_lost(self._perhaps_taken_over(error, began))
        except Exception as error:  # the task of a broker connection: whatever fails, the next attempt begins anew
            self._say_lost(Lost(f"{self._broker}: {type(error).__name__}: {error}"))
            log.debug("details", exc_info=True)
        finally:
            self._session = None
            await connection.close()
        return 0.0 if began is None else (self._clock.monotonic() - began) / NS_PER_S

    def _perhaps_taken_over(self, error: Lost, began: int | None) -> Lost:
        """The error; or that another client has our client id, over which some brokers hang up without a word."""
        lasted = None if began is None else self._clock.monotonic() - began
        idle = self._session is not None and not self._session.in_flight
        if lasted is None or not idle or not error.by_broker or error.code not in (None, words.TAKEN_OVER):
            return error
        self._cut_short = self._cut_short + 1 if lasted < self._limits.stable_s * NS_PER_S else 0
        if self._cut_short < _CUT_SHORT or error.code is not None:
            return error
        return Lost(f"{error}; or {words.TAKEN_OVER_MEANS}", words.TAKEN_OVER, by_broker=True)

    def _blame(self, error: Lost) -> None:
        """Find out whether it was what was sent for which the broker hung up."""
        if self._session is None:
            return
        in_flight = self._session.in_flight_now()
        keys = [each.position if isinstance(each, Waiting) else each.topic for each in in_flight]
        condemned = self._suspects.lost(keys, error)
        if condemned is None:
            return
        what, code, reason = condemned
        (alone,) = in_flight
        if isinstance(what, int):
            self._tally.refused += 1
            self._settler.refuse(what, code, reason)
            limits, size, now = self._limits, len(alone.payload), self._clock.monotonic()
            self._parked.park(alone.topic, size, now, limits.poison_min_s, limits.poison_max_s)
            log.error(
                "a record is a dead letter, so that the others move on: %s; what else goes to %s and is as large waits "
                "for a while; edge-agent records --dead", reason, alone.topic,
            )  # fmt: skip
        else:
            self._silenced.add(what)
            self._latest.pop(what, None)
            log.error("%s is not published any more until the agent is restarted: %s", what, reason)

    async def _serve(self, connection: Connection, terms: Terms) -> None:
        if self._status_topic not in self._silenced:
            self._latest[self._status_topic] = Latest(self._status_topic, self._online(), None)
        session = Session(
            connection,
            terms,
            self._outbox,
            self._settler,
            self._latest,
            self._status_topic,
            self._news,
            self._limits,
            self._clock,
            self._tally,
            self._suspects,
            self._parked,
        )
        self._session = session
        self._say_connected()
        certificates = asyncio.create_task(self._watch_certificates(connection))
        try:
            await session.run()
        except asyncio.CancelledError:
            said_goodbye = await session.finish(Latest(self._status_topic, self._goodbye(), None))
            await connection.close(politely=said_goodbye)  # otherwise the will tells it
            raise
        finally:
            certificates.cancel()

    async def _watch_certificates(self, connection: Connection) -> None:
        """Warn of certificates that end soon: at the connect, and for as long as it lasts."""
        while True:
            self._expiry.look(connection.certificates_end(), self._clock.now() / NS_PER_S)
            await self._clock.sleep_until(self._clock.monotonic() + CERTIFICATES_NS)

    def _acknowledged(self, mid: int, code: int, told: str) -> None:
        if self._session is not None:
            self._session.acknowledged(mid, code, told)

    # -------------------------------------------------------------------------------------------- MQTT version

    def _choose_version(self) -> MQTTProtocolVersion:
        if self._five_again_at is not None and self._clock.monotonic() >= self._five_again_at:
            self._version, self._five_again_at = MQTT_5, None
        return self._version

    async def _refuses_five(self, error: Lost) -> bool:
        """Whether the broker refuses MQTT 5 explicitly, and 3.1.1 is to be tried in its place.

        A broker that knows only 3.1.1 should answer a CONNECT of MQTT 5 with return code 1, but some choke on its
        properties first and hang up or fall silent. Those are asked once more with a CONNECT of MQTT 5 that reads the
        same in both versions (no properties, no will, no name, no client id), and only their explicit answer counts.
        """
        if self._settings.version != "auto" or self._version != MQTT_5:
            return False
        if error.silent and not self._has_spoken_five and self._failures % _PROBE_EVERY == 0:
            error = await self._probe() or error
        if error.code != words.UNSUPPORTED_VERSION:
            return False
        self._version = MQTT_3_1_1
        if self._five_again_at is None:
            log.warning(
                "%s: the broker refuses MQTT 5; going on with MQTT 3.1.1, whose acknowledgement proves less: "
                "a broker may acknowledge a record and throw it away",
                self._broker,
            )
        self._five_again_at = self._clock.monotonic() + int(self._limits.retry_5_s * NS_PER_S)
        return True

    async def _probe(self) -> Lost | None:
        bare = Connection(self._settings, "", MQTT_5, None, self._limits, lambda *_: None, login=False)
        try:
            await bare.open()
        except Lost as error:
            return error
        finally:
            await bare.close(politely=True)
        return None

    # ------------------------------------------------------------------------------------------- back-off, words

    async def _back_off(self, lasted_s: float) -> None:
        limits = self._limits
        self._failures = 1 if lasted_s >= limits.stable_s else self._failures + 1
        longest = min(limits.backoff_max_s, limits.backoff_min_s * 2 ** min(self._failures, 16))
        wait_s = random.uniform(longest / 2, longest)
        if self._taken_over:
            wait_s = limits.takeover_s
        await self._clock.sleep_until(self._clock.monotonic() + int(wait_s * NS_PER_S))

    def _say_lost(self, error: Lost) -> None:
        """Log a cause the first time in an outage; repeats are counted."""
        text = str(error)
        self._taken_over = error.code == words.TAKEN_OVER
        if not self._causes:
            self._since = self._clock.now()
        self._last_error = text
        if text not in self._causes and len(self._causes) < _CAUSES_LOGGED:
            log.warning("no broker: %s", text)
            self._causes[text] = 0
        if text in self._causes:
            self._causes[text] += 1

    def _say_connected(self) -> None:
        self._connections += 1
        tries = sum(self._causes.values())
        now = self._clock.now()
        away = f" after {tries} failed {'attempt' if tries == 1 else 'attempts'}" if tries else ""
        proof = "" if self._version == MQTT_5 else ", whose acknowledgement does not prove that a record was accepted"
        log.info("%s: connected with MQTT %s%s%s", self._broker, _named(self._version == MQTT_5), away, proof)
        self._has_spoken_five = self._has_spoken_five or self._version == MQTT_5
        self._since = now
        self._causes.clear()


def _named(five: bool) -> str:
    return "5" if five else "3.1.1"
