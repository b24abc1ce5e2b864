"""Parts of a model that are applied apart, and randomness of examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functorch_kit import nn
from functorch_kit.types import Key, Model, ModelState, Params, PyTree


def apply_named(
    name: str,
    part: Model,
    params: Params,
    model_state: ModelState,
    x: PyTree,
    key: Key | None,
    train: bool,
) -> tuple[Any, ModelState]:
    """Apply the part called ``name`` of a whole, and keep the whole's model state.

    Args:
        name: under which the part's parameters and state stand.
        part: the Model.
        params: of the whole.
        model_state: of the whole.
        x: the part's input.
        key: of the whole: the part's is derived from it by name.
        train: as for any Model.

    Returns:
        The part's output, and the whole's state with what the part changed.

    Example:
        >>> import jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> apply_named("double", nn.lambda_(lambda x: 2 * x), {}, (), jnp.ones(1), None, False)
        (Array([2.], dtype=float32), ())
    """
    y, state = nn.apply_part(name, part, params, model_state, x, key, train)
    if isinstance(model_state, Mapping) and name in model_state:
        model_state = {**model_state, name: state}
    return y, model_state


def example_keys(key: Key | None, x: PyTree, *, train: bool) -> Key:
    """A PRNG key for each example.

    In training they follow from the key, by place in the batch. In evaluation they follow from
    what an example holds, so that it is measured alike in any batch, at any place, at every step;
    two examples that are equal get equal keys.

    Args:
        key: of the step; in evaluation None, or a key for other draws.
        x: a pytree of arrays (batch, ...).
        train: which of the two.

    Returns:
        Keys (batch,).

    Raises:
        ValueError: training without a key.

    Example:
        >>> import jax.numpy as jnp
        >>> keys = example_keys(None, jnp.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]]), train=False)
        >>> bool(keys[0] == keys[2]), bool(keys[0] == keys[1])
        (True, False)
    """
    leaves = jax.tree.leaves(x)
    if train:
        if key is None:
            raise ValueError("the objective draws at random: pass key= when train=True")
        return jax.random.split(key, leaves[0].shape[0])
    words = jnp.concatenate([_words(leaf) for leaf in leaves], axis=1)
    # Odd factors that differ by place, so that places cannot be exchanged; sums wrap around.
    factor = np.arange(words.shape[1], dtype=np.uint32) * np.uint32(0x9E3779B8) + np.uint32(1)
    mixed = (words ^ (words >> np.uint32(15))) * factor[None]
    number = jnp.sum(mixed ^ (mixed >> np.uint32(13)), axis=1, dtype=jnp.uint32)
    base = jax.random.key(0) if key is None else key
    return jax.vmap(jax.random.fold_in, (None, 0))(base, number)


def _words(leaf: jax.Array) -> jax.Array:
    rows = leaf.reshape(leaf.shape[0], -1)
    if jnp.issubdtype(rows.dtype, jnp.floating):
        return jax.lax.bitcast_convert_type(rows.astype(jnp.float32), jnp.uint32)
    return rows.astype(jnp.uint32)
