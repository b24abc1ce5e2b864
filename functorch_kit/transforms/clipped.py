"""The sum of gradients that are each clipped first, in one backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from functorch_kit.transforms.backward import Backward, ExampleLoss
from functorch_kit.transforms.chunks import MEMORY, check_memory
from functorch_kit.transforms.errors import TransformError
from functorch_kit.transforms.examples import over_examples
from functorch_kit.types import Params, PyTree


class ClippedSum(NamedTuple):
    """A sum of clipped gradients, and what was clipped.

    Attributes:
        grads: of the parameters' structure.
        norms: of each example's gradient before it was clipped (examples,); 0 where the mask is.
        losses: (examples,); 0 where the mask is.
        drawn: how many examples the mask let through, shape ().
    """

    grads: Params
    norms: Float[Array, " examples"]
    losses: Float[Array, " examples"]
    drawn: Float[Array, ""]


def clipped_grad_sum(
    f: ExampleLoss, *, memory: int = MEMORY, chunk: int | None = None
) -> Callable[..., ClippedSum]:
    """Each example's gradient, scaled down to a norm at most, and all of them added.

    The gradient of DP-SGD before its noise (Abadi et al., 2016). One backward pass gives the norms
    and then, by the same inputs and output gradients, the weighted sum (Bu et al., 2023); an
    example's gradient is materialised only of parameters whose norm is cheaper that way, or that
    are used in several places or in ways without a rule, and of one chunk at a time.

    Args:
        f: ``f(params, example) -> loss``, of one example without a batch axis; see ``per_example``.
        memory: bytes for intermediate values, estimated from abstract shapes.
        chunk: examples at a time; as many as the memory allows if None.

    Returns:
        ``clipped(params, batch, clip_norm, mask=None) -> ClippedSum``. The norm to clip at, above
        0, may be traced. A batch drawn by Poisson sampling keeps its shape: the mask (examples,) is
        0 for places that nobody was drawn for, and what stands there counts for nothing. If it is 0
        everywhere the sum is 0.

    Raises:
        TransformError: a limit that is not positive; at the call, a norm that is not, a loss that
            is no single float, or a batch without an axis of examples.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import transforms
        >>> loss = lambda w, x: jnp.dot(w, x)  # whose gradient is x
        >>> clipped = transforms.clipped_grad_sum(loss)
        >>> found = clipped(jnp.zeros(2), jnp.array([[3.0, 4.0], [0.0, 0.5], [9.0, 9.0]]), 1.0,
        ...                 mask=jnp.array([1, 1, 0]))
        >>> [round(x, 6) for x in found.grads.tolist()], found.norms.tolist()
        ([0.6, 1.3], [5.0, 0.5, 0.0])
    """
    check_memory(memory, chunk)

    @jax.jit
    def clipped(params: Params, batch: PyTree, clip_norm: Array, mask: Array | None) -> ClippedSum:
        def reduce(backward: Backward, mask: Array | None) -> tuple[Any, Any]:
            norms = jnp.sqrt(backward.squared_norms())
            most = clip_norm.astype(norms.dtype)
            # Where the norm is 0 this is 1, without a division by 0.
            factors = most / jnp.maximum(norms, most)
            drawn = jnp.sum(jnp.ones_like(norms) if mask is None else mask).astype(norms.dtype)
            return (backward.weighted_sum(factors), drawn), (norms, backward.losses)

        (grads, drawn), (norms, losses) = over_examples(
            f,
            reduce,
            lambda one, other: jax.tree.map(jnp.add, one, other),
            params,
            batch,
            mask,
            memory,
            chunk,
        )
        return ClippedSum(grads, norms, losses, drawn)

    def checked(
        params: Params,
        batch: PyTree,
        clip_norm: ArrayLike,
        mask: ArrayLike | None = None,
    ) -> ClippedSum:
        if isinstance(clip_norm, int | float) and not clip_norm > 0:
            raise TransformError(f"clip_norm={clip_norm}: give a norm above 0")
        return clipped(params, batch, jnp.asarray(clip_norm, float), mask)

    return checked
