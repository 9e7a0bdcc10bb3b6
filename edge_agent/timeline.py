"""The agent's own time: the machine's clock where it can be believed, and never a step back.

Readings, windows and records are dated by it, so a clock that is set while the agent runs neither doubles an hour nor
puts a reading before an older one. On a step the agent keeps its own time, measured on the monotonic clock, until the
step is believed: at once when the kernel says that a time server keeps the clock, otherwise after five minutes. Then

- forward, it follows in one leap: the time in between never was, and nothing is known of it;
- back, it goes one percent slower than the clock until both agree again: an hour is made up for in four days.

After a restart of the machine its clock is plausible from the newest sign of life in the store on, and from the date
of this program. Before that the time is provisional, and goes on from the sign of life: readings wait in memory, and
are dated anew when the clock is set.
"""

from __future__ import annotations

import logging
import threading

from edge_agent.clock import EARLIEST_NS, PROVISIONAL_NS, Clock, Trust
from edge_agent.contract import NS_PER_S
from edge_agent.timestamps import rfc3339_ms

log = logging.getLogger(__name__)

STEP_NS = NS_PER_S // 2
"""More than any daemon slews between two looks, which are a second apart at most."""
BELIEF_NS = 300 * NS_PER_S
"""After so long a clock that was set is believed, unless it is known to be right: until then it may be set again."""
PATIENCE_NS = 600 * NS_PER_S
"""How long readings wait for a clock that is behind the store. It may be the store's time that is wrong."""
DISTRUST_NS = 3_600 * NS_PER_S
"""As long as the longest fixed window."""
SLOWER = 100
"""One part of so many is left out of the agent's time while it is ahead of the clock."""
TOLD_NS = 60 * NS_PER_S
_TORN_NS = NS_PER_S // 50


