"""The gradients of each example by itself, and what is to be known of them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from functorch_kit.transforms.backward import Backward, ExampleLoss
from functorch_kit.transforms.chunks import MEMORY, check_memory
from functorch_kit.transforms.errors import TransformError
from functorch_kit.transforms.examples import over_examples
from functorch_kit.types import Params, PyTree, wide_float

STATS = ("losses", "grads", "norms", "mean", "variance", "noise_scale")


class NoiseScale(NamedTuple):
    """How noisy the gradient of one example is, against the gradient itself.

    Attributes:
        scale: trace / squared_norm: about the batch size above which a larger batch gains little.
            A ratio of two noisy estimates: over many steps, divide the mean trace by the mean
            square.
        trace: of the covariance of the examples' gradients, unbiased, shape ().
        squared_norm: of the true gradient, unbiased, shape (); may be negative by chance.
    """

    scale: Float[Array, ""]
    trace: Float[Array, ""]
    squared_norm: Float[Array, ""]


def per_example(
    f: ExampleLoss,
    stats: Sequence[str] = ("grads",),
    *,
    memory: int = MEMORY,
    chunk: int | None = None,
) -> Callable[..., dict[str, Any]]:
    """Gradients of each example, or only what is asked of them, within a memory budget.

    What ``jax.vmap(jax.grad(f), (None, 0))`` gives, faster: gradients of matrices, convolutions and
    embeddings follow by rules from one backward pass over the batch. Of norms, mean, variance and
    noise scale the full set is never held: a batch that does not fit is taken in chunks, and the
    memory they need does not grow with the batch. What differs between examples besides data (keys
    of dropout, weights) is part of the batch.

    Args:
        f: ``f(params, example) -> loss``, of one example without a batch axis; the loss is a float
            of shape ().
        stats: any of ``losses`` (examples,); ``grads``, each leaf (examples, *shape); ``norms`` of
            the whole gradient (examples,); ``mean`` and ``variance`` (unbiased) of each parameter
            over the examples; ``noise_scale``, a ``NoiseScale`` (McCandlish et al., 2018).
        memory: bytes for intermediate values, estimated from abstract shapes; outputs come on top.
        chunk: examples at a time; as many as the memory allows if None.

    Returns:
        ``measure(params, batch, mask=None)`` -> dict of the stats by name. The batch's leaves have
        the examples as a first axis. Examples whose mask is 0 count for nothing, whatever they
        hold; their gradients, norms and losses are 0.

    Raises:
        TransformError: an unknown stat, a limit that is not positive; at the call, a loss that is
            no single float, or a batch without an axis of examples.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import transforms
        >>> loss = lambda w, example: (w * example["x"] - example["y"]) ** 2 / 2
        >>> measure = transforms.per_example(loss, ("grads", "norms", "mean"))
        >>> batch = {"x": jnp.array([1.0, 2.0]), "y": jnp.array([0.0, 8.0])}
        >>> found = measure(jnp.array(1.0), batch)
        >>> found["grads"].tolist(), found["norms"].tolist(), found["mean"].item()
        ([1.0, -12.0], [1.0, 12.0], -5.5)
    """
    if not stats:
        raise TransformError(f"per_example: stats is empty: give some of {', '.join(STATS)}")
    for name in stats:
        if name not in STATS:
            raise TransformError(f"per_example: no stat {name!r}: there are {', '.join(STATS)}")
    check_memory(memory, chunk)

    @jax.jit
    def measure(
        params: Params, batch: PyTree, mask: Shaped[Array, " examples"] | None = None
    ) -> dict[str, Any]:
        sums, each = over_examples(
            f,
            lambda backward, mask: _measured(backward, mask, stats),
            _merged,
            params,
            batch,
            mask,
            memory,
            chunk,
        )
        return {name: _finished(name, sums, each) for name in stats}

    return measure


class _Sums(NamedTuple):
    """What adds up over chunks; means and deviations by Chan, Golub and LeVeque, 1983."""

    number: Array
    squares: Array
    mean: Params
    deviations: Params


def _measured(
    backward: Backward, mask: Array | None, stats: Sequence[str]
) -> tuple[_Sums, dict[str, Any]]:
    losses = wide_float(backward.losses)
    present = jnp.ones_like(losses) if mask is None else mask.astype(losses.dtype)
    count = jnp.sum(present)
    each: dict[str, Any] = {}
    if "losses" in stats:
        each["losses"] = backward.losses
    # First, so that norms and means are taken of gradients that exist anyway.
    if "grads" in stats:
        each["grads"] = backward.gradients()
    mean, deviations, squares = (), (), jnp.zeros_like(count)
    if "variance" in stats:
        gradients = backward.gradients()
        mean = backward.weighted_sum(present / jnp.maximum(count, 1))
        deviations = jax.tree.map(
            lambda each, middle: jnp.tensordot(
                present.astype(each.dtype), jnp.square(each - middle[None]), 1
            ),
            gradients,
            mean,
        )
    elif "mean" in stats or "noise_scale" in stats:
        mean = backward.weighted_sum(present / jnp.maximum(count, 1))
    if "norms" in stats or "noise_scale" in stats:
        squared = backward.squared_norms()
        squares = jnp.sum(squared).astype(count.dtype)
        if "norms" in stats:
            each["norms"] = jnp.sqrt(squared)
    return _Sums(count, squares, mean, deviations), each


def _merged(one: _Sums, other: _Sums) -> _Sums:
    count = one.number + other.number
    share = other.number / jnp.maximum(count, 1)
    apart = jax.tree.map(jnp.subtract, other.mean, one.mean)
    deviations = one.deviations
    if jax.tree.leaves(one.deviations):
        deviations = jax.tree.map(
            lambda a, b, d: a + b + jnp.square(d) * (one.number * share).astype(d.dtype),
            one.deviations,
            other.deviations,
            apart,
        )
    mean = jax.tree.map(lambda m, d: m + d * share.astype(d.dtype), one.mean, apart)
    return _Sums(count, one.squares + other.squares, mean, deviations)


def _finished(name: str, sums: _Sums, each: dict[str, Any]) -> Any:
    match name:
        case "mean":
            return sums.mean
        case "variance":
            return jax.tree.map(lambda d: d / (sums.number - 1).astype(d.dtype), sums.deviations)
        case "noise_scale":
            mean_square = sum(
                jnp.sum(jnp.square(wide_float(leaf))).astype(sums.number.dtype)
                for leaf in jax.tree.leaves(sums.mean)
            )
            trace = (sums.squares - sums.number * mean_square) / (sums.number - 1)
            squared = mean_square - trace / sums.number
            return NoiseScale(trace / squared, trace, squared)
        case _:
            return each[name]
