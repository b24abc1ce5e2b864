"""A decoder-only transformer: GPT-2 (Radford et al., 2019), as nanoGPT trains it.

Axes in the names of arrays: B batch, L positions, D width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import jax
from jaxtyping import Array, Float, Integer

from functorch_kit import nn
from functorch_kit.nn.linear import matmul
from functorch_kit.types import Model

_SCALE = 0.02
_READS = {"position": "positions", "blocks": "segments"}


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """A GPT; the defaults are nanoGPT's recipe for one CPU, on characters.

    GPT-2 of 124M is ``GPTConfig(layers=12, heads=12, width=768, context=1024, vocabulary=50257,
    use_bias=True, exact_gelu=False)``.

    Attributes:
        layers: number of blocks.
        heads: attention heads of a block; must divide the width.
        width: size of a position's vector.
        context: longest input.
        vocabulary: number of tokens.
        dropout: rate after the embedding, in the attention weights and after each half of a block;
            may be traced.
        use_bias: whether dense layers and layer norms have biases.
        is_tied: whether the head is the token embedding, transposed.
        exact_gelu: GELU by the error function as nanoGPT computes it, else by the tanh that GPT-2
            was trained with.

    Example:
        >>> GPTConfig().width
        128
    """

    layers: int = 4
    heads: int = 4
    width: int = 128
    context: int = 64
    vocabulary: int = 65
    dropout: float | jax.Array = 0.0
    use_bias: bool = False
    is_tied: bool = True
    exact_gelu: bool = True


def gpt(config: GPTConfig) -> Model:
    """Token and position embedding, blocks of causal attention and MLP, layer norm, head.

    Parameters are addressed like ``blocks/3/attention/query/kernel``; they are drawn as nanoGPT
    draws them: normal with deviation 0.02, and ``0.02 / sqrt(2 layers)`` where a block's half ends.

    Args:
        config: see ``GPTConfig``.

    Returns:
        A Model from integer tokens (batch, length) to logits (batch, length, vocabulary), of which
        those at position l are for the token at l + 1. Where several documents stand in one row,
        the input is a dict of ``tokens``, ``segments`` (which document a token is of) and
        ``positions`` (its place there), all (batch, length); see ``data.Packed``.

    Raises:
        ValueError: heads that do not divide the width; an input longer than the context.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import models
        >>> model = models.gpt(models.GPTConfig(layers=1, heads=2, width=8, vocabulary=5))
        >>> tokens = jnp.zeros((2, 3), jnp.int32)
        >>> params, state = model.init(jax.random.key(0), tokens)
        >>> model.apply(params, state, tokens)[0].shape
        (2, 3, 5)
    """
    normal = jax.nn.initializers.normal(_SCALE)
    parts = {
        "token": nn.embedding(config.vocabulary, config.width, embedding_init=normal),
        "position": nn.position_embedding(config.context, embedding_init=normal),
        "dropout": nn.dropout(config.dropout),
        "blocks": _stack([_block(config) for _ in range(config.layers)]),
        "norm": nn.layer_norm(use_bias=config.use_bias),
    }
    if not config.is_tied:
        parts["head"] = nn.dense(config.vocabulary, use_bias=False, kernel_init=normal)

    def init(key, x_spec):
        return nn.serial(**parts).init(key, _tokens(x_spec))

    def apply(
        params,
        model_state,
        x: Integer[Array, "batch length"] | Mapping[str, Integer[Array, "batch length"]],
        *,
        key=None,
        train=False,
    ) -> tuple[Float[Array, "batch length vocabulary"], tuple]:
        given, y = x if isinstance(x, Mapping) else {}, _tokens(x)
        for name, part in parts.items():
            needs = _READS.get(name, "")
            y = {"x": y, needs: given[needs]} if needs in given else y
            y, _ = nn.apply_part(name, part, params, (), y, key, train)
        if config.is_tied:
            with nn.scope("head"):
                y = nn.tag(matmul(y, params["token"]["embedding"].T))
        return y, ()

    return Model(init, apply)


def _tokens(x):
    """The tokens of an input or of a spec."""
    return x["tokens"] if isinstance(x, Mapping) else x


def _stack(blocks: Sequence[Model]) -> Model:
    """One block after another; segments, if there are any, go to each."""

    def apply(params, model_state, x, *, key=None, train=False):
        y, given = (x["x"], x) if isinstance(x, Mapping) else (x, {})
        for index, block in enumerate(blocks):
            y = {**given, "x": y} if given else y
            y, _ = nn.apply_part(str(index), block, params, (), y, key, train)
        return y, ()

    return Model(nn.serial(*blocks).init, apply)


def _block(config: GPTConfig) -> Model:
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``; the names stand side by side."""
    normal = jax.nn.initializers.normal(_SCALE)
    # Each half adds to the same stream: 2 layers of them keep its variance at the first step.
    ending = jax.nn.initializers.normal(_SCALE / math.sqrt(2 * config.layers))
    gelu = nn.lambda_(functools.partial(jax.nn.gelu, approximate=not config.exact_gelu))
    attention = nn.attention(
        config.heads,
        causal=True,
        use_bias=config.use_bias,
        dropout=config.dropout,
        kernel_init=normal,
        out_init=ending,
    )
    mlp = nn.serial(
        up=nn.dense(4 * config.width, use_bias=config.use_bias, kernel_init=normal),
        gelu=gelu,
        down=nn.dense(config.width, use_bias=config.use_bias, kernel_init=ending),
    )
    halves = {
        name: {
            f"{name}_norm": nn.layer_norm(use_bias=config.use_bias),
            name: body,
            f"{name}_dropout": nn.dropout(config.dropout),
        }
        for name, body in (("attention", attention), ("mlp", mlp))
    }

    def apply(params, model_state, x, *, key=None, train=False):
        x, given = (x["x"], x) if isinstance(x, Mapping) else (x, {})
        for half in halves.values():
            y = x
            for name, part in half.items():
                y = {**given, "x": y} if given and part is attention else y
                y, _ = nn.apply_part(name, part, params, (), y, key, train)
            x = x + y
        return x, model_state

    # In a row they have the same shapes, and the same names, as around their shortcuts.
    return Model(nn.serial(**halves["attention"], **halves["mlp"]).init, apply)
