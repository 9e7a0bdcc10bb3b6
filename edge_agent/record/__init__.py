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
from edge_agent.record.facts import gap_data, health_data, previous_of, production_data, state_data, status_data
from edge_agent.record.jobs import job_data, job_key, job_progress, job_topic, previous_job
from edge_agent.record.ledger import HOUR_NS, TopicDigest, manifest_data
from edge_agent.record.revision import Because, EventBecause, Revision
from edge_agent.record.schemas import TYPES, envelope_schema, schema
from edge_agent.record.stops import downtime_data, downtime_key, downtime_topic, previous_stop
from edge_agent.record.told import entry_data, entry_topic

__all__ = [
    "HOUR_NS",
    "TYPES",
    "Because",
    "EventBecause",
    "Publisher",
    "Revision",
    "TopicDigest",
    "agent_topic",
    "downtime_data",
    "downtime_key",
    "downtime_topic",
    "entry_data",
    "entry_topic",
    "envelope_schema",
    "event",
    "freeze",
    "gap_data",
    "gap_key",
    "health_data",
    "job_data",
    "job_key",
    "job_progress",
    "job_topic",
    "manifest_data",
    "previous_job",
    "previous_of",
    "previous_stop",
    "production_data",
    "production_key",
    "production_topic",
    "schema",
    "state_data",
    "state_topic",
    "status_data",
]
