"""How the verbs talk to the running agent: a unix socket in the data folder, one JSON object a line.

A request is `{"verb": …, "arguments": {…}}`; the answer is any number of lines `{"item": …}` and then `{"end": true}`
or `{"error": …}`. Answers are streamed with back pressure, so that a long listing needs no memory. While an agent runs,
it is the only one that opens the database.
"""

from __future__ import annotations

import asyncio
import grp
import json
import logging
import os
import pwd
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from edge_agent.contract import EdgeAgentError

log = logging.getLogger(__name__)

GROUP = "edge-agent"
RUN_FOLDER = Path("/run/edge-agent")
LONGEST_REQUEST_BYTES = 64 * 1024
ANSWER_TIMEOUT_S = 30.0
_STOPPED = "the agent stopped in the middle of its answer"

Verb = Callable[[dict[str, Any]], AsyncIterator[Any]]


class ControlError(EdgeAgentError):
    """The agent answered with an error, or stopped in the middle of its answer."""


class NoAgent(ControlError):
    """No agent listens there."""


def own_socket(agent: str, data: Path) -> Path:
    """Where this agent listens: systemd's runtime directory, else the data folder."""
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    return Path(runtime.split(":")[0]) / f"{agent}.sock" if runtime else data / "agent.sock"


def socket_candidates(agent: str, data: Path) -> list[Path]:
    """Where a verb looks for the agent."""
    return [RUN_FOLDER / f"{agent}.sock", data / "agent.sock"]


# -------------------------------------------------------------------------------------------------- server


@asynccontextmanager
async def serving(path: Path, verbs: Mapping[str, Verb]) -> AsyncIterator[None]:
    """Answer verbs at `path` while the context lasts; root and the group `edge-agent` may ask."""

    answering: set[asyncio.Task[None]] = set()

    def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of ours: asyncio makes one only later, and logs an error when its own is cancelled.
        task = asyncio.create_task(_converse(reader, writer, verbs), name="verb")
        answering.add(task)
        task.add_done_callback(answering.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # also when it has not even begun

    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # the data folder's lock is ours: no other agent listens here
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Through the descriptor, since the path of a unix socket may have 107 characters only.
        server = await asyncio.start_unix_server(
            answer, f"/proc/self/fd/{folder}/{path.name}", limit=LONGEST_REQUEST_BYTES
        )
    finally:
        os.close(folder)
    path.chmod(0o660)
    with suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
    try:
        yield
    finally:
        # asyncio leaks a connection that its server accepts just before it closes: no more of them; those there begin.
        for listening in server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        await _turns()
        server.close()
        for task in answering:
            task.cancel()
        await _turns()
        path.unlink(missing_ok=True)


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, verbs: Mapping[str, Verb]) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        await _answer(reader, writer, verbs)
        writer.close()
        await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, verbs: Mapping[str, Verb]) -> None:
    try:
        line = await reader.readline()
        if not line:
            return
        request = json.loads(line)
        verb = verbs.get(request["verb"])
        if verb is None:
            raise ControlError(f"the running agent does not know {request['verb']!r}; is it an older version?")
        arguments = dict(request.get("arguments", {})) | {"peer": _peer(writer)}
        async for item in verb(arguments):
            writer.write(json.dumps({"item": item}, separators=(",", ":")).encode() + b"\n")
            await writer.drain()
        last: dict[str, Any] = {"end": True}
    except (EdgeAgentError, ValueError, KeyError, TypeError) as error:
        last = {"error": str(error) or type(error).__name__}
    writer.write(json.dumps(last).encode() + b"\n")
    await writer.drain()


def _peer(writer: asyncio.StreamWriter) -> str:
    """Who asks: the name of the user at the other end of the socket, as the kernel knows it."""
    given = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", given)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


# -------------------------------------------------------------------------------------------------- client


def ask(path: Path, verb: str, *, timeout_s: float = ANSWER_TIMEOUT_S, **arguments: Any) -> Iterator[Any]:
    """The items of the agent's answer, one by one.

    Raises:
        NoAgent: nobody listens at `path`.
        ControlError: the agent says no, stops in the middle, or is silent for `timeout_s`.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            yield from _ask(connection, path, verb, arguments)
        except TimeoutError as error:
            text = f"the agent at {path} did not answer for {timeout_s:g} s; is it stopped, or the machine overloaded?"
            raise ControlError(text) from error
        except ConnectionError as error:
            raise ControlError(_STOPPED) from error


def _ask(connection: socket.socket, path: Path, verb: str, arguments: dict[str, Any]) -> Iterator[Any]:
    _connect(connection, path)
    connection.sendall(json.dumps({"verb": verb, "arguments": arguments}).encode() + b"\n")
    with connection.makefile("rb") as lines:
        for line in lines:
            message = json.loads(line)
            if "item" in message:
                yield message["item"]
            elif "error" in message:
                raise ControlError(message["error"])
            else:
                return
    raise ControlError(_STOPPED)


def _connect(connection: socket.socket, path: Path) -> None:
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise NoAgent(f"no agent listens at {path}") from error
    try:
        connection.connect(f"/proc/self/fd/{folder}/{path.name}")
    except PermissionError as error:
        raise ControlError(f"{path}: no permission; root and the group {GROUP} may ask the agent") from error
    except OSError as error:
        raise NoAgent(f"no agent listens at {path}") from error
    finally:
        os.close(folder)


def find(agent: str, data: Path) -> Path | None:
    """The socket of the running agent; None when none listens."""
    for path in socket_candidates(agent, data):
        with suppress(NoAgent), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            _connect(probe, path)
            return path
    return None
