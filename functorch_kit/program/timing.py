"""Timing that can be believed: warm, blocked until ready, repeated, with its spread."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Timing:
    """Seconds per call, over several samples.

    Attributes:
        median: the middle sample.
        q25: a quarter of the samples took less.
        q75: a quarter took more.
        low: the true median is above this, with a confidence of 97.5 % …
        high: … and below this; see ``median_interval``.
        samples: one mean per sample, in the order in which they were taken.
        calls: how many calls were timed, over all samples.

    Example:
        >>> Timing.of([3.0, 1.0, 2.0], calls=3).median
        2.0
    """

    median: float
    q25: float
    q75: float
    low: float
    high: float
    samples: tuple[float, ...]
    calls: int

    @classmethod
    def of(cls, samples: Sequence[float], calls: int) -> Timing:
        """Summarize samples (seconds per call); there must be one at least."""
        q25, median, q75 = (float(q) for q in np.percentile(samples, (25, 50, 75)))
        return cls(median, q25, q75, *median_interval(samples), tuple(samples), calls)


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """An interval that holds the median of what the samples were drawn from.

    The k-th smallest and the k-th largest sample, k as large as the confidence allows. It assumes
    nothing but independent draws: the median lies below the k-th smallest of n samples only if
    fewer than k of n fair coins show heads.

    Args:
        samples: one or more numbers. Up to 5 do not suffice for 95 %: then it is the smallest and
            the largest.
        confidence: the probability that the interval has to hold the median with.

    Returns:
        Its ends.

    Example:
        >>> median_interval([5.0, 1.0, 4.0, 2.0, 3.0, 6.0])  # 1 - 2 / 2**6 = 97 %
        (1.0, 6.0)
        >>> median_interval(range(1, 11))  # 1 - 2 * (1 + 10) / 2**10 = 98 %
        (2, 9)
    """
    ordered, n = sorted(samples), len(samples)
    k, missed = 1, 2 * 0.5**n
    while k < n / 2 and (missed := missed + 2 * math.comb(n, k) * 0.5**n) <= 1 - confidence:
        k += 1
    return ordered[k - 1], ordered[n - k]


def measure(
    fn: Callable[..., Any], *args: Any, rounds: int = 7, sample_seconds: float = 0.02
) -> Timing:
    """Time ``fn(*args)``: one call to warm up, then ``rounds`` samples of calls in a row.

    Every call is waited for (``jax.block_until_ready``): JAX returns before the work is done.

    Args:
        fn: the function, compiled or not.
        *args: its arguments; they must outlive a call (no donation).
        rounds: how many samples.
        sample_seconds: a sample repeats the call until it lasts about this long, in s, so that
            the clock and its call cost nothing.

    Returns:
        Seconds per call.

    Example:
        >>> timing = measure(jnp.sin, 1.0, rounds=3, sample_seconds=0.001)
        >>> len(timing.samples), timing.q25 <= timing.median <= timing.q75
        (3, True)
    """

    def sample(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            jax.block_until_ready(fn(*args))
        return time.perf_counter() - began

    sample(1)
    calls = calls_per_sample(sample(1), sample_seconds)
    return Timing.of([sample(calls) / calls for _ in range(rounds)], calls * rounds)


def calls_per_sample(seconds_per_call: float, sample_seconds: float) -> int:
    """How many calls fill a sample, at least one.

    Example:
        >>> calls_per_sample(0.003, 0.02), calls_per_sample(1.0, 0.02)
        (7, 1)
    """
    return max(1, math.ceil(sample_seconds / max(seconds_per_call, 1e-7)))


def matmul_ceiling(size: int = 2048, rounds: int = 3) -> float:
    """The rate that this machine reaches now on the operation it is best at.

    Args:
        size: rows and columns of the two float32 matrices.
        rounds: how many products are timed; the fastest counts, for a ceiling is not an average.

    Returns:
        GFLOP/s of a ``size`` x ``size`` float32 matrix product.

    Example:
        >>> matmul_ceiling(size=64, rounds=1) > 0
        True
    """
    ones = jnp.ones((size, size), jnp.float32)
    timing = measure(jax.jit(jnp.matmul), ones, ones, rounds=rounds)
    return 2 * size**3 / min(timing.samples) / 1e9
