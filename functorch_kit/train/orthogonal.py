"""Muon for hidden matrices, AdamW for the rest, told apart by path and shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from optax import contrib

from functorch_kit.errors import UserError
from functorch_kit.train.paths import check_patterns, last_match
from functorch_kit.types import Params, PyTree, path_name

_UNTOLD = ("**/embedding", "head")


def muon(
    learning_rate: Any,
    *,
    adam: Sequence[str] = _UNTOLD,
    stacked: Sequence[str] = (),
    mask: Callable[[Params], PyTree] | None = None,
    adam_learning_rate: Any | None = None,
    adam_b1: Any = 0.9,
    adam_b2: Any = 0.999,
    adam_eps_root: Any = 0.0,
    adam_weight_decay: Any = 0.0,
    eps: Any = 1e-8,
    nesterov: bool = True,
    **settings: Any,
) -> optax.GradientTransformationExtraArgs:
    """Muon (Jordan et al., 2024) for the hidden matrices, AdamW for everything else.

    Args:
        learning_rate: of the matrices.
        adam: patterns of matrices that AdamW trains all the same: Muon is meant for neither
            embeddings nor the last layer.
        stacked: patterns of parts whose parameters have a leading axis of layers, such as the
            blocks of a scanned stack; each layer's matrix is treated by itself.
        mask: what weight decay is for, see ``paths.decay_mask``.
        adam_learning_rate: of everything else; that of the matrices if None.
        adam_b1: AdamW's decay of the first moment.
        adam_b2: AdamW's decay of the second moment.
        adam_eps_root: added under AdamW's root.
        adam_weight_decay: AdamW's weight decay.
        eps: added to denominators, of both.
        nesterov: Nesterov's form of momentum, of both.
        **settings: further ones of ``optax.contrib.muon``.

    Returns:
        A transformation whose ``init`` raises UserError where there is no hidden matrix, or
        PathError where a pattern names nothing (the default of ``adam`` may).

    Example:
        >>> import jax.numpy as jnp
        >>> params = {"up": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}
        >>> optimizer = muon(0.1)
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> updates["up"]["bias"].shape
        (3,)
    """

    def label(path: Any, leaf: Any) -> str:
        name = path_name(path)
        layers = last_match(stacked, name) is not None
        is_hidden = len(leaf.shape) == 2 + layers and last_match(adam, name) is None
        return "muon" if is_hidden else "adam"

    def labels(params: Params) -> PyTree:
        return jax.tree_util.tree_map_with_path(label, params)

    def axes(params: Params) -> PyTree:
        return jax.tree.map(
            lambda leaf: contrib.MuonDimensionNumbers(len(leaf.shape) - 2, len(leaf.shape) - 1),
            params,
        )

    matrices = contrib.muon(
        learning_rate,
        eps=eps,
        nesterov=nesterov,
        weight_decay_mask=mask,
        muon_weight_dimension_numbers=axes,
        **settings,
    )
    rest = optax.adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        b1=adam_b1,
        b2=adam_b2,
        eps=eps,
        eps_root=adam_eps_root,
        weight_decay=adam_weight_decay,
        mask=mask,
        nesterov=nesterov,
    )
    both = optax.with_extra_args_support(optax.partition({"muon": matrices, "adam": rest}, labels))

    def init(params: Params) -> PyTree:
        check_patterns("muon stacked", stacked, params)
        if tuple(adam) != _UNTOLD:
            check_patterns("muon adam", adam, params)
        if "muon" not in jax.tree.leaves(labels(params)):
            raise UserError(
                "muon: no parameter is a hidden matrix: give it a model with dense layers,"
                " or another optimizer, such as adamw"
            )
        return both.init(params)

    return optax.GradientTransformationExtraArgs(init, both.update)
