"""How much, how fast and how long: the limits of the uplink."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.uplink.connection import ConnectionLimits


@dataclass(frozen=True, slots=True)
class Limits(ConnectionLimits):
    """Every limit of the uplink; the defaults are the product's, tests shorten them."""

    window: int = 16
    """At most this many messages unacknowledged, and never more than the broker's Receive Maximum."""
    batch: int = 512
    """Records fetched from the outbox at once."""
    backlog_per_s: float = 10_000.0
    """What waited goes no faster than this, so that a broker is not flooded after an outage; what is new goes first."""
    settle_s: float = 0.05
    """Acknowledgements are given to the outbox together this often, or 256 at a time."""
    unsettled: int = 4_096
    """Nothing more is sent while this many answers wait for the outbox."""
    ack_s: float = 30.0
    silence_s: float = 25.0
    """No byte from the broker for this long ends the connection (longer if the broker sets a longer keep-alive)."""
    watch_s: float = 1.0
    idle_s: float = 5.0
    """The outbox is asked this often even when nobody says that there is something new."""
    backlog_s: float = 60.0
    stop_s: float = 5.0
    slow_min_s: float = 1.0
    slow_max_s: float = 60.0
    slow_at_most: int = 3
    """A topic for which the broker is busy so many times running waits by itself, and the others go on."""
    poison_min_s: float = 60.0
    poison_max_s: float = 3_600.0
    """What goes to a topic over which the broker has hung up waits so long before the next of it is tried."""
    backoff_min_s: float = 1.0
    backoff_max_s: float = 60.0
    stable_s: float = 60.0
    """The back-off begins anew only after a connection that lasted this long."""
    takeover_s: float = 60.0
    """The wait after another client took over our client id."""
    retry_5_s: float = 3_600.0
    """After this long on MQTT 3.1.1, MQTT 5 is tried again."""
