"""The envelope of a record: a CloudEvents 1.0 structured JSON event, its bytes, its topic, and the key of its fact."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from edge_agent.timestamps import rfc3339, rfc3339_ms

_EXACT = 2**53
"""A larger integer does not survive a reader that keeps numbers as doubles, so it travels as a string."""

AgentTopic = Literal["status", "health", "gap", "manifest"]
Clock = Literal["synchronized", "unsynchronized", "stepped"]


@dataclass(frozen=True, slots=True)
class Publisher:
    """Who issues records: the agent's names, its version, and the hash of its configuration (`sha256:…`)."""

    agent: str
    enterprise: str
    site: str
    prefix: str
    version: str
    configuration: str

    @property
    def subject(self) -> str:
        """The agent's own path, the subject of its status, health, gap and manifest records."""
        return f"{self.enterprise}/{self.site}/_agents/{self.agent}"

    @property
    def source(self) -> str:
        """The CloudEvents source."""
        return f"/{self.prefix}/{self.subject}"

    def machine_subject(self, area: str, line: str, machine: str) -> str:
        """The path of one of its machines: `enterprise/site/area/line/machine`."""
        return f"{self.enterprise}/{self.site}/{area}/{line}/{machine}"


def production_topic(prefix: str, subject: str, window: str) -> str:
    """Where the production records of one machine and window size go."""
    return f"{prefix}/{subject}/production/{window}"


def state_topic(prefix: str, subject: str) -> str:
    """Where a machine's retained state goes."""
    return f"{prefix}/{subject}/state"


def agent_topic(publisher: Publisher, kind: AgentTopic) -> str:
    """Where the agent speaks of itself."""
    return f"{publisher.prefix}/{publisher.subject}/{kind}"


def production_key(subject: str, window: str, start_ns: int) -> str:
    """The name of one window's fact: the highest (epoch, revision) with this key is its truth."""
    return f"{subject}/production/{window}/{rfc3339(start_ns)}"


def gap_key(subject: str, what: str, start_ns: int) -> str:
    """The name of a gap: `what` is the name of a window, `readings` or `records`."""
    return f"{subject}/gap/{what}/{rfc3339(start_ns)}"


def records_gap_key(subject: str, topic: str | None, epoch: int | None, first_sequence: int | None) -> str:
    """The name of a gap of records that do not arrive: where they would have gone, and the first of them."""
    return f"{subject}/gap/records/{epoch}/{first_sequence}/{topic}"


def event(
    publisher: Publisher,
    kind: str,
    subject: str,
    data: dict[str, Any],
    *,
    epoch: int,
    number: int,
    sequence: int | None,
    time_ns: int,
    clock: Clock,
) -> dict[str, Any]:
    """A record in its envelope.

    Args:
        publisher: who issues it.
        kind: `production`, `gap`, `state`, `status`.
        subject: the path of the machine or agent that it speaks of.
        data: what it says, as the functions of this package make it.
        epoch: the store's epoch.
        number: unique in the epoch; with agent and epoch the event's id.
        sequence: its number among those of its epoch and topic; None for what carries none (`state`, `status`).
        time_ns: when it was made.
        clock: whether the gateway's clock was trusted then.
    """
    made = {
        "specversion": "1.0",
        "id": f"{publisher.agent}:{epoch}:{number}",
        "source": publisher.source,
        "type": f"edge.{kind}.v1",
        "subject": subject,
        "time": rfc3339_ms(time_ns),
        "datacontenttype": "application/json",
        "dataschema": f"urn:edge-agent:schema:{kind}:1",
    }
    if sequence is not None:
        made["sequence"] = f"{sequence:012d}"
    return made | {
        "epoch": epoch,
        "agentversion": publisher.version,
        "configuration": publisher.configuration,
        "clock": clock,
        "data": data,
    }


def freeze(record: dict[str, Any]) -> bytes:
    """The bytes of a record: compact JSON in UTF-8, keys in their order, integers beyond 2^53 as strings.

    Raises:
        ValueError: it holds NaN or an infinity, which JSON cannot say.
    """
    text = json.dumps(_exact(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def _exact(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _exact(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(each) for each in value]
    if isinstance(value, int) and abs(value) > _EXACT:
        return str(value)
    return value
