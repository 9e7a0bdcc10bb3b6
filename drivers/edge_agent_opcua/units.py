"""Units of OPC UA servers as UCUM codes.

An EUInformation names its unit by the UNECE code of Recommendation 20, as a number whose bytes are the code's letters
(OPC 10000-8, 5.6.4.3). The usual ones are here; others are shown as the server calls them.
"""

from __future__ import annotations

UCUM = {
    "C62": "1", "P1": "%", "59": "[ppm]", "H87": "{piece}", "CEL": "Cel", "KEL": "K", "FAH": "[degF]",
    "GRM": "g", "KGM": "kg", "MGM": "mg", "TNE": "t", "LBR": "[lb_av]", "MTR": "m", "CMT": "cm", "MMT": "mm",
    "4H": "um", "KMT": "km", "INH": "[in_i]", "FOT": "[ft_i]", "MTK": "m2", "MTQ": "m3", "LTR": "L", "MLT": "mL",
    "SEC": "s", "C26": "ms", "MIN": "min", "HUR": "h", "DAY": "d", "HTZ": "Hz", "KHZ": "kHz", "RPM": "{rev}/min",
    "MTS": "m/s", "C16": "mm/s", "2M": "cm/s", "2X": "m/min", "KMH": "km/h", "MSK": "m/s2",
    "PAL": "Pa", "KPA": "kPa", "MPA": "MPa", "BAR": "bar", "MBR": "mbar", "PS": "[psi]", "A97": "hPa",
    "NEW": "N", "B47": "kN", "NU": "N.m", "JOU": "J", "KJO": "kJ", "WTT": "W", "KWT": "kW", "MAW": "MW",
    "WHR": "W.h", "KWH": "kW.h", "MWH": "MW.h", "D46": "V.A", "KVA": "kV.A", "D44": "var",
    "AMP": "A", "4K": "mA", "VLT": "V", "2Z": "mV", "KVT": "kV", "OHM": "Ohm", "2N": "dB",
    "L2": "L/min", "E32": "L/h", "MQH": "m3/h", "MQS": "m3/s", "KGS": "kg/s", "E93": "kg/h", "23": "g/cm3",
    "KMQ": "kg/m3", "DD": "deg", "C81": "rad", "LUX": "lx", "D33": "T", "P5": "{pH}",
}  # fmt: skip
"""UCUM codes by UNECE codes."""


def ucum(unit_id: int, shown: str | None) -> str | None:
    """The UCUM code of a unit, else what the server shows; None where it says nothing."""
    if 0 < unit_id < 2**31:
        code = unit_id.to_bytes(4, "big").lstrip(b"\0").decode("ascii", errors="replace").strip()
        if code in UCUM:
            return UCUM[code]
    return shown or None
