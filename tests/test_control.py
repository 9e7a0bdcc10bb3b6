"""The verbs' way to the running agent: questions and answers over a unix socket."""

from __future__ import annotations

import asyncio
import gc
import os
import pwd
import socket
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import control
from edge_agent.contract import EdgeAgentError


async def count(arguments: dict[str, Any]) -> AsyncIterator[int]:
    for number in range(arguments["to"]):
        yield number


async def fail(_: dict[str, Any]) -> AsyncIterator[int]:
    yield 1
    raise EdgeAgentError("the disk is on fire")


async def who(arguments: dict[str, Any]) -> AsyncIterator[Any]:
    yield arguments


VERBS: dict[str, control.Verb] = {"count": count, "fail": fail, "who": who}


async def asked(path: Path, verb: str, **arguments: Any) -> list[Any]:
    return await asyncio.to_thread(lambda: list(control.ask(path, verb, **arguments)))


async def test_answer_of_any_length_arrives_whole(tmp_path: Path) -> None:
    async with control.serving(tmp_path / "a.sock", VERBS):
        assert await asked(tmp_path / "a.sock", "count", to=50_000) == list(range(50_000))


async def test_path_longer_than_a_unix_socket_may_have_works(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    async with control.serving(folder / "a.sock", VERBS):
        assert await asked(folder / "a.sock", "count", to=3) == [0, 1, 2]


async def test_socket_is_for_its_owner_and_group_and_goes_with_the_agent(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    async with control.serving(path, VERBS):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert control.find("nobody", tmp_path) is None
    assert not path.exists()


async def test_error_in_the_agent_is_told_to_who_asked(tmp_path: Path) -> None:
    async with control.serving(tmp_path / "a.sock", VERBS):
        with pytest.raises(control.ControlError, match="the disk is on fire"):
            await asked(tmp_path / "a.sock", "fail")
        with pytest.raises(control.ControlError, match="does not know 'dance'"):
            await asked(tmp_path / "a.sock", "dance")


async def test_verb_is_told_who_asks_and_nobody_can_pretend(tmp_path: Path) -> None:
    async with control.serving(tmp_path / "a.sock", VERBS):
        (told,) = await asked(tmp_path / "a.sock", "who", peer="the boss", more=1)
    assert told == {"peer": pwd.getpwuid(os.getuid()).pw_name, "more": 1}


async def test_peer_without_a_name_is_told_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    async with control.serving(tmp_path / "a.sock", VERBS):
        (told,) = await asked(tmp_path / "a.sock", "who")
    assert told == {"peer": f"uid {os.getuid()}"}


def test_nobody_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(control.NoAgent, match="no agent listens"):
        list(control.ask(tmp_path / "a.sock", "count"))


async def test_socket_left_by_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert control.find("gw1", tmp_path) is None
    async with control.serving(path, VERBS):
        assert await asyncio.to_thread(control.find, "gw1", tmp_path) == path


async def test_connection_that_comes_as_the_agent_ends_is_closed(tmp_path: Path) -> None:
    for _ in range(10):
        async with control.serving(tmp_path / "agent.sock", VERBS):
            assert await asyncio.to_thread(control.find, "gw1", tmp_path)
        gc.collect()  # what leaks warns here, and a warning is a failure


def test_agent_that_stands_still_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as stopped:  # what a process under SIGSTOP looks like
        stopped.bind(str(path))
        stopped.listen()
        with pytest.raises(control.ControlError, match="did not answer for 0"):
            list(control.ask(path, "count", timeout_s=0.1))


def test_agent_that_hangs_up_before_it_answers_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
        answer = control.ask(path, "count")
        hangs_up = threading.Thread(target=lambda: killed.accept()[0].close())
        hangs_up.start()
        with pytest.raises(control.ControlError, match="stopped in the middle"):
            next(answer)
        hangs_up.join()


@pytest.mark.parametrize("garbage", [b"\n", b"not json\n", b"[]\n", b"{}\n", b"x" * 100_000, b'{"verb": "count"}\n'])
async def test_garbage_on_the_socket_harms_nobody(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "a.sock"
    async with control.serving(path, VERBS):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(garbage)
        writer.write_eof()
        assert b'"item"' not in await reader.read()
        writer.close()
        await writer.wait_closed()
        assert await asked(path, "count", to=2) == [0, 1]
