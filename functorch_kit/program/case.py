"""One row of a comparison, as it is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit.program.carrying import Arguments
from functorch_kit.types import PyTree


@dataclasses.dataclass(frozen=True)
class Case:
    """A row that is more than a way to execute the function: another function, say.

    A row is judged by how far its result is from the reference's, leaf by leaf. What counts as
    far is the larger of the dtype's tolerance and ten times what one rounding of the arguments
    moves that leaf by, which is measured: a step that amplifies roundings is not blamed for it.

    Attributes:
        name: of the row.
        how: switches that say how it is executed, such as ``scan=10+donate``.
        fn: the function; None for that of the comparison.
        args: its arguments; None for those of the comparison.
        dtype: of the arithmetic inside, which tolerance and ceiling depend on; None for the
            coarsest floating-point dtype among the arguments.
        tolerance: the relative difference up to which it agrees, in place of all that.
        reference: what its result is compared with; None for the first row's.
        ignore: path patterns of leaves of the result that are not compared.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import program
        >>> half = program.Case("by halves", fn=lambda x: x[:2].sum() + x[2:].sum())
        >>> found = program.compare(jnp.sum, jnp.arange(4.0), variants=("jit", half),
        ...                         rounds=1, matmul_size=64)
        >>> found["by halves"].agrees
        True
    """

    name: str
    how: str = "jit"
    fn: Callable[..., Any] | None = None
    args: tuple[PyTree, ...] | None = None
    dtype: str | None = None
    tolerance: float | None = None
    reference: Case | None = None
    ignore: tuple[str, ...] = ()


def coarsest(args: Arguments) -> str:
    """The floating-point dtype of the fewest bits among the arguments; float32 if there is none.

    Example:
        >>> coarsest((jnp.ones(2), jnp.ones(2, jnp.bfloat16), 3))
        'bfloat16'
    """
    found = [leaf.dtype for leaf in jax.tree.leaves(args) if hasattr(leaf, "dtype")]
    floats = [dtype for dtype in found if jnp.issubdtype(dtype, jnp.floating)]
    return min(floats, key=lambda dtype: jnp.finfo(dtype).nmant).name if floats else "float32"
