"""The bare pymodbus read loop: `python -m bench.peers.modbus_loop 200 100 PORT …`.

One client for each port reads so many registers each second, in blocks, and does nothing with them. Each line on
stdin is answered by `read N`, the readings so far.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from pymodbus.client import AsyncModbusTcpClient


class Loop:
    """All clients of this process."""

    def __init__(self, registers: int, block: int) -> None:
        self.read = 0
        self._blocks = [(start, min(block, registers - start)) for start in range(0, registers, block)]

    async def poll(self, port: int) -> None:
        """Read one device each second, for ever."""
        client = AsyncModbusTcpClient("127.0.0.1", port=port)
        await client.connect()
        clock = asyncio.get_running_loop()
        due = clock.time()
        while True:
            for start, count in self._blocks:
                answer = await client.read_holding_registers(start, count=count, device_id=1)
                self.read += len(answer.registers)
            due += 1.0
            await asyncio.sleep(due - clock.time())


async def main() -> None:
    """Poll until stdin ends."""
    registers, block, *ports = map(int, sys.argv[1:])
    loop = Loop(registers, block)
    tasks = [asyncio.create_task(loop.poll(port)) for port in ports]
    await asyncio.sleep(1)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while await commands.readline():
        print("read", loop.read, flush=True)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main())
