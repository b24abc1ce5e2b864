"""Normalisation: over the batch, over features, over groups of channels.

Moments are taken in at least 32 bits, whatever the input's dtype; the output has the input's.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model, wide_float


def batch_norm(*, momentum: float = 0.9, epsilon: float = 1e-5) -> Model:
    """Normalise each channel by the batch's mean and variance; by running ones in evaluation.

    Ioffe and Szegedy, 2015. The batch is normalised by its biased variance and the running variance
    takes the unbiased one, as PyTorch does.

    Args:
        momentum: how much of the running statistics is kept at each training step.
        epsilon: added to the variance.

    Returns:
        A Model on (batch, ..., channels) with params ``scale`` and ``bias`` (channels,) and
        model_state ``mean`` and ``var`` (channels,), these in at least 32 bits.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> x = jnp.array([[1.0], [3.0]])
        >>> params, state = nn.batch_norm().init(jax.random.key(0), x)
        >>> y, state = nn.batch_norm(momentum=0.5).apply(params, state, x, train=True)
        >>> y.round(3).tolist(), state["mean"].tolist(), state["var"].tolist()
        ([[-1.0], [1.0]], [1.0], [1.5])
    """

    def init(key, x_spec):
        channels, dtype = x_spec.shape[-1:], x_spec.dtype
        params = {"scale": jnp.ones(channels, dtype), "bias": jnp.zeros(channels, dtype)}
        statistics = {"mean": jnp.zeros(channels, dtype), "var": jnp.ones(channels, dtype)}
        return params, jax.tree.map(wide_float, statistics)

    def apply(
        params, model_state, x: Float[Array, "batch *space channels"], *, key=None, train=False
    ) -> tuple[Float[Array, "batch *space channels"], dict]:
        dtype, x = _output_dtype(x, params), _wide(x, params)
        if train:
            axes = tuple(range(x.ndim - 1))
            mean, var = jnp.mean(x, axes), jnp.var(x, axes)
            count = x.size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            model_state = {
                "mean": momentum * model_state["mean"] + (1 - momentum) * mean,
                "var": momentum * model_state["var"] + (1 - momentum) * unbiased,
            }
        else:
            mean, var = model_state["mean"], model_state["var"]
        # One scale and one shift per channel: two passes over x instead of four.
        scale = params["scale"].astype(x.dtype) * jax.lax.rsqrt(var + epsilon)
        shift = params["bias"].astype(x.dtype) - mean * scale
        y = x * _last_axis(scale, x.ndim) + _last_axis(shift, x.ndim)
        return y.astype(dtype), model_state

    return Model(init, apply)


def layer_norm(*, epsilon: float = 1e-5, use_bias: bool = True) -> Model:
    """Normalise the last axis of each position by its own mean and variance.

    Ba, Kiros and Hinton, 2016.

    Args:
        epsilon: added to the variance.
        use_bias: whether there is a ``bias`` beside the ``scale``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> x = jnp.array([[1.0, 3.0]])
        >>> params, _ = nn.layer_norm().init(jax.random.key(0), x)
        >>> nn.layer_norm().apply(params, (), x)[0].round(3).tolist()
        [[-1.0, 1.0]]
    """

    def init(key, x_spec):
        return _scale_and_bias(x_spec, use_bias), ()

    def apply(
        params, model_state, x: Float[Array, "*batch features"], *, key=None, train=False
    ) -> tuple[Float[Array, "*batch features"], tuple]:
        y = _affine(_standardize(_wide(x, params), (-1,), epsilon), params)
        return y.astype(_output_dtype(x, params)), ()

    return Model(init, apply)


def rms_norm(*, epsilon: float = 1e-6) -> Model:
    """Divide the last axis of each position by its root mean square.

    Zhang and Sennrich, 2019. No mean is taken away, and there is no ``bias``.

    Args:
        epsilon: added to the mean square.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np
        >>> from functorch_kit import nn
        >>> x = jnp.array([[1.0, 7.0]])
        >>> params, _ = nn.rms_norm().init(jax.random.key(0), x)
        >>> print(np.asarray(nn.rms_norm().apply(params, (), x)[0]).round(3))
        [[0.2 1.4]]
    """

    def init(key, x_spec):
        return _scale_and_bias(x_spec, use_bias=False), ()

    def apply(
        params, model_state, x: Float[Array, "*batch features"], *, key=None, train=False
    ) -> tuple[Float[Array, "*batch features"], tuple]:
        wide = _wide(x, params)
        mean_square = jnp.mean(jnp.square(wide), -1, keepdims=True)
        y = _affine(wide * jax.lax.rsqrt(mean_square + epsilon), params)
        return y.astype(_output_dtype(x, params)), ()

    return Model(init, apply)


def group_norm(groups: int, *, epsilon: float = 1e-5) -> Model:
    """Normalise groups of channels over space, each example by itself.

    Wu and He, 2018.

    Args:
        groups: number of groups; must divide the channels.
        epsilon: added to the variance.

    Raises:
        LayerError: the groups do not divide the channels.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> x = jnp.arange(8.0).reshape(1, 2, 4)
        >>> params, _ = nn.group_norm(2).init(jax.random.key(0), x)
        >>> nn.group_norm(2).apply(params, (), x)[0].shape
        (1, 2, 4)
    """

    def init(key, x_spec):
        if x_spec.shape[-1] % groups:
            raise LayerError(
                f"group_norm: {groups} groups do not divide {x_spec.shape[-1]} channels"
            )
        return _scale_and_bias(x_spec, use_bias=True), ()

    def apply(
        params, model_state, x: Float[Array, "batch *space channels"], *, key=None, train=False
    ) -> tuple[Float[Array, "batch *space channels"], tuple]:
        grouped = _wide(x, params).reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
        axes = (*range(1, grouped.ndim - 2), grouped.ndim - 1)
        y = _affine(_standardize(grouped, axes, epsilon).reshape(x.shape), params)
        return y.astype(_output_dtype(x, params)), ()

    return Model(init, apply)


def instance_norm(*, epsilon: float = 1e-5) -> Model:
    """Normalise each channel of each example over space.

    Ulyanov, Vedaldi and Lempitsky, 2016: group norm with as many groups as channels. PyTorch's has
    the ``scale`` and ``bias`` with ``affine=True`` only.

    Args:
        epsilon: added to the variance.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> x = jnp.array([[[1.0, 10.0], [3.0, 30.0]]])
        >>> params, _ = nn.instance_norm().init(jax.random.key(0), x)
        >>> nn.instance_norm().apply(params, (), x)[0].round(3).tolist()
        [[[-1.0, -1.0], [1.0, 1.0]]]
    """

    def init(key, x_spec):
        return _scale_and_bias(x_spec, use_bias=True), ()

    def apply(
        params, model_state, x: Float[Array, "batch *space channels"], *, key=None, train=False
    ) -> tuple[Float[Array, "batch *space channels"], tuple]:
        axes = tuple(range(1, x.ndim - 1))
        y = _affine(_standardize(_wide(x, params), axes, epsilon), params)
        return y.astype(_output_dtype(x, params)), ()

    return Model(init, apply)


def _wide(x, params):
    return wide_float(x.astype(_output_dtype(x, params)))


def _output_dtype(x, params):
    """The input's, unless the parameters are of more than single precision."""
    scale = params["scale"].dtype
    return scale if scale.itemsize > max(x.dtype.itemsize, 4) else x.dtype


def _standardize(x, axes, epsilon):
    mean = jnp.mean(x, axes, keepdims=True)
    centred = x - mean
    var = jnp.mean(jnp.square(centred), axes, keepdims=True)
    return centred * jax.lax.rsqrt(var + epsilon)


def _scale_and_bias(x_spec, use_bias: bool) -> dict:
    channels, dtype = x_spec.shape[-1:], x_spec.dtype
    params = {"scale": jnp.ones(channels, dtype)}
    return params | {"bias": jnp.zeros(channels, dtype)} if use_bias else params


def _affine(x, params):
    y = x * _last_axis(params["scale"].astype(x.dtype), x.ndim)
    return y + _last_axis(params["bias"].astype(x.dtype), x.ndim) if "bias" in params else y


def _last_axis(v, ndim: int):
    return v.reshape((1,) * (ndim - 1) + v.shape)
