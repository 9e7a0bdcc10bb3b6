"""Which tags are bad on a device that answers, and when that is said: once, with the place in the configuration."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from edge_agent.contract import NS_PER_S, Quality, Tag

log = logging.getLogger(__name__)

QUIET_NS = 600 * NS_PER_S
"""A tag that comes and goes is spoken of at most this often."""
NAMED = 10
"""So many tags are named in one line; the rest are counted, and `edge-agent read` shows them all."""


@dataclass
class TagFault:
    """A tag that is bad, or was a while ago."""

    tag: Tag
    cause: str
    since: int
    bad: bool = True
    told: bool = False
    """Whether this time was told."""
    told_at: int | None = None
    """When the tag was last spoken of."""


class TagFaults:
    """The bad tags of one device, of those that are read although others are not lost."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._faults: dict[Tag, TagFault] = {}

    def turned(self, changes: Iterable[tuple[Tag, Quality, str | None]], now: int, *, muted: bool) -> None:
        """Take the tags whose quality or cause has changed; say which went bad, and which are good again."""
        lost: list[str] = []
        back: list[str] = []
        for tag, quality, cause in changes:
            fault = self._faults.get(tag)
            if quality is not Quality.BAD:
                if fault is not None and fault.bad:
                    fault.bad = False
                    if fault.told and not muted:
                        back.append(tag.short_name)
                continue
            if fault is None or not fault.bad or fault.cause != cause:
                fault = self._faults[tag] = TagFault(
                    tag, cause or "bad", now, told_at=None if fault is None else fault.told_at
                )
                if not muted and (fault.told_at is None or now - fault.told_at >= QUIET_NS):
                    fault.told, fault.told_at = True, now
                    lost.append(f"{tag.short_name} ({tag.place}) {fault.cause}" if tag.place else tag.short_name)
        if lost:
            log.warning("%s: bad: %s; its other tags are read on", self._device, _some(lost))
        if back:
            log.info("%s: good again: %s", self._device, _some(back))

    def now_bad(self) -> list[TagFault]:
        """The tags that are bad now."""
        return [fault for fault in self._faults.values() if fault.bad]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
