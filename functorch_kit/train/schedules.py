"""Learning rates over time: optax's schedules in closed form, every argument of which may vary.

optax asks Python how many steps a schedule has, so there a new number of steps is a new program.
Here nothing branches on a value: peak, shares and step counts may all be hyperparameters, and a
sweep may ``vmap`` over any of them. Each function returns an optax schedule, a function of the
number of updates made so far, and goes wherever optax takes one::

    def optimizer(h):
        rate = train.schedules.cosine(h["rate"], h["steps"], warmup_steps=h["warmup"])
        return optax.adamw(rate, weight_decay=h["decay"])

As in optax the first update is made at step 0, so that it has exactly the initial value (of a
warm-up from 0: the size 0), and a schedule stays at its final value once its steps are over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Schedule = Callable[[Any], jax.Array]
"""From the number of updates so far, an integer (), to a value, a float ()."""
Number = Any
"""A number of Python, or a scalar array that may be traced."""


def constant(peak: Number, *, warmup_steps: Number = 0, initial: Number = 0.0) -> Schedule:
    """Linear warm-up to a value that stays.

    Args:
        peak: the value after the warm-up.
        warmup_steps: steps that the warm-up takes; 0 for none.
        initial: the first value of a warm-up, as a share of the peak.

    Returns:
        An optax schedule.

    Example:
        >>> rate = constant(0.1, warmup_steps=4)
        >>> [round(float(rate(step)), 4) for step in (0, 1, 2, 4, 100)]
        [0.0, 0.025, 0.05, 0.1, 0.1]
    """

    def rate(step: Number) -> jax.Array:
        return _real(peak) * _warmup(step, warmup_steps, initial)

    return rate


def linear(
    peak: Number,
    steps: Number,
    *,
    warmup_steps: Number = 0,
    initial: Number = 0.0,
    final: Number = 0.0,
) -> Schedule:
    """Linear warm-up, then a straight line to the final value.

    Args:
        peak: the value after the warm-up.
        steps: steps in all, the warm-up among them.
        warmup_steps: steps that the warm-up takes; 0 for none.
        initial: the first value of a warm-up, as a share of the peak.
        final: the last value, as a share of the peak.

    Returns:
        An optax schedule.

    Example:
        >>> rate = linear(1.0, 10, warmup_steps=2)
        >>> [round(float(rate(step)), 4) for step in (0, 1, 2, 6, 10, 99)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """

    def rate(step: Number) -> jax.Array:
        past = _share(step, warmup_steps, _real(steps) - _real(warmup_steps))
        return _real(peak) * _warmup(step, warmup_steps, initial) * _between(1.0, final, past)

    return rate


def cosine(
    peak: Number,
    steps: Number,
    *,
    warmup_steps: Number = 0,
    initial: Number = 0.0,
    final: Number = 0.0,
) -> Schedule:
    """Linear warm-up, then half a cosine to the final value (Loshchilov and Hutter, 2017).

    Args:
        peak: the value after the warm-up.
        steps: steps in all, the warm-up among them.
        warmup_steps: steps that the warm-up takes; 0 for none.
        initial: the first value of a warm-up, as a share of the peak.
        final: the last value, as a share of the peak.

    Returns:
        An optax schedule.

    Example:
        >>> rate = cosine(1.0, 100, warmup_steps=20, final=0.1)
        >>> [round(float(rate(step)), 4) for step in (0, 10, 20, 60, 100)]
        [0.0, 0.5, 1.0, 0.55, 0.1]
    """

    def rate(step: Number) -> jax.Array:
        past = _ease(_share(step, warmup_steps, _real(steps) - _real(warmup_steps)))
        return _real(peak) * _warmup(step, warmup_steps, initial) * _between(1.0, final, past)

    return rate


def one_cycle(
    peak: Number,
    steps: Number,
    *,
    rise: Number = 0.3,
    initial: Number = 0.04,
    final: Number = 4e-6,
) -> Schedule:
    """Half a cosine up to the peak, and half a cosine down again (Smith and Topin, 2018).

    Args:
        peak: the highest value.
        steps: steps in all.
        rise: share of the steps that the way up takes.
        initial: the first value, as a share of the peak.
        final: the last value, as a share of the peak.

    Returns:
        An optax schedule.

    Example:
        >>> rate = one_cycle(1.0, 100, initial=0.1, final=0.0)
        >>> [round(float(rate(step)), 4) for step in (0, 15, 30, 65, 100)]
        [0.1, 0.55, 1.0, 0.5, 0.0]
    """

    def rate(step: Number) -> jax.Array:
        top = _real(rise) * _real(steps)
        up = _between(initial, 1.0, _ease(_share(step, 0, top)))
        down = _between(1.0, final, _ease(_share(step, top, _real(steps) - top)))
        return _real(peak) * jnp.where(_real(step) < top, up, down)

    return rate


def warmup_stable_decay(
    peak: Number,
    steps: Number,
    decay_steps: Number,
    *,
    warmup_steps: Number = 0,
    initial: Number = 0.0,
    final: Number = 0.0,
) -> Schedule:
    """Linear warm-up, a value that stays, and a straight line to the final value at the end.

    What comes before the decay does not depend on how many steps there are, so that a run may be
    lengthened as long as it has not begun to decay (Hu et al., 2024; Hägele et al., 2024).

    Args:
        peak: the value that stays.
        steps: steps in all, warm-up and decay among them.
        decay_steps: how many of them, at the end, the decay takes.
        warmup_steps: steps that the warm-up takes; 0 for none.
        initial: the first value of a warm-up, as a share of the peak.
        final: the last value, as a share of the peak.

    Returns:
        An optax schedule.

    Example:
        >>> rate = warmup_stable_decay(1.0, 100, 20, warmup_steps=10)
        >>> [round(float(rate(step)), 4) for step in (0, 5, 10, 80, 90, 100)]
        [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]
    """

    def rate(step: Number) -> jax.Array:
        past = _share(step, _real(steps) - _real(decay_steps), decay_steps)
        return _real(peak) * _warmup(step, warmup_steps, initial) * _between(1.0, final, past)

    return rate


def piecewise(
    peak: Number,
    boundaries: Sequence[Number],
    factors: Sequence[Number],
    *,
    warmup_steps: Number = 0,
    initial: Number = 0.0,
) -> Schedule:
    """A value that is multiplied by a factor at each of some steps.

    Args:
        peak: the first value, after a warm-up.
        boundaries: the steps from which on a factor counts, in any order.
        factors: for each boundary, what the value is multiplied with.
        warmup_steps: steps that a linear warm-up takes; 0 for none.
        initial: the first value of a warm-up, as a share of the peak.

    Returns:
        An optax schedule.

    Raises:
        ValueError: another number of factors than of boundaries.

    Example:
        >>> rate = piecewise(1.0, [30, 60], [0.1, 0.5])
        >>> [round(float(rate(step)), 4) for step in (0, 29, 30, 60)]
        [1.0, 1.0, 0.1, 0.05]
    """
    if len(boundaries) != len(factors):
        raise ValueError(
            f"piecewise: {len(boundaries)} boundaries and {len(factors)} factors:"
            " give one factor for each boundary"
        )

    def rate(step: Number) -> jax.Array:
        value = _real(peak) * _warmup(step, warmup_steps, initial)
        for boundary, factor in zip(boundaries, factors, strict=True):
            value = value * jnp.where(_real(step) >= _real(boundary), _real(factor), 1)
        return value

    return rate


def _real(value: Number) -> jax.Array:
    """A float of JAX's default width; one of 32 bits counts steps exactly up to 16 million."""
    return jnp.asarray(value, jax.dtypes.canonicalize_dtype(float))


def _share(step: Number, begin: Number, length: Number) -> jax.Array:
    """How much of a stretch of steps lies behind, from 0 to 1; of an empty one, all once begun."""
    length, past = _real(length), _real(step) - _real(begin)
    inside = past / jnp.where(length > 0, length, 1)
    return jnp.where(length > 0, jnp.clip(inside, 0, 1), (past >= 0).astype(inside.dtype))


def _warmup(step: Number, steps: Number, initial: Number) -> jax.Array:
    return _between(initial, 1.0, _share(step, 0, steps))


def _between(start: Number, end: Number, share: jax.Array) -> jax.Array:
    return _real(start) + (_real(end) - _real(start)) * share


def _ease(share: jax.Array) -> jax.Array:
    """From 0 to 1 along half a cosine, level at both ends."""
    return (1 - jnp.cos(jnp.pi * share)) / 2
