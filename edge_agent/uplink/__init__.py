"""Records from the outbox to the MQTT broker; the only door to paho-mqtt.

A record is done when the broker's reason code says success, never before. The outbox is the only queue: at most
min(16, Receive Maximum) records are with paho at any time, each connection is a new client object with Clean Start
and a session that ends with it, and what was not acknowledged is sent again from the outbox, the same bytes. So
neither paho nor the broker keeps a second queue that could double, reorder or lose a record.

On MQTT 5 an acknowledgement carries a reason code. On MQTT 3.1.1 it carries none: a broker may acknowledge what it
then throws away (an ACL, a size limit), so acceptance proves less, and the log says so once.

What a subscriber sees on MQTT 5: QoS 1, content type `application/cloudevents+json`, payload format indicator 1, and
the user property `backlog: true` on a record that was issued before the present connection came up or more than a
minute ago.
"""

from edge_agent.uplink.limits import Limits
from edge_agent.uplink.settle import Outbox, Waiting
from edge_agent.uplink.trial import try_broker
from edge_agent.uplink.uplink import Uplink, UplinkFigures

__all__ = ["Limits", "Outbox", "Uplink", "UplinkFigures", "Waiting", "try_broker"]
