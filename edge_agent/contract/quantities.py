"""Durations, sizes and rates: in YAML a number with its unit, in code whole or exact numbers."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

NS_PER_S = 1_000_000_000
_DURATION_NS = {
    "ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": NS_PER_S, "min": 60 * NS_PER_S,
    "h": 3_600 * NS_PER_S, "d": 86_400 * NS_PER_S,
}  # fmt: skip
_SIZE_BYTES = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_RATE_S = {"s": 1, "min": 60, "h": 3_600}
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]+)\s*")
_RATE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*/\s*([a-z]+)\s*")


def _with_unit(text: Any, units: dict[str, int], what: str, examples: str) -> int:
    match = _NUMBER_AND_UNIT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"a {what} is a number and its unit, such as {examples}")
    number, unit = match.groups()
    if unit not in units:
        raise ValueError(f"unknown unit {unit!r} in a {what}; allowed: {', '.join(units)}")
    exact = Fraction(number) * units[unit]
    if exact.denominator != 1:
        raise ValueError(f"a {what} of {text!r} is finer than the agent counts")
    return int(exact)


def parse_duration(text: Any) -> int:
    """A duration such as `500ms`, `1 s`, `8h` or `14 d`, in integer nanoseconds.

    Raises:
        ValueError: no unit, an unknown unit, or not a number; the message says what to write.
    """
    return _with_unit(text, _DURATION_NS, "duration", "500 ms, 1 s, 8 h or 14 d")


def parse_size(text: Any) -> int:
    """A size such as `2 GB` or `64 MiB`, in bytes (k, M, G are powers of ten; Ki, Mi, Gi of two).

    Raises:
        ValueError: no unit, an unknown unit, or not a number; the message says what to write.
    """
    return _with_unit(text, _SIZE_BYTES, "size", "2 GB or 512 MiB")


def parse_rate(text: Any) -> Fraction:
    """A rate such as `2 /s` or `1400 /h`, as an exact number per second.

    Raises:
        ValueError: not a number per unit of time; the message says what to write.
    """
    match = _RATE.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in _RATE_S:
        raise ValueError("a rate is a number per s, min or h, such as 2 /s or 1400 /h")
    return Fraction(match[1]) / _RATE_S[match[2]]


def _more_than_zero(value: Any) -> Any:
    if value <= 0:
        raise ValueError("must be more than zero")
    return value


def _schema(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


_DURATION_SCHEMA = _schema(r"^\s*[0-9]+(\.[0-9]+)?\s*(ns|us|µs|ms|s|min|h|d)\s*$", "500 ms", "1 s", "14 d")

Duration = Annotated[int, BeforeValidator(parse_duration), _DURATION_SCHEMA]
"""A span of time, in YAML with its unit; integer nanoseconds in code."""

Period = Annotated[int, AfterValidator(_more_than_zero), BeforeValidator(parse_duration), _DURATION_SCHEMA]
"""A duration of more than zero."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    _schema(r"^\s*[0-9]+(\.[0-9]+)?\s*([kKMGT]i?)?B\s*$", "2 GB", "512 MiB"),
]
"""A number of bytes, in YAML with its unit; integer bytes in code."""

Rate = Annotated[
    Fraction,
    AfterValidator(_more_than_zero),
    BeforeValidator(parse_rate),
    PlainSerializer(lambda rate: f"{rate} /s", return_type=str),
    _schema(r"^\s*[0-9]+(\.[0-9]+)?\s*/\s*(s|min|h)\s*$", "2 /s", "1400 /h"),
]
"""Items per unit of time, in YAML with its unit; an exact number per second in code."""
