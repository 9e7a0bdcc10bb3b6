"""The direction of imports: who may know whom, and which module is the one door to a library."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROTOCOL_LIBRARIES = {"asyncua", "cryptography", "pymodbus", "serial"}
DRIVERS = {"edge_agent_modbus", "edge_agent_opcua", "edge_agent_serial"}
DOORS = {
    "numpy": ("edge_agent/metrics", "edge_agent/equipment"),
    "sqlite3": ("edge_agent/store",),
    "sqlite_utils": ("edge_agent/store",),
    "paho": ("edge_agent/uplink",),
    "typer": ("edge_agent/cli",),
    "rich": ("edge_agent/cli",),
    "matplotlib": ("edge_agent/cli/report",),
    "ruamel": ("edge_agent/config",),
}
PURE = ("equipment", "metrics", "shifts.py", "record", "production", "entries.py", "timestamps.py")
IMPURE_LIBRARIES = {"asyncio", "time", "socket", "os", "threading", "random", "sqlite3", "pathlib", "subprocess"}


def files(folder: str) -> list[Path]:
    place = ROOT / folder
    return [place] if place.suffix == ".py" else sorted(place.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative imports hide the direction"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(module: str) -> str:
    return module.partition(".")[0]


CORE = [path for path in files("edge_agent") if "simulator" not in path.parts]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_contract_imports_the_standard_library_and_pydantic_only() -> None:
    allowed = sys.stdlib_module_names | {"pydantic"}
    for path in files("edge_agent/contract"):
        for module in imports(path):
            assert top(module) in allowed or module.startswith("edge_agent.contract"), f"{named(path)} imports {module}"


@pytest.mark.parametrize("driver", sorted(DRIVERS))
def test_driver_knows_the_contract_its_library_and_nobody_else(driver: str) -> None:
    allowed = sys.stdlib_module_names | PROTOCOL_LIBRARIES | {"pydantic", driver, "edge_agent"}
    for path in files(f"drivers/{driver}"):
        for module in imports(path):
            assert top(module) in allowed, f"{named(path)} imports {module}"
            if top(module) == "edge_agent":
                assert module.startswith("edge_agent.contract") or module == "edge_agent", f"{named(path)}: {module}"


@pytest.mark.parametrize("path", CORE, ids=named)
def test_core_imports_no_driver_and_no_protocol_library(path: Path) -> None:
    assert not {top(module) for module in imports(path)} & (DRIVERS | PROTOCOL_LIBRARIES)


@pytest.mark.parametrize("library", sorted(DOORS))
def test_library_has_one_door(library: str) -> None:
    for path in CORE:
        if library in {top(module) for module in imports(path)}:
            assert named(path).startswith(DOORS[library]), f"{named(path)} imports {library}"


@pytest.mark.parametrize("place", PURE)
def test_arithmetic_is_pure(place: str) -> None:
    for path in files(f"edge_agent/{place}"):
        assert not {top(module) for module in imports(path)} & IMPURE_LIBRARIES, named(path)


def test_nothing_imports_the_command_line() -> None:
    for path in CORE:
        if "cli" not in path.parts and path.name != "__main__.py":
            assert not [module for module in imports(path) if module.startswith("edge_agent.cli")], named(path)


def test_only_the_command_line_imports_the_simulator() -> None:
    for path in CORE:
        if "cli" not in path.parts:
            assert not [module for module in imports(path) if module.startswith("edge_agent.simulator")], named(path)


def test_run_imports_no_rich_no_simulator_and_no_driver_that_nobody_asked_for() -> None:
    code = (
        "import sys; import edge_agent.cli; import edge_agent.agent; import edge_agent.config\n"
        "print(*sorted(name for name in sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    unwanted = PROTOCOL_LIBRARIES | DRIVERS | {"rich", "edge_agent.simulator", "amqtt"}
    assert not unwanted & set(loaded)
