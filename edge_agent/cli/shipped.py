"""Files that travel with the package: the example configuration and the systemd units."""

from __future__ import annotations

from pathlib import Path

import edge_agent

_PACKAGE = Path(edge_agent.__file__).parent


def shipped(name: str) -> Path:
    """The folder `config` or `systemd`: in the installed package, else in the checkout beside it."""
    inside = _PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
