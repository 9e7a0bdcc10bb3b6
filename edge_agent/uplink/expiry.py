"""When the certificates of a connection end, and what is said of it in time: from 30 days before, and louder from 7."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

log = logging.getLogger("edge_agent.uplink")

DAY_S = 86_400
SOON_DAYS, VERY_SOON_DAYS = 30, 7


def ends(peers: Iterable[object], own: Path | None) -> list[tuple[str, float]]:
    """Whose certificate ends when, in seconds since 1970 UTC: the broker's, and our own."""
    found = []
    for peer in peers:
        if isinstance(peer, ssl.SSLSocket):
            with suppress(ValueError, OSError):  # not connected any more
                told = peer.getpeercert()
                if told and "notAfter" in told:
                    found.append(("the broker's certificate", _seconds(told["notAfter"])))
    if own is not None:
        decode: Any = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)  # the standard library's only way
        with suppress(OSError, ValueError, KeyError, TypeError):
            found.append((f"mqtt.certificate ({own})", _seconds(decode(str(own))["notAfter"])))
    return found


def _seconds(text: object) -> float:
    return float(ssl.cert_time_to_seconds(str(text)))


class Warnings:
    """Says once a day which certificate ends soon."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def look(self, found: Sequence[tuple[str, float]], now_s: float) -> list[str]:
        """Log what is to be said at this time; the lines."""
        lines = []
        for whose, end_s in found:
            days = (end_s - now_s) / DAY_S
            if days < SOON_DAYS and now_s - self._said.get(whose, 0.0) >= DAY_S:
                self._said[whose] = now_s
                lines.append(f"{whose} ends in {max(0, int(days))} days: renew it, it is read again at each connect")
                log.log(logging.ERROR if days < VERY_SOON_DAYS else logging.WARNING, "%s", lines[-1])
        return lines
