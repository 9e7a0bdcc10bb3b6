"""What a subscriber received, compared with what was issued: missing, doubled, altered. Needs no agent and no store."""

from edge_agent.capture.comparing import Findings, against_manifests, against_store
from edge_agent.capture.reading import Capture, CaptureError, Event, read, topic_of

__all__ = ["Capture", "CaptureError", "Event", "Findings", "against_manifests", "against_store", "read", "topic_of"]
