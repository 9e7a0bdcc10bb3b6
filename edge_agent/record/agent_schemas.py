"""JSON Schemas of what an agent says of itself and of its records: gap, manifest, status, health."""

from __future__ import annotations

from edge_agent.record.shapes import COUNT, FLAG, NAME, SEQUENCE, TEXT, TIME, WORD, Schema, an_object, or_null, words

_NATURAL: Schema = {"type": "integer", "minimum": 0}
AGENT_DATA: dict[str, Schema] = {
    "gap": an_object(
        {
            "key": TEXT,
            "revision": {"type": "integer", "minimum": 0},
            "withdrawn": FLAG,
            "what": TEXT,
            "machine": or_null(NAME),
            "window": or_null(TEXT),
            "topic": or_null(TEXT),
            "start": TIME,
            "end": TIME,
            "cause": TEXT,
            "count": or_null(COUNT),
            "produced": or_null(COUNT),
            "epoch": or_null({"type": "integer", "minimum": 0}),
            "first_sequence": or_null(SEQUENCE),
            "last_sequence": or_null(SEQUENCE),
        },
        "a range of which something is missing, and why",
    ),
    "manifest": an_object(
        {
            "key": TEXT,
            "revision": {"const": 0},
            "start": TIME,
            "end": TIME,
            "epoch": {"type": "integer", "minimum": 0},
            "first_number": {"type": "integer", "minimum": 0},
            "last_number": {"type": "integer", "minimum": 0},
            "count": {"type": "integer", "minimum": 1},
            "topics": {
                "type": "object",
                "additionalProperties": an_object(
                    {
                        "first": SEQUENCE,
                        "last": SEQUENCE,
                        "count": {"type": "integer", "minimum": 1},
                        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                    },
                    "the records of one topic; the hash is over `id LF sha256hex(payload) LF` in their order",
                ),
            },
        },
        "what was issued in one UTC hour, by topic, so that a consumer can prove that it has all",
    ),
    "status": an_object(
        {
            "status": words("online", "offline"),
            "since": TIME,
            "version": TEXT,
            "reason": or_null(WORD),
            "misconfigured": {"type": "object", "additionalProperties": TEXT},
        },
        "whether the agent is there; retained, and its last will",
    ),
    "health": an_object(
        {
            "uptime_s": _NATURAL,
            "clock_ahead_s": {
                "type": "number",
                "description": "how far the agent's time is ahead of the gateway's clock, which was set",
            },
            "devices": {
                "type": "object",
                "additionalProperties": an_object(
                    {
                        "connected": FLAG,
                        "polls": _NATURAL,
                        "skipped": _NATURAL,
                        "readings": _NATURAL,
                        "bad_tags": _NATURAL,
                        "skew_s": or_null({"type": "number"}),
                    },
                    "by name; skew_s is how far its clock is ahead of ours",
                ),
            },
            "buffer": an_object(
                {
                    "bytes": _NATURAL,
                    "max_bytes": _NATURAL,
                    "waiting": _NATURAL,
                    "dead_letters": _NATURAL,
                    "dropped": _NATURAL,
                    "sacrificed": {"type": "object", "additionalProperties": _NATURAL},
                    "error": or_null(TEXT),
                }
            ),
            "uplink": an_object(
                {
                    "protocol": or_null(TEXT),
                    "accepted": _NATURAL,
                    "refused": _NATURAL,
                    "slowed": _NATURAL,
                    "reconnects": _NATURAL,
                }
            ),
        },
        "how the agent itself does; retained",
    ),
}
