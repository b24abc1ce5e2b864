"""Losses of one example whose parameters are used in all ways that a rule may get wrong."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from functorch_kit import nn
from functorch_kit.losses import softmax_cross_entropy

EXAMPLES = 5


class Case(NamedTuple):
    """A loss of one example, its parameters, and a batch for it."""

    loss: Callable[..., Any]
    params: Any
    batch: Any


def _randomised(params: Any) -> Any:
    """Every leaf away from the zeros and ones that it begins with, in float64."""
    generator = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(size=leaf.shape) / 2 + np.asarray(leaf)), params
    )


def _normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


def _classifier(model: nn.Model, *shape: int, train: bool = False) -> Case:
    x = _normal(EXAMPLES, *shape)
    params, state = model.init(jax.random.key(0), x)
    state = _randomised(state)
    if "bn" in state:
        state["bn"]["var"] = jnp.abs(state["bn"]["var"]) + 0.5

    def loss(params, example):
        key = example["key"] if train else None
        logits, _ = model.apply(params, state, example["x"][None], key=key, train=train)
        return softmax_cross_entropy(logits[0], example["y"])

    batch = {"x": x, "y": jnp.arange(EXAMPLES) % 3}
    if train:
        batch["key"] = jax.random.split(jax.random.key(3), EXAMPLES)
    return Case(loss, _randomised(params), batch)


def mlp_with_dropout() -> Case:
    layers = {"a": nn.dense(6), "act": nn.tanh, "drop": nn.dropout(0.4), "b": nn.dense(3)}
    return _classifier(nn.serial(**layers), 4, train=True)


def cnn_with_batch_norm() -> Case:
    """Evaluated by running statistics, which make scale and shift what no rule knows."""
    model = nn.serial(
        a=nn.conv(4, (3, 3), method="library"),
        bn=nn.batch_norm(),
        act=nn.gelu,
        b=nn.conv(4, (2, 2), strides=2, groups=2, padding="VALID"),
        flatten=nn.flatten(),
        head=nn.dense(3),
    )
    return _classifier(model, 5, 5, 2)


def cnn_by_patches() -> Case:
    model = nn.serial(
        a=nn.conv(4, (3, 3), padding="VALID", method="patches"),
        norm=nn.group_norm(2),
        act=nn.tanh,
        pool=nn.max_pool((2, 2)),
        back=nn.conv_transpose(2, (2, 2), strides=2),
        flatten=nn.flatten(),
        head=nn.dense(3),
    )
    return _classifier(model, 6, 6, 2)


def tied_language_model() -> Case:
    """The table is looked up, and multiplied with, transposed."""
    table = nn.embedding(7, 4, dtype=jnp.float64)
    block = nn.serial(norm=nn.layer_norm(), up=nn.dense(5), act=nn.gelu, down=nn.dense(4))
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 7, (EXAMPLES, 4)))
    tokens = tokens.at[0].set(3)  # the same row each time
    h = _normal(1, 3, 4)
    params = {
        "table": table.init(jax.random.key(0), tokens)[0],
        "block": block.init(jax.random.key(1), h)[0],
    }

    def loss(params, tokens):
        h, _ = table.apply(params["table"], (), tokens[None, :-1])
        h = h + block.apply(params["block"], (), h)[0]
        logits = nn.attend(params["table"], h)
        return jnp.sum(softmax_cross_entropy(logits[0], tokens[1:]))

    return Case(loss, _randomised(params), tokens)


def untied_embedding() -> Case:
    """A table that is looked up alone, at indices of which one is outside."""
    params = {"table": _normal(50, 3), "head": _normal(3, 2)}
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 50, (EXAMPLES, 4)))
    tokens = tokens.at[0].set(3).at[1, 1].set(50)

    def loss(params, tokens):
        rows = params["table"].at[tokens].get(mode="fill", fill_value=0)
        return jnp.sum(jnp.tanh(rows @ params["head"]) ** 2)

    return Case(loss, params, tokens)


def repeated_blocks() -> Case:
    """A scan over stacked parameters, and parts that are computed again on the way back."""
    block = nn.residual(nn.serial(a=nn.dense(4), act=nn.tanh))
    model = nn.serial(
        stem=nn.remat(nn.serial(a=nn.dense(4), act=nn.tanh)),
        blocks=nn.repeat(block, 3, remat=True),
        head=nn.dense(3),
    )
    return _classifier(model, 4)


def recurrent_net() -> Case:
    model = nn.serial(lstm=nn.lstm(3), last=nn.lambda_(lambda x: x[:, -1]), head=nn.dense(3))
    return _classifier(model, 4, 2)


def odd_uses() -> Case:
    """Weights that are squared, normalised, shared, contracted oddly, conditional, unused."""
    params = {
        name: _normal(*shape) / 2
        for name, shape in {
            "normed": (4, 3),
            "decayed": (4, 3),
            "left": (6, 4),
            "twice": (3, 3),
            "spread": (3,),
            "tensor": (2, 3, 2),
            "branch": (3,),
            "unused": (2,),
            "scalar": (),
        }.items()
    }

    def loss(params, x):
        normed = params["normed"] / jnp.linalg.norm(params["normed"], axis=0, keepdims=True)
        h = jnp.tanh(x @ normed + x @ params["decayed"]) * params["scalar"]
        h = h + x @ jnp.broadcast_to(params["spread"], (4, 3))  # one element, many products
        h = jnp.tanh(h @ params["twice"]) @ params["twice"]
        left = params["left"] @ x  # the parameter stands on the left
        tensor = params["tensor"][None, :, :, 0]
        odd = jnp.einsum("abc,cdb->ad", jnp.tanh(left.reshape(2, 3, 1)), tensor)
        h = h + lax.cond(h[0] > 0, lambda h: h * params["branch"], lambda h: h, h)
        return jnp.sum(h**2) + jnp.sum(odd**2) + jnp.sum(params["decayed"] ** 2)

    return Case(loss, params, _normal(EXAMPLES, 4))


CASES = {
    case.__name__: case
    for case in (
        mlp_with_dropout,
        cnn_with_batch_norm,
        cnn_by_patches,
        tied_language_model,
        untied_embedding,
        repeated_blocks,
        recurrent_net,
        odd_uses,
    )
}


def loop_gradients(case: Case) -> list[np.ndarray]:
    """The slow reference: one example after the other, each leaf stacked."""
    gradient = jax.jit(jax.grad(case.loss))
    count = len(jax.tree.leaves(case.batch)[0])
    each = []
    for at in range(count):
        example = jax.tree.map(lambda leaf, at=at: leaf[at], case.batch)
        each.append(jax.tree.leaves(gradient(case.params, example)))
    return [np.stack(leaves) for leaves in zip(*each, strict=True)]


def norms_of(gradients: list[np.ndarray]) -> np.ndarray:
    return np.sqrt(sum((leaf.reshape(len(leaf), -1) ** 2).sum(1) for leaf in gradients))
