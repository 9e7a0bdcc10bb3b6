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
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from edge_agent.simulator.plant import Plant

COMMANDS = ("start", "freeze", "truth", "stop")
_LONGEST_LINE = 1024


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


async def _obey_lines(served: Controlled, stop: asyncio.Event) -> None:
    lines = asyncio.StreamReader(limit=_LONGEST_LINE)
    loop = asyncio.get_running_loop()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    try:
        while line := await lines.readline():
            command = line.decode("utf-8", "replace").strip()
            if command:
                await _carry_out(command, served)
            if command == "stop":
                break
    finally:
        pipe.close()
    stop.set()


async def obey(served: Controlled, endpoints: Mapping[str, str], stop: asyncio.Event) -> None:
    """Say the endpoints, then carry out commands until `stop` is set, by a command, the end of stdin or a signal."""
    _say(endpoints)
    obeying = asyncio.create_task(_obey_lines(served, stop), name="control")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({obeying, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in (obeying, stopped):
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    if obeying.done() and not obeying.cancelled():
        obeying.result()
