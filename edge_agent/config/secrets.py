"""Secrets of the configuration: by reference, resolvable, and never shown."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from edge_agent.config import faults
from edge_agent.config.document import Node
from edge_agent.config.faults import Fault, Report, scope_of
from edge_agent.contract import ConfigError, Secret


def check_secrets(model: BaseModel, node: Node, path: faults.Path, report: Report) -> None:
    """Warn of secrets that stand in the file, cannot be resolved here, or may be read by everyone."""
    for inside, secret in _secrets(model):
        place = _place_of(node, inside)
        message = _message(secret)
        if secret.literal is not None:
            report.hide(secret.literal)
        if message is not None:
            where = (*path, *inside)
            report.add(Fault(place.place, message, where, severity="warning", scope=scope_of(where)))


def _message(secret: Secret) -> str | None:
    if secret.literal is not None:
        return "the secret stands in this file; better {file: …}, {env: …} or {credential: …}"
    if secret.env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", secret.env):
        # It may be the secret itself, put where its variable's name belongs.
        return "expected the name of an environment variable, in capital letters"
    try:
        secret.resolve()
    except ConfigError as error:
        return f"{error}; it must be there when the agent runs"
    except UnicodeDecodeError:
        return "the secret's file is not UTF-8 text"
    except ValueError:
        return "expected a path; it has a character that no path has"
    return _too_open(secret.path()) if secret.file is not None else None


def _too_open(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    return f"{path} may be read by everyone on this machine; chmod 600 it" if mode & stat.S_IROTH else None


def _secrets(value: Any, path: faults.Path = ()) -> Iterator[tuple[faults.Path, Secret]]:
    if isinstance(value, Secret):
        yield path, value
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from _secrets(getattr(value, name), (*path, field.alias or name))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _secrets(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _secrets(item, (*path, index))


def _place_of(node: Node, path: faults.Path) -> Node:
    for step in path:
        if isinstance(node.value, dict) and step in node.value:
            node = node.value[str(step)].value
        elif isinstance(node.value, list) and isinstance(step, int):
            node = node.value[step]
    return node
