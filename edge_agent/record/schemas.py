"""JSON Schemas (draft 2020-12) of the envelope and of each type's data.

Within version 1 fields may be added, words may be added to lists of words, and nothing is renamed, removed, or given
another meaning or unit. So a consumer ignores what it does not know, and the schemas allow it.
"""

from __future__ import annotations

from edge_agent.entries import KINDS
from edge_agent.equipment import CAUSES, STATES
from edge_agent.metrics import KPIS, SUMS
from edge_agent.record.agent_schemas import AGENT_DATA
from edge_agent.record.shapes import (
    COUNT,
    FLAG,
    NAME,
    SECONDS,
    SEQUENCE,
    TEXT,
    TIME,
    WORD,
    Schema,
    an_object,
    or_null,
    words,
)

_BY_REASON: Schema = {
    "type": "object",
    "additionalProperties": COUNT,
    "description": "items by reason, which sum to the whole; empty where no reasons are configured",
}
_TIME_S = an_object(dict.fromkeys(STATES, SECONDS), "seconds in each of the nine states; they sum to the window")
_QUANTITY = an_object(
    {
        "produced": or_null(COUNT),
        "good": or_null(COUNT),
        "scrap": or_null(COUNT),
        "rework": COUNT,
        "unobserved": COUNT | {"description": "of produced: made while state or count were not observed"},
        "quarantined": COUNT | {"description": "jumps of the counter beyond its plausible rate; not in produced"},
        "unit": TEXT,
        "scrap_by_reason": _BY_REASON,
        "rework_by_reason": _BY_REASON,
    },
    "items; null where nothing counts them",
)
_OLDER_QUANTITY = _QUANTITY | {"required": [name for name in _QUANTITY["required"] if not name.endswith("_by_reason")]}
"""What an earlier version of the agent said, which a revision repeats."""
_SUMS = an_object(
    {name: or_null({"type": "number"} if name.endswith("_s") else COUNT) for name in SUMS},
    "what the KPIs are made of, of observed production: add them up, then divide; null where not known",
)
_COUNTS_AS = words("availability_loss", "outside_planned_time")
_DEFINITION = an_object(
    {
        "id": TEXT,
        "version": {"type": "integer"},
        "planned_run_time_per_item_s": or_null(SECONDS),
        "short_stop_s": SECONDS,
        "short_stop_counts_as": words("availability", "effectiveness"),
        "setup_counts_as": _COUNTS_AS,
        "idle_counts_as": _COUNTS_AS,
        "planned_stop_counts_as": _COUNTS_AS,
        "planned_stop_reasons": {"type": "array", "items": TEXT, "description": "a stop with one of them is planned"},
        "when_offline": words("unknown", "down", "delay", "idle", "planned_stop"),
        "state_from": words("status", "status_and_mode", "rules", "count"),
        "stopped_after_s": or_null(SECONDS),
        "mean_times": TEXT,
    },
    "every choice behind the KPIs",
)
_COMPLETENESS = an_object(
    {
        "observed_s": SECONDS,
        "missing_s": an_object(dict.fromkeys(CAUSES, SECONDS), "sums to unknown"),
        "uncertain_s": SECONDS,
        "ratio": or_null({"type": "number", "minimum": 0, "maximum": 1}),
        "complete": FLAG,
    },
    "of the scheduled time; ratio is observed over scheduled, null when nothing was scheduled",
)
_DOWNTIME = an_object(
    {
        "stops": {"type": "integer", "minimum": 0, "description": "that began in the window"},
        "failures": {"type": "integer", "minimum": 0, "description": "stops that began to be down in the window"},
        "by_reason_s": {"type": "object", "additionalProperties": SECONDS},
    },
    "the stops of the window; the seconds by reason sum to delay and down",
)
_PACE = an_object(
    {"goal_per_h": SECONDS, "expected": {"type": "integer"}, "ahead": {"type": "integer"}},
    "items that the goal expects of the planned time, and how many more were made; below 0: fewer",
)
_KPI = an_object(dict.fromkeys(KPIS, or_null({"type": "number"})), "of observed production; never capped")
_KPI_REASON: Schema = {
    "type": "object",
    "description": "why a KPI is null",
    "propertyNames": {"enum": list(KPIS)},
    "additionalProperties": WORD,
}
_FLAGS: Schema = {"type": "array", "items": WORD, "uniqueItems": True}
_SEGMENT = an_object(
    {
        "start": TIME,
        "end": TIME,
        "product": or_null(TEXT),
        "job": or_null(TEXT),
        "shift": or_null(NAME),
        "planned_run_time_per_item_s": or_null(SECONDS),
        "quantity": _QUANTITY,
        "time_s": _TIME_S,
    }
)
_PREVIOUS = an_object({"revision": {"type": "integer", "minimum": 0}, "quantity": _OLDER_QUANTITY, "time_s": _TIME_S})
_BECAUSE = words("late_reading", "backfill", "late_loss", "reclassified", "entry", "clock")

