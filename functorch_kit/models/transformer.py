"""What transformers are made of: a block with its norms in front, and the halves of one.

Xiong et al., 2020, on why the norms stand in front.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

from functorch_kit import nn
from functorch_kit.nn.linear import Initializer, lecun_normal
from functorch_kit.types import Model


def pre_norm_block(
    attention: Model,
    mlp: Model,
    *,
    norm: Callable[[], Model],
    dropout: float | jax.Array = 0.0,
) -> Model:
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Args:
        attention: one half; what comes beside x goes to it, and its state is the block's.
        mlp: the other half.
        norm: makes a norm.
        dropout: rate at the end of each half; may be traced.

    Returns:
        A Model whose parameters stand side by side: ``attention_norm``, ``attention``,
        ``mlp_norm`` and ``mlp``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functorch_kit import nn
        >>> block = pre_norm_block(nn.attention(2), nn.dense(4), norm=nn.rms_norm)
        >>> params, state = block.init(jax.random.key(0), jnp.ones((1, 3, 4)))
        >>> sorted(params)
        ['attention', 'attention_norm', 'mlp', 'mlp_norm']
    """
    halves = {"attention": attention, "mlp": mlp}

    def forward(part, x):
        x, given = nn.apart(x, "block")
        for name in halves:
            y = part(f"{name}_norm", x)
            y = part(name, nn.together(y, given) if name == "attention" else y)
            x = x + part(f"{name}_dropout", y)
        return x

    parts = {}
    for name, body in halves.items():
        parts |= {f"{name}_norm": norm(), name: body, f"{name}_dropout": nn.dropout(dropout)}
    return nn.graph(forward, **parts)


def gated_mlp(
    hidden: int,
    width: int,
    *,
    use_bias: bool = False,
    kernel_init: Initializer = lecun_normal,
    down_init: Initializer | None = None,
) -> Model:
    """SwiGLU: ``down(silu(gate(x)) * up(x))``.

    Shazeer, 2020.

    Args:
        hidden: width between.
        width: width of the output.
        use_bias: whether the three dense layers have biases.
        kernel_init: initialiser of the kernels.
        down_init: initialiser of ``down/kernel``; as ``kernel_init`` if None.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params, _ = gated_mlp(8, 4).init(jax.random.key(0), jnp.ones((1, 4)))
        >>> {name: part["kernel"].shape for name, part in params.items()}
        {'gate': (4, 8), 'up': (4, 8), 'down': (8, 4)}
    """
    gate, up = (nn.dense(hidden, use_bias=use_bias, kernel_init=kernel_init) for _ in range(2))
    down = nn.dense(width, use_bias=use_bias, kernel_init=down_init or kernel_init)

    def forward(part, x):
        return part("down", jax.nn.silu(part("gate", x)) * part("up", x))

    return nn.graph(forward, gate=gate, up=up, down=down)
