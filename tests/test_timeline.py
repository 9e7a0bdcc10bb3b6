"""The agent's own time, over a clock that is set at will."""

from __future__ import annotations

import pytest
from fakes import START, FakeClock, S
from hypothesis import given, settings
from hypothesis import strategies as some

from edge_agent.clock import EARLIEST_NS, Trust
from edge_agent.timeline import BELIEF_NS, PATIENCE_NS, STEP_NS, Timeline

HOUR, MS = 3_600 * S, S // 1_000


class Time:
    """A timeline that is looked at each second of a clock that the test moves."""

    def __init__(self, now: int = START, trusted: Trust = "unsynchronized") -> None:
        self.clock = FakeClock(now)
        self.clock.trusted = trusted
        self.line = Timeline(self.clock)
        self.leaps: list[int] = []

    def pass_by(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock.stop_the_process(1)
            self.look()
        self.clock.stop_the_process(seconds % 1)

    def look(self) -> None:
        forward = self.line.look()
        if forward is not None:
            self.leaps.append(forward)

    @property
    def ahead(self) -> int:
        return self.line.now() - self.clock.now()


@pytest.mark.parametrize("ns", [-2 * HOUR, -STEP_NS - 1, STEP_NS + 1, HOUR, -START])
def test_step_that_is_taken_back_within_five_minutes_leaves_no_trace_but_distrust(ns: int) -> None:
    time = Time()
    time.pass_by(10)
    time.clock.step_wall(ns)
    time.pass_by(290)
    assert time.ahead == -ns
    assert time.line.trust() == "stepped"
    time.clock.step_wall(-ns)
    time.pass_by(2)
    assert (time.ahead, time.leaps) == (0, [])
    time.pass_by(3_500)
    assert time.line.trust() == "stepped"
    time.pass_by(110)
    assert time.line.trust() == "unsynchronized"


def test_step_forward_is_followed_in_one_leap_once_it_is_believed() -> None:
    time = Time()
    time.clock.step_wall(HOUR)
    time.pass_by(BELIEF_NS / S - 1)
    assert time.leaps == []
    time.pass_by(2)
    assert time.leaps == [HOUR]
    assert time.ahead == 0


def test_step_of_a_clock_that_a_time_server_keeps_is_believed_at_once() -> None:
    time = Time(trusted="synchronized")
    time.clock.step_wall(90 * S)
    time.look()
    assert (time.leaps, time.ahead, time.line.trust()) == ([90 * S], 0, "stepped")


def test_step_back_is_made_up_for_by_one_percent_and_never_shows_as_a_step_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    time = Time()
    time.clock.step_wall(-30 * S)
    before = time.line.now()
    time.pass_by(BELIEF_NS / S)
    assert time.line.now() - before == BELIEF_NS
    before = time.line.now()
    time.pass_by(1_000)
    assert time.line.now() - before == 990 * S
    time.pass_by(2_100)
    assert time.ahead == 0
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the clock was set back by 30.0 s",
        "the agent's time is 30.0 s ahead of the clock, and goes one percent slower until both agree",
        "the agent's time is that of the clock again",
    ]


def test_clock_that_loses_its_date_is_never_followed_there() -> None:
    time = Time(trusted="synchronized")
    time.clock.step_wall(-START)
    before = time.line.now()
    time.pass_by(4_000)
    assert time.line.now() - before == 4_000 * S


