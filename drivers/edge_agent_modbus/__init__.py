"""Modbus TCP, Modbus RTU, and RTU through a TCP port: holding registers, input registers, coils, discrete inputs.

Links, as `url`:
    tcp://10.20.0.11:502                              Modbus TCP; port 502 unless given
    rtu:///dev/serial/by-id/…?baud=19200&parity=E     a serial line; 19200 8E1 unless given, 2 stop bits without
                                                      parity as the specification says (`stop=1` for 8N1)
    rtu+tcp://10.20.0.12:4001                         RTU frames through a serial server in raw TCP mode
    Devices with the same host and port, or on the same serial port, share one connection, one request at a time.

Addresses:
    holding:100  input:5  coil:3  discrete:7          counted from 0, as they travel on the wire
    holding:7.3                                       bit 3 of a register, 0 is the least significant (quote it in YAML)
    40001  400001  30001  10001                       Modicon notation, counted from 1: 40001 is holding:0; a coil is
                                                      written coil:0, because 00001 is just the number 1 in YAML

Types: bool (the type of bits), int16, uint16 (default), int32, uint32, int64, uint64, float32, float64, bcd16, bcd32,
string; `count` makes an array of numbers.
`word_order` names the bytes of the big-endian value ABCD in the order in which they come: 123456.0 as float32 is
47F12000, which comes as ABCD 47F1 2000, CDAB 2000 47F1, BADC F147 0020, DCBA 0020 F147; 64 bits alike. Of a 16-bit
value BADC and DCBA swap the bytes. A string is `length` bytes of UTF-8, ends at the first NUL, loses the spaces that
fill it up, and is BADC where the bytes of each register are swapped.

    part_count: {address: "holding:0", type: uint32, word_order: CDAB}
    recipe:     {address: "holding:100", type: string, length: 16}

Readings that are BAD, by cause: the name of the device's exception (`illegal_data_address`, `server_device_busy` …),
`not_a_number` (a float that is NaN or infinite), `not_bcd`, `not_text` (a string that is no UTF-8), `damaged_answer`.

Promise: no value is credited to another register, unit or device. An answer counts only if transaction (TCP), unit,
function, byte count, length and CRC (RTU) are those of the request. Over TCP a late answer is dropped by its
transaction. After anything but a right answer an RTU line must be quiet for the `drain` time before the next request:
an answer that takes longer than `timeout` plus `drain` could still be taken for the next one, so set them to what the
slowest device needs, not lower.

A device that does not answer in time, or that its gateway cannot reach (exceptions 10 and 11), is at fault alone while
others on the link answer; when all of them have been silent twice in a row, the link is lost and opened again. Two
pieces of nonsense in a row lose the link as well; the message shows the bytes.

What the peer must support: functions 1 to 4, for the tables that are read. Tags that lie together are read in one
request, across up to `max_gap` unused registers. Where the device refuses a block, it is split until only the refused
tags are BAD, in the same poll; they are tried again after a minute, and then ever more seldom.

Tested against libmodbus 3.1 (TCP, RTU over a pty), with mbpoll as a second opinion, the servers of pymodbus 3.16 (TCP,
RTU over a pty, RTU over TCP) and hand-written hostile peers. docs/modbus.md tells every key and its reason.

Quirks:
    - Devices that clear a register on reading: set `max_gap: 0`.
    - Devices that stay silent on an illegal address instead of refusing it look dead: check the addresses first.
    - Devices that answer with another unit than asked (some do to 0 or 255) are not believed: ask with the unit that
      they answer with.
    - Some loggers need time between requests: `pause: 300 ms`. Some allow fewer than 125 registers: `max_read`.
    - Sentron PAC3200 ignores unit 255; Huawei SUN2000 wants unit 0 on TCP and a `connect_delay` of 1 to 2 s.
    - Adapters that repeat what is sent: `echo`. Devices with few connections: `close_after_poll`.
"""

from edge_agent_modbus.driver import ModbusDriver
from edge_agent_modbus.settings import ModbusDevice, ModbusTag

__all__ = ["ModbusDevice", "ModbusDriver", "ModbusTag"]
