"""A normal distribution around trained parameters, and what it says of predictions."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from functorch_kit.transforms.curvature.matrices import Losses
from functorch_kit.transforms.curvature.stream import checked_losses, readable, weights
from functorch_kit.transforms.errors import TransformError
from functorch_kit.types import Batch, Params, path_matches, path_name

_FULL_AT_MOST = 20_000


class Prediction(NamedTuple):
    """Outputs and how sure the parameters' distribution is of them.

    Attributes:
        mean: outputs at the trained parameters (batch, outputs).
        covariance: of each example's outputs (batch, outputs, outputs): of the function, without
            the noise of an observation.
    """

    mean: Float[Array, "batch outputs"]
    covariance: Float[Array, "batch outputs outputs"]

    @property
    def variance(self) -> Float[Array, "batch outputs"]:
        """Of each output by itself."""
        return jnp.diagonal(self.covariance, axis1=1, axis2=2)


@dataclasses.dataclass(frozen=True, eq=False)
class Laplace:
    """A normal distribution over some of the parameters, around their trained values.

    Attributes:
        params: all parameters; the mean.
        names: paths of those that it is over; the others are certain.
        precision: (size,) its diagonal, or the lower Cholesky factor (size, size) of the whole; in
            the order of ``jax.tree.leaves``.
        outputs: ``outputs(params, batch) -> (batch, ...)``.
    """

    params: Params
    names: tuple[str, ...]
    precision: Float[Array, "size *other"]
    outputs: Callable[..., Array]

    def predict(self, batch: Batch) -> Prediction:
        """Mean and covariance of the outputs, by the model linearised at the mean.

        J S J^T, where S is the parameters' covariance (Immer, Korzepa and Bauer, 2021).

        Args:
            batch: as the outputs take it; it needs no labels.

        Returns:
            Of each example.
        """
        return _predict(self.outputs, self.names, self.params, self.precision, batch)


def laplace(
    outputs: Callable[[Params, Batch], Array],
    losses: Losses,
    params: Params,
    data: Batch | Iterable[Batch],
    *,
    prior_precision: float,
    structure: str = "diagonal",
    parts: Sequence[str] = ("**",),
    examples_at_once: int = 8,
) -> Laplace:
    """The Laplace approximation of the posterior around trained parameters.

    A normal distribution whose precision is the sum over the examples of J^T H J (see
    ``gauss_newton``), computed exactly, plus the prior's (MacKay, 1992; Daxberger et al., 2021).

    Args:
        outputs: ``outputs(params, batch) -> (batch, ...)``, each example by itself: batch norm and
            dropout as in evaluation.
        losses: minus the log-likelihood of each example, in nats, see ``gauss_newton``.
        params: trained, with weight decay of ``prior_precision / 2`` on the sum of the losses.
        data: the training data, see ``hessian``; ``weight`` counts.
        prior_precision: one over the variance of the parameters' normal prior, above 0.
        structure: ``"diagonal"``, or ``"full"`` for small nets and for a last layer.
        parts: path patterns of the parameters that it is over: ``["head"]`` for a last layer.
        examples_at_once: Jacobians that are held at a time.

    Returns:
        The distribution.

    Raises:
        TransformError: a prior precision that is not above 0, an unknown structure, a full one of
            too many parameters, or a pattern that names none.

    Example:
        >>> import jax.numpy as jnp
        >>> def outputs(w, batch):
        ...     return batch["x"] @ w["slope"]
        >>> def losses(z, batch):  # noise of variance 1
        ...     return jnp.sum((z - batch["y"]) ** 2, -1) / 2
        >>> data = {"x": jnp.array([[1.0], [2.0]]), "y": jnp.array([[1.0], [2.0]])}
        >>> posterior = laplace(outputs, losses, {"slope": jnp.ones((1, 1))}, data,
        ...                     prior_precision=5.0)
        >>> posterior.precision.tolist()  # 1 + 4 + 5
        [10.0]
        >>> round(float(posterior.predict({"x": jnp.array([[3.0]])}).variance[0, 0]), 4)
        0.9
    """
    if structure not in ("diagonal", "full"):
        raise TransformError(f"laplace: structure {structure!r} is not 'diagonal' or 'full'")
    if not prior_precision > 0:
        raise TransformError(
            f"laplace: prior_precision is {prior_precision:g}: give a number above 0"
        )
    names = _named(params, parts)
    size = _chosen(params, names).shape[0]
    is_full = structure == "full"
    if is_full and size > _FULL_AT_MOST:
        raise TransformError(
            f"laplace: a full matrix of {size} parameters is too large (at most {_FULL_AT_MOST}):"
            " name a last layer in parts, or take structure='diagonal'"
        )
    total = jnp.zeros((), jnp.result_type(*jax.tree.leaves(params)))
    for batch in readable(data):
        total = total + _information(
            outputs, losses, names, is_full, examples_at_once, params, batch
        )
    prior = jnp.asarray(prior_precision, total.dtype)
    if not is_full:
        return Laplace(params, names, total + prior, outputs)
    whole = total + prior * jnp.eye(size, dtype=total.dtype)
    return Laplace(params, names, jnp.linalg.cholesky(whole), outputs)


def _named(params: Params, patterns: Sequence[str]) -> tuple[str, ...]:
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern in patterns:
        if not any(path_matches(pattern, path) for path in paths):
            raise TransformError(
                f"laplace: parts {pattern!r} names no parameter: give patterns of"
                f" {', '.join(paths[:8])}{' …' if len(paths) > 8 else ''}"
            )
    return tuple(path for path in paths if any(path_matches(each, path) for each in patterns))


def _chosen(params: Params, names: tuple[str, ...]) -> Float[Array, " size"]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return jnp.concatenate([jnp.ravel(leaf) for path, leaf in leaves if path_name(path) in names])


def _with(params: Params, names: tuple[str, ...], vector: Float[Array, " size"]) -> Params:
    at = 0

    def replaced(path: Any, leaf: Array) -> Array:
        nonlocal at
        if path_name(path) not in names:
            return leaf
        at += leaf.size
        return vector[at - leaf.size : at].reshape(leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(replaced, params)


def _jacobian(outputs, names, params, example):
    """One example's outputs, flat, and their derivatives (outputs, size)."""
    alone = jax.tree.map(lambda leaf: leaf[None], example)

    def flat(vector):
        return jnp.ravel(outputs(_with(params, names, vector), alone))

    vector = _chosen(params, names)
    z, pull = jax.vjp(flat, vector)
    return z, jax.vmap(pull)(jnp.eye(z.shape[0], dtype=z.dtype))[0]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _information(outputs, losses, names, is_full, at_once, params, batch):
    """The sum over a batch of J^T H J, whole or its diagonal."""
    count = jnp.shape(jax.tree.leaves(batch)[0])[0]

    def of_one(numbered):
        example, weight = numbered
        alone = jax.tree.map(lambda leaf: leaf[None], example)
        shape = jax.eval_shape(outputs, params, alone).shape

        def loss(z):
            each = losses(z.reshape(shape), alone)
            return checked_losses(each, alone)[0]

        z, jacobian = _jacobian(outputs, names, params, example)
        curved = weight.astype(z.dtype) * (jax.hessian(loss)(z) @ jacobian)
        return jacobian.T @ curved if is_full else jnp.sum(jacobian * curved, axis=0)

    def of_some(numbered):
        return jnp.sum(jax.vmap(of_one)(numbered), axis=0)

    dtype = jnp.result_type(*jax.tree.leaves(params))
    pairs = (batch, weights(batch, count, dtype))
    at_once = min(at_once, count)
    groups, rest = divmod(count, at_once)
    cut = groups * at_once
    grouped = jax.tree.map(
        lambda leaf: leaf[:cut].reshape(groups, at_once, *jnp.shape(leaf)[1:]), pairs
    )
    total = of_some(jax.tree.map(lambda leaf: leaf[0], grouped))
    if groups > 1:
        later = jax.tree.map(lambda leaf: leaf[1:], grouped)
        total, _ = lax.scan(lambda total, some: (total + of_some(some), None), total, later)
    return total + of_some(jax.tree.map(lambda leaf: leaf[cut:], pairs)) if rest else total


@functools.partial(jax.jit, static_argnums=(0, 1))
def _predict(outputs, names, params, precision, batch):
    def of_one(example):
        z, jacobian = _jacobian(outputs, names, params, example)
        if precision.ndim == 1:
            return z, (jacobian / precision[None]) @ jacobian.T
        half = jax.scipy.linalg.solve_triangular(precision, jacobian.T, lower=True)
        return z, half.T @ half

    return Prediction(*lax.map(of_one, batch, batch_size=min(8, _length(batch))))


def _length(batch: Batch) -> int:
    return math.prod(jnp.shape(jax.tree.leaves(batch)[0])[:1])
