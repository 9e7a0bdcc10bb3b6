"""The bare asyncua subscription: `python -m bench.peers.opcua_loop opc.tcp://127.0.0.1:4840 1000 1000`.

Subscribes to so many items, published at that interval in ms, through the library's own client as its documentation
shows, and counts. Each line on stdin is answered by `read N`, the notifications so far.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from asyncua.client.client import Client


class Handler:
    """Counts."""

    def __init__(self) -> None:
        self.read = 0

    def datachange_notification(self, _node: Any, _value: Any, _data: Any) -> None:
        """One item has a new value."""
        self.read += 1


async def main() -> None:
    """Subscribe until stdin ends."""
    endpoint, items, publishing_ms = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    handler = Handler()
    async with Client(endpoint) as client:
        index = await client.get_namespace_index("urn:test:first")
        nodes = [client.get_node(f"ns={index};s=Item{n}") for n in range(items)]
        subscription = await client.create_subscription(publishing_ms, handler)
        await subscription.subscribe_data_change(nodes)
        commands = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        while await commands.readline():
            print("read", handler.read, flush=True)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main())
