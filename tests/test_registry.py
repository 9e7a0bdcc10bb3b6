"""Driver names to classes: what is installed, what is asked for, and what goes wrong."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import pytest
from config_driver import BenchDriver, entry_point

from edge_agent.contract import ConfigError
from edge_agent.registry import GROUP, Registry, driver, found, names


def _package(folder: Path, name: str, version: str, target: str) -> EntryPoint:
    """The entry point of a package that is laid out as an installer lays it out."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nbench = {target}\n")
    (point,) = Distribution.at(info).entry_points
    return point


def test_installed_drivers_are_named_with_package_and_version() -> None:
    assert {"modbus", "opcua", "serial"} <= set(names())
    modbus = next(item for item in found() if item.name == "modbus")
    assert modbus.package == "edge-agent"
    assert modbus.version[0].isdigit()
    assert modbus.target.startswith("edge_agent_modbus:")


def test_installed_driver_is_loaded_by_its_name() -> None:
    assert driver("modbus").__name__ == "ModbusDriver"


def test_names_are_told_without_importing_a_driver() -> None:
    code = (
        "import sys; from edge_agent.registry import names; assert 'modbus' in names();"
        "sys.exit('edge_agent_modbus' in sys.modules or 'asyncua' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_driver_offered_by_a_package_is_the_same_class_each_time(tmp_path: Path) -> None:
    registry = Registry([_package(tmp_path, "bench-driver", "1.2", "config_driver:BenchDriver")])
    assert registry.driver("bench") is BenchDriver
    assert registry.driver("bench") is BenchDriver
    assert registry.found() == (("bench", "bench-driver", "1.2", "config_driver:BenchDriver"),)


def test_driver_claimed_by_two_packages_is_an_error_that_names_both(tmp_path: Path) -> None:
    registry = Registry(
        [
            _package(tmp_path, "bench-driver", "1.2", "config_driver:BenchDriver"),
            _package(tmp_path, "other-driver", "3.4", "other:Driver"),
        ]
    )
    with pytest.raises(ConfigError, match=r"bench-driver 1\.2 .* and other-driver 3\.4 .*; uninstall one") as caught:
        registry.driver("bench")
    assert "'bench'" in str(caught.value)
    assert registry.names() == ("bench",)


def test_driver_that_nobody_offers_is_an_error_that_lists_the_known_ones() -> None:
    registry = Registry([entry_point("bench", "config_driver:BenchDriver")])
    with pytest.raises(ConfigError, match="no installed package offers the driver 'bensch'; known: bench"):
        registry.driver("bensch")


@pytest.mark.parametrize("target", ["no_such_module:Driver", "config_driver:Absent"])
def test_driver_that_cannot_be_imported_is_an_error_with_the_reason(target: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be imported: .*(no_such_module|Absent)"):
        Registry([entry_point("bench", target)]).driver("bench")


@pytest.mark.parametrize("target", ["config_driver:BenchSettings", "config_driver:AGENT"])
def test_target_that_is_no_driver_is_an_error(target: str) -> None:
    with pytest.raises(ConfigError, match="is not a driver"):
        Registry([entry_point("bench", target)]).driver("bench")
