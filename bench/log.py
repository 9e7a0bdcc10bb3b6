"""How much an agent logs when everything fails at once, for as long as it lasts."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .agent import configure, running_agent
from .figures import Figure
from .modbus import devices_yaml

DEVICES = 40
BAR_BYTES = 1_000_000
BEGIN_S = 10.0
"""What is told once, at the begin of it all, is not multiplied by the hours."""
SECONDS = 9
"""So many times the seconds that are measured: three minutes by default."""


def run(folder: Path, seconds: float) -> list[Figure]:
    """Bytes of log an hour: devices that refuse, hang up, babble or keep silent, and a broker that hangs up."""
    with _peers() as (refusing, hangs_up, babbles, silent):
        ports = [(refusing, hangs_up, babbles, silent)[number % 4] for number in range(DEVICES)]
        devices = devices_yaml(ports, 10).replace(", max_read:", ", timeout: 300 ms, max_read:")
        directory = configure(folder, f"mqtt://127.0.0.1:{hangs_up}", devices=devices)
        with running_agent(directory) as agent:
            time.sleep(BEGIN_S)
            log, before = directory.parent / "agent.log", (directory.parent / "agent.log").stat().st_size
            time.sleep(seconds * SECONDS)
            size = log.stat().st_size
            agent.status()
    per_hour = (size - before) / (seconds * SECONDS) * 3_600
    return [
        Figure(f"Log, bytes an hour while {DEVICES} devices and the broker fail", per_hour, "bytes", bar=BAR_BYTES),
        Figure("Log, bytes of the begin of it", before, "bytes"),
    ]


@contextmanager
def _peers() -> Iterator[tuple[int, int, int, int]]:
    """Ports where nobody listens, where whoever comes is hung up on, where noise comes, and where nothing comes."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        refusing = probe.getsockname()[1]
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    threads = []
    for server, treat in zip(servers, (_hang_up, _babble, _keep), strict=True):
        server.settimeout(0.2)
        thread = threading.Thread(target=_serve, args=(server, treat, ended))
        thread.start()
        threads.append(thread)
    try:
        hangs_up, babbles, silent = (server.getsockname()[1] for server in servers)
        yield refusing, hangs_up, babbles, silent
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        for server in servers:
            server.close()


_KEPT: list[socket.socket] = []


def _serve(server: socket.socket, treat: Callable[[socket.socket], None], ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            connection, _ = server.accept()
        except TimeoutError:
            continue
        treat(connection)


def _hang_up(connection: socket.socket) -> None:
    connection.close()


def _babble(connection: socket.socket) -> None:
    connection.sendall(b"\x15\xff\x00" * 200)
    _KEPT.append(connection)


def _keep(connection: socket.socket) -> None:
    _KEPT.append(connection)
