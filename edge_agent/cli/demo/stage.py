"""The demo's processes: broker, plant and agent, each its own, in a folder that goes when they go."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge_agent import control
from edge_agent.cli.shipped import shipped
from edge_agent.contract import EdgeAgentError
from edge_agent.uplink.subscriber import Subscriber

START_S = 30.0
STOP_S = 15.0
EXAMPLE = {
    "press": "tcp://127.0.0.1:5020",
    "oven": "opc.tcp://127.0.0.1:4840",
    "counter": "/tmp/edge-agent-plant/counter",  # noqa: S108 - a text in the example that is replaced
    "scale": "/tmp/edge-agent-plant/scale",  # noqa: S108
    "broker": "mqtt://localhost:1883",
}
"""Where the example configuration looks for things, and the demo puts its own."""
_AMQTT = (
    "import asyncio, logging, sys; from amqtt.broker import Broker; logging.disable(logging.CRITICAL)\n"
    "async def main():\n"
    " broker = Broker({'listeners': {'default': {'type': 'tcp', 'bind': f'127.0.0.1:{sys.argv[1]}'}},"
    " 'plugins': {'amqtt.plugins.authentication.AnonymousAuthPlugin': {'allow_anonymous': True}}})\n"
    " await broker.start()\n await asyncio.Event().wait()\n"
    "asyncio.run(main())"
)


class Stage:
    """Everything that the demo runs. As a context: on leaving, every process is ended and the folder removed."""

    subscriber: Subscriber

    def __init__(self, seed: int, broker: str | None = None) -> None:
        self.broker_name = broker or ("mosquitto" if _mosquitto() else "amqtt")
        self._seed = seed
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="edge-agent-demo-"))
        self._socket = self._folder / "data" / "agent.sock"

    def open(self, say: Callable[[str], None]) -> None:
        """Start broker, plant, subscriber and agent, and the machines once every device has been read.

        Raises:
            EdgeAgentError: one of them does not come up; the message has the end of what it said.
        """
        weaker = "" if self.broker_name == "mosquitto" else " (MQTT 3.1.1; with mosquitto installed it would be MQTT 5)"
        say(f"broker: {self.broker_name}{weaker}")
        port = self._start_broker()
        self.subscriber = Subscriber("127.0.0.1", port, "edge/v1/#", five=self.broker_name == "mosquitto")
        say("plant: a press (Modbus TCP), an oven (OPC UA), a packing cell (Modbus RTU and a scale on serial lines)")
        plant = self._start(
            "plant", [*_edge_agent(), "simulate", "--hold", "--stdin", "--seed", str(self._seed), "--modbus-port", "0",
                      "--opcua-port", "0", "--serial-dir", str(self._folder / "lines")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        endpoints = self._answer(plant)
        self._write_configuration({**endpoints, "broker": f"mqtt://127.0.0.1:{port}"})
        say("agent: edge-agent run, with the example configuration of config/")
        environment = os.environ | {"STATE_DIRECTORY": str(self._folder / "data")}
        environment.pop("RUNTIME_DIRECTORY", None)
        self._start("agent", [*_edge_agent(), "run", str(self._folder / "config")], env=environment)
        self._await_first_sweep()
        self._command("start")
        say("the machines make parts")

    # ---------------------------------------------------------------------------------------- processes

    def _start(self, name: str, command: list[str], **how: Any) -> subprocess.Popen[str]:
        with (self._folder / f"{name}.log").open("w") as log:
            how.setdefault("stdout", log)
            # A session of its own: Ctrl-C in the terminal is for the demo, which then ends the others in order.
            process = subprocess.Popen(command, stderr=log, text=True, start_new_session=True, **how)
        self._processes[name] = process
        return process

    def _start_broker(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        if self.broker_name == "mosquitto":
            mosquitto = _mosquitto()
            if mosquitto is None:
                raise EdgeAgentError("mosquitto is not installed: apt install mosquitto, or --broker amqtt")
            settings = self._folder / "mosquitto.conf"
            settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n")
            self._start("broker", [mosquitto, "-c", str(settings)])
        else:
            self._start("broker", [sys.executable, "-W", "ignore", "-c", _AMQTT, str(port)])
        self._wait("broker", lambda: _answers(port))
        return port

    def _await_first_sweep(self) -> None:
        def swept() -> bool:
            devices = self.status().get("devices", [])
            return bool(devices) and all(device["readings"] for device in devices)

        self._wait("agent", swept)
        time.sleep(1.0)  # the sweep is durable, so that the baseline of every counter is on disk

    def _wait(self, name: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise EdgeAgentError(f"the {name} did not come up in {START_S:.0f} s:\n{self._said(name)}")
            time.sleep(0.1)

    def check(self) -> None:
        """See that everything still runs.

        Raises:
            EdgeAgentError: a process has ended; the message has the end of what it said.
        """
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise EdgeAgentError(f"the {name} has ended with {process.returncode}:\n{self._said(name)}")

    def _said(self, name: str) -> str:
        return "\n".join((self._folder / f"{name}.log").read_text().splitlines()[-10:])

    def _write_configuration(self, endpoints: dict[str, str]) -> None:
        target = self._folder / "config"
        shutil.copytree(shipped("config"), target)
        for path in target.rglob("*.yaml"):
            text = path.read_text()
            for name, address in EXAMPLE.items():
                text = text.replace(address, endpoints[name])
            path.write_text(text)

    # -------------------------------------------------------------------------------- plant and agent

    def _answer(self, plant: subprocess.Popen[str]) -> dict[str, Any]:
        assert plant.stdout is not None  # noqa: S101 - it was started with a pipe
        line = plant.stdout.readline()
        if not line:
            plant.wait(STOP_S)
            raise EdgeAgentError(f"the plant did not come up:\n{self._said('plant')}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _command(self, command: str) -> dict[str, Any]:
        plant = self._processes["plant"]
        assert plant.stdin is not None  # noqa: S101 - it was started with a pipe
        plant.stdin.write(command + "\n")
        plant.stdin.flush()
        return self._answer(plant)

    def freeze(self) -> None:
        """Stop all machines where they are."""
        self._command("freeze")

    def truth(self) -> dict[str, int]:
        """The parts that each machine has made."""
        return {name: machine["produced"] for name, machine in self._command("truth")["machines"].items()}

    def status(self) -> dict[str, Any]:
        """What the agent says of itself; empty while it does not answer."""
        try:
            return next(control.ask(self._socket, "status"), {})
        except control.ControlError:
            return {}

    # ----------------------------------------------------------------------------------------- the end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name in ("agent", "plant", "broker"):
            process = self._processes.get(name)
            if process is not None:
                _end(process)
            if name == "agent" and hasattr(self, "subscriber"):
                self.subscriber.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _edge_agent() -> list[str]:
    return [sys.executable, "-m", "edge_agent"]


def _mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
