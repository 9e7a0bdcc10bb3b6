"""All that the author of a driver reads: tags, readings, the driver itself, settings, errors.

A driver is one class behind an entry point of the group `edge_agent.drivers`. It reads and translates;
the poller paces, scales, backs off, counts and gives up. Built-in drivers have no privileges.

The order of calls: the class is constructed (which opens nothing), then `connect`, then any number of `read`s,
one at a time, and, for a driver that `Streams`, one running `stream`; then `close`, which may come at any time
and more than once. After `NotConnected` the poller calls `close`, waits, and calls `connect` on the same object:
`connect` begins from nothing each time.

| file | what |
|---|---|
| `driver.py` | `Driver`, and the powers that it may have while the agent runs: `Streams`, `HasHistory`, `KeepsFiles` |
| `readings.py` | `Device`, `Tag`, `Reading`, `Quality` |
| `settings.py`, `quantities.py` | the models that stand in YAML, and their `Duration`, `Size`, `Rate`, `Secret` |
| `errors.py` | `ConfigError`, `NotConnected`, `DeviceFault`, `ProtocolFault` |
| `commissioning.py` | powers for the verbs: `Browses`, `Scans`, `Decodes`, `Sniffs`, `Certificates` |
"""

from edge_agent.contract.adapters import LOOK_AGAIN_S, SameAdapter
from edge_agent.contract.commissioning import (
    Browsed,
    Browses,
    CertificateFacts,
    Certificates,
    Decodes,
    Decoding,
    Heard,
    ScanFinding,
    ScanRequest,
    Scans,
    ScanStep,
    Sniffs,
    Suggestion,
)
from edge_agent.contract.driver import (
    NO_HISTORY,
    Driver,
    HasHistory,
    HistoryPart,
    KeepsFiles,
    Streams,
)
from edge_agent.contract.errors import (
    ConfigError,
    DeviceFault,
    EdgeAgentError,
    NotConnected,
    ProtocolFault,
)
from edge_agent.contract.quantities import (
    NS_PER_S,
    Duration,
    Period,
    Rate,
    Size,
    parse_duration,
    parse_rate,
    parse_size,
)
from edge_agent.contract.readings import (
    Device,
    Origin,
    Quality,
    Reading,
    Tag,
    Value,
    bad,
)
from edge_agent.contract.settings import (
    DeviceSettings,
    Secret,
    Settings,
    TagSettings,
)

__all__ = [
    "LOOK_AGAIN_S",
    "NO_HISTORY",
    "NS_PER_S",
    "Browsed",
    "Browses",
    "CertificateFacts",
    "Certificates",
    "ConfigError",
    "Decodes",
    "Decoding",
    "Device",
    "DeviceFault",
    "DeviceSettings",
    "Driver",
    "Duration",
    "EdgeAgentError",
    "HasHistory",
    "Heard",
    "HistoryPart",
    "KeepsFiles",
    "NotConnected",
    "Origin",
    "Period",
    "ProtocolFault",
    "Quality",
    "Rate",
    "Reading",
    "SameAdapter",
    "ScanFinding",
    "ScanRequest",
    "ScanStep",
    "Scans",
    "Secret",
    "Settings",
    "Size",
    "Sniffs",
    "Streams",
    "Suggestion",
    "Tag",
    "TagSettings",
    "Value",
    "bad",
    "parse_duration",
    "parse_rate",
    "parse_size",
]
