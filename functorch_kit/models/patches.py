"""An image as a row of patches, each one vector."""

from __future__ import annotations

from functorch_kit import nn
from functorch_kit.nn.errors import LayerError
from functorch_kit.types import Model


def patches(width: int, side: int) -> Model:
    """Cut an image into square patches, and make a vector of each: what ViT and Mixer begin with.

    Args:
        width: size of a vector.
        side: of a patch, in pixels.

    Returns:
        A Model from images (batch, height, width, channels) to (batch, patches, width), row by row;
        its parameters are those of a convolution, ``kernel`` (side, side, channels, width).

    Raises:
        LayerError: a side that does not divide the image: the rest would be cut off.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> layer = patches(5, 2)
        >>> params, _ = layer.init(jax.random.key(0), jnp.ones((1, 4, 6, 3)))
        >>> layer.apply(params, (), jnp.ones((1, 4, 6, 3)))[0].shape
        (1, 6, 5)
    """
    conv = nn.conv(width, (side, side), strides=side, padding="VALID")

    def apply(params, model_state, x, *, key=None, train=False):
        if x.shape[1] % side or x.shape[2] % side:
            raise LayerError(
                f"patches: {side}×{side} do not divide an image of {x.shape[1]}×{x.shape[2]}"
            )
        y, _ = conv.apply(params, (), x, key=key, train=train)
        return y.reshape(y.shape[0], -1, width), ()

    return Model(conv.init, apply)
