"""What the record of a job says, and the same in the words of an ISA-95 job response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_agent.contract import NS_PER_S
from edge_agent.production import Machine, WindowData
from edge_agent.production.jobs import JobFact, Progress
from edge_agent.record.facts import completeness_data, quantity_data, times_ms
from edge_agent.record.revision import FIRST, Revision
from edge_agent.timestamps import rfc3339

RESPONSE = (
    ("ActualUnitSetupTime", "s", "setup"),
    ("ActualProductionTime", "s", "run"),
    ("ActualUnitProcessingTime", "s", "processing"),
    ("ActualUnitDelayTime", "s", "delay"),
    ("ActualUnitBusyTime", "s", "busy"),
    ("ActualUnitDownTime", "s", "idle"),
    ("PlannedQuantity", "", "planned"),
    ("ProducedQuantity", "", "produced"),
    ("GoodQuantity", "", "good"),
    ("ScrapQuantity", "", "scrap"),
    ("ReworkQuantity", "", "rework"),
)
"""The data of a job response: its ISA-95 name, its unit (empty: the quantity's), and which of ours it is.

Source: OPC 40001-3 (ISA-95 job response data), ISO 22400-2 for the times: AUST, APT, AUPT, ADET, AUBT, ADOT.
"""


def job_topic(prefix: str, subject: str) -> str:
    """Where the jobs of one machine go."""
    return f"{prefix}/{subject}/job"


def job_key(subject: str, start_ns: int) -> str:
    """The name of a job on its machine: its start as it was first published, which it keeps."""
    return f"{subject}/job/{rfc3339(start_ns)}"


def job_data(
    machine: Machine,
    key: str,
    job: JobFact,
    found: WindowData | None,
    revision: Revision = FIRST,
) -> dict[str, Any]:
    """The data of a job; `found` is its window, from start to end; None while it is in work.

    The other arguments are as of `production_data`.
    """
    times = None if found is None else times_ms(found)
    quantity = None if found is None else quantity_data(machine, found)
    return {
        **revision.head(key, machine.name),
        "job": job.name,
        "operation": job.operation,
        "product": job.product,
        "planned_quantity": job.planned_quantity,
        "fields": dict(job.fields),
        "start": rfc3339(job.start_ns),
        "end": None if job.end_ns is None else rfc3339(job.end_ns),
        "open": job.end_ns is None,
        "started_by": job.started_by,
        "ended_by": job.ended_by,
        "time_s": None if times is None else {state: part / 1000 for state, part in times.items()},
        "quantity": quantity,
        "kpi": None if found is None else found.kpis.values,
        "kpi_reason": None if found is None else found.kpis.reasons,
        "completeness": None if found is None or times is None else completeness_data(found, times),
        "flags": [] if found is None else list(found.flags),
        "response": _response(job, found, quantity),
    }


def previous_job(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a revision of a job says of the one before it."""
    return {name: data[name] for name in ("revision", "end", "quantity", "time_s")}


def job_progress(progress: Progress) -> dict[str, Any]:
    """The job in work as a machine's retained state tells it."""
    expected = progress.expected_end_ns
    return {
        "job": progress.job.name,
        "operation": progress.job.operation,
        "product": progress.job.product,
        "start": rfc3339(progress.job.start_ns),
        "planned_quantity": progress.job.planned_quantity,
        "good": progress.good,
        "remaining": progress.remaining,
        "expected_end": None if expected is None else rfc3339(expected // NS_PER_S * NS_PER_S),
    }


def _response(job: JobFact, found: WindowData | None, quantity: Mapping[str, Any] | None) -> dict[str, Any]:
    ours = {"planned": job.planned_quantity} | dict(quantity or {})
    if found is not None:
        sums = {name: found.kpis.sums[f"{name}_s"] or 0 for name in ("run", "setup", "delay")}
        sums |= {"processing": sums["run"] + sums["setup"], "idle": found.times_ns["idle"]}
        sums["busy"] = sums["processing"] + sums["delay"]
        ours |= {name: round(amount / NS_PER_S, 3) for name, amount in sums.items()}
    data = [
        {"ID": name, "Value": ours[own], "UnitOfMeasure": unit or machine_unit(quantity)}
        for name, unit, own in RESPONSE
        if ours.get(own) is not None
    ]
    return {
        "JobOrderID": job.name,
        "WorkMasterID": job.operation,
        "MaterialDefinitionID": job.product,
        "StartTime": rfc3339(job.start_ns),
        "EndTime": None if job.end_ns is None else rfc3339(job.end_ns),
        "JobState": "Running" if job.end_ns is None else "Ended",
        "JobResponseData": data,
    }


def machine_unit(quantity: Mapping[str, Any] | None) -> str:
    """The unit of a record's quantities."""
    return "1" if quantity is None else str(quantity["unit"])
