"""A Modbus TCP server that behaves as told: `python -m bench.peers.bad_neighbour` prints `port 40001`.

Commands on stdin, each answered by `now <command>`: `well` answers as bench.peers.modbus_server does, `dead` takes
connections and requests and says nothing, `babble` sends noise without being asked, as fast as it is taken.
"""

from __future__ import annotations

import asyncio
import random
import sys

from .modbus_server import Answerer

_NOISE = random.Random(1).randbytes(4_096)


class Neighbour(Answerer):
    """One connection."""

    mood = "well"
    connections: set[Neighbour] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connections.add(self)
        self.babble()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self.mood == "well":
            super().data_received(data)

    def babble(self) -> None:
        """Send noise, as long as that is the mood."""
        if self.mood == "babble" and not self._transport.is_closing():
            if self._transport.get_write_buffer_size() < len(_NOISE):
                self._transport.write(_NOISE)
            asyncio.get_running_loop().call_later(0.001, self.babble)


async def serve() -> None:
    """Serve until stdin ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Neighbour, "127.0.0.1", 0)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    while mood := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        Neighbour.mood = mood
        for connection in list(Neighbour.connections):
            connection.babble()
        print("now", mood, flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
