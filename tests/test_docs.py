"""The documentation tells the whole truth: no verb, option, record field, topic or file is missing from it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import __version__, record
from edge_agent.cli import app
from edge_agent.config.models import FIXED_WINDOWS_S
from edge_agent.equipment import CAUSES, STATES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
RECORDS = (ROOT / "docs" / "records.md").read_text()
COMMANDS = (ROOT / "docs" / "commands.md").read_text()


def fields(schema: dict[str, Any]) -> Iterator[str]:
    """Every property that a schema names, however deep."""
    for name, inner in schema.get("properties", {}).items():
        yield name
        yield from fields(inner)
    for inner in (
        *schema.get("anyOf", ()),
        *schema.get("oneOf", ()),
        *([schema["items"]] if "items" in schema else ()),
    ):
        yield from fields(inner)


@pytest.mark.parametrize("kind", record.TYPES)
def test_docs_name_every_field_of_every_record(kind: str) -> None:
    named = {*fields(record.envelope_schema(kind)), *fields(record.schema(kind))}
    assert [name for name in sorted(named) if f"`{name}`" not in RECORDS] == []


def test_docs_name_every_state_cause_and_window() -> None:
    for word in (*STATES, *CAUSES, *FIXED_WINDOWS_S):
        assert f"`{word}`" in RECORDS, word


def test_docs_name_every_verb_and_every_option_of_its_own() -> None:
    common = {"config", "json_lines"}
    names = {"duration": "--for", "kind": "--type"}
    simulate_itself = {"modbus_port", "opcua_port", "serial_dir"}  # `simulate --help` is their place
    for command in app.registered_commands:
        assert command.callback
        verb = command.callback.__name__
        assert f"`edge-agent {verb}" in COMMANDS, verb
        for name in inspect.signature(command.callback).parameters.keys() - common - simulate_itself:
            shown = names.get(name, f"--{name.replace('_', '-')}")
            assert shown in COMMANDS or name.upper() in COMMANDS, f"{verb} {shown}"


def test_docs_of_verbs_that_are_gone_are_gone() -> None:
    verbs = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert set(re.findall(r"^\| `edge-agent (\w+)", COMMANDS, re.MULTILINE)) == verbs


def test_readme_names_files_and_targets_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`(?:FOR=\S+ )?make (\w+)`", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    for path in re.findall(r"(?<!/)systemd/[\w.-]+", README):
        assert (ROOT / path).exists(), path


def test_changelog_knows_this_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_contributing_fits_on_a_page() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 40
