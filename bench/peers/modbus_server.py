"""Many Modbus TCP servers in one process, on ports of their own, whose every register changes at each request.

`python -m bench.peers.modbus_server 50` prints `ports 40001 40002 …`. Register n holds the number of requests to
that port so far, plus n; input registers and bits hold 1. Ends with its stdin.
"""

from __future__ import annotations

import asyncio
import sys

_HOLDING, _INPUT = 3, 4
_LARGEST = 2_000
_RAMP = b"".join(number.to_bytes(2, "big") for number in range(0x10000)) * 2


class Answerer(asyncio.Protocol):
    """One connection: whole requests only, as every client sends them."""

    def __init__(self) -> None:
        self._requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        function, start, count = data[7], int.from_bytes(data[8:10], "big"), int.from_bytes(data[10:12], "big")
        count = min(count, _LARGEST)
        self._requests += 1
        if function == _HOLDING:
            at = 2 * ((self._requests + start) % 0x10000)
            content = _RAMP[at : at + 2 * count]
        elif function == _INPUT:
            content = b"\0\1" * count
        else:
            content = b"\xff" * ((count + 7) // 8)
        head = data[:4] + (3 + len(content)).to_bytes(2, "big") + data[6:8] + bytes((len(content),))
        self._transport.write(head + content)


async def serve(count: int) -> None:
    """Serve until stdin ends."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Answerer, "127.0.0.1", 0) for _ in range(count)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    print("ports", *ports, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
