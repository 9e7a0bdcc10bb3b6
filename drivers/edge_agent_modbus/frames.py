"""Frames: a request in both framings, made once, and the strict reading of what comes back."""

from __future__ import annotations

from pymodbus.constants import ExcCodes

from edge_agent_modbus.address import Table

MBAP_HEAD_BYTES = 6
"""Transaction, protocol and length; the unit is counted by the length."""
MAX_MBAP_LENGTH = 254
REFUSAL_FRAME_BYTES = 5
"""The shortest RTU answer: unit, function, code, CRC."""

GATEWAY_CODES = frozenset({ExcCodes.GATEWAY_PATH_UNAVIABLE, ExcCodes.GATEWAY_NO_RESPONSE})
"""Exceptions by which a gateway says that the device behind it does not answer."""
REFUSAL_CODES = frozenset({ExcCodes.ILLEGAL_ADDRESS, ExcCodes.ILLEGAL_VALUE})
"""Exceptions that will be said again: what is asked for is not there."""
SPLIT_CODES = REFUSAL_CODES | {ExcCodes.DEVICE_FAILURE}
"""Exceptions that may be the fault of one register in a block."""
BUSY_CODES = frozenset({ExcCodes.ACKNOWLEDGE, ExcCodes.DEVICE_BUSY})
"""Exceptions that put the asker off: the same request may be answered a little later."""
ILLEGAL_FUNCTION = int(ExcCodes.ILLEGAL_FUNCTION)
"""The exception by which a device says that it has not got a table."""
_NAMES = {
    ExcCodes.ILLEGAL_FUNCTION: "illegal_function",
    ExcCodes.ILLEGAL_ADDRESS: "illegal_data_address",
    ExcCodes.ILLEGAL_VALUE: "illegal_data_value",
    ExcCodes.DEVICE_FAILURE: "server_device_failure",
    ExcCodes.ACKNOWLEDGE: "acknowledge",
    ExcCodes.DEVICE_BUSY: "server_device_busy",
    ExcCodes.NEGATIVE_ACKNOWLEDGE: "negative_acknowledge",
    ExcCodes.MEMORY_PARITY_ERROR: "memory_parity_error",
    ExcCodes.GATEWAY_PATH_UNAVIABLE: "gateway_path_unavailable",
    ExcCodes.GATEWAY_NO_RESPONSE: "gateway_target_device_failed_to_respond",
}


def exception_name(code: int) -> str:
    """The specification's name of an exception code, such as `illegal_data_address`."""
    return _NAMES.get(code) or f"exception_{code}"  # type: ignore[call-overload]


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


_CRC = _crc_table()


def crc(data: bytes | bytearray | memoryview) -> int:
    """The CRC-16 of Modbus; 0 over a frame that ends with its own CRC, low byte first."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value


class Request:
    """One block read, in both framings, and the head that its only right answer has."""

    __slots__ = ("answer", "mbap", "mbap_answer", "refusal", "rtu", "size")

    def __init__(self, unit: int, table: Table, start: int, count: int) -> None:
        pdu = table.request(address=start, count=count)
        body = bytes((unit, pdu.function_code)) + pdu.encode()
        self.size = (count + 7) // 8 if table.bits else 2 * count
        """The bytes of data that the answer brings."""
        self.answer = bytes((unit, pdu.function_code, self.size))
        self.refusal = bytes((unit, pdu.function_code | 0x80))
        self.mbap = b"\0\0" + len(body).to_bytes(2, "big") + body
        self.mbap_answer = b"\0\0" + (3 + self.size).to_bytes(2, "big") + self.answer
        self.rtu = body + crc(body).to_bytes(2, "little")


def find_rtu_answer(buffer: bytearray, request: Request) -> tuple[bytes | int, int] | None:
    """The answer to the request, at any offset behind stray bytes, and where it ends; None: not there yet.

    The answer is the data, or the code of an exception. Nothing is taken whose unit,
    function, byte count or CRC differs.
    """
    head, whole = request.answer, 3 + request.size + 2
    at = buffer.find(head)
    while at >= 0:
        end = at + whole
        if end > len(buffer):
            return None
        if crc(buffer[at:end]) == 0:
            return bytes(buffer[at + 3 : end - 2]), end
        at = buffer.find(head, at + 1)
    # An exception is so short that its pattern may stand inside other bytes: it counts only as the last thing said.
    tail = buffer[-REFUSAL_FRAME_BYTES:]
    if tail.startswith(request.refusal) and len(tail) == REFUSAL_FRAME_BYTES and crc(tail) == 0:
        return tail[2], len(buffer)
    return None
