"""A node-opcua server in a process of its own: an OPC UA stack that nobody here wrote; see node_opcua/server.js."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from brokers import free_port

HOME = Path(__file__).parent / "node_opcua"
NODE = shutil.which("node")

needs_node_opcua = pytest.mark.skipif(
    NODE is None or not (HOME / "node_modules" / "node-opcua").is_dir(),
    reason="node-opcua is not installed: sh tests/node_opcua/install.sh",
)
SECURE = ("Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")


class NodeServer:
    """A server that runs as long as the context; `start` and `stop` may be called again, on the same port.

    Its PKI is the folder `pki` below the given one: own/certs/certificate.pem, trusted/certs, rejected and so on.
    """

    def __init__(
        self, folder: Path, *, policies: Sequence[str] = ("None",), modes: Sequence[str] = ("None",),
        namespaces: Sequence[str] = ("urn:test:first", "urn:test:second"), anonymous: bool = True,
        max_per_call: int = 0, accept_unknown: bool = True,
    ) -> None:  # fmt: skip
        self.pki = folder / "pki"
        self.port = free_port()
        self.namespaces = namespaces
        self.url = f"opc.tcp://127.0.0.1:{self.port}"
        self._options = ["--policies", ",".join(policies), "--modes", ",".join(modes), "--pki", str(self.pki)]
        self._options += ["--max-per-call", str(max_per_call)]
        self._options += ["--no-anonymous"] * (not anonymous) + ["--accept-unknown"] * accept_unknown
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Serve, unless it does."""
        if self.process is not None:
            return
        assert NODE is not None
        command = [NODE, str(HOME / "server.js"), "--port", str(self.port), *self._options]
        command += ["--namespaces", ",".join(self.namespaces)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("endpoint "):
                return
        raise AssertionError("the server ended before it listened")

    def tell(self, command: str) -> None:
        """Give a command, and wait until it is done."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line == "done\n":
                return
        raise AssertionError(f"the server ended at {command!r}")

    def stop(self) -> None:
        """End it at once, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
