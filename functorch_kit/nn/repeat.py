"""One block scanned over depth: its parameters are stacked, and it is compiled once."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from functorch_kit.nn.beside import apart, together
from functorch_kit.nn.combinators import apply_part, non_empty, output_spec
from functorch_kit.nn.errors import LayerError
from functorch_kit.nn.scope import part_key, scope
from functorch_kit.nn.treatment import rematerialised
from functorch_kit.types import Key, Model, PyTree, spec_of


def stack(*blocks: Model) -> Model:
    """One block after another; what comes beside x goes to each.

    Args:
        *blocks: their parameters stand under ``0/``, ``1/`` …

    Returns:
        A Model on x, or on a dict of ``x`` and more of which each block gets all.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> model = nn.stack(nn.lstm(4), nn.lstm(4))
        >>> x = {"x": jnp.ones((1, 3, 2)), "lengths": jnp.array([2])}
        >>> params, state = model.init(jax.random.key(0), x)
        >>> model.apply(params, state, x)[0].shape
        (1, 3, 4)
    """

    def init(key, x_spec):
        y_spec, given = apart(x_spec, "stack")
        params, states, kept = {}, {}, None
        for index, block in enumerate(blocks):
            name = str(index)
            with scope(name):
                whole = together(y_spec, given)
                params[name], states[name] = block.init(part_key(key, name), whole)
                # The same block keeps a shape that it kept before; there may be many of them.
                if index == 0 or block is not blocks[index - 1] or y_spec != kept:
                    kept = spec_of(y_spec)
                    y_spec = output_spec(block, params[name], states[name], whole)
        return non_empty(params, {}), non_empty(states, ())

    def apply(params, model_state, x, *, key=None, train=False):
        y, given = apart(x, "stack")
        states = {}
        for index, block in enumerate(blocks):
            name, whole = str(index), together(y, given)
            y, states[name] = apply_part(name, block, params, model_state, whole, key, train)
        return y, non_empty(states, ())

    return Model(init, apply)


def repeat(
    block: Model,
    times: int,
    *,
    remat: bool = False,
    policy: Callable[..., bool] | None = None,
    unroll: int = 1,
) -> Model:
    """``stack(*[block] * times)`` as one scan: the time to compile does not grow with the depth.

    It computes the same numbers, is initialised with the same numbers, and drops the same elements.
    Parameters and state have a leading axis of size ``times``; ``stacked`` and ``unstacked`` lead
    from one form to the other.

    Args:
        block: from x to something of its shape and dtype.
        times: the depth.
        remat: whether each block's inner values are computed again on the way back.
        policy: which of them are kept all the same, from ``jax.checkpoint_policies``.
        unroll: blocks of one iteration of the compiled loop.

    Returns:
        A Model on x, or on a dict of ``x`` and more that goes to each block.

    Raises:
        LayerError: a block that changes the shape or the dtype, or fewer than 1 of them.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> model = nn.repeat(nn.serial(hidden=nn.dense(3), act=nn.tanh), 12)
        >>> params, _ = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> params["hidden"]["kernel"].shape
        (12, 3, 3)
    """
    if times < 1:
        raise LayerError(f"repeat: {times} times is not 1 or more")
    run = rematerialised(block.apply, policy) if remat else block.apply

    def init(key, x_spec):
        params, state = jax.vmap(lambda key: block.init(key, x_spec))(_keys(key, times))
        one, its_state = (jax.tree.map(lambda leaf: leaf[0], each) for each in (params, state))
        x, _ = apart(x_spec, "repeat") if _is_accompanied(x_spec) else (x_spec, {})
        y = output_spec(block, one, its_state, x_spec)
        if spec_of(y) != spec_of(x):
            raise LayerError(f"repeat: the block makes {_shapes(y)} of {_shapes(x)}: keep it")
        return params, state

    def apply(params, model_state, x, *, key=None, train=False):
        x, given = apart(x, "repeat") if _is_accompanied(x) else (x, {})
        keys = None if key is None else _keys(key, times)

        def step(x, layer):
            params, state, key = layer
            return run(params, state, together(x, given), key=key, train=train)

        return lax.scan(step, x, (params, model_state, keys), length=times, unroll=unroll)

    return Model(init, apply)


def stacked(layers: Mapping[str, PyTree]) -> PyTree:
    """Parameters (or state) of a ``stack`` as those of a ``repeat``.

    Raises:
        LayerError: entries that are not ``0``, ``1`` … without a gap.

    Example:
        >>> import jax.numpy as jnp
        >>> stacked({"0": {"bias": jnp.zeros(3)}, "1": {"bias": jnp.ones(3)}})["bias"].shape
        (2, 3)
    """
    names = [str(index) for index in range(len(layers))]
    if not names or set(names) != set(layers):
        raise LayerError(f"stacked: the entries are {', '.join(layers) or 'none'}, not 0, 1 …")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(layers[name] for name in names))


def unstacked(layers: PyTree) -> dict[str, PyTree]:
    """Parameters (or state) of a ``repeat`` as those of a ``stack``.

    Example:
        >>> import jax.numpy as jnp
        >>> sorted(unstacked({"bias": jnp.zeros((2, 3))}))
        ['0', '1']
    """
    times = len(jax.tree.leaves(layers)[0])
    return {
        str(index): jax.tree.map(lambda leaf, at=index: leaf[at], layers) for index in range(times)
    }


def remat(part: Model, *, policy: Callable[..., bool] | None = None) -> Model:
    """A part whose inner values are computed again on the way back instead of being kept.

    Chen et al., 2016. ``treated(remat=…)`` does it to parts by name, whatever model they stand in.

    Args:
        part: its parameters keep their names.
        policy: which inner values are kept all the same, from ``jax.checkpoint_policies``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> model = nn.serial(body=nn.remat(nn.dense(4)), head=nn.dense(1))
        >>> params, _ = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> params["body"]["kernel"].shape
        (3, 4)
    """
    return Model(part.init, rematerialised(part.apply, policy))


def _keys(key: Key, times: int) -> Key:
    """The keys that a ``stack`` gives its parts, drawn at once."""
    names = np.array([zlib.crc32(str(index).encode()) for index in range(times)], np.uint32)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, names)


def _is_accompanied(x: PyTree) -> bool:
    return isinstance(x, Mapping) and "x" in x


def _shapes(tree: PyTree) -> str:
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(tree))
