"""JSON Schemas (draft 2020-12) of the envelope and of each type's data.

Within version 1 fields may be added, words may be added to lists of words, and nothing is renamed, removed, or given
another meaning or unit. So a consumer ignores what it does not know, and the schemas allow it.
"""

from __future__ import annotations

from typing import Any

from edge_agent.entries import KINDS
from edge_agent.equipment import CAUSES, STATES
from edge_agent.metrics import KPIS, SUMS

Schema = dict[str, Any]

_TIME: Schema = {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3,9})?Z$"}
_TEXT: Schema = {"type": "string"}
_SEQUENCE: Schema = {"type": "string", "pattern": r"^\d{12,}$"}
_FLAG: Schema = {"type": "boolean"}
_SECONDS: Schema = {"type": "number", "minimum": 0}
_COUNT: Schema = {
    "oneOf": [{"type": "integer"}, {"type": "string", "pattern": r"^-?\d{16,}$"}],
    "description": "an integer; beyond 2^53 a string of its digits",
}
_NAME: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"}
_WORD: Schema = {"type": "string", "pattern": r"^[a-z0-9_]+$"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(properties: dict[str, Schema], description: str | None = None) -> Schema:
    made: Schema = {"type": "object", "properties": properties, "required": list(properties)}
    return made if description is None else {"description": description} | made


def _words(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


_BY_REASON: Schema = {
    "type": "object",
    "additionalProperties": _COUNT,
    "description": "items by reason, which sum to the whole; empty where no reasons are configured",
}
_TIME_S = _object(dict.fromkeys(STATES, _SECONDS), "seconds in each of the nine states; they sum to the window")
_QUANTITY = _object(
    {
        "produced": _or_null(_COUNT),
        "good": _or_null(_COUNT),
        "scrap": _or_null(_COUNT),
        "rework": _COUNT,
        "unobserved": _COUNT | {"description": "of produced: made while state or count were not observed"},
        "quarantined": _COUNT | {"description": "jumps of the counter beyond its plausible rate; not in produced"},
        "unit": _TEXT,
        "scrap_by_reason": _BY_REASON,
        "rework_by_reason": _BY_REASON,
    },
    "items; null where nothing counts them",
)
_OLDER_QUANTITY = _QUANTITY | {"required": [name for name in _QUANTITY["required"] if not name.endswith("_by_reason")]}
"""What an earlier version of the agent said, which a revision repeats."""
_SUMS = _object(
    {name: _or_null({"type": "number"} if name.endswith("_s") else _COUNT) for name in SUMS},
    "what the KPIs are made of, of observed production: add them up, then divide; null where not known",
)
_COUNTS_AS = _words("availability_loss", "outside_planned_time")
_DEFINITION = _object(
    {
        "id": _TEXT,
        "version": {"type": "integer"},
        "planned_run_time_per_item_s": _or_null(_SECONDS),
        "short_stop_s": _SECONDS,
        "short_stop_counts_as": _words("availability", "effectiveness"),
        "setup_counts_as": _COUNTS_AS,
        "idle_counts_as": _COUNTS_AS,
        "planned_stop_counts_as": _COUNTS_AS,
        "planned_stop_reasons": {"type": "array", "items": _TEXT, "description": "a stop with one of them is planned"},
        "when_offline": _words("unknown", "down", "delay", "idle", "planned_stop"),
        "state_from": _words("status", "status_and_mode", "rules", "count"),
        "stopped_after_s": _or_null(_SECONDS),
        "mean_times": _TEXT,
    },
    "every choice behind the KPIs",
)
_COMPLETENESS = _object(
    {
        "observed_s": _SECONDS,
        "missing_s": _object(dict.fromkeys(CAUSES, _SECONDS), "sums to unknown"),
        "uncertain_s": _SECONDS,
        "ratio": _or_null({"type": "number", "minimum": 0, "maximum": 1}),
        "complete": _FLAG,
    },
    "of the scheduled time; ratio is observed over scheduled, null when nothing was scheduled",
)
_DOWNTIME = _object(
    {
        "stops": {"type": "integer", "minimum": 0, "description": "that began in the window"},
        "failures": {"type": "integer", "minimum": 0, "description": "stops that began to be down in the window"},
        "by_reason_s": {"type": "object", "additionalProperties": _SECONDS},
    },
    "the stops of the window; the seconds by reason sum to delay and down",
)
_PACE = _object(
    {"goal_per_h": _SECONDS, "expected": {"type": "integer"}, "ahead": {"type": "integer"}},
    "items that the goal expects of the planned time, and how many more were made; below 0: fewer",
)
_KPI = _object(dict.fromkeys(KPIS, _or_null({"type": "number"})), "of observed production; never capped")
_KPI_REASON: Schema = {
    "type": "object",
    "description": "why a KPI is null",
    "propertyNames": {"enum": list(KPIS)},
    "additionalProperties": _WORD,
}
_FLAGS: Schema = {"type": "array", "items": _WORD, "uniqueItems": True}
_SEGMENT = _object(
    {
        "start": _TIME,
        "end": _TIME,
        "product": _or_null(_TEXT),
        "job": _or_null(_TEXT),
        "shift": _or_null(_NAME),
        "planned_run_time_per_item_s": _or_null(_SECONDS),
        "quantity": _QUANTITY,
        "time_s": _TIME_S,
    }
)
_PREVIOUS = _object({"revision": {"type": "integer", "minimum": 0}, "quantity": _OLDER_QUANTITY, "time_s": _TIME_S})
_BECAUSE = _words("late_reading", "backfill", "late_loss", "reclassified", "entry", "clock")

_REVISED: dict[str, Schema] = {
    "key": _TEXT,
    "revision": {"type": "integer", "minimum": 0},
    "revised_because": _or_null(_BECAUSE),
    "previous": _or_null(_PREVIOUS),
    "withdrawn": _FLAG,
    "final": _FLAG,
    "revisable_until": _or_null(_TIME),
    "machine": _NAME,
}
"""What begins the data of everything that may be said again."""
_REVISION: Schema = {"type": "integer", "minimum": 0}
_STOP_TIME_S = _object(dict.fromkeys(("delay", "down", "planned_stop"), _SECONDS))
_STOP = {
    "start": _TIME,
    "end": _or_null(_TIME),
    "duration_s": _or_null(_SECONDS),
    "time_s": _or_null(_STOP_TIME_S),
    "reason": _TEXT,
}
_PLC = _object({"code": {"type": ["integer", "number", "string", "boolean"]}, "reason": _or_null(_TEXT)})
_PERSON = _object({"by": _TEXT, "reason": _TEXT, "made": _TIME})
_JOB_RESULT = {
    "end": _or_null(_TIME),
    "quantity": _or_null(_QUANTITY),
    "time_s": _or_null(_TIME_S),
}
_PROGRESS = _object(
    {
        "job": _TEXT,
        "operation": _or_null(_TEXT),
        "product": _or_null(_TEXT),
        "start": _TIME,
        "planned_quantity": _or_null(_COUNT),
        "good": _or_null(_COUNT),
        "remaining": _or_null(_COUNT),
        "expected_end": _or_null(_TIME),
    },
    "the job in work, and when it will be done at the planned rate",
)
_RESPONSE = _object(
    {
        "JobOrderID": _TEXT,
        "WorkMasterID": _or_null(_TEXT),
        "MaterialDefinitionID": _or_null(_TEXT),
        "StartTime": _TIME,
        "EndTime": _or_null(_TIME),
        "JobState": _words("Running", "Ended"),
        "JobResponseData": {
            "type": "array",
            "items": _object({"ID": _TEXT, "Value": {"type": ["number", "string"]}, "UnitOfMeasure": _TEXT}),
        },
    },
    "the same as an ISA-95 job response",
)

_DATA: dict[str, Schema] = {
    "production": _object(
        _REVISED
        | {
            "window": _TEXT,
            "start": _TIME,
            "end": _TIME,
            "shift": _or_null(_NAME),
            "production_day": {"type": "string", "format": "date"},
            "job": _or_null(_TEXT),
            "product": _or_null(_TEXT),
            "segments": {"type": "array", "items": _SEGMENT},
            "time_s": _TIME_S,
            "quantity": _QUANTITY,
            "kpi": _KPI,
            "kpi_reason": _KPI_REASON,
            "sums": _SUMS,
            "downtime": _DOWNTIME,
            "pace": _or_null(_PACE),
            "definition": _DEFINITION,
            "completeness": _COMPLETENESS,
            "flags": _FLAGS,
        },
        "one window of one machine; the highest (epoch, revision) of a key is its truth",
    ),
    "downtime": _object(
        _REVISED
        | {
            "revised_because": _or_null(_words(*_BECAUSE["enum"], "ended", "reason")),
            "previous": _or_null(_object({"revision": _REVISION} | _STOP)),
            "open": _FLAG,
            "state": _words(*STATES),
            "reason_by": _or_null(_words("plc", "person")),
            "plc": _or_null(_PLC),
            "person": _or_null(_PERSON),
            "planned": _FLAG,
            "failure": _FLAG,
            "seen_whole": _FLAG,
            "shift": _or_null(_NAME),
            "production_day": {"type": "string", "format": "date"},
            "product": _or_null(_TEXT),
            "job": _or_null(_TEXT),
        }
        | _STOP,
        "one stop of one machine, from its begin to its end; while it is open, duration_s and time_s are null",
    ),
    "job": _object(
        _REVISED
        | {
            "revised_because": _or_null(_words(*_BECAUSE["enum"], "ended")),
            "previous": _or_null(_object({"revision": _REVISION} | _JOB_RESULT)),
            "job": _TEXT,
            "operation": _or_null(_TEXT),
            "product": _or_null(_TEXT),
            "planned_quantity": _or_null(_COUNT),
            "fields": {"type": "object"},
            "start": _TIME,
            "open": _FLAG,
            "started_by": _TEXT,
            "ended_by": _or_null(_TEXT),
            "kpi": _or_null(_KPI),
            "kpi_reason": _or_null(_KPI_REASON),
            "completeness": _or_null(_COMPLETENESS),
            "flags": _FLAGS,
            "response": _RESPONSE,
        }
        | _JOB_RESULT,
        "one job on one machine; while it is open it has no figures",
    ),
    "entry": _object(
        {
            "key": _TEXT,
            "revision": {"const": 0},
            "machine": _NAME,
            "entry": {"type": "integer", "minimum": 1, "description": "its number, for `withdraw`"},
            "kind": _words(*KINDS),
            "by": _TEXT,
            "made": _TIME,
            "start": _TIME,
            "end": _or_null(_TIME),
            "body": {"type": "object", "description": "what its kind holds: reason, count, job …"},
        },
        "what a person told the agent; never changed",
    ),
    "gap": _object(
        {
            "key": _TEXT,
            "revision": {"type": "integer", "minimum": 0},
            "withdrawn": _FLAG,
            "what": _TEXT,
            "machine": _or_null(_NAME),
            "window": _or_null(_TEXT),
            "topic": _or_null(_TEXT),
            "start": _TIME,
            "end": _TIME,
            "cause": _TEXT,
            "count": _or_null(_COUNT),
            "produced": _or_null(_COUNT),
            "epoch": _or_null({"type": "integer", "minimum": 0}),
            "first_sequence": _or_null(_SEQUENCE),
            "last_sequence": _or_null(_SEQUENCE),
        },
        "a range of which something is missing, and why",
    ),
    "manifest": _object(
        {
            "key": _TEXT,
            "revision": {"const": 0},
            "start": _TIME,
            "end": _TIME,
            "epoch": {"type": "integer", "minimum": 0},
            "first_number": {"type": "integer", "minimum": 0},
            "last_number": {"type": "integer", "minimum": 0},
            "count": {"type": "integer", "minimum": 1},
            "topics": {
                "type": "object",
                "additionalProperties": _object(
                    {
                        "first": _SEQUENCE,
                        "last": _SEQUENCE,
                        "count": {"type": "integer", "minimum": 1},
                        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                    },
                    "the records of one topic; the hash is over `id LF sha256hex(payload) LF` in their order",
                ),
            },
        },
        "what was issued in one UTC hour, by topic, so that a consumer can prove that it has all",
    ),
    "state": _object(
        {
            "machine": _NAME,
            "state": _words(*STATES),
            "since": _TIME,
            "cause": _or_null(_words(*CAUSES)),
            "reason": _or_null(_TEXT),
            "job": _or_null(_TEXT),
            "product": _or_null(_TEXT),
            "shift": _or_null(_NAME),
            "counts": _or_null(_object({"since": _TIME} | _QUANTITY["properties"])),
            "pace": _or_null(_PACE),
            "work": _or_null(_PROGRESS),
        },
        "what a machine does now; retained",
    ),
    "status": _object(
        {
            "status": _words("online", "offline"),
            "since": _TIME,
            "version": _TEXT,
            "reason": _or_null(_WORD),
            "misconfigured": {"type": "object", "additionalProperties": _TEXT},
        },
        "whether the agent is there; retained, and its last will",
    ),
}
_NATURAL: Schema = {"type": "integer", "minimum": 0}
_DATA["health"] = _object(
    {
        "uptime_s": _NATURAL,
        "devices": {
            "type": "object",
            "additionalProperties": _object(
                {
                    "connected": _FLAG,
                    "polls": _NATURAL,
                    "skipped": _NATURAL,
                    "readings": _NATURAL,
                    "bad_tags": _NATURAL,
                    "skew_s": _or_null({"type": "number"}),
                },
                "by name; skew_s is how far its clock is ahead of ours",
            ),
        },
        "buffer": _object(
            {
                "bytes": _NATURAL,
                "max_bytes": _NATURAL,
                "waiting": _NATURAL,
                "dead_letters": _NATURAL,
                "dropped": _NATURAL,
                "sacrificed": {"type": "object", "additionalProperties": _NATURAL},
                "error": _or_null(_TEXT),
            }
        ),
        "uplink": _object(
            {
                "protocol": _or_null(_TEXT),
                "accepted": _NATURAL,
                "refused": _NATURAL,
                "slowed": _NATURAL,
                "reconnects": _NATURAL,
            }
        ),
    },
    "how the agent itself does; retained",
)
TYPES = tuple(_DATA)
"""The record types that have a schema."""


def schema(kind: str) -> Schema:
    """The JSON Schema of the `data` of a record type, under the name that the record's `dataschema` gives.

    Raises:
        KeyError: not one of `TYPES`.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:edge-agent:schema:{kind}:1",
        "title": kind,
    } | _DATA[kind]


def envelope_schema(kind: str) -> Schema:
    """The JSON Schema of a whole record of a type: the CloudEvents attributes around its data.

    Raises:
        KeyError: not one of `TYPES`.
    """
    attributes = {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}:\d+:\d+$"},
        "source": {"type": "string", "format": "uri-reference"},
        "type": {"const": f"edge.{kind}.v1"},
        "subject": _TEXT,
        "time": _TIME,
        "datacontenttype": {"const": "application/json"},
        "dataschema": {"const": f"urn:edge-agent:schema:{kind}:1"},
        "sequence": _SEQUENCE,
        "epoch": {"type": "integer", "minimum": 0},
        "agentversion": _TEXT,
        "configuration": _TEXT,
        "clock": _words("synchronized", "unsynchronized", "stepped"),
        "data": _DATA[kind],
    }
    made = _object(attributes)
    if kind in ("state", "status", "health"):
        made["required"].remove("sequence")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:edge-agent:schema:{kind}:1:event",
        "title": f"{kind} event",
    } | made
