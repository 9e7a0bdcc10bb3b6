"""The settings of a device that stands in no file: made of what was typed on the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

from edge_agent.config.document import compose
from edge_agent.config.faults import Report
from edge_agent.config.validation import validated
from edge_agent.contract import ConfigError, DeviceSettings

S = TypeVar("S", bound=DeviceSettings)

_PLACE = "the command line"


def given_settings(model: type[S], driver: str, url: str, options: Mapping[str, str]) -> S:
    """A driver's settings from a URL and options, whose values are written as in YAML.

    Raises:
        ConfigError: they are not what the driver takes; the message has all mistakes in the words of `check`.
    """
    report = Report()
    lines = [f"driver: {json.dumps(driver)}", f"url: {json.dumps(url)}"]
    lines += [f"{key}: {value}" for key, value in options.items()]
    top = compose("device:\n" + "".join(f"  {line}\n" for line in lines), _PLACE, report.add)
    entry = (top.mapping or {}).get("device") if top is not None else None
    settings = None if entry is None else validated(model, entry, (), report)
    if settings is None:
        # Lines and columns of a text that nobody has written would only confuse.
        faults = [str(fault).removeprefix(f"{fault.place}: ").removeprefix("error: ") for fault in report.result()]
        raise ConfigError("\n".join(faults) or f"{url}: these settings cannot be used")
    return settings
