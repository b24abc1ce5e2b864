"""Independent normal distributions as outputs of a network: mean and log-variance side by side."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model


def mean_and_log_variance(
    y: Float[Array, "*batch twice"],
) -> tuple[Float[Array, "*batch features"], Float[Array, "*batch features"]]:
    """The two halves of the last axis.

    Args:
        y: means, then logarithms of variances (..., 2 features).

    Raises:
        LayerError: a last axis that has no halves.

    Example:
        >>> import jax.numpy as jnp
        >>> mean, log_variance = mean_and_log_variance(jnp.array([1.0, 2.0, 3.0, 4.0]))
        >>> mean.tolist(), log_variance.tolist()
        ([1.0, 2.0], [3.0, 4.0])
    """
    if y.shape[-1] % 2:
        raise LayerError(
            f"mean_and_log_variance: {y.shape[-1]} outputs are no means and as many log-variances"
        )
    mean, log_variance = jnp.split(y, 2, axis=-1)
    return mean, log_variance


def gaussian_sample() -> Model:
    """A draw from the normal distributions that the input describes; in evaluation their means.

    The draw is ``mean + deviation * noise``, so that it has a gradient (Kingma and Welling, 2014).

    Returns:
        A Model from means and log-variances (..., 2 features) to (..., features).

    Raises:
        LayerError: training without a key, or an odd number of inputs.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> nn.gaussian_sample().apply({}, (), jnp.array([[5.0, 0.0]]))[0].tolist()
        [[5.0]]
    """

    def apply(
        params, model_state, x: Float[Array, "*batch twice"], *, key=None, train=False
    ) -> tuple[Float[Array, "*batch features"], tuple]:
        mean, log_variance = mean_and_log_variance(x)
        if not train:
            return mean, ()
        if key is None:
            raise LayerError("gaussian_sample needs a key: pass key= when train=True")
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return mean + jnp.exp(log_variance / 2) * noise, ()

    return Model(lambda key, x_spec: ({}, ()), apply)
