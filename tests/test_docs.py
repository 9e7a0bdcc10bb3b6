"""The documentation tells the whole truth: no verb, option, record field, word, topic or file is missing from it."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from typer.testing import CliRunner
from worked_example import EXAMPLE, UNTIL, example, shown

from edge_agent import __version__, record
from edge_agent.cli import app
from edge_agent.config.models import FIXED_WINDOWS_S
from edge_agent.entries import KINDS
from edge_agent.equipment import CAUSES, STATES

ROOT = Path(__file__).parent.parent
DOCS = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
README = (ROOT / "README.md").read_text()
RECORDS, COMMANDS = DOCS["records.md"], DOCS["commands.md"]
PAGE = {"downtime": "downtime.md", "job": "jobs.md", "entry": "entries.md"}
"""Where the fields of a type of record are, if not in records.md."""
EXAMPLES = [(page, name, text) for page, whole in DOCS.items() for name, text in EXAMPLE.findall(whole)]


def inside(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schemas in a schema, itself first, however deep."""
    yield schema
    several = [schema[name] for name in ("items", "additionalProperties", "propertyNames") if name in schema]
    for inner in (*several, *schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from inside(inner)


def missing(names: set[str], *pages: str) -> list[str]:
    return sorted(name for name in names if not any(f"`{name}`" in page for page in pages))


@pytest.mark.parametrize("kind", record.TYPES)
def test_docs_name_every_field_of_every_record(kind: str) -> None:
    page = DOCS[PAGE.get(kind, "records.md")]
    tables = "\n".join(line.split("|")[1] for line in page.splitlines() if line.startswith("|"))
    assert missing(set(record.schema(kind)["properties"]), tables) == [], "of its own, in a table"
    nested = {name for schema in inside(record.schema(kind)) for name in schema.get("properties", {})}
    assert missing(nested, page, RECORDS) == []
    assert missing(set(record.envelope_schema(kind)["properties"]), RECORDS) == []
    assert f"`edge.{kind}.v1`" in RECORDS


@pytest.mark.parametrize("kind", record.TYPES)
def test_docs_name_every_word_that_a_field_may_have(kind: str) -> None:
    words = {str(word) for schema in inside(record.schema(kind)) for word in schema.get("enum", ())}
    assert missing(words, DOCS[PAGE.get(kind, "records.md")], RECORDS) == []


def test_docs_name_every_state_cause_window_and_kind_of_entry() -> None:
    assert missing({*STATES, *CAUSES, *FIXED_WINDOWS_S}, RECORDS) == []
    assert missing(set(KINDS), DOCS["entries.md"]) == []


def test_docs_name_every_reason_of_a_null() -> None:
    source = (ROOT / "edge_agent" / "metrics" / "oee.py").read_text()
    words = set(re.findall(r'"(no_\w+|nothing_\w+|\w+_not_counted|corrected_\w+|rework_exceeds_good)"', source))
    assert len(words) > 12
    assert missing(words, RECORDS) == []


@pytest.fixture(scope="module")
def worked() -> None:
    """The worked example, tried once: also where it fails."""
    example()


@pytest.mark.usefixtures("worked")
@pytest.mark.parametrize(("page", "name", "text"), EXAMPLES, ids=[name for _, name, _ in EXAMPLES])
def test_examples_are_what_the_worked_example_says_and_agree_with_their_schemas(
    page: str, name: str, text: str
) -> None:
    given, kind = json.loads(text), name.split()[0]
    schema = record.envelope_schema(kind) if name.endswith(" event") else record.schema(kind)
    jsonschema.Draft202012Validator(schema).validate(given)
    assert given == shown(name), f"docs/{page}: the records have changed: run tests/worked_example.py, then read it"


def test_every_type_that_an_erp_takes_has_an_example() -> None:
    assert {name.split()[0] for _, name, _ in EXAMPLES} == set(record.TYPES) - {"status", "manifest", "health"}


def test_every_block_of_json_in_the_docs_is_an_example_that_is_checked() -> None:
    for page, text in DOCS.items():
        assert text.count("```json") == len(EXAMPLE.findall(text)), page


@pytest.mark.usefixtures("worked")
def test_command_of_the_first_page_prints_the_records_of_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    block = DOCS["posting.md"].partition("```\n")[2].partition("```")[0].replace("\\\n", " ")
    program, *arguments = shlex.split(block)
    result = CliRunner().invoke(app, arguments)
    assert (program, result.exit_code) == ("edge-agent", 0), result.output
    printed = [json.loads(line)["data"] for line in result.stdout.splitlines()]
    records = [json.loads(one.payload)["data"] for one in example()[0]]
    assert printed == [data for data in records if data["start"] < UNTIL]


@pytest.mark.usefixtures("worked")
def test_query_that_rolls_up_gives_the_kpis_of_the_shift_that_it_rolls_up() -> None:
    events = [json.loads(one.payload) for one in example()[0] if one.type == "production"]
    with sqlite3.connect(":memory:") as db:
        db.execute("CREATE TABLE production (key TEXT, epoch INTEGER, revision INTEGER, data TEXT)")
        rows = [(event["data"]["key"], event["epoch"], event["data"]["revision"], event["data"]) for event in events]
        db.executemany("INSERT INTO production VALUES (?, ?, ?, ?)", [(*row[:3], json.dumps(row[3])) for row in rows])
        found = db.execute(RECORDS.partition("```sql\n")[2].partition("```")[0]).fetchall()
    early = max(
        (row for row in rows if (row[3]["window"], row[3]["shift"]) == ("shift", "early")), key=lambda row: row[2]
    )
    names = ("availability", "effectiveness", "quality_ratio", "oee_index")
    assert [row[:2] for row in found] == [("2026-11-23", "early"), ("2026-11-23", "off")]
    assert found[0][2:] == pytest.approx([early[3]["kpi"][name] for name in names], abs=1e-6)


def commands() -> Iterator[tuple[str, Any]]:
    """Every verb with its path, `entry reason` as well as `check`."""

    def below(group: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from below(command, (*path, name))
            else:
                yield " ".join((*path, name)), command

    yield from below(typer.main.get_command(app), ())


def test_docs_name_every_verb_and_every_option_of_its_own() -> None:
    common = {"--config", "--json"}
    simulate_itself = {"--modbus-port", "--opcua-port", "--serial-dir"}  # `simulate --help` is their place
    for verb, command in commands():
        assert f"`edge-agent {verb}" in COMMANDS, verb
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                assert (parameter.name or "").upper() in COMMANDS, f"{verb} {parameter.name}"
            else:
                shown_as = max(parameter.opts, key=len)
                assert shown_as in COMMANDS or shown_as in common | simulate_itself, f"{verb} {shown_as}"


def test_docs_of_verbs_that_are_gone_are_gone() -> None:
    verbs = {verb for verb, _ in commands()} | {"entry"}  # the family, of which the verbs have a table of their own
    named = re.findall(r"^\| `edge-agent ([a-z]+(?: [a-z-]+)?)", COMMANDS, re.MULTILINE)
    assert set(named) == verbs


def test_examples_of_entries_in_the_docs_are_commands_that_exist() -> None:
    known = dict(commands())
    told = [line for page in DOCS.values() for line in re.findall(r"`edge-agent (entry [a-z-]+[^`…]*)`", page)]
    assert len(told) > 10
    for line in told:
        family, verb, *_ = line.split()
        options = {option for parameter in known[f"{family} {verb}"].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z]+", line)) <= options, line


def test_links_between_pages_lead_somewhere() -> None:
    for page, text in DOCS.items():
        for link in re.findall(r"\]\(([^)#]+)", text):
            assert (ROOT / "docs" / link).exists(), f"{page}: {link}"


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
