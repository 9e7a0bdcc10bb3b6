"""What is published: record types, their JSON and frozen bytes, their topics and keys, their JSON Schemas (pure)."""

from edge_agent.record.events import (
    Publisher,
    agent_topic,
    event,
    freeze,
    gap_key,
    production_key,
    production_topic,
    state_topic,
)
from edge_agent.record.facts import Because, gap_data, previous_of, production_data, state_data, status_data
from edge_agent.record.schemas import TYPES, envelope_schema, schema

__all__ = [
    "TYPES",
    "Because",
    "Publisher",
    "agent_topic",
    "envelope_schema",
    "event",
    "freeze",
    "gap_data",
    "gap_key",
    "previous_of",
    "production_data",
    "production_key",
    "production_topic",
    "schema",
    "state_data",
    "state_topic",
    "status_data",
]