def test_clock_that_is_slewed_is_followed_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    for _ in range(1_000):
        time.pass_by(1)
        time.clock.step_wall(S // 1_000)
        time.look()
        assert time.ahead == 0
    for _ in range(1_000):
        time.pass_by(1)
        time.clock.step_wall(-S // 1_000)
        assert 0 <= time.ahead <= S // 500
    assert caplog.records == []


def test_clock_that_is_set_each_second_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    for number in range(240):
        time.clock.step_wall(HOUR if number % 2 else -HOUR)
        time.pass_by(1)
    assert len([each for each in caplog.records if "was set" in each.getMessage()]) <= 5


def test_time_that_is_ahead_of_the_clock_meets_it_and_does_not_fall_behind_though_nobody_looked_for_long() -> None:
    time = Time(trusted="synchronized")
    time.clock.step_wall(-2 * S)
    time.look()
    time.clock.stop_the_process(4_000)
    assert time.ahead == 0


def test_time_that_many_small_steps_have_left_behind_is_not_called_synchronized() -> None:
    time = Time(trusted="synchronized")
    for _ in range(30):
        time.clock.step_wall(-4 * STEP_NS // 5)
        time.pass_by(10)
    assert time.ahead > STEP_NS
    assert time.line.trust() == "stepped"
    time.pass_by(time.ahead / S * 100 + 1)
    assert time.line.trust() == "synchronized"


class SlowClock(FakeClock):
    """A process that is stopped for a second just before it is told what time it is, or just after, as listed."""

    def __init__(self) -> None:
        super().__init__()
        self.stops: list[str] = []

    def now(self) -> int:
        stop = self.stops.pop(0) if self.stops else None
        if stop == "before":
            self.stop_the_process(1)
        now = super().now()
        if stop == "after":
            self.stop_the_process(1)
        return now


@pytest.mark.parametrize("stops", [["after"], ["before"], ["before", "after"], ["before", "before", "after"]])
def test_process_that_is_stopped_while_it_looks_at_both_clocks_sees_no_step(
    stops: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    clock = SlowClock()
    line = Timeline(clock)
    for _ in range(10):
        clock.stop_the_process(1)
        clock.stops = [*stops]
        line.now()
        assert line.look() is None
    assert line.ahead_of_clock() == 0
    assert line.trust() == "synchronized"
    assert caplog.records == []


STEP = some.integers(-3 * HOUR, 3 * HOUR) | some.integers(-2 * S, 2 * S) | some.just(-START)
MOMENT = some.tuples(
    some.floats(0.001, 400), STEP | some.just(0), some.sampled_from(["synchronized", "unsynchronized"])
)


@settings(max_examples=300, deadline=None)
@given(some.lists(MOMENT, max_size=12))
def test_time_never_goes_back_and_goes_as_the_monotonic_clock_does_but_for_leaps(
    moments: list[tuple[float, int, Trust]],
) -> None:
    time = Time()
    for seconds, step, trusted in moments:
        time.clock.step_wall(step)
        time.clock.trusted = trusted
        before, leaps, monotonic = time.line.now(), len(time.leaps), time.clock.monotonic()
        time.pass_by(seconds)
        passed, took = time.line.now() - before, time.clock.monotonic() - monotonic
        assert passed >= took * 99 // 100
        assert passed <= took + sum(time.leaps[leaps:]) + STEP_NS + S // 100
    time.clock.trusted = "synchronized"
    time.pass_by(1)
    if time.clock.now() >= EARLIEST_NS and time.ahead < 60 * S:
        time.pass_by(100 * max(0, time.ahead) / S + 2)
        assert 0 <= time.ahead <= S // 100


# ------------------------------------------------------------------------------------------------- the begin


def test_clock_before_the_newest_sign_of_life_is_waited_for_and_then_followed_exactly() -> None:
    time = Time(START - HOUR)
    time.line.begin(START)
    assert not time.line.settled
    assert time.line.trust() == "unsynchronized"
    time.pass_by(30)
    assert time.line.now() == START + 30 * S + MS
    time.clock.step_wall(5 * HOUR)
    time.look()
    assert time.line.settled
    assert (time.leaps, time.ahead) == ([4 * HOUR - MS], 0)
    assert time.line.trust() == "unsynchronized"


@pytest.mark.parametrize(("trusted", "full", "seconds"), [
    ("unsynchronized", False, PATIENCE_NS / S), ("synchronized", False, 1), ("unsynchronized", True, 1),
])  # fmt: skip
def test_clock_that_stays_behind_the_store_is_waited_for_with_a_limit(
    trusted: Trust, full: bool, seconds: float
) -> None:
    time = Time(START - HOUR, trusted)
    time.line.begin(START)
    if not full and trusted == "unsynchronized":
        time.pass_by(seconds - 1)
        assert not time.line.settled
        time.pass_by(1)
    else:
        time.clock.stop_the_process(seconds)
        assert time.line.look(full=full) == 0
    assert time.line.settled
    assert time.line.now() == START + round(seconds) * S + MS
    assert time.line.trust() == "stepped"
    time.clock.trusted = "unsynchronized"
    time.pass_by(BELIEF_NS / S - 1)
    assert time.line.now() == START + round(seconds) * S + BELIEF_NS - S + MS, "it may be set again soon"
    time.pass_by(100)
    assert time.ahead < HOUR + MS


@pytest.mark.parametrize("alive", [None, 86_400 * S])
def test_clock_of_1970_with_nothing_in_the_store_is_waited_for_without_a_limit(alive: int | None) -> None:
    time = Time(S, "synchronized")
    time.line.begin(alive)
    time.pass_by(2 * PATIENCE_NS / S)
    assert time.line.look(full=True) is None
    assert not time.line.settled
    time.clock.step_wall(START)
    time.look()
    assert (time.line.settled, time.ahead) == (True, 0)


def test_agent_that_is_restarted_goes_on_with_its_time_though_the_clock_was_set_meanwhile() -> None:
    time = Time()
    time.line.begin(None)
    time.pass_by(10)
    offset, alive = time.line.offset, time.line.now()
    time.clock.step_wall(-HOUR)
    time.clock.stop_the_process(7)
    time.line = Timeline(time.clock)
    time.line.begin(alive, offset)
    assert time.line.settled
    assert time.line.now() == alive + 7 * S
    assert time.line.trust() == "stepped"


def test_timeline_that_has_begun_goes_on_with_a_store_that_is_new() -> None:
    time = Time()
    time.line.begin(START)
    time.pass_by(5)
    time.clock.step_wall(-HOUR)
    time.line.begin(START + HOUR)
    assert (time.line.settled, time.ahead // S) == (True, 3_600)


def test_agent_that_is_restarted_before_anybody_knows_the_time_waits_on() -> None:
    time = Time(S)
    time.line.begin(None)
    time.pass_by(30)
    alive = time.line.now()
    time.line = Timeline(time.clock)
    time.line.begin(alive)
    time.pass_by(2 * PATIENCE_NS / S)
    assert (time.line.settled, time.line.patient) == (False, True)
