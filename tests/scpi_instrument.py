"""A multimeter that speaks SCPI on a TCP port: `python tests/scpi_instrument.py 5025`; prints `listening`."""

from __future__ import annotations

import asyncio
import sys

ANSWERS = {b"MEAS:VOLT:DC?": b"+1.23400000E+00", b"MEAS:RES?": b"+9.90000000E+37"}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one client's queries."""
    while query := await reader.readline():
        writer.write(ANSWERS.get(query.strip(), b"") + b"\n")
    writer.close()


async def main(port: int) -> None:
    """Serve until the process ends."""
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
