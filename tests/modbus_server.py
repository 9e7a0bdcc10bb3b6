"""A Modbus TCP server in its own process, on 127.0.0.1: `python -m tests.modbus_server --help`.

It prints `port <n>` when it listens, takes one command a line on stdin, and ends when stdin ends.

    freeze    the counter stands still from now on; prints `frozen <value>`
    resume    the counter goes on from where it stood; prints `resumed <value>`
    count     prints `count <value>`

Holding register n of device u holds (n * 7 + u * 1000) modulo 65536, which `value_at` computes as well, so that a
reader can tell where a value came from; `--set 5=1234` puts another value there. `--counter 100 --rate 50` is a
uint32, high word first, at holding:100, that grows by 50 a second from 0.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass
from typing import cast

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

WORD = 0x10000


def value_at(address: int, unit: int = 1) -> int:
    """What holding register `address` of device `unit` holds."""
    return (address * 7 + unit * 1000) % WORD


@dataclass
class Counter:
    """Counts by the clock, until it is frozen."""

    rate_per_s: float
    began_s: float
    frozen_at: int | None = None

    def value(self) -> int:
        """The parts made so far."""
        if self.frozen_at is not None:
            return self.frozen_at
        return int((time.monotonic() - self.began_s) * self.rate_per_s) % (WORD * WORD)

    def freeze(self) -> None:
        """Stand still."""
        self.frozen_at = self.value()

    def resume(self) -> None:
        """Go on from where it stood."""
        if self.frozen_at is not None:
            self.began_s = time.monotonic() - self.frozen_at / self.rate_per_s
            self.frozen_at = None


def build_device(unit: int, size: int, given: dict[int, int], counter: Counter, at: int | None) -> SimDevice:
    """A device whose holding registers 0 to `size` - 1 tell where they are."""
    values = [given.get(address, value_at(address, unit)) for address in range(size)]

    async def count_up(
        _function: int, start: int, _address: int, _count: int, registers: list[int], _written: object
    ) -> ExcCodes | None:
        if at is not None:
            high, low = divmod(counter.value(), WORD)
            registers[at - start], registers[at + 1 - start] = high, low
        return None

    return SimDevice(unit, [SimData(0, values=values, datatype=DataType.REGISTERS)], action=count_up)


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until stdin ends."""
    counter = Counter(arguments.rate, time.monotonic())
    given = dict(pair for pair in arguments.set)
    units = [
        build_device(unit, arguments.size, given, counter, arguments.counter) for unit in range(1, arguments.units + 1)
    ]
    server = ModbusTcpServer(units, address=("127.0.0.1", arguments.port))
    await server.serve_forever(background=True)
    port = cast("asyncio.Server", server.transport).sockets[0].getsockname()[1]
    say(f"port {port}")
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        obey(line.decode().strip(), counter)
    await server.shutdown()  # type: ignore[no-untyped-call]


def obey(command: str, counter: Counter) -> None:
    """One line of stdin."""
    if command == "freeze":
        counter.freeze()
        say(f"frozen {counter.value()}")
    elif command == "resume":
        counter.resume()
        say(f"resumed {counter.value()}")
    elif command == "count":
        say(f"count {counter.value()}")
    else:
        say(f"unknown command {command!r}: freeze, resume or count")


def say(text: str) -> None:
    """One line of stdout, at once."""
    print(text, flush=True)  # noqa: T201


def _pair(text: str) -> tuple[int, int]:
    address, _, value = text.partition("=")
    return int(address), int(value)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="A Modbus TCP server on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--size", type=int, default=1000, help="the number of holding registers")
    parser.add_argument("--units", type=int, default=1, help="devices 1 to this")
    parser.add_argument("--set", type=_pair, action="append", default=[], metavar="ADDRESS=VALUE")
    parser.add_argument("--counter", type=int, metavar="ADDRESS", help="where the uint32 counter stands")
    parser.add_argument("--rate", type=float, default=10.0, help="counts per second")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
