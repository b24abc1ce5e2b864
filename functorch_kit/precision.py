"""Which numbers are kept and which are computed with: precision policies."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from functorch_kit.errors import UserError
from functorch_kit.types import Params, PyTree, path_matches, path_name


class PrecisionError(UserError, ValueError):
    """A precision policy that cannot be used; the message says what to change."""


@dataclasses.dataclass(frozen=True)
class Policy:
    """Parameters are kept in one dtype and used in another, but for those of some paths.

    A layer computes in the dtype of its parameters; the moments of norms, softmax and losses are in
    at least 32 bits whatever comes, and norms keep their parameters as they are: those
    of a layer with a ``scale``; name others in ``keep``. Gradients arrive in the dtype of the kept
    parameters.

    Args:
        compute: dtype in which layers compute.
        params: dtype in which parameters are kept, updated and saved.
        keep: path patterns of parameters that are used as they are kept, such as ``("head",)``.
        loss_scale: first factor of dynamic loss scaling; None for none.
        growth_every: steps without overflow after which the factor is doubled.

    Example:
        >>> import jax.numpy as jnp
        >>> bf16 = Policy(jnp.bfloat16, keep=("head",))
        >>> params = {"body": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones((2, 2))}}
        >>> cast = bf16.cast(params)
        >>> cast["body"]["kernel"].dtype, cast["head"]["kernel"].dtype
        (dtype(bfloat16), dtype('float32'))
    """

    compute: Any = jnp.float32
    params: Any = jnp.float32
    keep: tuple[str, ...] = ()
    loss_scale: float | None = None
    growth_every: int = 2000

    def cast(self, params: Params) -> Params:
        """The parameters as a step uses them; the very same where there is nothing to cast."""
        if jnp.dtype(self.compute) == jnp.dtype(self.params):
            return params
        leaves = jax.tree_util.tree_leaves_with_path(params)
        # A norm is known by its scale: its bias lies beside it, and nothing of another shape.
        scales = {path[:-1]: leaf.shape for path, leaf in leaves if path_name(path[-1:]) == "scale"}
        norms = scales.keys() - {
            path[:-1] for path, leaf in leaves if leaf.shape != scales.get(path[:-1])
        }

        def used(path, leaf):
            name = path_name(path)
            kept = path[:-1] in norms or any(path_matches(each, name) for each in self.keep)
            return leaf if kept else _float_to(leaf, self.compute)

        return jax.tree_util.tree_map_with_path(used, params)

    def kept(self, tree: PyTree) -> PyTree:
        """Floats of a tree in the dtype in which parameters are kept.

        Raises:
            PrecisionError: float64 without JAX's 64-bit mode.
        """
        if jnp.dtype(self.params).itemsize == 8 and jnp.result_type(float) != jnp.float64:
            raise PrecisionError("precision is float64: set JAX_ENABLE_X64=1 as well")
        return jax.tree.map(lambda leaf: _float_to(_array(leaf), self.params), tree)


_POLICIES = {
    "float32": Policy(),
    "bf16": Policy(jnp.bfloat16),
    "fp16": Policy(jnp.float16, loss_scale=2.0**15),
    "float64": Policy(jnp.float64, jnp.float64),
}


def policy(chosen: str | Policy, keep: Sequence[str] = ()) -> Policy:
    """A policy by name, or itself.

    Args:
        chosen: float32, bf16 (computes in bfloat16), fp16 (in float16, with dynamic loss scaling)
            or float64 (everything; JAX's 64-bit mode has to be on); or a Policy.
        keep: see ``Policy``; replaces that of the policy where it is given.

    Raises:
        PrecisionError: another name.

    Example:
        >>> policy("fp16").loss_scale
        32768.0
    """
    if isinstance(chosen, str):
        if chosen not in _POLICIES:
            raise PrecisionError(f"precision {chosen!r} is not one of {', '.join(_POLICIES)}")
        chosen = _POLICIES[chosen]
    return dataclasses.replace(chosen, keep=tuple(keep)) if keep else chosen


def _array(leaf: Any) -> Any:
    """A number of Python as an array that is not weakly typed; anything else as it is."""
    if isinstance(leaf, bool | int | float | complex):
        return jnp.asarray(leaf, jax.dtypes.canonicalize_dtype(type(leaf)))
    return leaf


def _float_to(leaf: Any, dtype: Any) -> Any:
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
