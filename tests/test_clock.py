"""The machine's clock: whether it is trusted."""

from __future__ import annotations

import pytest

from edge_agent.clock import SystemClock, boot


def test_clock_that_runs_on_is_what_its_kernel_says(caplog: pytest.LogCaptureFixture) -> None:
    assert SystemClock().trust() in ("synchronized", "unsynchronized")
    assert caplog.records == []


def test_boot_is_a_number_that_stays_the_same() -> None:
    assert boot() == boot() is not None
    assert 0 < (boot() or 0) < 2**63


async def test_clock_wakes_a_sleeper_when_its_time_has_come() -> None:
    clock = SystemClock()
    when = clock.monotonic() + 20_000_000
    await clock.sleep_until(when)
    assert clock.monotonic() >= when
