"""A secure OPC UA server, commissioned as a person does it: refused, shown, trusted, read by verbs and by the agent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_server import SECURE, NodeServer, needs_node_opcua
from test_cli import Folder, until

pytestmark = needs_node_opcua

CONFIG = """
agent: {{name: gw1, enterprise: acme, site: lyon}}
mqtt: {{url: "mqtt://127.0.0.1:1"}}
devices:
  oven:
    driver: opcua
    url: {url}
    security: Basic256Sha256/SignAndEncrypt
    check_host: false
    username: agent
    password: {{env: OVEN_PASSWORD}}
    tags:
      value: {{address: "nsu=urn:test:first;s=Value"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with NodeServer(tmp_path / "node", policies=SECURE, modes=("SignAndEncrypt",), anonymous=False) as server:
        made = Folder(tmp_path, 1)
        made.write(CONFIG.format(url=server.url))
        made.environment["OVEN_PASSWORD"] = "secret"
        yield made
        made.close()


def test_secure_server_is_refused_shown_trusted_and_read(folder: Folder) -> None:
    tried = folder.verb("check", str(folder.config), "--connect")
    assert tried.returncode == 1
    assert "FAIL  oven: " in tried.stdout
    assert "edge-agent cert trust " in tried.stdout
    beginning = tried.stdout.partition("edge-agent cert trust ")[2].split("`")[0]

    shown = folder.ask("cert", "show")
    assert beginning in shown.stdout
    rows = [json.loads(line) for line in folder.ask("cert", "show", "--json").stdout.splitlines()]
    assert [row["store"] for row in rows] == ["own", "rejected"]
    assert rows[1]["fingerprint"].startswith(beginning)
    assert (folder.data / "opcua" / "own" / "certs" / "edge-agent.der").exists()

    wrong = folder.ask("cert", "trust", "ffffffffffffffff")
    assert wrong.returncode == 78
    trusted = folder.ask("cert", "trust", beginning, "--json")
    assert json.loads(trusted.stdout)["store"] == "trusted"
    again = folder.verb("check", str(folder.config), "--connect")
    assert "ok    oven: 1 of 1 tags" in again.stdout, again.stdout

    folder.run_agent()
    until(lambda: any(one["readings"] for one in folder.status().get("devices", [])), "a reading through the agent")
    (row,) = [json.loads(line) for line in folder.ask("read", "oven", "--json").stdout.splitlines()]
    assert (row["value"], row["quality"]) == ("urn:test:first", "good")


def test_browse_of_a_secure_server_takes_security_and_a_password_from_a_file(folder: Folder, tmp_path: Path) -> None:
    url = (folder.config / "all.yaml").read_text().partition("url: opc")[2].split()[0]
    (tmp_path / "password").write_text("secret")
    options = ("--security", "Basic256Sha256/SignAndEncrypt", "--username", "agent",
               "--password-file", str(tmp_path / "password"), "--set", "check_host=false")  # fmt: skip
    first = folder.ask("browse", f"opc{url}", *options)
    assert first.returncode == 1
    beginning = first.stderr.partition("edge-agent cert trust ")[2].split("`")[0]
    assert folder.ask("cert", "trust", beginning).returncode == 0
    tree = folder.ask("browse", f"opc{url}", *options)
    assert "Double: Double = 2.25" in tree.stdout, tree.stderr
    by_name = folder.ask("browse", "oven")
    assert "Double: Double = 2.25" in by_name.stdout, "a configured device has its own security"
    assert "secret" not in first.stderr + tree.stdout + tree.stderr


def test_renewed_own_certificate_is_another(folder: Folder) -> None:
    one = json.loads(folder.ask("cert", "renew", "--json").stdout)
    other = json.loads(folder.ask("cert", "renew", "--json").stdout)
    assert one["fingerprint"] != other["fingerprint"]
    assert "no certificates" in folder.ask("cert", "show", "--folder", str(folder.data / "nothing")).stdout
