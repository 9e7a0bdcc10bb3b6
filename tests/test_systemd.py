"""The unit and its companions, judged by systemd's own tools; and what the agent tells the service manager."""

from __future__ import annotations

import configparser
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parent.parent / "systemd"
_MOST_EXPOSURE = 2.0

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing (apt install systemd)"
)
needs_sysusers = pytest.mark.skipif(
    shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is missing (apt install systemd)"
)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists on this machine."""
    lines = (_FOLDER / "edge-agent.service").read_text(encoding="utf-8").splitlines()
    copy = tmp_path / "edge-agent.service"
    copy.write_text(
        "\n".join("ExecStart=/bin/true" if line.startswith("ExecStart=") else line for line in lines) + "\n"
    )
    return copy


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@needs_analyze
def test_unit_verify_finds_nothing_to_say(unit: Path) -> None:
    done = _run("systemd-analyze", "verify", "--man=no", str(unit))
    ours = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, ours) == (0, [])


@needs_analyze
def test_unit_verify_sees_a_wrong_key(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("WatchdogSec=60", "WatchdogSec=often"))
    assert f"{unit.name}:" in _run("systemd-analyze", "verify", "--man=no", str(unit)).stderr


@needs_analyze
def test_unit_exposure_is_small(unit: Path) -> None:
    def judge(limit: float) -> subprocess.CompletedProcess[str]:
        return _run("systemd-analyze", "security", "--offline=true", f"--threshold={limit * 10:.0f}", str(unit))

    done = judge(_MOST_EXPOSURE)
    if "nrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze has no security --offline")
    assert done.returncode == 0, done.stdout
    assert judge(0.5).returncode != 0, "a threshold that everything passes tells nothing"


def test_unit_says_what_the_agent_relies_on() -> None:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(_FOLDER / "edge-agent.service", encoding="utf-8")
    service = parser["Service"]
    assert service["ExecStart"] == "/opt/edge-agent/bin/edge-agent run /etc/edge-agent"
    assert (service["Type"], service["Restart"], service["WatchdogSec"]) == ("notify", "always", "60")
    assert service["StateDirectory"] == service["RuntimeDirectory"] == service["ConfigurationDirectory"] == "edge-agent"
    assert (service["User"], service["Group"]) == ("edge-agent", "edge-agent")
    assert parser["Unit"]["StartLimitIntervalSec"] == "0"


@needs_sysusers
def test_sysusers_makes_the_user_and_its_groups(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    done = _run("systemd-sysusers", f"--root={tmp_path}", str(_FOLDER / "edge-agent.sysusers.conf"))
    if done.returncode != 0 and "ermission" in done.stderr:
        pytest.skip("systemd-sysusers wants root")
    assert done.returncode == 0, done.stderr
    assert "edge-agent:" in (tmp_path / "etc/passwd").read_text()
    groups = (tmp_path / "etc/group").read_text().splitlines()
    assert [line for line in groups if line.startswith("dialout:") and line.endswith(":edge-agent")]
    assert [line for line in groups if line.startswith("edge-agent:")]


def test_modules_cover_the_usual_adapters() -> None:
    lines = (_FOLDER / "modules-load.conf").read_text(encoding="utf-8").splitlines()
    modules = {line for line in lines if line and not line.startswith("#")}
    assert modules == {"cdc_acm", "ch341", "cp210x", "ftdi_sio", "pl2303"}


def test_agent_tells_the_service_manager_ready_alive_and_stopping(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(
        "agent: {name: gw1, enterprise: acme, site: lyon, data: data}\nmqtt: {url: 'mqtt://127.0.0.1:1'}\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(15)
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        command = [sys.executable, "-m", "edge_agent", "run", str(tmp_path)]
        agent = subprocess.Popen(command, env=os.environ | told, cwd=tmp_path, stderr=subprocess.DEVNULL)
        try:
            assert manager.recv(1_000).decode().splitlines() == ["READY=1", "STATUS=0 links, 0 machines"]
            assert [manager.recv(1_000) for _ in range(2)] == [b"WATCHDOG=1"] * 2
            agent.terminate()
            while (line := manager.recv(1_000)) == b"WATCHDOG=1":
                pass
            assert (line, manager.recv(1_000)) == (b"STOPPING=1", b"STATUS=stopped")
            assert agent.wait(15) == 0
        finally:
            agent.kill()
            agent.wait()
