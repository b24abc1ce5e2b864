"""Hessian, generalised Gauss-Newton and Fisher matrices of a loss over data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from functorch_kit.transforms.chunks import MEMORY
from functorch_kit.transforms.curvature.operator import Operator
from functorch_kit.transforms.curvature.stream import Rule, checked_losses, sum_over, weights
from functorch_kit.transforms.errors import TransformError
from functorch_kit.transforms.linearise import both_ways, linearised
from functorch_kit.types import Batch, Key, Params, PyTree

Losses = Callable[..., Float[Array, " batch"]]


def hessian(
    losses: Callable[[Params, Batch], Float[Array, " batch"]],
    params: Params,
    data: Batch | Iterable[Batch],
    *,
    reduction: str = "mean",
    stacked: bool = False,
    memory: int = MEMORY,
) -> Operator:
    """The second derivatives of a loss, as a linear operator over data.

    The gradient of every batch is linearised once, forward over reverse (Pearlmutter, 1994); a
    product then runs the linear program alone, at the price of some two gradients. What does not
    fit ``memory`` is linearised again in every product.

    Args:
        losses: ``losses(params, batch) -> (batch,)``, one loss for each example. Give the same
            function again, not a new lambda, and an operator at other parameters compiles nothing.
        params: where the derivatives are taken.
        data: a batch (a dict of arrays, examples first; ``weight`` (batch,) counts, 0 for padding)
            or batches of one shape: a list, or anything else that can be iterated over again.
        reduction: ``"mean"`` over the examples, by their weights, or ``"sum"``.
        stacked: ``data`` is a dict of arrays (batches, batch, ...), and a product is one program
            that scans them: right on a GPU, and inside ``jax.jit``; XLA:CPU has no fast
            convolution inside a loop.
        memory: memory for linearisations, in bytes.

    Returns:
        The operator.

    Raises:
        TransformError: data that can be read once only or has several shapes, losses that are not
            one for each example, weights that add up to 0.

    Example:
        >>> import jax.numpy as jnp
        >>> def losses(w, batch):
        ...     return (batch["x"] @ w) ** 2 / 2
        >>> batch = {"x": jnp.array([[1.0, 2.0], [3.0, 0.0]])}
        >>> matrix = hessian(losses, jnp.zeros(2), batch)  # mean of x x^T
        >>> matrix(jnp.array([1.0, 0.0])).tolist()
        [5.0, 1.0]
    """
    return sum_over(
        _HESSIAN,
        (losses,),
        params,
        data,
        reduction=reduction,
        stacked=stacked,
        memory=memory,
    )


def gauss_newton(
    outputs: Callable[[Params, Batch], PyTree],
    losses: Losses,
    params: Params,
    data: Batch | Iterable[Batch],
    *,
    reduction: str = "mean",
    stacked: bool = False,
    memory: int = MEMORY,
) -> Operator:
    """The generalised Gauss-Newton matrix J^T H J: the Hessian without the model's own curvature.

    J is the Jacobian of the outputs, H the Hessian of the loss in the outputs (Schraudolph, 2002).
    It is positive semi-definite where the loss is convex in the outputs. One linearisation of the
    model serves both J and its transpose, and is kept for all products.

    Args:
        outputs: ``outputs(params, batch) -> z``, an array or a pytree, examples first.
        losses: ``losses(z, batch) -> (batch,)``; an example's loss depends on its own z alone.
        params: as in ``hessian``.
        data: as in ``hessian``.
        reduction: as in ``hessian``.
        stacked: as in ``hessian``.
        memory: as in ``hessian``.

    Returns:
        The operator.

    Raises:
        TransformError: as in ``hessian``.

    Example:
        >>> import jax.numpy as jnp
        >>> def outputs(w, batch):
        ...     return jnp.tanh(batch["x"] @ w)
        >>> def losses(z, batch):
        ...     return (z - batch["y"]) ** 2 / 2
        >>> batch = {"x": jnp.array([[1.0, 2.0]]), "y": jnp.ones(1)}
        >>> gauss_newton(outputs, losses, jnp.zeros(2), batch).dense().tolist()
        [[1.0, 2.0], [2.0, 4.0]]
    """
    return sum_over(
        _GAUSS_NEWTON,
        (outputs, losses),
        params,
        data,
        reduction=reduction,
        stacked=stacked,
        memory=memory,
    )


def fisher(
    outputs: Callable[[Params, Batch], PyTree],
    losses: Losses,
    params: Params,
    data: Batch | Iterable[Batch],
    *,
    kind: str = "output_hessian",
    draw: Callable[[Key, PyTree, Batch], Batch] | None = None,
    key: Key | None = None,
    samples: int = 1,
    reduction: str = "mean",
    stacked: bool = False,
    memory: int = MEMORY,
) -> Operator:
    """The Fisher information of a model whose losses are negative log-likelihoods.

    Args:
        outputs: as in ``gauss_newton``.
        losses: as in ``gauss_newton``: minus the log-likelihood of each example, in nats.
        params: as in ``hessian``.
        data: as in ``hessian``.
        kind: ``"output_hessian"``: exact where the outputs are the natural parameters of an
            exponential family (logits; the mean of a normal distribution of fixed scale), for there
            it is the Gauss-Newton matrix. ``"sampled"``: an unbiased estimate for any likelihood,
            from labels that ``draw`` draws from the model's own distribution once, so that all
            products are of one matrix. ``"empirical"``: of the labels in the data, which is not the
            Fisher information far from the optimum (Kunstner, Balles and Hennig, 2019).
        draw: ``draw(key, z, batch) -> batch`` with labels of the model's own; of ``"sampled"``.
        key: of what ``draw`` draws.
        samples: how often it draws for each example.
        reduction: as in ``hessian``.
        stacked: as in ``hessian``.
        memory: as in ``hessian``.

    Returns:
        The operator.

    Raises:
        TransformError: an unknown kind, ``"sampled"`` without ``draw`` or ``key``, and as in
            ``hessian``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit.losses import softmax_cross_entropy
        >>> def outputs(params, batch):
        ...     return batch["x"] @ params
        >>> def losses(z, batch):
        ...     return softmax_cross_entropy(z, batch["y"])
        >>> def draw(key, z, batch):
        ...     return batch | {"y": jax.random.categorical(key, z)}
        >>> batch = {"x": jnp.ones((2, 1)), "y": jnp.array([0, 1])}
        >>> weights = jnp.zeros((1, 2))
        >>> exact = fisher(outputs, losses, weights, batch)
        >>> drawn = fisher(outputs, losses, weights, batch, kind="sampled", draw=draw,
        ...                key=jax.random.key(0), samples=2)
        >>> exact.dense().tolist() == drawn.dense().tolist() == [[0.25, -0.25], [-0.25, 0.25]]
        True
    """
    options: dict[str, Any] = {"reduction": reduction, "stacked": stacked, "memory": memory}
    if kind == "output_hessian":
        return gauss_newton(outputs, losses, params, data, **options)
    if kind == "empirical":
        return sum_over(_EMPIRICAL, (outputs, losses), params, data, **options)
    if kind != "sampled":
        raise TransformError(
            f"fisher: kind {kind!r} is not 'output_hessian', 'sampled' or 'empirical'"
        )
    if draw is None or key is None or samples < 1:
        raise TransformError(
            "fisher: kind 'sampled' takes draw(key, z, batch), a key, and samples from 1 up"
        )
    keys = jax.random.split(key, samples)
    return sum_over(_SAMPLED, (outputs, losses, draw), params, data, key=keys, **options)


def loss_in_outputs(losses: Losses, batch: Batch) -> Callable[[PyTree], Float[Array, ""]]:
    """The weighted sum of a batch's losses as a function of the outputs.

    Example:
        >>> total = loss_in_outputs(lambda z, batch: z**2, {"weight": jnp.array([1.0, 0.0])})
        >>> total(jnp.array([2.0, 5.0])).item()
        4.0
    """

    def total(z: PyTree) -> Float[Array, ""]:
        each = checked_losses(losses(z, batch), batch)
        return jnp.sum(each * weights(batch, each.shape[0], each.dtype))

    return total


def _hessian_at(functions, params, batch, key):
    (losses,) = functions

    def total(params):
        each = checked_losses(losses(params, batch), batch)
        return jnp.sum(each * weights(batch, each.shape[0], each.dtype))

    return jax.linearize(jax.grad(total), params)[1]


def _hessian_times(functions, point, v):
    return point(v)


def _jacobian_at(functions, params, batch, key):
    outputs = functions[0]
    return (*linearised(lambda params: outputs(params, batch), params), batch)


def _gauss_newton_times(functions, point, v):
    z, linear, batch = point
    push, pull = both_ways(z, linear, v)
    gradient = jax.grad(loss_in_outputs(functions[1], batch))
    return pull(jax.jvp(gradient, (z,), (push(v),))[1])


def _empirical_at(functions, params, batch, key):
    outputs, losses = functions
    z, linear = linearised(lambda params: outputs(params, batch), params)
    return z, linear, batch, jax.tree.map(lambda leaf: leaf[None], _scores(losses, z, batch))


def _sampled_at(functions, params, batch, keys):
    outputs, losses, draw = functions
    z, linear = linearised(lambda params: outputs(params, batch), params)
    scores = jax.vmap(lambda key: _scores(losses, z, draw(key, z, batch)))(keys)
    return z, linear, batch, scores


def _scores(losses, z, batch):
    """Each example's own gradient in its outputs, without its weight."""

    def total(z):
        return jnp.sum(checked_losses(losses(z, batch), batch))

    return jax.grad(total)(z)


def _scores_times(functions, point, v):
    """``J^T S S^T J v``: an example's score times what its outputs move along it."""
    z, linear, batch, scores = point
    push, pull = both_ways(z, linear, v)
    parts = jax.tree.leaves(jax.tree.map(_inner, scores, push(v)))
    along = functools.reduce(jnp.add, parts)  # (samples, batch)
    along = along * weights(batch, along.shape[1], along.dtype)[None] / along.shape[0]

    def spread(score):
        factor = along.reshape(*along.shape, *(1,) * (score.ndim - 2))
        return jnp.sum(score * factor.astype(score.dtype), axis=0)

    return pull(jax.tree.map(spread, scores))


def _inner(scores: Any, tangent: Any):
    product = scores * tangent[None]
    return jnp.sum(product, axis=tuple(range(2, product.ndim)))


_HESSIAN = Rule(_hessian_at, _hessian_times)
_GAUSS_NEWTON = Rule(_jacobian_at, _gauss_newton_times)
_EMPIRICAL = Rule(_empirical_at, _scores_times)
_SAMPLED = Rule(_sampled_at, _scores_times)
