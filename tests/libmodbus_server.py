"""A Modbus server that nobody here wrote: libmodbus, in its own process, through ctypes.

    python tests/libmodbus_server.py tcp                     prints `ready <port>` when it listens on 127.0.0.1
    python tests/libmodbus_server.py rtu /path/of/a/pty 5    prints `ready 0` when unit 5 is on the line

Register n of either table, and bit n of either, hold what `modbus_peers.oracle` says of unit and address (bits: whether
the number of ones in it is odd); 400 registers and bits of each. Holding 300 to 307 hold 123456.0, which is 47F12000,
in the orders ABCD, CDAB, BADC and DCBA. Ends when stdin does.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import sys
from typing import Any

from modbus_peers import oracle

SIZE = 400
FLOATS_AT = 300
FLOAT = 123456.0
FLOAT_WORDS = (0x47F1, 0x2000, 0x2000, 0x47F1, 0xF147, 0x0020, 0x0020, 0xF147)
TCP_UNIT = 1
_LIBRARY = "libmodbus.so.5"
_LONGEST = 260


class Mapping(ctypes.Structure):
    """libmodbus's own tables."""

    _fields_ = (
        *(
            (name, ctypes.c_int)
            for name in (
                "nb_bits", "start_bits", "nb_input_bits", "start_input_bits",
                "nb_input_registers", "start_input_registers", "nb_registers", "start_registers",
            )
        ),
        ("tab_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_bits", ctypes.POINTER(ctypes.c_uint8)),
        ("tab_input_registers", ctypes.POINTER(ctypes.c_uint16)),
        ("tab_registers", ctypes.POINTER(ctypes.c_uint16)),
    )  # fmt: skip


def is_installed() -> bool:
    """Whether the library is there."""
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        return False
    return True


def bit_of(unit: int, address: int) -> bool:
    """What a bit of these servers holds."""
    return oracle(unit, address).bit_count() % 2 == 1


def load() -> ctypes.CDLL:
    """The library, with the types of what is called."""
    library = ctypes.CDLL(_LIBRARY, use_errno=True)
    context = ctypes.c_void_p
    library.modbus_new_tcp.restype = library.modbus_new_rtu.restype = context
    library.modbus_new_tcp.argtypes = (ctypes.c_char_p, ctypes.c_int)
    library.modbus_new_rtu.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_char, ctypes.c_int, ctypes.c_int)
    library.modbus_mapping_new.restype = ctypes.POINTER(Mapping)
    library.modbus_set_slave.argtypes = library.modbus_set_socket.argtypes = (context, ctypes.c_int)
    library.modbus_tcp_listen.argtypes = (context, ctypes.c_int)
    library.modbus_connect.argtypes = library.modbus_get_socket.argtypes = (context,)
    library.modbus_receive.argtypes = (context, ctypes.c_char_p)
    library.modbus_reply.argtypes = (context, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(Mapping))
    return library


def tables(library: ctypes.CDLL, unit: int) -> Any:
    """The four tables, filled."""
    mapping = library.modbus_mapping_new(SIZE, SIZE, SIZE, SIZE)
    held = mapping.contents
    for n in range(SIZE):
        held.tab_registers[n] = held.tab_input_registers[n] = oracle(unit, n)
        held.tab_bits[n] = held.tab_input_bits[n] = bit_of(unit, n)
    for number, word in enumerate(FLOAT_WORDS):
        held.tab_registers[FLOATS_AT + number] = word
    return mapping


def serve_tcp(library: ctypes.CDLL) -> None:
    """Any number of connections, one request after the other."""
    context, mapping = library.modbus_new_tcp(b"127.0.0.1", 0), tables(library, TCP_UNIT)
    listening = socket.socket(fileno=library.modbus_tcp_listen(context, 5))
    say(f"ready {listening.getsockname()[1]}")
    clients: dict[int, socket.socket] = {}
    while True:
        readable, _, _ = select.select([sys.stdin, listening, *clients], [], [])
        for each in readable:
            if each is sys.stdin or not isinstance(each, int | socket.socket):
                return
            if isinstance(each, socket.socket):
                client, _ = listening.accept()
                clients[client.fileno()] = client
                continue
            library.modbus_set_socket(context, each)
            if answer(library, context, mapping) < 0:
                clients.pop(each).close()


def serve_rtu(library: ctypes.CDLL, path: str, unit: int) -> None:
    """One unit on a line."""
    context, mapping = library.modbus_new_rtu(os.fsencode(path), 115200, b"N", 8, 1), tables(library, unit)
    library.modbus_set_slave(context, unit)
    if library.modbus_connect(context):
        sys.exit(f"libmodbus does not open {path}: {os.strerror(ctypes.get_errno())}")
    say("ready 0")
    line = library.modbus_get_socket(context)
    while sys.stdin not in select.select([sys.stdin, line], [], [])[0]:
        answer(library, context, mapping)


def answer(library: ctypes.CDLL, context: int, mapping: Any) -> int:
    """One request; negative when the peer is gone."""
    request = ctypes.create_string_buffer(_LONGEST)
    length: int = library.modbus_receive(context, request)
    if length > 0:
        library.modbus_reply(context, request, length, mapping)
    return length


def say(text: str) -> None:
    """One line of stdout, at once."""
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1] == "tcp":
        serve_tcp(load())
    else:
        serve_rtu(load(), sys.argv[2], int(sys.argv[3]))