_REVISED: dict[str, Schema] = {
    "key": TEXT,
    "revision": {"type": "integer", "minimum": 0},
    "revised_because": or_null(_BECAUSE),
    "previous": or_null(_PREVIOUS),
    "withdrawn": FLAG,
    "final": FLAG,
    "revisable_until": or_null(TIME),
    "machine": NAME,
}
"""What begins the data of everything that may be said again."""
_REVISION: Schema = {"type": "integer", "minimum": 0}
_STOP_TIME_S = an_object(dict.fromkeys(("delay", "down", "planned_stop"), SECONDS))
_STOP = {
    "start": TIME,
    "end": or_null(TIME),
    "duration_s": or_null(SECONDS),
    "time_s": or_null(_STOP_TIME_S),
    "reason": TEXT,
}
_PLC = an_object({"code": {"type": ["integer", "number", "string", "boolean"]}, "reason": or_null(TEXT)})
_PERSON = an_object({"by": TEXT, "reason": TEXT, "made": TIME})
_JOB_RESULT = {
    "end": or_null(TIME),
    "quantity": or_null(_QUANTITY),
    "time_s": or_null(_TIME_S),
}
_PROGRESS = an_object(
    {
        "job": TEXT,
        "operation": or_null(TEXT),
        "product": or_null(TEXT),
        "start": TIME,
        "planned_quantity": or_null(COUNT),
        "good": or_null(COUNT),
        "remaining": or_null(COUNT),
        "expected_end": or_null(TIME),
    },
    "the job in work, and when it will be done at the planned rate",
)
_RESPONSE = an_object(
    {
        "JobOrderID": TEXT,
        "WorkMasterID": or_null(TEXT),
        "MaterialDefinitionID": or_null(TEXT),
        "StartTime": TIME,
        "EndTime": or_null(TIME),
        "JobState": words("Running", "Ended"),
        "JobResponseData": {
            "type": "array",
            "items": an_object({"ID": TEXT, "Value": {"type": ["number", "string"]}, "UnitOfMeasure": TEXT}),
        },
    },
    "the same as an ISA-95 job response",
)

_DATA: dict[str, Schema] = {
    "production": an_object(
        _REVISED
        | {
            "window": TEXT,
            "start": TIME,
            "end": TIME,
            "shift": or_null(NAME),
            "production_day": {"type": "string", "format": "date"},
            "job": or_null(TEXT),
            "product": or_null(TEXT),
            "segments": {"type": "array", "items": _SEGMENT},
            "time_s": _TIME_S,
            "quantity": _QUANTITY,
            "kpi": _KPI,
            "kpi_reason": _KPI_REASON,
            "sums": _SUMS,
            "downtime": _DOWNTIME,
            "pace": or_null(_PACE),
            "definition": _DEFINITION,
            "completeness": _COMPLETENESS,
            "flags": _FLAGS,
        },
        "one window of one machine; the highest (epoch, revision) of a key is its truth",
    ),
    "downtime": an_object(
        _REVISED
        | {
            "revised_because": or_null(words(*_BECAUSE["enum"], "ended", "reason")),
            "previous": or_null(an_object({"revision": _REVISION} | _STOP)),
            "open": FLAG,
            "state": words(*STATES),
            "reason_by": or_null(words("plc", "person")),
            "plc": or_null(_PLC),
            "person": or_null(_PERSON),
            "planned": FLAG,
            "failure": FLAG,
            "seen_whole": FLAG,
            "shift": or_null(NAME),
            "production_day": {"type": "string", "format": "date"},
            "product": or_null(TEXT),
            "job": or_null(TEXT),
        }
        | _STOP,
        "one stop of one machine, from its begin to its end; while it is open, duration_s and time_s are null",
    ),
    "job": an_object(
        _REVISED
        | {
            "revised_because": or_null(words(*_BECAUSE["enum"], "ended")),
            "previous": or_null(an_object({"revision": _REVISION} | _JOB_RESULT)),
            "job": TEXT,
            "operation": or_null(TEXT),
            "product": or_null(TEXT),
            "planned_quantity": or_null(COUNT),
            "fields": {"type": "object"},
            "start": TIME,
            "open": FLAG,
            "started_by": TEXT,
            "ended_by": or_null(TEXT),
            "kpi": or_null(_KPI),
            "kpi_reason": or_null(_KPI_REASON),
            "completeness": or_null(_COMPLETENESS),
            "flags": _FLAGS,
            "response": _RESPONSE,
        }
        | _JOB_RESULT,
        "one job on one machine; while it is open it has no figures",
    ),
    "entry": an_object(
        {
            "key": TEXT,
            "revision": {"const": 0},
            "machine": NAME,
            "entry": {"type": "integer", "minimum": 1, "description": "its number, for `withdraw`"},
            "kind": words(*KINDS),
            "by": TEXT,
            "made": TIME,
            "start": TIME,
            "end": or_null(TIME),
            "body": {"type": "object", "description": "what its kind holds: reason, count, job …"},
        },
        "what a person told the agent; never changed",
    ),
    "state": an_object(
        {
            "machine": NAME,
            "state": words(*STATES),
            "since": TIME,
            "cause": or_null(words(*CAUSES)),
            "reason": or_null(TEXT),
            "job": or_null(TEXT),
            "product": or_null(TEXT),
            "shift": or_null(NAME),
            "counts": or_null(an_object({"since": TIME} | _QUANTITY["properties"])),
            "pace": or_null(_PACE),
            "work": or_null(_PROGRESS),
        },
        "what a machine does now; retained",
    ),
}
_DATA |= AGENT_DATA
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
        "subject": TEXT,
        "time": TIME,
        "datacontenttype": {"const": "application/json"},
        "dataschema": {"const": f"urn:edge-agent:schema:{kind}:1"},
        "sequence": SEQUENCE,
        "epoch": {"type": "integer", "minimum": 0},
        "agentversion": TEXT,
        "configuration": TEXT,
        "clock": words("synchronized", "unsynchronized", "stepped"),
        "data": _DATA[kind],
    }
    made = an_object(attributes)
    if kind in ("state", "status", "health"):
        made["required"].remove("sequence")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:edge-agent:schema:{kind}:1:event",
        "title": f"{kind} event",
    } | made
