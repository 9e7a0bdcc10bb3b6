"""What the commissioning verbs are pointed at: a URL, or a configured device; and who else holds that link."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from edge_agent.contract import ConfigError, Driver, EdgeAgentError

if TYPE_CHECKING:
    from edge_agent.config import Configuration

_NETWORK = re.compile(r"[a-z][a-z0-9.+]*://([^/?#\s]+)", re.IGNORECASE)
_PATH = re.compile(r"(?:[a-z][a-z0-9.+]*://)?(/[^?#]+)", re.IGNORECASE)

TargetArgument = Annotated[str, typer.Argument(help="A URL, or the name of a device of the configuration.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting as in YAML, such as timeout='2 s'; may be repeated."),
]


class Target(NamedTuple):
    """A driver, and the settings with which it reaches one device."""

    name: str
    driver: type[Driver]
    settings: Any


def usable(config: Path | None) -> Configuration | None:
    """The configuration, where there is one that can be used; commissioning goes without."""
    from edge_agent.cli.common import load_usable

    try:
        return load_usable(config)
    except ConfigError:
        if config is not None:
            raise
        return None


def target_of(what: str, driver: str, config: Path | None, options: dict[str, Any], given: list[str] | None) -> Target:
    """What a verb is pointed at, with the options that were given laid over it.

    Raises:
        ConfigError: no such device, no such setting.
    """
    from edge_agent import registry
    from edge_agent.config import given_settings

    laid = {key: str(value) for key, value in options.items() if value is not None} | dict(_pairs(given))
    if "://" in what or what.startswith("/"):
        kind = registry.driver(driver)
        return Target(driver, kind, given_settings(kind.Settings, driver, what, laid))
    configuration = usable(config)
    devices = {} if configuration is None else configuration.devices
    if what not in devices:
        known = ", ".join(devices) or "none"
        raise ConfigError(f"{what!r} is no URL and no device of the configuration; there are: {known}")
    if laid:
        raise ConfigError(f"{what} has its settings in the configuration: leave out {', '.join(laid)}, or give its URL")
    settings = devices[what].settings
    return Target(settings.driver, registry.driver(settings.driver), settings)


def _pairs(given: list[str] | None) -> Iterator[tuple[str, str]]:
    for pair in given or ():
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise typer.BadParameter(f"{pair!r}: write KEY=VALUE, such as timeout='2 s'", param_hint="--set")
        yield key, value


def lacks(target: Target, power: str) -> EdgeAgentError:
    """The error of a driver that cannot do what a verb asks."""
    return ConfigError(f"the driver {target.name} cannot {power}")


def folder_of(config: Path | None, driver: str) -> Path:
    """The folder in which a driver keeps its files, as the agent of the configuration gives it."""
    from edge_agent.agent import data_folder

    configuration = usable(config)
    if configuration is None or configuration.agent is None:
        return Path(os.environ.get("STATE_DIRECTORY", "").split(":")[0] or "data") / driver
    return data_folder(configuration.agent) / driver


# ----------------------------------------------------------------------------------------- who holds the link


def refuse_held(url: str, config: Path | None, doing: str) -> None:
    """Nothing, unless a running agent holds this link.

    Raises:
        EdgeAgentError: it does; two askers on one line take each other's answers.
    """
    wanted = place_of(url)
    for agent, link, device in _held(config):
        if place_of(link) == wanted:
            raise EdgeAgentError(
                f"the agent {agent} reads {device} over {link} right now; stop it before you {doing} there, "
                f"or see what it reads: edge-agent watch {device}"
            )


def place_of(url: str) -> str:
    """The host and port, or the serial port itself behind all its names, that a URL or a link leads to."""
    network = _NETWORK.match(url)
    if network:
        return network[1].rpartition("@")[2].lower()
    path = _PATH.match(url)
    return os.path.realpath(path[1]) if path else url


def _held(config: Path | None) -> Iterator[tuple[str, str, str]]:
    """The agent, link and device of everything that agents on this machine are connected to or try to be."""
    from edge_agent import control
    from edge_agent.agent import data_folder

    sockets = set(control.RUN_FOLDER.glob("*.sock")) if control.RUN_FOLDER.is_dir() else set()
    configuration = usable(config)
    if configuration is not None and configuration.agent is not None:
        sockets |= set(control.socket_candidates(configuration.agent.name, data_folder(configuration.agent)))
    for path in sorted(sockets):
        try:
            for status in control.ask(path, "status"):
                yield from ((status["agent"], one["link"], one["device"]) for one in status["devices"])
        except control.NoAgent:
            continue
