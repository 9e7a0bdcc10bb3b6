"""Maps of states and modes that have a standard's numbers, by name: data, for `map: packml` and the like.

The numbers are each profile's own: Execute is 6 in OPC 30050 and 4 in OPC 30060, so a map is chosen and never inferred.
The names are those that the same profile gives as text, so that a tag of either kind is understood.

Source: OPC 30050 (PackML, ISA-TR88.00.02) StateNumber and UnitMode; OPC 30060 (Tobacco Machine Communication);
OPC 40001-1 (Machinery) ItemState and OperationMode.
"""

from __future__ import annotations

from types import MappingProxyType

PRODUCTION = "production"
"""The word of a mode that leaves the state as it is."""

_PACKML_WORDS = {
    "Execute": "producing", "Completing": "producing",
    "Suspending": "delay", "Suspended": "delay", "Unsuspending": "delay",
    "Holding": "delay", "Held": "delay", "Unholding": "delay",
    "Stopping": "down", "Stopped": "down", "Aborting": "down", "Aborted": "down", "Clearing": "down",
    "Idle": "idle", "Starting": "idle", "Resetting": "idle", "Complete": "idle",
}  # fmt: skip
_PACKML = (
    "Clearing", "Stopped", "Starting", "Idle", "Suspended", "Execute", "Stopping", "Aborting", "Aborted", "Holding",
    "Held", "Unholding", "Suspending", "Unsuspending", "Resetting", "Completing", "Complete",
)  # fmt: skip
_PACKML_TMC = (
    "Stopped", "Resetting", "Idle", "Starting", "Execute", "Completing", "Complete", "Aborting", "Aborted", "Stopping",
    "Clearing", "Suspending", "Suspended", "Unsuspending", "Holding", "Held", "Unholding",
)  # fmt: skip

Words = MappingProxyType[int | str, str]


def _map(*states: tuple[int, str, str]) -> Words:
    """The map of numbers, names and words, by number and by name."""
    return MappingProxyType(
        {**{number: word for number, _, word in states}, **{name: word for _, name, word in states}}
    )


def _packml(first: int, names: tuple[str, ...]) -> Words:
    return _map(*((number, name, _PACKML_WORDS[name]) for number, name in enumerate(names, first)))


STATE_MAPS = MappingProxyType(
    {
        "packml": _packml(1, _PACKML),
        "packml-tmc": _packml(0, _PACKML_TMC),
        "machinery": _map(
            (0, "NotAvailable", "idle"),  # switched off, or saving energy
            (1, "OutOfService", "down"),
            (2, "NotExecuting", "delay"),  # it waits for somebody or something to start it
            (3, "Executing", "producing"),
        ),
    }
)
_PACKML_MODES = ((1, "Production", PRODUCTION), (2, "Maintenance", "planned_stop"), (3, "Manual", "setup"))
MODE_MAPS = MappingProxyType(
    {
        "packml": _map(*_PACKML_MODES),  # 0 is Invalid: nobody knows; from 4 on each vendor has its own
        "packml-tmc": _map(
            *_PACKML_MODES,
            (4, "Change Over", "setup"),
            (5, "Clean", "planned_stop"),
            (6, "Set Up", "setup"),
            (7, "Empty Out", "setup"),
        ),
        "machinery": _map(
            (0, "None", PRODUCTION),  # the machine has no mode at present, so only its state speaks
            (1, "Maintenance", "planned_stop"),
            (2, "Setup", "setup"),
            (3, "Processing", PRODUCTION),
        ),
    }
)
