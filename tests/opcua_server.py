"""An OPC UA server in a process of its own, for tests and benchmarks.

    python tests/opcua_server.py --items 1000 --interval 1

prints `endpoint opc.tcp://127.0.0.1:PORT` when it listens. Each namespace of `--namespaces` (in this order) has the
folder-less variables `Value` (a string that names its own namespace), `Count` (Int32), and in the first of them
`Item0` … `ItemN` (Double), all set every `--interval` seconds. Commands on stdin, each answered by `done`:

    write Count 17          a value into a variable of the first namespace, keeping its type
    burst Count 50          fifty values at once: 1 … 50
    sourced Count 17 0.4    a value that its source knew 0.4 s before the server did
    status Count BadSensorFailure
    delete Count
    stop                    shut down as a server should
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncua import ua as asyncua_types
from asyncua.common.node import Node
from asyncua.server.server import Server

ua: Any = asyncua_types
PYTHON_TYPES = {ua.VariantType.Int32: int, ua.VariantType.Double: float, ua.VariantType.String: str}


def endpoint_of(server: Server) -> str:
    """The URL of a server that was started on port 0."""
    listening: Any = server.bserver
    return f"opc.tcp://127.0.0.1:{listening._server.sockets[0].getsockname()[1]}"


async def build(namespaces: list[str], items: int = 0, port: int = 0) -> tuple[Server, dict[str, Node]]:
    """A server that is ready to start, and the variables of its first namespace by name."""
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    nodes: dict[str, Node] = {}
    for uri in namespaces:
        index = await server.register_namespace(uri)
        objects = server.nodes.objects
        value = await objects.add_variable(ua.NodeId("Value", index), "Value", uri)
        count = await objects.add_variable(ua.NodeId("Count", index), "Count", 0, ua.VariantType.Int32)
        if uri == namespaces[0]:
            nodes = {"Value": value, "Count": count}
            for n in range(items):
                item = await objects.add_variable(ua.NodeId(f"Item{n}", index), f"Item{n}", 0.0)
                nodes[f"Item{n}"] = item
    return server, nodes


def now_with(value: Any, kind: Any) -> Any:
    """A good value of this moment."""
    now = datetime.now(UTC)
    return ua.DataValue(ua.Variant(value, kind), SourceTimestamp=now, ServerTimestamp=now)


async def obey(server: Server, nodes: dict[str, Node], line: str) -> bool:
    """Carry out one command; False when it was the last."""
    verb, *words = line.split()
    if verb == "stop":
        return False
    node = nodes[words[0]]
    kind = await node.read_data_type_as_variant_type()
    if verb == "write":
        await server.write_attribute_value(node.nodeid, now_with(PYTHON_TYPES[kind](words[1]), kind))
    elif verb == "burst":
        for n in range(int(words[1])):
            await server.write_attribute_value(node.nodeid, now_with(n + 1, kind))
    elif verb == "sourced":
        sample = now_with(PYTHON_TYPES[kind](words[1]), kind)
        sample.SourceTimestamp -= timedelta(seconds=float(words[2]))
        await server.write_attribute_value(node.nodeid, sample)
    elif verb == "status":
        code = ua.StatusCode(getattr(ua.StatusCodes, words[1]))
        now = datetime.now(UTC)
        await server.write_attribute_value(node.nodeid, ua.DataValue(StatusCode=code, SourceTimestamp=now))
    elif verb == "delete":
        await server.delete_nodes([node])
    return True


async def change(server: Server, nodes: list[Node], interval_s: float) -> None:
    """Give every item a new value each interval."""
    value = 0.0
    while True:
        await asyncio.sleep(interval_s)
        value += 1.0
        for node in nodes:
            await server.write_attribute_value(node.nodeid, now_with(value, ua.VariantType.Double))


async def main() -> None:
    """Serve until `stop` or the end of stdin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=0)
    parser.add_argument("--interval", type=float, default=1.0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--namespaces", default="urn:test:first,urn:test:second")
    given = parser.parse_args()
    server, nodes = await build(given.namespaces.split(","), given.items, given.port)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with server:
        items = [node for name, node in nodes.items() if name.startswith("Item")]
        task = asyncio.create_task(change(server, items, given.interval))
        sys.stdout.write(f"endpoint {endpoint_of(server)}\n")
        sys.stdout.flush()
        while (line := (await reader.readline()).decode()) and await obey(server, nodes, line):
            sys.stdout.write("done\n")
            sys.stdout.flush()
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
