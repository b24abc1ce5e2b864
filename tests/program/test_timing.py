"""Timing, on a clock that the test turns itself."""

import pytest

from functorch_kit import program
from functorch_kit.program import timing


class Clock:
    """Stands still until somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", clock)
    return clock


class Pending:
    """A result that takes its time only when it is waited for, like an array of JAX's."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def block_until_ready(self) -> "Pending":
        self.clock.now += self.seconds
        return self


def test_the_time_of_a_call_holds_the_wait_for_its_result(clock):
    found = program.measure(lambda: Pending(clock, 0.5), rounds=3)
    assert (found.median, found.q25, found.q75) == (0.5, 0.5, 0.5)
    assert found.calls == 3


def test_short_calls_are_repeated_until_a_sample_is_long_enough(clock):
    found = program.measure(lambda: Pending(clock, 0.004), rounds=2, sample_seconds=0.02)
    assert found.calls == 2 * 5
    assert found.median == pytest.approx(0.004)


def test_the_first_call_is_not_timed(clock):
    durations = iter([100.0] + [0.5] * 50)
    found = program.measure(lambda: Pending(clock, next(durations)), rounds=5)
    assert found.samples == (0.5,) * 5


def test_median_and_quartiles_are_those_of_the_samples(clock):
    durations = iter([9.0, 9.0, 5.0, 1.0, 4.0, 2.0, 3.0])  # warm-up, estimate, five samples
    found = program.measure(lambda: Pending(clock, next(durations)), rounds=5)
    assert found.samples == (5.0, 1.0, 4.0, 2.0, 3.0)
    assert (found.q25, found.median, found.q75) == (2.0, 3.0, 4.0)


def test_the_ceiling_is_the_rate_of_the_fastest_product(clock, monkeypatch):
    durations = iter([9.0, 2.0, 4.0, 2.0, 3.0])
    monkeypatch.setattr(timing.jax, "jit", lambda fn: lambda *_: Pending(clock, next(durations)))
    assert program.matmul_ceiling(size=1000, rounds=3) == pytest.approx(2 * 1000**3 / 2.0 / 1e9)