class Timeline:
    """Time as the agent has it; a `Clock` over the machine's. May be asked from any thread.

    Attributes:
        monotonic, sleep_until: those of the clock.
        settled: whether times are final; while they are not, readings wait.
        patient: whether they wait without a limit, because nothing tells even about what time it is.
    """

    def __init__(self, clock: Clock) -> None:
        self.settled = True
        self.monotonic, self.sleep_until = clock.monotonic, clock.sleep_until
        self._clock = clock
        self._lock = threading.Lock()
        self._monotonic, self._wall = self._read()
        self._time = self._wall
        self._ahead = self._wall - self._monotonic
        self._begun, self._began = False, self._monotonic
        self.patient = False
        self._since: int | None = None
        self._believed = False
        self._stepped_at: int | None = None
        self._told_at: int | None = None

    # ---------------------------------------------------------------------------------------------- as a clock

    def now(self) -> int:
        """The agent's time in ns since 1970 UTC; never less than before."""
        with self._lock:
            return self._go_on()

    def trust(self) -> Trust:
        """Whether the time is known to be right."""
        with self._lock:
            self._go_on()
            if not self.settled:
                return "unsynchronized"
            recent = self._stepped_at is not None and self._monotonic - self._stepped_at < DISTRUST_NS
            apart = self._since is not None or self._time - self._wall > STEP_NS
        return "stepped" if recent or apart else self._clock.trust()

    def ahead_of_clock(self) -> int:
        """How far the agent's time is ahead of the machine's clock, in ns."""
        with self._lock:
            return self._go_on() - self._wall

    # --------------------------------------------------------------------------------------- begin, and look

    @property
    def offset(self) -> int:
        """The agent's time less the monotonic clock: goes on after a restart of the agent on the same boot."""
        with self._lock:
            self._go_on()
            return self._time - self._monotonic

    def begin(self, alive: int | None, offset: int | None = None) -> None:
        """Begin where the run before has left off; in a run that has begun already, go on.

        Args:
            alive: the newest sign of life in the store, in ns since 1970 UTC; None: there was none.
            offset: what `offset` said in a run before, when the machine has not been started since.
        """
        with self._lock:
            if self._begun:
                return
            self._monotonic, self._wall = self._read()
            self._begun, self._began = True, self._monotonic
            if offset is not None:
                self._ahead, self._time = offset, self._monotonic + offset
                self._go_on()
                return
            last = (alive or 0) + NS_PER_S // 1_000  # after what a start says of the time before
            plausible = max(last, EARLIEST_NS)
            self.patient = alive is None or alive < EARLIEST_NS
            self._time = max(self._wall, max(last, PROVISIONAL_NS) if self.patient else plausible)
            self._ahead = self._wall - self._monotonic
            self.settled = self._wall >= plausible - STEP_NS
            if not self.settled:
                log.error(
                    "the clock says %s, which is before %s: it is not set; readings wait in memory until it is",
                    rfc3339_ms(self._wall),
                    "this program was made" if alive is None or alive < EARLIEST_NS else "the newest reading",
                )

    def look(self, *, full: bool = False) -> int | None:
        """Decide whether to believe the clock; each second. `full`: no more readings can wait.

        Returns:
            By how many ns the time was set forward just now; 0 where it has settled as it was; None: nothing changed.
        """
        with self._lock:
            time, known = self._go_on(), self._wall >= EARLIEST_NS and self._clock.trust() == "synchronized"
            apart = self._wall - time
            if not self.settled:
                return self._settle(apart, known, full)
            if self._since is None:
                return None
            if -STEP_NS <= apart <= STEP_NS:
                self._since, self._believed = None, False
                log.info("the agent's time is that of the clock again")
                return None
            if self._believed or not (known or self._monotonic - self._since >= BELIEF_NS):
                return None
            if self._wall < EARLIEST_NS:
                return None  # nobody sets a clock to this: it is lost, and may be found again
            self._believed = True
            if apart > 0:
                self._time, self._since, self._believed = self._wall, None, False
                log.warning("the agent's time follows the clock: nothing is known of the %.1f s between", apart / 1e9)
                return apart
            log.warning(
                "the agent's time is %.1f s ahead of the clock, and goes one percent slower until both agree",
                -apart / 1e9,
            )
            return None

    def _settle(self, apart: int, known: bool, full: bool) -> int | None:
        if apart >= 0:
            self._time, self.settled = self._wall, True
            log.info("the clock is set: %s", rfc3339_ms(self._wall))
            return apart
        if self.patient or not (known or full or self._monotonic - self._began >= PATIENCE_NS):
            return None
        self.settled = True
        self._since = self._stepped_at = self._monotonic
        log.error("the clock is %.1f s behind the newest reading: the agent's time goes on from there", -apart / 1e9)
        return 0

    # -------------------------------------------------------------------------------------------------- inside

    def _go_on(self) -> int:
        """The time now; the lock is held."""
        before, clock = self._monotonic, self._clock
        now, wall = clock.monotonic(), clock.now()
        if not -STEP_NS <= wall - now - self._ahead <= STEP_NS:
            now, wall = self._read()
        self._monotonic, self._wall = now, wall
        step = wall - now - self._ahead
        self._ahead += step
        if not -STEP_NS <= step <= STEP_NS and self.settled:
            self._notice(step)
        elapsed = now - before
        time = self._time + elapsed
        apart = wall - time
        if self.settled and 0 <= apart <= STEP_NS:
            time = wall
        elif self.settled and apart < 0 and (self._believed or self._since is None):
            time -= min(elapsed // SLOWER, -apart)
        self._time = time
        return time

    def _notice(self, step: int) -> None:
        """The clock was set since the last time."""
        now = self._monotonic
        self._since, self._believed = now, False
        self._stepped_at = now
        if self._told_at is None or now - self._told_at >= TOLD_NS:
            self._told_at = now
            direction = "forward" if step > 0 else "back"
            log.warning(
                "the clock was set %s by %.1f s: the agent keeps its own time until that is sure", direction,
                abs(step) / 1e9,
            )  # fmt: skip

    def _read(self) -> tuple[int, int]:
        """Both clocks at one moment: a process that is stopped between two looks must not see a step."""
        while True:
            before, wall = self._clock.monotonic(), self._clock.now()
            after = self._clock.monotonic()
            if after - before <= _TORN_NS:
                return after, wall
