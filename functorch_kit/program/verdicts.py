"""Whether a row of a comparison is to be believed, and where it first went another way."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit.program.carrying import Arguments
from functorch_kit.program.contestant import Contestant
from functorch_kit.program.difference import Difference, NamedLeaves, differences, tolerance_of
from functorch_kit.program.layer_outputs import first_divergence, layer_outputs

_ROUNDINGS = 10
"""How many times the effect of one rounding is still put down to rounding."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the differences of a row come to.

    Attributes:
        absolute: the largest absolute difference.
        relative: the largest in units of the leaf's scale.
        leaf: the leaf that is furthest away in units of its own tolerance; None if none differs.
        leaf_relative: how far that leaf is, in units of its scale.
        tolerance: how far it may be.
    """

    absolute: float
    relative: float
    leaf: str | None
    leaf_relative: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether every leaf is within its tolerance."""
        return self.leaf_relative <= self.tolerance


def judge(
    found: Mapping[str, Difference],
    dtype: str,
    tolerance: float | None,
    moved: Mapping[str, float],
) -> Verdict:
    """Hold the differences of a row against the tolerances of its leaves.

    Args:
        found: leaf -> difference.
        dtype: of the arithmetic.
        tolerance: of all leaves, in place of their own.
        moved: leaf -> by how much one rounding of the arguments moves it, in units of its scale.

    Returns:
        The verdict.

    Example:
        >>> found = {"w": Difference(0.2, 0.1), "b": Difference(1e-3, 1e-3)}
        >>> judge(found, "float32", None, {"w": 0.02}).leaf  # 0.2 and 1e-5 are allowed
        'b'
    """
    least = tolerance_of(dtype)
    worst = Verdict(0.0, 0.0, None, 0.0, least if tolerance is None else tolerance)
    nearness = 0.0
    for name, (_, relative) in found.items():
        allowed = max(least, _ROUNDINGS * moved.get(name, 0.0)) if tolerance is None else tolerance
        share = relative / allowed if allowed else math.inf if relative else 0.0
        if relative and share > nearness:
            nearness = share
            worst = dataclasses.replace(worst, leaf=name, leaf_relative=relative, tolerance=allowed)
    return dataclasses.replace(
        worst,
        absolute=max((each.absolute for each in found.values()), default=0.0),
        relative=max((each.relative for each in found.values()), default=0.0),
    )


def moved_by_rounding(
    contestant: Contestant,
    result: NamedLeaves,
    named: Callable[[Any], NamedLeaves],
    steps: int,
    dtype: str,
) -> dict[str, float]:
    """By how much a result moves when its arguments are rounded once, at random, to a dtype.

    Args:
        contestant: runs the function.
        result: what it returned after ``steps`` steps.
        named: makes leaves with names of what it returns.
        steps: after how many steps.
        dtype: the dtype; each element becomes larger or smaller by its epsilon.

    Returns:
        Leaf -> its largest difference in units of its scale; integers, which either stay or are
        infinitely far away, are left out.

    Example:
        >>> from functorch_kit.program.carrying import Threading
        >>> from functorch_kit.program.switches import Switches
        >>> from functorch_kit.program.variants import make_variant
        >>> variant = make_variant(Switches("jit"), lambda x: x, Threading(None))
        >>> jit = Contestant("jit", variant, (jnp.ones(3),))
        >>> jit.warm_up()
        >>> one = lambda output: jit.named(output, ("x",))
        >>> moved_by_rounding(jit, one(jit.first), one, 1, "bfloat16")
        {'output': 0.0078125}
    """
    rounded = contestant.after(steps, _rounded(contestant.args, float(jnp.finfo(dtype).eps)))
    found = differences(result, named(rounded))
    return {name: each.relative for name, each in found.items() if math.isfinite(each.relative)}


def _rounded(args: Arguments, epsilon: float) -> Arguments:
    generator = np.random.default_rng(0)

    # With NumPy: JAX would compile these few operations for every shape.
    def moved(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        step = max(epsilon, float(jnp.finfo(leaf.dtype).eps))
        signs = generator.integers(0, 2, leaf.shape) * 2 - 1
        return jax.device_put((np.asarray(leaf) * (1 + step * signs)).astype(leaf.dtype))

    return jax.tree.map(moved, args)


def diverging_layer(
    reference: Contestant, other: Contestant, steps: int, tolerance: float
) -> tuple[str, int] | None:
    """The first part of the function whose output is not the reference's.

    Args:
        reference: what it ought to be.
        other: what it is.
        steps: after how many steps to look again where the first step shows nothing.
        tolerance: in units of the output's scale.

    Returns:
        Its path, and at which step, counted from 1; None where all parts that can be seen agree,
        which they do where only a gradient is wrong and nothing is carried.

    Example:
        >>> from functorch_kit.program.carrying import Threading
        >>> from functorch_kit.program.switches import Switches
        >>> from functorch_kit.program.variants import make_variant
        >>> jit = Contestant("jit", make_variant(Switches(), jnp.sin, Threading(None)), (1.0,))
        >>> print(diverging_layer(jit, jit, 1, 1e-5))
        None
    """
    carried = other.variant.threading.carry is not None
    for step in (1, steps) if carried and steps > 1 else (1,):
        one, two = (_layers(each, step) for each in (reference, other))
        path = first_divergence(one, two, tolerance)
        if path is not None:
            return path, step
    return None


def _layers(contestant: Contestant, step: int) -> dict[str, Any]:
    variant, args = contestant.variant, contestant.args
    if step > 1:
        args = variant.threading.advance(args, contestant.after(step - 1))
    if variant.placement is not None:
        args = variant.placement.place(args)
    return layer_outputs(variant.fn, *args, compiled=variant.is_compiled)
