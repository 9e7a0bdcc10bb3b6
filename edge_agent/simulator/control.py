"""Commands by lines on stdin, answers as JSON lines on stdout: how a program drives the plant.

The first line of the answer is `{"press": …, "oven": …, "scale": …, "counter": …}`, once everything answers. Then one
line for each command:

    start    {"answer": "start", "elapsed_s": 0.0}
    freeze   {"answer": "freeze", "elapsed_s": 42.1}; the servers go on answering, the counts stay
    truth    {"answer": "truth", "elapsed_s": …, "running": …, "machines": {"press-01": {"produced": …, …}, …}}
    stop     {"answer": "stop", "elapsed_s": …}; then the plant ends

The end of stdin means stop, without an answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from edge_agent.simulator.plant import Plant

COMMANDS = ("start", "freeze", "truth", "stop")
_READ_BYTES = 4096


class Controlled(Protocol):
    """What the commands act on."""

    plant: Plant

    async def start(self) -> None: ...

    async def freeze(self) -> None: ...


def _say(answer: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _carry_out(command: str, served: Controlled) -> None:
    if command == "start":
        await served.start()
    elif command == "freeze":
        await served.freeze()
    elif command not in COMMANDS:
        _say({"answer": "error", "message": f"unknown command {command!r}; allowed: {', '.join(COMMANDS)}"})
        return
    truth = served.plant.truth()
    _say({"answer": command, **(truth if command == "truth" else {"elapsed_s": truth["elapsed_s"]})})


def _read_commands(loop: asyncio.AbstractEventLoop, commands: asyncio.Queue[str | None]) -> None:
    """Put each line of stdin into `commands`, then None. In a thread, so that a file or a terminal will do as well."""
    unfinished = b""
    with suppress(RuntimeError):  # the loop is gone, and nobody listens
        while data := os.read(sys.stdin.fileno(), _READ_BYTES):
            *lines, unfinished = (unfinished + data).split(b"\n")
            for line in lines:
                loop.call_soon_threadsafe(commands.put_nowait, line.decode("utf-8", "replace").strip())
            unfinished = unfinished[-_READ_BYTES:]
        loop.call_soon_threadsafe(commands.put_nowait, None)


async def _obey_commands(served: Controlled) -> None:
    commands: asyncio.Queue[str | None] = asyncio.Queue()
    reader = threading.Thread(target=_read_commands, args=(asyncio.get_running_loop(), commands), daemon=True)
    reader.start()
    while (command := await commands.get()) is not None:
        if command:
            await _carry_out(command, served)
        if command == "stop":
            break


async def obey(served: Controlled, endpoints: Mapping[str, str], stop: asyncio.Event) -> None:
    """Say the endpoints, then carry out commands until the command stop, the end of stdin, or `stop` is set."""
    _say(endpoints)
    async with asyncio.TaskGroup() as tasks:
        obeying = tasks.create_task(_obey_commands(served), name="control")
        obeying.add_done_callback(lambda _: stop.set())
        await stop.wait()
        obeying.cancel()
