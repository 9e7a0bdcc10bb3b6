"""Driver name to class, by entry point; a driver's module is imported only when a device asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NamedTuple

from edge_agent.contract import ConfigError, Device, Driver, KeepsFiles

GROUP = "edge_agent.drivers"


class Found(NamedTuple):
    """A driver that an installed package offers."""

    name: str
    """What stands in `driver:`."""
    package: str
    version: str
    target: str
    """Module and class, as `module:Class`."""


class Registry:
    """The drivers of all installed packages."""

    def __init__(self, offered: Iterable[EntryPoint] | None = None) -> None:
        """Take what the installed packages offer, or only the given entry points. Imports nothing."""
        points = entry_points(group=GROUP) if offered is None else offered
        self._points: dict[Found, EntryPoint] = {}
        for point in points:
            package = point.dist.name if point.dist else "no package"
            version = point.dist.version if point.dist else ""
            self._points.setdefault(Found(point.name, package, version, point.value), point)
        self._loaded: dict[str, type[Driver]] = {}

    def found(self) -> tuple[Found, ...]:
        """What is offered, sorted by name; a name that two packages claim is there twice."""
        return tuple(sorted(self._points))

    def names(self) -> tuple[str, ...]:
        """The names that `driver:` may have, sorted."""
        return tuple(sorted({found.name for found in self._points}))

    def driver(self, name: str) -> type[Driver]:
        """The class behind a name.

        Raises:
            ConfigError: no package offers it, two do, or what is offered is not a driver or cannot be imported.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> type[Driver]:
        claims = [found for found in self.found() if found.name == name]
        if not claims:
            raise ConfigError(f"no installed package offers the driver {name!r}; known: {', '.join(self.names())}")
        if len(claims) > 1:
            both = " and ".join(f"{found.package} {found.version} ({found.target})".strip() for found in claims)
            raise ConfigError(f"the driver {name!r} is claimed by {both}; uninstall one of them")
        found = claims[0]
        try:
            loaded = self._points[found].load()
        except (ImportError, AttributeError, NameError, SyntaxError, TypeError, ValueError) as error:
            package = f"{found.package} {found.version}".strip()
            raise ConfigError(f"the driver {name!r} of {package} cannot be imported: {error}") from error
        if not (isinstance(loaded, type) and issubclass(loaded, Driver)):
            raise ConfigError(f"{found.target} of {found.package} is not a driver: it must be a subclass of Driver")
        return loaded


@cache
def installed() -> Registry:
    """The registry of what is installed, read once."""
    return Registry()


def driver(name: str) -> type[Driver]:
    """The class behind a name; see `Registry.driver`."""
    return installed().driver(name)


def construct(devices: Sequence[Device], data: Path) -> Driver:
    """The driver of one link with these devices; one that keeps files gets a folder of its own in the data folder.

    Raises:
        ConfigError: the devices cannot share this link; the message says which and why.
    """
    name = devices[0].settings.driver
    made = driver(name)(devices)
    if isinstance(made, KeepsFiles):
        made.keep_files_in(data / name)
    return made


def names() -> tuple[str, ...]:
    """The names that `driver:` may have, sorted."""
    return installed().names()


def found() -> tuple[Found, ...]:
    """What the installed packages offer, with their versions, sorted by name."""
    return installed().found()
