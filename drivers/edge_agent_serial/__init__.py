r"""The serial driver: scales, gauges, scanners and anything else that speaks in lines of text.

    scale-3:
      driver: serial
      url: /dev/serial/by-id/usb-FTDI_FT232R_A50285BI-if00-port0
      profile: sics
      tags:
        weight: {address: weight, unit: kg}
        stable: {address: stable}

    scanner-1:                                  # no request: it speaks by itself, and every scan is kept
      driver: serial
      url: socket://10.20.0.31:4001
      frame: {end: "\r"}
      pattern: '(?P<code>[0-9]{8,14})'
      tags:
        code: {address: code, type: string, store: every}

`url` is a path, best one below /dev/serial/by-id/ or by-path/, or `socket://host:port` (a serial server that passes
bytes), or `rfc2217://host:port` (one that also takes line settings). `line` is `9600 8N1` unless given.

An address is the name of a group of `pattern`, a regular expression that must match a whole frame without its end; of
`columns`; or of a profile: `weight`, `unit`, `stable` (sics, sics-repeat, and, ohaus, cas), `code`, `symbology`
(scanner), `GGA.2` (nmea). The values are as the instrument shows them: a weight in motion is UNCERTAIN with the cause
`unstable`, and one whose unit is not the tag's is BAD. Values are `float`, `int`, `bool` (1/0, true/false, on/off,
yes/no) or `string`; a number is taken only from a text that is a number and nothing else. `checksum` protects a frame.

Causes of BAD readings: `pattern_mismatch` (the frame, or the bool, is none that the pattern means), `not_a_number`,
`out_of_range` (an integer of more than 64 bits), `checksum_error`, `unit_mismatch`, `no_value` (an empty field),
`several_talkers` (NMEA), `frame_too_long`, `incomplete_frame` (the line fell silent within a frame), `parity_error`,
`overflow` (more came than was taken), and from scales `overload`, `underload`, `not_executable`, `syntax_error`,
`transmission_error`, `logical_error`.

What the peer must support: text frames with an end, or of one length. An instrument that is asked answers within
`timeout`. Its answers bear no number, so one that comes later is told from the next request's only by waiting: after a
time-out the line must be quiet for `drain` before the next request; set it to how late the instrument may be at worst.
An instrument that speaks by itself sends the bytes of a frame without pauses longer than `timeout`; after opening, the
bytes up to the first end are skipped unless the line was quiet for 0.1 s before them.

Tested against: scripted instruments on Linux pseudo-terminals, socat, and pyserial's own RFC 2217 server.

Quirks:
- The port is claimed (TIOCEXCL and a lock): another program that has it open makes `connect` fail, and says so.
- Opening a port raises DTR and RTS; some instruments restart at that, so the first request waits for `drain`.
- An echo of the request, as two-wire adapters give, is skipped like any other frame that is no answer.
- A frame that is no answer makes the reading BAD only when `timeout` is over, since the answer may follow it.
- `frame: {end: "\r"}` with an instrument that sends CR LF leaves the LF at the beginning of the next frame.
- Some RFC 2217 servers do not confirm modem lines: `rfc2217://host:port?ign_set_control`.
- With parity, a damaged character arrives as NUL and spoils its frame; without it, only the pattern protects.
"""

from edge_agent_serial.driver import SerialDriver
from edge_agent_serial.settings import SerialSettings, SerialTagSettings

__all__ = ["SerialDriver", "SerialSettings", "SerialTagSettings"]
