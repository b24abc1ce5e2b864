"""The same small net in four libraries: dense, batch norm, ReLU, dropout, dense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from functorch_kit import interop
from functorch_kit.types import Model

INPUTS, HIDDEN, OUTPUTS = 4, 8, 3
MOMENTUM = 0.9


class Net(NamedTuple):
    """A net of one library.

    Attributes:
        model: as our Model.
        kernel: the first dense layer's matrix (inputs, hidden) in its params.
        mean: the running mean in its model_state.
        directly: what the library itself computes in evaluation, from params, state and x.
    """

    model: Model
    kernel: Callable[[Any], Any]
    mean: Callable[[Any], Any]
    directly: Callable[[Any, Any, Any], Any]


def linen() -> Net:
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")

    class Module(nn.Module):
        @nn.compact
        def __call__(self, x: Any, *, train: bool) -> Any:
            x = nn.Dense(HIDDEN, name="hidden")(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=MOMENTUM, name="norm")(x)
            x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
            return nn.Dense(OUTPUTS, name="head")(x)

    module = Module()
    return Net(
        interop.from_linen(module),
        lambda params: params["hidden"]["kernel"],
        lambda state: state["batch_stats"]["norm"]["mean"],
        lambda params, state, x: module.apply({"params": params, **state}, x, train=False),
    )


def nnx() -> Net:
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

    class Module(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.hidden = nnx.Linear(INPUTS, HIDDEN, rngs=rngs)
            self.norm = nnx.BatchNorm(HIDDEN, momentum=MOMENTUM, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.heads = nnx.List([nnx.Linear(HIDDEN, OUTPUTS, rngs=rngs)])

        def __call__(self, x: Any) -> Any:
            return self.heads[0](self.dropout(nnx.relu(self.norm(self.hidden(x)))))

    def directly(params: Any, state: Any, x: Any) -> Any:
        module = Module(nnx.Rngs(1))
        module.eval()
        module.hidden.kernel[...] = params["hidden"]["kernel"]
        module.hidden.bias[...] = params["hidden"]["bias"]
        module.norm.scale[...], module.norm.bias[...] = (
            params["norm"]["scale"],
            params["norm"]["bias"],
        )
        module.norm.mean[...], module.norm.var[...] = state["norm"]["mean"], state["norm"]["var"]
        module.heads[0].kernel[...] = params["heads"]["0"]["kernel"]
        module.heads[0].bias[...] = params["heads"]["0"]["bias"]
        return module(x)

    return Net(
        interop.from_nnx(Module),
        lambda params: params["hidden"]["kernel"],
        lambda state: state["norm"]["mean"],
        directly,
    )


def equinox() -> Net:
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")

    class Module(eqx.Module):
        hidden: Any
        norm: Any
        dropout: Any
        head: Any

        def __init__(self, key: Any) -> None:
            one, other = jax.random.split(key)
            self.hidden = eqx.nn.Linear(INPUTS, HIDDEN, key=one)
            self.norm = eqx.nn.BatchNorm(HIDDEN, "batch", momentum=MOMENTUM, mode="batch")
            self.dropout = eqx.nn.Dropout(0.5)
            self.head = eqx.nn.Linear(HIDDEN, OUTPUTS, key=other)

        def __call__(self, x: Any, state: Any, *, key: Any = None) -> Any:
            x, state = self.norm(self.hidden(x), state)
            return self.head(self.dropout(jax.nn.relu(x), key=key)), state

    def directly(params: Any, state: Any, x: Any) -> Any:
        module, made = eqx.nn.make_with_state(Module)(jax.random.key(1))

        def where(m: Any) -> list[Any]:
            layers = (m.hidden, m.norm, m.head)
            return [leaf for layer in layers for leaf in (layer.weight, layer.bias)]

        values = [params[part][leaf] for part in ("hidden", "norm", "head")
                  for leaf in ("weight", "bias")]  # fmt: skip
        module = eqx.nn.inference_mode(eqx.tree_at(where, module, values))
        made = jax.tree.unflatten(jax.tree.structure(made), jax.tree.leaves(state))
        return jax.vmap(lambda x: module(x, made)[0], axis_name="batch")(x)

    return Net(
        interop.from_equinox(eqx.nn.make_with_state(Module)),
        lambda params: params["hidden"]["weight"].T,
        lambda state: next(a for a in jax.tree.leaves(state) if a.shape == (HIDDEN,)),
        directly,
    )


def haiku() -> Net:
    hk = pytest.importorskip("haiku", reason="dm-haiku is not installed")

    def function(x: Any, is_training: bool) -> Any:
        x = hk.Linear(HIDDEN, name="hidden")(x)
        norm = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=MOMENTUM, name="norm")
        x = jax.nn.relu(norm(x, is_training))
        if is_training:
            x = hk.dropout(hk.next_rng_key(), 0.5, x)
        return hk.Linear(OUTPUTS, name="head")(x)

    transformed = hk.transform_with_state(function)
    return Net(
        interop.from_haiku(function),
        lambda params: params["hidden"]["w"],
        lambda state: state["norm/~/mean_ema"]["hidden"].reshape(-1),
        lambda params, state, x: transformed.apply(params, state, None, x, False)[0],
    )


NETS: dict[str, Callable[[], Net]] = {
    "linen": linen,
    "nnx": nnx,
    "equinox": equinox,
    "haiku": haiku,
}


def batch(count: int = 16) -> np.ndarray:
    """Inputs whose mean is not 0."""
    return np.random.default_rng(0).normal(0.5, size=(count, INPUTS)).astype(np.float32)
