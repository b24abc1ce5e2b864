"""Layers that are one matrix: dense, embedding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from functorch_kit.types import Model, Params, wide

Initializer = jax.nn.initializers.Initializer

lecun_normal = jax.nn.initializers.lecun_normal()


def dense(
    features: int,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = lecun_normal,
    bias_init: Initializer = jax.nn.initializers.zeros,
) -> Model:
    """``y = x @ kernel + bias`` over the last axis.

    Args:
        features: size of the last axis of the output.
        use_bias: whether there is a ``bias`` (features,).
        kernel_init: initialiser of ``kernel`` (last axis of x, features), as in
            ``jax.nn.initializers``.
        bias_init: initialiser of ``bias``.

    Returns:
        A Model from (..., n) to (..., features). Parameters take the dtype of the input at init;
        apply computes in theirs.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> layer = nn.dense(2, kernel_init=jax.nn.initializers.ones)
        >>> params, _ = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 3), jnp.float32))
        >>> layer.apply(params, (), jnp.array([[1.0, 2.0, 3.0]]))[0].tolist()
        [[6.0, 6.0]]
    """

    def init(key, x_spec):
        kernel_key, bias_key = jax.random.split(key)
        params = {"kernel": kernel_init(kernel_key, (x_spec.shape[-1], features), x_spec.dtype)}
        if use_bias:
            params["bias"] = bias_init(bias_key, (features,), x_spec.dtype)
        return params, ()

    def apply(
        params, model_state, x: Float[Array, "*batch n"], *, key=None, train=False
    ) -> tuple[Float[Array, "*batch features"], tuple]:
        y = matmul(x, params["kernel"])
        return (add_bias(y, params["bias"]) if use_bias else y), ()

    return Model(init, apply)


def embedding(
    vocabulary: int,
    features: int,
    *,
    dtype: jnp.dtype | type = jnp.float32,
    embedding_init: Initializer = jax.nn.initializers.normal(0.02),
) -> Model:
    """Rows of a table, by integer.

    Args:
        vocabulary: number of rows; an index outside 0 … vocabulary - 1 gives NaN, never a
            neighbour's row.
        features: size of a row.
        dtype: of the table.
        embedding_init: initialiser of ``embedding`` (vocabulary, features).

    Returns:
        A Model from integers (...) to (..., features).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> layer = nn.embedding(5, 2)
        >>> params, _ = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((4,), jnp.int32))
        >>> layer.apply(params, (), jnp.array([0, 4, 4, 1]))[0].shape
        (4, 2)
    """

    def init(key, x_spec):
        return {"embedding": embedding_init(key, (vocabulary, features), dtype)}, ()

    def apply(
        params, model_state, x: Integer[Array, "*batch"], *, key=None, train=False
    ) -> tuple[Float[Array, "*batch features"], tuple]:
        x = wide(x)
        inside = (x >= 0) & (x < vocabulary)
        # jnp indexing wraps negative integers, so -1 has to be sent outside by hand.
        return params["embedding"].at[jnp.where(inside, x, vocabulary)].get(mode="fill"), ()

    return Model(init, apply)


def attend(params: Params, x: Float[Array, "*batch features"]) -> Float[Array, "*batch vocabulary"]:
    """Logits by the transposed table of an ``embedding``: a head that is tied to it.

    Press and Wolf, 2017. An untied head is a ``dense(vocabulary, use_bias=False)``.

    Args:
        params: the embedding's, with ``embedding`` (vocabulary, features).
        x: what is compared with every row.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> table = {"embedding": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
        >>> nn.attend(table, jnp.array([3.0, 4.0])).tolist()
        [3.0, 8.0]
    """
    return matmul(x, params["embedding"].T)


def matmul(
    x: Float[Array, "*batch n"], kernel: Float[Array, "n features"]
) -> Float[Array, "*batch features"]:
    """``x @ kernel`` in the kernel's dtype, with the leading axes as rows of one matrix.

    Left apart, they make the gradient of the kernel a contraction over two axes, for which XLA:CPU
    copies both operands: a step of the small GPT on two cores took 44 ms with them apart and 31 ms
    as rows on jax 0.12, 46 and 33 on 0.10.2.

    Example:
        >>> import jax.numpy as jnp
        >>> matmul(jnp.ones((2, 3, 4)), jnp.ones((4, 5))).shape
        (2, 3, 5)
    """
    x = x.astype(kernel.dtype)
    if x.ndim < 3:
        return x @ kernel
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def add_bias(y: Array, bias: Array) -> Array:
    """Add to the last axis, ranks spelled out.

    Example:
        >>> add_bias(jnp.ones((2, 3)), jnp.arange(3.0))[0].tolist()
        [1.0, 2.0, 3.0]
    """
    return y + jnp.reshape(bias.astype(y.dtype), (1,) * (y.ndim - 1) + bias.shape)


def one_hot(vocabulary: int, *, dtype: jnp.dtype | type = jnp.float32) -> Model:
    """Integers as vectors with a 1 where they point: an embedding without parameters.

    Args:
        vocabulary: size of a vector; an index outside 0 … vocabulary - 1 gives NaN.
        dtype: of the vectors.

    Returns:
        A Model from integers (...) to (..., vocabulary).

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> nn.one_hot(3).apply({}, (), jnp.array([2, 0]))[0].tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    def apply(
        params, model_state, x: Integer[Array, "*batch"], *, key=None, train=False
    ) -> tuple[Float[Array, "*batch features"], tuple]:
        x = wide(x)
        inside = ((x >= 0) & (x < vocabulary))[..., None]
        return jnp.where(inside, jax.nn.one_hot(x, vocabulary, dtype=dtype), jnp.nan), ()

    return Model(lambda key, x_spec: ({}, ()), apply)
