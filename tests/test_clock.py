"""The machine's clock: whether it is trusted."""

from __future__ import annotations

import pytest

from edge_agent.clock import SystemClock


@pytest.mark.parametrize(("seconds", "direction"), [(3_600, "forward"), (-7_200, "back")])
def test_clock_that_steps_says_so_once_and_is_distrusted(
    caplog: pytest.LogCaptureFixture, seconds: int, direction: str
) -> None:
    clock = SystemClock()
    clock._ahead -= seconds * 1_000_000_000  # as if the wall time had been set
    assert [clock.trust() for _ in range(3)] == ["stepped"] * 3
    (entry,) = caplog.records
    assert f"{direction} by {abs(seconds)}.0 s" in entry.getMessage()


def test_clock_that_runs_on_is_what_its_kernel_says(caplog: pytest.LogCaptureFixture) -> None:
    assert SystemClock().trust() in ("synchronized", "unsynchronized")
    assert caplog.records == []


async def test_clock_wakes_a_sleeper_when_its_time_has_come() -> None:
    clock = SystemClock()
    when = clock.monotonic() + 20_000_000
    await clock.sleep_until(when)
    assert clock.monotonic() >= when
