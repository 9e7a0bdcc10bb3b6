"""Processes beside the benchmark: started, asked for their CPU time and memory, ended by their own pid."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

START_S = 30.0
ROOT = Path(__file__).parent.parent


class Failed(Exception):
    """A benchmark could not be run; the message says what was missing."""


@contextmanager
def process(*command: str, log: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process with pipes for stdin and stdout, ended when the context ends; stderr goes to the log, or nowhere."""
    with (log or Path(os.devnull)).open("a", encoding="utf-8") as errors:
        running = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
        )
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()


@contextmanager
def python(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process of this Python."""
    with process(sys.executable, "-W", "ignore", *arguments) as running:
        yield running


def said(running: subprocess.Popen[str], word: str) -> str:
    """What stands behind `word` in the next line that the process prints.

    Raises:
        Failed: it printed something else, or ended.
    """
    assert running.stdout is not None
    line = running.stdout.readline()
    if not line.startswith(word + " "):
        raise Failed(f"{running.args!r} said {line!r} where {word!r} was due")
    return line.removeprefix(word).strip()


def cpu_s(pid: int) -> float:
    """The CPU time that the threads of a process have used, user and system, in seconds, to the nanosecond."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def memory_mb(pid: int, field: str) -> float:
    """`VmRSS`, what a process has in memory, or `VmHWM`, the most it ever had, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise Failed(f"/proc/{pid}/status has no {field}")


def wait_for(what: str, found: Callable[[], T | None], limit_s: float = START_S) -> T:
    """What `found` gives once it gives anything but None.

    Raises:
        Failed: it did not in time.
    """
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        with suppress(OSError):
            if (thing := found()) is not None:
                return thing
        time.sleep(0.05)
    raise Failed(f"{what} did not come within {limit_s:g} s")


MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """The URL of a mosquitto of our own; where it is not installed, one where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"mqtt://127.0.0.1:{port}"
    if MOSQUITTO is None:
        yield url
        return
    file = folder / "mosquitto.conf"
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n" + "user root\n" * (os.geteuid() == 0))

    def connected() -> bool:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    with process(MOSQUITTO, "-c", str(file)):
        wait_for("mosquitto", connected)
        yield url
