"""`edge-agent version` and `edge-agent drivers`."""

from __future__ import annotations

from edge_agent.cli.common import JsonOption, print_json, print_table


def version(json_lines: JsonOption = False) -> None:
    """Say which versions are at work: the agent's, Python's, SQLite's and the libraries'.

    Example: `edge-agent version --json`
    """
    import platform
    from importlib import metadata

    from edge_agent import __version__
    from edge_agent.store import SQLITE_VERSION

    libraries = ("asyncua", "pymodbus", "paho-mqtt", "pyserial", "sqlite-utils", "numpy", "pydantic", "ruamel.yaml")
    versions = {"edge-agent": __version__, "python": platform.python_version(), "sqlite": SQLITE_VERSION}
    versions |= {name: metadata.version(name) for name in libraries}
    if json_lines:
        print_json(versions)
    else:
        print_table(["part", "version"], [[name, number] for name, number in versions.items()])


def drivers(json_lines: JsonOption = False) -> None:
    """List the drivers that are installed, and the packages that bring them.

    Example: `edge-agent drivers`
    """
    from edge_agent import registry

    for found in registry.found() if json_lines else ():
        print_json({"driver": found.name, "package": found.package, "version": found.version})
    if not json_lines:
        rows = [[found.name, found.package, found.version] for found in registry.found()]
        print_table(["driver", "package", "version"], rows)
